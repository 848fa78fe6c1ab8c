"""Payments: finding them, one with its whole story, and what an operator may do with it.

Room: web. Parse -> use case -> page. Every change is asked of the same use cases as REST and the commands ask.
"""

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson
from aiohttp import web

from payment_service.codecs.published import refund_id
from payment_service.codecs.rest import payment_view, timeline_view, transactions_view
from payment_service.core.errors import PaymentError, Refused, invalid_field
from payment_service.core.idempotency import request_key
from payment_service.core.money import to_minor
from payment_service.core.payment import Attempt, Payment, Refund, refundable, status_of
from payment_service.core.ports import PaymentFilter
from payment_service.core.terms import REFUND_OPEN, UNSETTLED, AttemptState, Status
from payment_service.core.use_cases.operator_desk import BY_HAND, Decision, checked_reason
from payment_service.core.use_cases.payment_requests import Caller
from payment_service.web.bodies import REASON_LENGTH_MAX
from payment_service.web.console import words
from payment_service.web.console.pages import ConsolePage, console_pages, gone_to
from payment_service.web.console.parts import ADMIN, READERS
from payment_service.web.console.picture import picture_of
from payment_service.web.console.session import Session
from payment_service.web.endpoint import ORDER_ID_LENGTH_MAX, path_id
from payment_service.web.envelope import status_of_error
from payment_service.web.services import ASKED, About

PAGE = 25
OFFSET_MAX = 10_000
AUDIT_ROWS = 30
ONCE = "once"
"""Field of a form: pressing the button twice does it once."""
ONCE_LENGTH_MAX = 64
DONE: Mapping[str, str] = {
    "refund": "The refund is asked for. How it stands is under “Refunds”.",
    "cancel": "The cancellation is asked for. The state above says how it stands.",
    "resolve": "Your decision is recorded.",
    "ask": "The provider was asked about everything that is open.",
}
"""What a page says after something was done: never a text out of the address."""


@console_pages.route("/console", name="payments")
class Payments(ConsolePage):
    async def get(self, request: web.Request) -> web.Response:
        session = self.session(request)
        text = request.query.get("q", "").strip()
        word = request.query.get("status", "").upper()
        status = word if word in Status.__members__ else None
        values: dict[str, Any] = {"q": text, "chosen": status, "statuses": list(Status), "here": "payments"}
        if text:
            if len(text) > ORDER_ID_LENGTH_MAX or not text.isprintable():
                raise invalid_field("q", f"an id has at most {ORDER_ID_LENGTH_MAX} characters")
            found = await self.console.desk.search(text)
            if len(found) == 1:
                return gone_to(f"/console/payments/{found[0].payment_id}")
            return self.shown(request, session, "payments.html", found=found, total=None, **values)
        offset = _offset(request.query.get("from", "0"))
        page = await self.console.desk.page(PaymentFilter(status=status, limit=PAGE, offset=offset))
        more = f"{page.total:,}{' or more' if page.total_capped else ''}"
        ends = offset + len(page.payments)
        query = f"status={status}&" if status else ""
        before = f"/console?{query}from={max(0, offset - PAGE)}" if offset else None
        after = f"/console?{query}from={ends}" if len(page.payments) == PAGE and ends <= OFFSET_MAX else None
        return self.shown(
            request, session, "payments.html", found=page.payments, total=more, first=offset + 1, last=ends,
            before=before, after=after, **values,
        )  # fmt: skip


@console_pages.route("/console/", name="payments_too")
class PaymentsToo(Payments):
    """As it is typed."""


def _offset(text: str) -> int:
    return min(int(text), OFFSET_MAX) if text.isascii() and text.isdigit() and len(text) < 9 else 0


class PaymentPage(ConsolePage):
    """The page of one payment, also as the answer to a form that did not work."""

    async def page(
        self, request: web.Request, session: Session, payment_id: str, *, problem: PaymentError | None = None,
        form: str = "", typed: Mapping[str, str] | None = None,
    ) -> web.Response:  # fmt: skip
        """`typed`: what was in the form named `form`, so that nobody types it twice."""
        desk = self.console.desk
        payment = await desk.payment(payment_id)
        events = await desk.timeline(payment_id)
        rows = [timeline_view(event) for event in events]
        audit = await self.console.audit_entries(payment_id, AUDIT_ROWS) if ADMIN in session.roles else ()
        status = 200
        if problem is not None:
            status, request[ASKED].error_code = status_of_error(problem), problem.code
        return self.shown(
            request, session, "payment.html", status=status, here="payments", payment=payment,
            view=payment_view(payment), state=status_of(payment), sentence=words.sentence(status_of(payment)),
            calls=transactions_view(payment), refunds=_refunds(payment), open_calls=_open(payment),
            picture=picture_of(events, rows), lane_labels=words.LANE_LABELS, rows=rows, audit=audit,
            refundable=refundable(payment), may_refund=not session.roles.isdisjoint(self.console.refunding),
            once=secrets.token_urlsafe(16), problem=problem, form=form, typed=typed or {},
            done=DONE.get(request.query.get("done", "")), by_hand=list(BY_HAND),
        )  # fmt: skip

    async def done(self, request: web.Request, payment_id: str, word: str) -> web.Response:
        return gone_to(f"/console/payments/{quote(payment_id, safe='')}?done={word}")


