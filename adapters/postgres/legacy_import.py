"""The rows of the service before this one into our tables: the LegacyImport.

Room: adapters/postgres. Payments go through the store, so that their history is in the audit chain as every other is.
Each step is durable before the next; what a killed run has done is known by its ids. Nothing is sent to anybody, and
nothing is published: what nobody knows the end of is left for the workers to look up.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from payment_service.adapters.legacy_tokens import LegacyTokens
from payment_service.adapters.postgres import arrays
from payment_service.adapters.postgres.legacy_rows import LegacyRows
from payment_service.adapters.postgres.payment_methods import secrets_place
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.statement import request_place
from payment_service.adapters.postgres.webhooks import body_place
from payment_service.codecs.events import encode_event
from payment_service.codecs.methods import encode_method_secrets
from payment_service.codecs.published import transaction_id
from payment_service.codecs.state import encode_call
from payment_service.core.commands import FlagReview
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.events import PaymentImported
from payment_service.core.facts import apply
from payment_service.core.ids import payment_id_of
from payment_service.core.importing import ImportStep, Part
from payment_service.core.legacy import LegacyPayment, chosen, event_of
from payment_service.core.payment import Payment
from payment_service.core.payment_method import MethodSecrets, own_method_id
from payment_service.core.ports import NOT_THERE, Change, Cipher, Committed, Step
from payment_service.core.terms import IN_THE_WAY, Kind, RefundStatus
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.provider_calls import NO_CONTEXT, build_call

ORDERS_PAGE = 200
ROWS_PAGE = 500
WEBHOOK_DAYS = 30
"""Older ones would leave at once by their age."""
DAY_MS = 86_400_000
TRIES_MAX = 3
TYPES = {"credit_card": "card", "debit_card": "card", "paypal": "paypal"}
REASON_LEGACY = "LEGACY"


@dataclass(frozen=True, slots=True)
class ImportRules:
    """`ask_days`: a payment that failed or was cancelled so lately is asked for at its provider once more."""

    by: str
    ask_days: int


@dataclass(slots=True)
class _Tally:
    """Of one step."""

    read: int = 0
    imported: int = 0
    history: int = 0
    before: int = 0
    asked: int = 0

    def step(self, part: Part, review: Mapping[str, int], refused: Sequence[tuple[str, str]]) -> ImportStep:
        return ImportStep(
            part, self.read, self.imported, self.history, self.before, self.asked, dict(review), tuple(refused)
        )


@dataclass(frozen=True, slots=True)
class RowsImport:
    """`rows` may be in another database. Writes as the service's role does."""

    rows: LegacyRows
    database: Database
    execute: Execute
    cipher: Cipher
    tokens: LegacyTokens
    rules: ImportRules

    async def sizes(self) -> Mapping[Part, int]:
        return await self.rows.sizes(WEBHOOK_DAYS)

    async def run(self, part: Part, *, dry_run: bool) -> AsyncGenerator[ImportStep, None]:
        after = ""
        while True:
            match part:
                case Part.PAYMENTS:
                    page = await self.rows.orders(after, ORDERS_PAGE)
                    last = page[-1] if page else ""
                case Part.METHODS:
                    page = await self.rows.methods(after, ROWS_PAGE)
                    last = page[-1][0] if page else ""
                case Part.WEBHOOKS:
                    page = await self.rows.webhooks(after, ROWS_PAGE, WEBHOOK_DAYS)
                    last = page[-1][0] if page else ""
            if not page:
                return
            match part:
                case Part.PAYMENTS:
                    yield await self._orders(page, dry_run=dry_run)
                case Part.METHODS:
                    yield await self._methods(page, dry_run=dry_run)
                case Part.WEBHOOKS:
                    yield await self._webhooks(page, dry_run=dry_run)
            after = last

    # --- payments --------------------------------------------------------------------------------------------

    async def _orders(self, orders: Sequence[str], *, dry_run: bool) -> ImportStep:
        tally, review, refused = _Tally(), Counter[str](), list[tuple[str, str]]()
        groups = await self.rows.payments(orders)
        ids = [row.legacy_id for rows in groups.values() for row in rows]
        known = {one for (one,) in await self._fetch("known_legacy", (ids,))}
        tally.read = len(ids)
        left: list[tuple[PaymentImported, list[PaymentImported]]] = []
        for rows in groups.values():
            new = [row for row in rows if row.legacy_id not in known]
            tally.before += len(rows) - len(new)
            # As a whole, also where some are there: which of them is the order's payment follows from all of them.
            events = self._read(rows if new else [], refused)
            if events:
                left.append(chosen(events))
        commits = [(first, others, _first_step(first)) for first, others in left]
        if not dry_run:
            # Side by side: the store puts them into one statement.
            done = await asyncio.gather(*(self._commit(*it, refused) for it in commits), return_exceptions=True)
            for result in done:
                if isinstance(result, BaseException):
                    raise result
            commits = [it for it, is_there in zip(commits, done, strict=True) if is_there]
            await self._arm([step.after for *_, step in commits])
            await self._keep(commits)
        for first, others, step in commits:
            tally.imported += first.legacy_id not in known
            tally.history += sum(event.legacy_id not in known for event in others)
            tally.asked += bool(_open_calls(step.after))
            review.update({reason.partition(":")[0]: 1 for reason in first.review})
        return tally.step(Part.PAYMENTS, review, refused)

    def _read(self, rows: Sequence[LegacyPayment], refused: list[tuple[str, str]]) -> list[PaymentImported]:
        now_ms, events = _now_ms(), []
        for row in rows:
            try:
                events.append(event_of(row, now_ms, self.rules.by, now_ms - self.rules.ask_days * DAY_MS))
            except Refused as error:
                refused.append((row.legacy_id, error.message))
        return events

    async def _commit(
        self, first: PaymentImported, others: Sequence[PaymentImported], step: Step, refused: list[tuple[str, str]]
    ) -> bool:
        """True: it is there now, whoever has put it there. Raises Unavailable, and OutcomeUnknown as Execute does."""
        payment_id = step.after.payment_id
        store = self.execute.store
        for _ in range(TRIES_MAX):
            committed = await store.submit(Change(payment_id, "", NOT_THERE, (step,)))
            if committed is Committed.COMMITTED:
                return True
            if (await store.load(payment_id)).payment is None:
                continue  # the connection broke before it was done
            (created, *_) = await store.events(payment_id)
            if isinstance(created.event, PaymentImported) and (
                created.event.legacy_id in (first.legacy_id, *(event.legacy_id for event in others))
            ):
                return True
            await self._clash(first, payment_id)
            refused.append((first.legacy_id, f"its order has a payment of this service already: {payment_id}"))
            return False
        raise Unavailable("the database is away")

    async def _clash(self, event: PaymentImported, payment_id: str) -> None:
        """This service made a payment of an order that the old one had charged: nobody may charge it unseen."""
        reason = f"LEGACY_PAYMENT:{event.legacy_id}"
        flagged = FlagReview(payment_id, f"legacy:{event.legacy_id}", _now_ms(), self.rules.by, reason)
        await self.execute(flagged)

    async def _arm(self, payments: Sequence[Payment]) -> None:
        """What the provider can be asked about gets its request; what it cannot waits for a person."""
        now_ms = _now_ms()
        rows: list[tuple[str, str | None, int]] = []
        for payment in payments:
            for attempt in _open_calls(payment):
                row_id = transaction_id(payment.payment_id, attempt.kind, attempt.number)
                call = build_call(payment, attempt.kind, attempt.number, NO_CONTEXT)
                request = self.cipher.seal(encode_call(call), request_place(row_id)).hex()
                known = attempt.object_number > 0
                rows.append((row_id, request if known else None, attempt.action_expires_at_ms or now_ms))
            rows += [
                (transaction_id(payment.payment_id, Kind.REFUND, refund.number), None, now_ms)
                for refund in payment.refunds
                if refund.status in (RefundStatus.PROCESSING, RefundStatus.UNKNOWN)
            ]
        if rows:
            ids, requests, due = zip(*rows, strict=True)
            await self._fetch(
                "arm_legacy_calls", (arrays.texts(ids), arrays.optional_words(requests), arrays.numbers(due))
            )

    async def _keep(self, commits: Sequence[tuple[PaymentImported, list[PaymentImported], Step]]) -> None:
        rows: list[tuple[str, str, str | None]] = []
        for first, others, step in commits:
            payment_id = step.after.payment_id
            rows.append((first.legacy_id, payment_id, None))
            rows += [(event.legacy_id, payment_id, encode_event(event).decode()) for event in others]
        if rows:
            ids, payments, documents = zip(*rows, strict=True)
            await self._fetch("keep_legacy", (list(ids), list(payments), list(documents)))

    # --- methods and webhooks --------------------------------------------------------------------------------

    async def _methods(self, rows: Sequence[Any], *, dry_run: bool) -> ImportStep:
        tally, refused = _Tally(len(rows)), list[tuple[str, str]]()
        for legacy_id, user_id, kind, provider, sealed, last4, brand, month, year, default, created_ms in rows:
            word, own_id = TYPES.get(kind.lower()), own_method_id(legacy_id)
            try:
                if word is None:
                    raise Malformed(f"type {kind!r} is none that can be charged", code="INTERNAL_ERROR")
                if own_id is None or own_id == legacy_id:
                    raise Malformed("its id is none of the old service's", code="INTERNAL_ERROR")
                token = self.tokens.open(sealed or "")
            except Malformed as error:
                refused.append((legacy_id, error.message))
                continue
            digest = sha256(token.encode()).digest()
            secrets = self.cipher.seal(encode_method_secrets(MethodSecrets(token=token)), secrets_place(own_id))
            made = True
            if not dry_run:
                made = bool(await self._fetch("import_method", (
                    own_id, user_id, provider.upper(), word, bool(default), user_id, brand, last4, _number(month),
                    _number(year), digest, digest, secrets, created_ms,
                )))  # fmt: skip
            tally.imported += made
            tally.before += not made
        return tally.step(Part.METHODS, {}, refused)

    async def _webhooks(self, rows: Sequence[Any], *, dry_run: bool) -> ImportStep:
        """Those that were applied are kept, so that their provider's repetitions are known; the others are applied."""
        tally = _Tally(len(rows))
        for _, provider, kind, event_id, payload, status, created_ms in rows:
            name, done = provider.upper(), status.lower() == "processed"
            body = self.cipher.seal(payload.encode(), body_place(name, event_id))
            made = True
            if not dry_run:
                made = bool(await self._fetch("import_webhook", (
                    name, event_id, kind, "PROCESSED" if done else "RECEIVED", REASON_LEGACY if done else "", body,
                    created_ms, created_ms, not done,
                )))  # fmt: skip
            tally.imported += made
            tally.before += not made
        return tally.step(Part.WEBHOOKS, {}, ())

    async def _fetch(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        """Each may be repeated: what is there is left as it is."""
        return await self.database.fetch_again(QUERIES[name], parameters, tries=TRIES_MAX)


def _first_step(event: PaymentImported) -> Step:
    payment, topic = apply(None, event, payment_id_of(event.order_id))
    return Step(event, payment.version, None, topic, payment)


def _open_calls(payment: Payment) -> list[Any]:
    return [attempt for attempt in payment.attempts if attempt.state in IN_THE_WAY]


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdigit() else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
