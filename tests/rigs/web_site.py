"""The site on a PaymentRequests that only records, with keys and a clock of the test's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from rigs.counted import CountedMetrics
from rigs.settable_clock import SettableClock

from payment_service.core.errors import PaymentError, Refused
from payment_service.core.ids import payment_id_of
from payment_service.core.money import to_minor
from payment_service.core.payment import Payment, Refund
from payment_service.core.ports import PaymentFilter, PaymentPage, StoredEvent
from payment_service.core.terms import CaptureMethod, RefundStatus
from payment_service.core.use_cases.payment_requests import Answered, Caller
from payment_service.core.use_cases.receive_webhook import WebhookInbox
from payment_service.web.rate_limits import Quota, Windows
from payment_service.web.services import Readiness, WebServices
from payment_service.web.site import build_site
from payment_service.web.tokens import TokenRules, TokenVerifier, issue_token
from payment_service.web.webhook_gate import QUOTA, WINDOW_S, WebhookGate

SECRET = "a-secret-of-more-than-32-characters!"
SERVICE_TOKEN = "token-of-the-return-service"
NOW_S = 1_800_000_000.0
Client = TestClient[web.Request, web.Application]
ID = payment_id_of("order-1")
PATH = f"/api/v1/payments/{ID}"
AT = "2027-01-15T08:00:00.000Z"
"""NOW_S, as the site writes it."""
RULES = TokenRules(secret=SECRET, internal_tokens=((sha256(SERVICE_TOKEN.encode()).digest(), None),))


def a_payment(user_id: str = "user-1", order_id: str = "order-1", amount_minor: int = 9999, **more: Any) -> Payment:
    at_ms = int(NOW_S * 1000)
    return Payment(
        payment_id_of(order_id), order_id, user_id, amount_minor, "USD", "MOCK", None, CaptureMethod.AUTOMATIC,
        None, {}, at_ms, at_ms, **more,
    )  # fmt: skip


def a_refund(amount_minor: int = 1000, **more: Any) -> Refund:
    at_ms = int(NOW_S * 1000)
    fields = {"metadata": {}, "reason": "broken", **more}
    return Refund(1, amount_minor, RefundStatus.COMPLETED, "user:user-1", False, at_ms, at_ms, **fields)


class RecordedRequests:
    """A PaymentRequests that notes every call. `answer` is what it answers, `error` what it raises instead."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Caller, tuple[Any, ...], dict[str, Any]]] = []
        self.answer = Answered(a_payment())
        self.events: list[StoredEvent] = []
        self.error: BaseException | None = None

    def _note(self, name: str, caller: Caller, *args: Any, **fields: Any) -> Answered:
        self.calls.append((name, caller, args, fields))
        if self.error is not None:
            raise self.error
        owner = self.answer.payment.user_id
        if name != "create" and not caller.privileged and caller.user_id != owner:
            raise Refused("no such payment", code="PAYMENT_NOT_FOUND")
        return self.answer

    async def create(self, caller: Caller, **fields: Any) -> Answered:
        self._note("create", caller, **fields)
        amount_minor = to_minor(fields["amount"], fields["currency"])
        payment = a_payment(caller.user_id or "", fields["order_id"], amount_minor)
        return replace(self.answer, payment=replace(payment, metadata=fields["metadata"]), created=True)

    async def process(self, caller: Caller, payment_id: str, **fields: Any) -> Answered:
        return self._note("process", caller, payment_id, **fields)

    async def capture(self, caller: Caller, payment_id: str, **fields: Any) -> Answered:
        return self._note("capture", caller, payment_id, **fields)

    async def cancel(self, caller: Caller, payment_id: str, **fields: Any) -> Answered:
        return self._note("cancel", caller, payment_id, **fields)

    async def refund(self, caller: Caller, payment_id: str, **fields: Any) -> Answered:
        return replace(self._note("refund", caller, payment_id, **fields), refund=a_refund())

    async def get(self, caller: Caller, payment_id: str, *, sync: bool = False) -> Answered:
        return self._note("get", caller, payment_id, **({"sync": True} if sync else {}))

    async def by_order(self, caller: Caller, order_id: str) -> Answered:
        return self._note("by_order", caller, order_id)

    async def timeline(self, caller: Caller, payment_id: str) -> Sequence[StoredEvent]:
        self._note("timeline", caller, payment_id)
        return self.events

    async def find(self, caller: Caller, query: PaymentFilter) -> PaymentPage:
        self.calls.append(("find", caller, (query,), {}))
        return PaymentPage([self.answer.payment], 1, False)


def no_webhooks(clock: Any) -> WebhookGate:
    """Of no provider."""
    inbox: Any = WebhookInbox({}, None, clock, CountedMetrics())  # type: ignore[arg-type]
    return WebhookGate(inbox, Windows(Quota(QUOTA, 100, WINDOW_S)), clock)


def services_with(
    requests: Any, rules: TokenRules = RULES, clock: Any = None, readiness: Readiness | None = None, **more: Any
) -> WebServices:
    clock = clock or SettableClock(NOW_S)
    state = readiness or Readiness(True, details={"broker": "up"})

    async def ready() -> Readiness:
        return state

    fields: dict[str, Any] = {"metrics": CountedMetrics(), "webhooks": no_webhooks(clock), **more}
    return WebServices(
        requests, TokenVerifier(rules, clock), ready, lambda: b"http_requests_total 1\n", clock=clock, **fields
    )


def bearer(user_id: str = "user-1", *roles: str, rules: TokenRules = RULES) -> Mapping[str, str]:
    token = issue_token(rules, user_id, roles, now_ms=int(NOW_S * 1000))
    return {"Authorization": f"Bearer {token}"}


def failing_with(error: PaymentError | BaseException) -> RecordedRequests:
    requests = RecordedRequests()
    requests.error = error
    return requests


ANN = dict(bearer("user-1"))
BOB = dict(bearer("user-2"))
ADMIN = dict(bearer("root", "admin"))
SERVICE = {"X-Internal-Token": SERVICE_TOKEN}


async def opened(services: WebServices) -> Client:
    client = TestClient(TestServer(build_site(services)))
    await client.start_server()
    return client


async def ask(client: Client, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and envelope; every answer carries a request id, and names it when it is a failure."""
    options: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    answer = await client.request(method, path, headers=headers, **options)
    envelope: dict[str, Any] = await answer.json()
    name = answer.headers["X-Request-ID"]
    if envelope["success"]:
        assert set(envelope) == {"success", "data"}
    else:
        assert set(envelope) - {"errors", "declineCode", "data"} == {
            "success", "code", "message", "requestId", "timestamp",
        }  # fmt: skip
        assert (envelope["requestId"], envelope["timestamp"]) == (name, AT)
    return answer.status, envelope