def _refunds(payment: Payment) -> list[tuple[str, Refund]]:
    return [(refund_id(payment.payment_id, it.number), it) for it in payment.refunds]


def _open(payment: Payment) -> list[tuple[str, str, Attempt | Refund]]:
    """(field, number, what) of what a person may decide."""
    attempts = [("attempt", str(it.number), it) for it in payment.attempts if it.state in UNSETTLED]
    attempts = [it for it in attempts if it[2].state not in (AttemptState.ACTION, AttemptState.DISPLACED)]
    return [*attempts, *(("refund", str(it.number), it) for it in payment.refunds if it.status in REFUND_OPEN)]


@console_pages.route("/console/payments/{payment_id}", name="payment")
class OnePayment(PaymentPage):
    async def get(self, request: web.Request, payment_id: str) -> web.Response:
        return await self.page(request, self.session(request), path_id(payment_id))


@console_pages.route("/console/payments/{payment_id}/ask", name="ask")
class Ask(PaymentPage):
    """Reads, though it is a form: a link that is opened by chance must not wake a provider."""

    async def post(self, request: web.Request, payment_id: str) -> web.Response:
        await self.form(request, READERS)
        await self.console.desk.ask_provider(path_id(payment_id))
        return await self.done(request, payment_id, "ask")


class Acting(PaymentPage):
    """What a form does to a payment: asked for, told to the audit log with its reason, and shown."""

    word = ""

    async def post(self, request: web.Request, payment_id: str) -> web.Response:
        payment_id = path_id(payment_id)
        session, fields = await self.form(request, *self.who())
        request[ASKED].about = About(detail=fields.get("reason", "")[:REASON_LENGTH_MAX])
        try:
            reason = checked_reason(fields.get("reason", ""))
            if len(reason) > REASON_LENGTH_MAX:
                raise invalid_field("reason", f"at most {REASON_LENGTH_MAX} characters")
            await self.act(request, session.caller, payment_id, fields, reason)
        except PaymentError as problem:
            if problem.code == "PAYMENT_NOT_FOUND":
                raise
            return await self.page(request, session, payment_id, problem=problem, form=self.word, typed=fields)
        return await self.done(request, payment_id, self.word)

    def who(self) -> tuple[frozenset[str], str]:
        """The roles that may, and what the others are told."""
        return frozenset({ADMIN}), f"only the role {ADMIN} may do this"

    async def act(
        self, request: web.Request, caller: Caller, payment_id: str, fields: Mapping[str, str], reason: str
    ) -> None:
        raise NotImplementedError


@console_pages.route("/console/payments/{payment_id}/refund", name="refund")
class RefundPayment(Acting):
    word = "refund"

    def who(self) -> tuple[frozenset[str], str]:
        return self.console.refunding, "your role may not refund (REFUND_ROLES)"

    async def act(
        self, request: web.Request, caller: Caller, payment_id: str, fields: Mapping[str, str], reason: str
    ) -> None:
        amount = fields.get("amount") or None
        keyed = _with_key(request, caller, fields, {"amount": amount, "reason": reason})
        answered = await self.services.requests.refund(keyed, payment_id, amount=amount, reason=reason, metadata={})
        if answered.refund is not None:
            request[ASKED].about = About(refund_id=refund_id(payment_id, answered.refund.number), detail=reason)


@console_pages.route("/console/payments/{payment_id}/cancel", name="cancel")
class CancelPayment(Acting):
    word = "cancel"

    async def act(
        self, request: web.Request, caller: Caller, payment_id: str, fields: Mapping[str, str], reason: str
    ) -> None:
        keyed = _with_key(request, caller, fields, {"reason": reason})
        await self.services.requests.cancel(keyed, payment_id, reason=reason)


@console_pages.route("/console/payments/{payment_id}/resolve", name="resolve")
class Resolve(Acting):
    word = "resolve"

    async def act(
        self, request: web.Request, caller: Caller, payment_id: str, fields: Mapping[str, str], reason: str
    ) -> None:
        if fields.get("looked") != "yes":
            raise invalid_field("looked", "look it up at the provider first, and say that you did")
        kind, _, number = fields.get("call", "").partition(":")
        if kind not in ("attempt", "refund") or not number.isascii() or not number.isdigit() or len(number) > 4:
            raise invalid_field("call", "say which call")
        payment = await self.console.desk.payment(payment_id)
        amount = fields.get("amount")
        decision = Decision(
            fields.get("verdict", ""), reason, int(number) if kind == "attempt" else None,
            int(number) if kind == "refund" else None, fields.get("provider_id") or None,
            to_minor(amount, payment.currency) if amount else None,
        )  # fmt: skip
        await self.console.desk.decide(payment_id, caller.by, decision)


def _with_key(request: web.Request, caller: Caller, fields: Mapping[str, str], body: Mapping[str, Any]) -> Caller:
    """The form's own key, as if REST had been sent it as Idempotency-Key."""
    once = fields.get(ONCE, "")
    if not 0 < len(once) <= ONCE_LENGTH_MAX or not once.isascii():
        raise Refused("open the page again: this form is not complete", code="VALIDATION_ERROR")
    key = request_key(caller.by, request.method, request.path, once, orjson.dumps(body))
    return Caller(caller.user_id, caller.roles, key, operator=True)
