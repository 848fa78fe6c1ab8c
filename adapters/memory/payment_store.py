"""The PaymentStore and CallQueue ports in dictionaries: for fast tests. Runs the same contract suite as PostgreSQL's.

Room: adapters/memory. Everything is still encoded and decoded, so that what cannot be stored fails here too.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from payment_service.adapters.audit_chain import next_hash
from payment_service.adapters.postgres.statement import REFUND_TRANSACTION_STATUS, TRANSACTION_STATUS
from payment_service.codecs.events import decode_event, encode_event
from payment_service.codecs.published import encode_published
from payment_service.codecs.state import decode_call, decode_state, encode_call, encode_state
from payment_service.core.errors import Refused
from payment_service.core.ids import shard_of
from payment_service.core.money import to_major
from payment_service.core.payment import Payment, provider_key, status_of
from payment_service.core.ports import (
    NO_SECRETS,
    Change,
    ClaimedCall,
    Committed,
    Loaded,
    OutboxRow,
    PaymentFilter,
    PaymentPage,
    Secrets,
    StoredEvent,
)
from payment_service.core.terms import Kind

LOOK_AGAIN_S = 5.0


@dataclass(slots=True)
class _Row:
    state: bytes
    secrets: Secrets
    head: bytes


@dataclass(slots=True)
class _Call:
    request: bytes
    owner: str | None
    due_at: float | None
    tries: int = 0


@dataclass(slots=True)
class MemoryPaymentStore:
    """Also the CallQueue. `on_outbox` as PostgreSQL's."""

    on_outbox: Any = None
    shards: int = 16
    inbox: dict[str, str] = field(default_factory=dict)
    outbox: list[OutboxRow] = field(default_factory=list)
    _rows: dict[str, _Row] = field(default_factory=dict)
    _events: dict[str, list[tuple[int, int | None, str, bytes]]] = field(default_factory=dict)
    _calls: dict[str, _Call] = field(default_factory=dict)

    async def load(self, payment_id: str, command_id: str = "") -> Loaded:
        row = self._rows.get(payment_id)
        marked = command_id in self.inbox
        if row is None:
            return Loaded(None, marked=marked)
        return Loaded(decode_state(row.state), row.secrets, row.head, marked)

    def submit(self, change: Change) -> "asyncio.Future[Committed]":
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._commit(change))
        except (Refused, TypeError) as error:
            refused = Refused("contains text that cannot be stored", code="VALIDATION_ERROR")
            future.set_exception(error if isinstance(error, Refused) else refused)
        return future

    def _commit(self, change: Change) -> Committed:
        row = self._rows.get(change.payment_id)
        if not change.steps:
            self.inbox.setdefault(change.command_id, change.payment_id)
            return Committed.COMMITTED
        before = change.loaded.payment
        version = decode_state(row.state).version if row is not None else 0
        if version != (before.version if before is not None else 0) or change.command_id in self.inbox:
            return Committed.CONFLICT
        after = change.steps[-1].after
        if "\x00" in after.order_id + after.user_id + change.command_id:
            raise Refused("contains text that cannot be stored", code="VALIDATION_ERROR")
        encoded = [(step, encode_event(step.event)) for step in change.steps]
        state = encode_state(after)
        head = change.loaded.head
        for step, data in encoded:
            name = type(step.event).__name__
            head = next_hash(b"memory", head, change.payment_id, step.version, step.sequence, name, data)
            self._events.setdefault(change.payment_id, []).append((step.version, step.sequence, name, data))
        secrets = change.secrets if change.secrets is not None else (row.secrets if row is not None else NO_SECRETS)
        self._rows[change.payment_id] = _Row(state, secrets, head)
        if change.command_id:
            self.inbox[change.command_id] = change.payment_id
        self._keep_calls(change, before, after)
        self._publish(change)
        return Committed.COMMITTED

    def _publish(self, change: Change) -> None:
        older = any(row.payment_id == change.payment_id for row in self.outbox)
        rows = [
            OutboxRow(
                shard_of(change.payment_id, self.shards), change.payment_id, step.sequence, step.topic,
                step.event.at_ms, None, encode_published(step),
            )  # fmt: skip
            for step in change.steps
            if step.topic is not None and step.sequence is not None
        ]
        self.outbox += rows
        if rows and self.on_outbox is not None:
            self.on_outbox([(row, not older) for row in rows])

    def _keep_calls(self, change: Change, before: Payment | None, after: Payment) -> None:
        intents = {intent.call.key: intent for intent in change.intents}
        old: set[object] = {*before.attempts, *_hashable(before.refunds)} if before is not None else set()
        states = [
            (provider_key(after.payment_id, a.kind, a.number), TRANSACTION_STATUS[a.state])
            for a in after.attempts
            if a not in old
        ] + [
            (provider_key(after.payment_id, Kind.REFUND, r.number), REFUND_TRANSACTION_STATUS[r.status])
            for r, key in zip(after.refunds, _hashable(after.refunds), strict=True)
            if key not in old
        ]
        now = time.monotonic()
        for key, status in states:
            intent = intents.get(key)
            if intent is not None:
                due = now + intent.lease_s if intent.owner is not None else now
                self._calls[key] = _Call(encode_call(intent.call), intent.owner, due)
            elif key in self._calls:
                call = self._calls[key]
                call.owner = None
                call.due_at = now + LOOK_AGAIN_S if status in ("PENDING", "UNKNOWN") else None

    async def events(self, payment_id: str) -> list[StoredEvent]:
        return [
            StoredEvent(version, sequence, event.at_ms, name, event)
            for version, sequence, name, data in self._events.get(payment_id, [])
            for event in (decode_event(name, data),)
        ]

    async def find(self, query: PaymentFilter) -> PaymentPage:
        found = [p for row in self._rows.values() if _fits(p := decode_state(row.state), query)]
        sorts: dict[str, Any] = {
            "createdAt": lambda p: p.created_at_ms, "amount": lambda p: p.amount_minor, "status": status_of,
        }  # fmt: skip
        found.sort(key=lambda p: p.payment_id)
        found.sort(key=sorts[query.sort_by], reverse=query.descending)
        return PaymentPage(found[query.offset : query.offset + query.limit], len(found), False)

    # --- CallQueue -------------------------------------------------------------------------------------------

    async def claim(self, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        now = time.monotonic()
        claimed: list[ClaimedCall] = []
        for call in self._calls.values():
            if call.due_at is not None and call.due_at <= now and len(claimed) < limit:
                call.owner, call.due_at, call.tries = owner, now + lease_s, call.tries + 1
                claimed.append(ClaimedCall(decode_call(call.request), call.tries - 1, now))
        return claimed

    async def renew(self, key: str, owner: str, lease_s: float) -> bool:
        call = self._calls.get(key)
        if call is None or call.owner != owner or call.due_at is None or call.due_at <= time.monotonic():
            return False
        call.due_at = time.monotonic() + lease_s
        return True

    async def reschedule(self, key: str, owner: str, delay_s: float, *, sent: bool) -> None:
        call = self._calls.get(key)
        if call is not None and call.owner == owner and call.due_at is not None:
            call.owner, call.due_at = None, time.monotonic() + delay_s
            call.tries = call.tries if sent else 0


def _hashable(refunds: Sequence[Any]) -> list[tuple[object, ...]]:
    return [(r.number, r.amount_minor, r.status, r.updated_at_ms, r.provider_id) for r in refunds]


def _fits(payment: Payment, query: PaymentFilter) -> bool:
    if not payment.known:
        return False
    major = to_major(payment.amount_minor, payment.currency)
    return (
        (query.user_id is None or payment.user_id == query.user_id)
        and (query.status is None or status_of(payment) == query.status)
        and (query.provider is None or payment.provider == query.provider)
        and (query.created_from_ms is None or payment.created_at_ms >= query.created_from_ms)
        and (query.created_to_ms is None or payment.created_at_ms <= query.created_to_ms)
        and (query.amount_min is None or major >= query.amount_min)
        and (query.amount_max is None or major <= query.amount_max)
    )
