"""The PaymentStore and CallQueue ports in dictionaries: for fast tests. Runs the same contract suite as PostgreSQL's.

Room: adapters/memory. Everything is still encoded and decoded, so that what cannot be stored fails here too.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from payment_service.adapters.audit_chain import next_hash
from payment_service.adapters.memory.idempotency import MemoryKeys
from payment_service.codecs.events import decode_event, encode_event
from payment_service.codecs.published import encode_published
from payment_service.codecs.rest import ATTEMPT_WORDS, BY_PROVIDER, REFUND_WORDS
from payment_service.codecs.state import decode_call, decode_state, encode_call, encode_state
from payment_service.codecs.transactions import LOOK_AGAIN_S, OPEN_STATUSES, is_same_call
from payment_service.core.errors import Refused
from payment_service.core.ids import shard_of
from payment_service.core.money import to_major
from payment_service.core.payment import Attempt, Payment, Refund, provider_key, status_of
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

CHAIN_KEY = b"memory"
TOTAL_MAX = 10_000


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
    sent_at: float | None = None


@dataclass(slots=True)
class MemoryPaymentStore:
    """Also the CallQueue. `on_outbox` as PostgreSQL's; rows leave `outbox` when a test removes them."""

    on_outbox: Callable[[Sequence[tuple[OutboxRow, bool]]], None] | None = None
    shards: int = 16
    inbox: dict[str, str] = field(default_factory=dict)
    outbox: list[OutboxRow] = field(default_factory=list)
    keys: MemoryKeys = field(default_factory=MemoryKeys)
    _rows: dict[str, _Row] = field(default_factory=dict)
    _events: dict[str, list[tuple[int, int | None, str, bytes]]] = field(default_factory=dict)
    _calls: dict[str, _Call] = field(default_factory=dict)

    async def load(self, payment_id: str, command_id: str = "") -> Loaded:
        _refuse_unstorable(command_id)
        row = self._rows.get(payment_id)
        marked, bound = command_id in self.inbox, self.keys.bound(command_id)
        if row is None:
            return Loaded(None, marked=marked, bound=bound)
        return Loaded(decode_state(row.state), row.secrets, row.head, marked, bound)

    def submit(self, change: Change) -> "asyncio.Future[Committed]":
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._commit(change))
        except Refused as error:
            future.set_exception(error)
        except TypeError:  # orjson meets a lone surrogate
            future.set_exception(_unstorable())
        return future

    async def commit(self, change: Change) -> Committed:
        return await self.submit(change)

    def _commit(self, change: Change) -> Committed:
        _refuse_unstorable(change.payment_id + change.command_id)
        row = self._rows.get(change.payment_id)
        if not change.steps:
            self._mark(change)
            return Committed.COMMITTED
        before, after = change.loaded.payment, change.steps[-1].after
        _refuse_unstorable(after.order_id + after.user_id + "".join(r.reason or "" for r in after.refunds))
        encoded = [(step, type(step.event).__name__, encode_event(step.event)) for step in change.steps]
        state = encode_state(after)
        version = decode_state(row.state).version if row is not None else 0
        if version != (before.version if before is not None else 0) or change.command_id in self.inbox:
            return Committed.CONFLICT
        if self.keys.is_taken(change):
            return Committed.CONFLICT
        head = change.loaded.head
        for step, name, data in encoded:
            head = next_hash(CHAIN_KEY, head, change.payment_id, step.version, step.sequence, name, data)
            self._events.setdefault(change.payment_id, []).append((step.version, step.sequence, name, data))
        secrets = change.secrets if change.secrets is not None else (row.secrets if row is not None else NO_SECRETS)
        self._rows[change.payment_id] = _Row(state, secrets, head)
        self._mark(change)
        self._keep_calls(change, before, after)
        self._publish(change)
        return Committed.COMMITTED

    def _mark(self, change: Change) -> None:
        if change.bound is not None:
            self.keys.bind(change)
        elif change.command_id:
            self.inbox.setdefault(change.command_id, change.payment_id)

    def _publish(self, change: Change) -> None:
        direct = not any(row.payment_id == change.payment_id for row in self.outbox)
        offered: list[tuple[OutboxRow, bool]] = []
        shard = shard_of(change.payment_id, self.shards)
        for step in change.steps:
            if step.topic is not None and step.sequence is not None:
                value, at_ms = encode_published(step), step.event.at_ms
                row = OutboxRow(shard, change.payment_id, step.sequence, step.topic, at_ms, None, value)
                offered.append((row, direct))
                direct = False
        self.outbox += [row for row, _ in offered]
        if offered and self.on_outbox is not None:
            self.on_outbox(offered)

    def _keep_calls(self, change: Change, before: Payment | None, after: Payment) -> None:
        intents = {intent.call.key: intent for intent in change.intents}
        old: dict[str, Attempt | Refund] = {}
        if before is not None:
            old = {provider_key(after.payment_id, a.kind, a.number): a for a in before.attempts}
            old |= {provider_key(after.payment_id, Kind.REFUND, r.number): r for r in before.refunds}
        new: list[tuple[str, Attempt | Refund, str]] = [
            (provider_key(after.payment_id, a.kind, a.number), a, ATTEMPT_WORDS[a.state]) for a in after.attempts
        ] + [
            (provider_key(after.payment_id, Kind.REFUND, r.number), r, REFUND_WORDS[r.status])
            for r in after.refunds
            if r.by != BY_PROVIDER
        ]
        now = time.monotonic()
        for key, item, status in new:
            intent, is_open = intents.get(key), status in OPEN_STATUSES
            if intent is None and is_same_call(old.get(key), item):
                continue
            call = self._calls.get(key)
            if intent is not None and is_open:
                call = self._calls.setdefault(key, _Call(encode_call(intent.call), None, None))
                call.owner = intent.owner
                call.due_at = now + intent.lease_s if intent.owner is not None else now
                call.tries += intent.owner is not None
                if intent.owner is not None and call.sent_at is None:
                    call.sent_at = now
            elif call is not None:
                call.owner, call.due_at = None, now + LOOK_AGAIN_S if is_open else None

    async def events(self, payment_id: str) -> list[StoredEvent]:
        return [
            StoredEvent(version, sequence, event.at_ms, name, event)
            for version, sequence, name, data in self._events.get(payment_id, [])
            for event in (decode_event(name, data),)
        ]

    async def find(self, query: PaymentFilter) -> PaymentPage:
        found = [p for row in self._rows.values() if _fits(p := decode_state(row.state), query)]
        sorts: dict[str, Any] = {
            "createdAt": lambda p: p.created_at_ms, "amount": lambda p: to_major(p.amount_minor, p.currency),
            "status": lambda p: (status_of(p), p.created_at_ms),
        }  # fmt: skip
        found.sort(key=lambda p: p.payment_id, reverse=not query.descending)
        found.sort(key=sorts[query.sort_by], reverse=query.descending)  # keeps the order of equals, also reversed
        page = found[query.offset : query.offset + query.limit]
        return PaymentPage(page, min(len(found), TOTAL_MAX), len(found) > TOTAL_MAX)

    # --- CallQueue -------------------------------------------------------------------------------------------

    async def under_way_s(self, key: str) -> float:
        call = self._calls.get(key)
        return 0.0 if call is None or call.owner is None else max(0.0, (call.due_at or 0.0) - time.monotonic())

    async def claim(self, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        now = time.monotonic()
        due = [call for call in self._calls.values() if call.due_at is not None and call.due_at <= now]
        due.sort(key=lambda call: call.due_at or 0.0)
        for call in due[:limit]:
            call.owner, call.due_at, call.tries = owner, now + lease_s, call.tries + 1
            call.sent_at = now if call.sent_at is None else call.sent_at
        return [
            ClaimedCall(decode_call(call.request), call.tries - 1, now, now - (call.sent_at or now))
            for call in due[:limit]
        ]

    async def claim_of(self, payment_id: str, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        now = time.monotonic()
        claimed: list[ClaimedCall] = []
        for key, call in self._calls.items():
            free = call.due_at is not None and (call.owner is None or call.due_at <= now)
            if key.startswith(f"{payment_id}:") and free and call.tries > 0 and len(claimed) < limit:
                due_in_s = max(0.0, (call.due_at or now) - now)
                request = decode_call(call.request)
                claimed.append(ClaimedCall(request, call.tries, now, now - (call.sent_at or now), due_in_s))
                call.owner, call.due_at = owner, now + lease_s
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
            call.sent_at = call.sent_at if sent or call.tries > 1 else None
            call.tries = call.tries if sent else max(0, call.tries - 1)


def _unstorable() -> Refused:
    return Refused("contains text that cannot be stored", code="VALIDATION_ERROR")


def _refuse_unstorable(text: str) -> None:
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _unstorable()


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
