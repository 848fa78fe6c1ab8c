"""The one statement that commits many changes: its rows, and its text of the parts that this batch needs.

Room: adapters/postgres. Pure. A change is encoded, hashed and sealed once, when it is submitted; putting a batch
together is then only joining columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from payment_service.adapters.audit_chain import next_hash
from payment_service.adapters.postgres import arrays as a
from payment_service.adapters.postgres.idempotency import key_parts
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.codecs.events import encode_event
from payment_service.codecs.published import encode_published, refund_id, transaction_id
from payment_service.codecs.rest import ATTEMPT_WORDS, BY_PROVIDER, REFUND_WORDS
from payment_service.codecs.state import encode_call, encode_secrets, encode_state
from payment_service.codecs.transactions import LOOK_AGAIN_S, OPEN_STATUSES, is_same_call, moved_by
from payment_service.core.effects import word_for_order
from payment_service.core.errors import Refused
from payment_service.core.ids import shard_of
from payment_service.core.payment import Payment, provider_key, status_of
from payment_service.core.ports import NO_SECRETS, Change, Cipher, Intent, OutboxRow
from payment_service.core.terms import Kind

ROW_BYTES = 400
"""What a row adds to a statement beside its documents, roughly."""
TEXTS_MAX = 256
"""Statement texts kept: one for each set of parts that batches have needed."""
_WON = "won"
_NONE_WON = "select null::text as id, false as fresh where false"
_WON_BY = {
    "insert_payments": "select id, true as fresh from ins",
    "update_payments": "select id, false as fresh from upd",
}

_PAYMENT_COLUMNS: tuple[Callable[[Any], str], ...] = (
    a.texts, a.numbers, a.texts, a.texts, a.words, a.texts, a.numbers, a.texts, a.numbers, a.numbers, a.numbers,
    a.numbers, a.numbers, a.numbers, a.numbers, a.numbers, a.docs, a.optional_words, a.words, a.numbers, a.numbers,
)  # fmt: skip
_EVENT_COLUMNS: tuple[Callable[[Any], str], ...] = (
    a.texts, a.numbers, a.numbers, a.words, a.numbers, a.docs, a.words, a.optional_words, a.numbers, a.docs,
)  # fmt: skip
_TRACE_COLUMNS: tuple[Callable[[Any], str], ...] = (a.texts, a.texts)
_INBOX_COLUMNS: tuple[Callable[[Any], str], ...] = (a.texts, a.texts)
_TRANSACTION_COLUMNS: tuple[Callable[[Any], str], ...] = (
    a.texts, a.texts, a.numbers, a.words, a.words, a.numbers, a.texts, a.texts, a.texts, a.optional_texts,
    a.optional_words, a.optional_texts, a.numbers, a.numbers, a.numbers, a.numbers, a.numbers,
)  # fmt: skip
_REFUND_COLUMNS: tuple[Callable[[Any], str], ...] = (
    a.texts, a.texts, a.numbers, a.numbers, a.texts, a.words, a.optional_texts, a.optional_texts, a.numbers, a.numbers,
    a.numbers,
)  # fmt: skip
_ORDER_COLUMNS: tuple[Callable[[Any], str], ...] = (a.texts, a.texts, a.numbers, a.words, a.texts)
_Row = tuple[Any, ...]


def request_place(transaction: str) -> str:
    return f"transactions.request:{transaction}"


def secrets_place(payment_id: str) -> str:
    return f"payments.secrets:{payment_id}"


@dataclass(frozen=True, slots=True)
class Encoder:
    """What encoding needs to know."""

    cipher: Cipher
    chain_key: bytes
    shards: int
    tells_orders: bool = False
    """The order service hears of outcomes: nobody else pays for its rows."""


class Encoded:
    """The rows of one change. `size` is what it adds to a statement, in bytes, roughly.

    `row` None: a change that only marks its command.
    """

    __slots__ = ("change", "events", "order", "outbox", "refunds", "row", "size", "traceparent", "transactions")

    def __init__(self, change: Change, traceparent: str | None = None) -> None:
        self.change = change
        self.traceparent = traceparent
        self.row: _Row | None = None
        self.events: list[_Row] = []
        self.outbox: list[OutboxRow] = []
        self.transactions: list[_Row] = []
        self.refunds: list[_Row] = []
        self.order: _Row | None = None
        self.size = ROW_BYTES


def unstorable() -> Refused:
    return Refused("contains text that cannot be stored", code="VALIDATION_ERROR")


def encode_change(change: Change, encoder: Encoder, traceparent: str | None = None) -> Encoded:
    """All rows of a change: done once, however often its statement is repeated. `traceparent` goes with what is told
    and what is left to be done.

    Raises Refused for text that PostgreSQL cannot keep (NUL, lone surrogates): one such value would take the
    whole batch with it.
    """
    encoded = Encoded(change, traceparent)
    try:
        if change.steps:
            _encode_steps(encoded, encoder)
        elif not a.is_storable(change.command_id + change.payment_id):
            raise unstorable()
    except (TypeError, UnicodeEncodeError):  # orjson and str.encode meet a lone surrogate
        raise unstorable() from None
    return encoded


def _encode_steps(encoded: Encoded, encoder: Encoder) -> None:
    change = encoded.change
    payment_id, head, before, payment = (
        change.payment_id, change.loaded.head, change.loaded.payment, change.steps[-1].after,
    )  # fmt: skip
    expected = before.version if before is not None else 0
    assert change.steps[0].version == expected + 1, "a change continues the payment it was decided on"
    raw = payment_id + change.command_id + payment.order_id + payment.user_id + payment.provider + payment.currency
    if not a.is_storable(raw):
        raise unstorable()
    size = 0
    for step in change.steps:
        data, name, at_ms = encode_event(step.event), type(step.event).__name__, step.event.at_ms
        head = next_hash(encoder.chain_key, head, payment_id, step.version, step.sequence, name, data)
        topic, shard, value = None, None, b""
        if step.topic is not None and step.sequence is not None:
            topic, shard, value = step.topic, shard_of(payment_id, encoder.shards), encode_published(step)
            trace = encoded.traceparent
            encoded.outbox.append(OutboxRow(shard, payment_id, step.sequence, topic, at_ms, trace, value))
        encoded.events.append(
            (payment_id, step.version, step.sequence, name, at_ms, data, head.hex(), topic, shard, value)
        )
        size += len(data) + len(value) + ROW_BYTES
    secrets = change.secrets
    sealed = None  # as they were
    if secrets is not None:
        empty = secrets == NO_SECRETS
        sealed = "" if empty else encoder.cipher.seal(encode_secrets(secrets), secrets_place(payment_id)).hex()
        size += len(sealed)
    state = encode_state(payment)
    encoded.row = (
        payment_id, expected, payment.order_id, payment.user_id, status_of(payment), payment.provider,
        payment.amount_minor, payment.currency, payment.authorized, payment.captured, payment.refund_pending,
        payment.refunded, payment.disputed, bool(payment.review), payment.version, payment.sequence, state, sealed,
        head.hex(), payment.created_at_ms, payment.updated_at_ms,
    )  # fmt: skip
    encoded.size += size + len(state)
    if encoder.tells_orders:
        told = word_for_order(before, payment)
        if told is not None:
            encoded.order = (payment.order_id, payment_id, payment.version, told.word, told.reason)
            encoded.size += ROW_BYTES
    if payment.attempts or payment.refunds:
        _encode_calls(encoded, before, payment, encoder)


def _encode_calls(encoded: Encoded, before: Payment | None, after: Payment, encoder: Encoder) -> None:
    """Rows of the attempts and refunds that this change touched, or has an intent for."""
    intents = {intent.call.key: intent for intent in encoded.change.intents}
    old_attempts = before.attempts if before is not None else ()
    for index, attempt in enumerate(after.attempts):
        key = provider_key(after.payment_id, attempt.kind, attempt.number)
        if index < len(old_attempts) and key not in intents and is_same_call(old_attempts[index], attempt):
            continue
        _add_call(
            encoded, encoder, after, intents.get(key), key, attempt.kind, attempt.number, attempt.amount_minor,
            attempt.provider, attempt.provider_id, ATTEMPT_WORDS[attempt.state], attempt.started_at_ms,
            attempt.updated_at_ms, attempt.moved_minor,
        )  # fmt: skip
    old_refunds = before.refunds if before is not None else ()
    for index, refund in enumerate(after.refunds):
        key = provider_key(after.payment_id, Kind.REFUND, refund.number)
        if index < len(old_refunds) and key not in intents and old_refunds[index] == refund:
            continue
        if refund.by != BY_PROVIDER:  # made beside us: there was no call
            _add_call(
                encoded, encoder, after, intents.get(key), key, Kind.REFUND, refund.number, refund.amount_minor,
                after.provider, refund.provider_id, REFUND_WORDS[refund.status], refund.created_at_ms,
                refund.updated_at_ms, 0,
            )  # fmt: skip
        if not a.is_storable((refund.reason or "") + (refund.provider_id or "")):
            raise unstorable()
        encoded.size += ROW_BYTES + len(refund.reason or "")
        encoded.refunds.append((
            refund_id(after.payment_id, refund.number), after.payment_id, refund.number, refund.amount_minor,
            after.currency, refund.status, refund.reason, refund.provider_id, refund.created_at_ms,
            refund.updated_at_ms, moved_by(refund),
        ))  # fmt: skip


def _add_call(
    encoded: Encoded, encoder: Encoder, payment: Payment, intent: Intent | None, key: str, kind: Kind, number: int,
    amount_minor: int, provider: str, provider_id: str | None, status: str, created_ms: int, updated_ms: int,
    moved_minor: int,
) -> None:  # fmt: skip
    """`tries` counts who may have sent it: the worker that commits its own intent is the first of them."""
    row_id = transaction_id(payment.payment_id, kind, number)
    request = owner = None
    wait_s: float | None = LOOK_AGAIN_S if status in OPEN_STATUSES else None
    if intent is not None and wait_s is not None:
        request = encoder.cipher.seal(encode_call(intent.call, encoded.traceparent), request_place(row_id)).hex()
        owner = intent.owner
        wait_s = intent.lease_s if owner is not None else 0.0
        encoded.size += len(request)
    if not a.is_storable((provider_id or "") + (owner or "") + provider):
        raise unstorable()
    encoded.size += ROW_BYTES
    encoded.transactions.append((
        row_id, payment.payment_id, number, kind, status, amount_minor, payment.currency, provider, key,
        provider_id, request, owner, wait_s, int(owner is not None), created_ms, updated_ms, moved_minor,
    ))  # fmt: skip


def build_statement(batch: Sequence[Encoded], notify: str | None) -> tuple[str, list[str]]:
    """The text and parameters of the statement for a batch; a part that has no rows is left out."""
    changed = [one for one in batch if one.row is not None]
    parts: list[str] = []
    parameters: list[str] = []

    def add(name: str, columns: Sequence[Callable[[Any], str]], rows: Sequence[_Row]) -> None:
        if rows:
            parts.append(name)
            parameters.extend([encode(column) for encode, column in zip(columns, zip(*rows, strict=True), strict=True)])

    if changed:
        add("changes", _PAYMENT_COLUMNS, [one.row for one in changed if one.row is not None])
        # Without these the planner would look for payments to update among those that are only inserted.
        if any(one.change.loaded.payment is None for one in changed):
            parts.append("insert_payments")
        if any(one.change.loaded.payment is not None for one in changed):
            parts.append("update_payments")
    parts.append(_WON)
    add("insert_events", _EVENT_COLUMNS, [row for one in changed for row in one.events])
    if any(one.outbox for one in changed):
        traced = [(one.change.payment_id, one.traceparent) for one in changed if one.traceparent is not None]
        add("insert_traced_outbox", _TRACE_COLUMNS, traced)
        if not traced:
            parts.append("insert_outbox")
    marks = [
        (one.change.command_id, one.change.payment_id)
        for one in changed
        if one.change.command_id and one.change.bound is None
    ]
    add("insert_inbox", _INBOX_COLUMNS, marks)
    add("upsert_transactions", _TRANSACTION_COLUMNS, [row for one in changed for row in one.transactions])
    add("upsert_refunds", _REFUND_COLUMNS, [row for one in changed for row in one.refunds])
    add("tell_orders", _ORDER_COLUMNS, [one.order for one in changed if one.order is not None])
    unchanged = [
        (one.change.command_id, one.change.payment_id)
        for one in batch
        if one.row is None and one.change.command_id and one.change.bound is None
    ]
    add("mark_unchanged", _INBOX_COLUMNS, unchanged)
    if any(one.change.bound is not None for one in batch):
        for name, columns, rows in key_parts([one.change for one in batch]):
            add(name, columns, rows)
    if notify is not None:
        parts.append("notify_owners")
        parameters.append(notify)
    return _text(tuple(parts)), parameters


@lru_cache(maxsize=TEXTS_MAX)
def _text(parts: tuple[str, ...]) -> str:
    """The same object for the same parts: 6 KB are neither joined nor hashed again for each statement."""
    won = " union all ".join([_WON_BY[name] for name in parts if name in _WON_BY]) or _NONE_WON
    texts = [f"won as ({won})" if name is _WON else QUERIES[name] for name in parts]
    # A part that nothing reads is not run unless it writes: the notification has to be asked for.
    asked = " cross join ntf" if "notify_owners" in parts else ""
    return f"with {', '.join(texts)} {QUERIES['result']}{asked}"
