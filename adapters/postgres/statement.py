"""The one statement that commits many changes: its rows as array literals, and its text of the parts it needs.

Room: adapters/postgres. Pure. Arrays travel as one text literal each: the driver adapting ten thousand list elements
one by one would hold the event loop several times as long (measured: 21 against 6 us a payment at 500).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from payment_service.adapters.audit_chain import next_hash
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.codecs.events import encode_event
from payment_service.codecs.published import encode_published, refund_id, transaction_id
from payment_service.codecs.state import encode_call, encode_secrets, encode_state
from payment_service.core.ids import shard_of
from payment_service.core.payment import Attempt, Payment, Refund, provider_key, status_of
from payment_service.core.ports import Change, Cipher, Intent, OutboxRow
from payment_service.core.terms import AttemptState, Kind, RefundStatus

LOOK_AGAIN_S = 5.0
"""When an attempt that stays open without an owner is looked at first (design §4)."""

TRANSACTION_STATUS: dict[AttemptState, str] = {
    AttemptState.OPEN: "PENDING",
    AttemptState.ACTION: "PENDING",
    AttemptState.DISPLACED: "PENDING",
    AttemptState.UNKNOWN: "UNKNOWN",
    AttemptState.APPROVED: "SUCCEEDED",
    AttemptState.DECLINED: "FAILED",
    AttemptState.NOT_SENT: "FAILED",
    AttemptState.SUPERSEDED: "FAILED",
}
REFUND_TRANSACTION_STATUS: dict[RefundStatus, str] = {
    RefundStatus.PENDING: "PENDING",
    RefundStatus.PROCESSING: "PENDING",
    RefundStatus.UNKNOWN: "UNKNOWN",
    RefundStatus.COMPLETED: "SUCCEEDED",
    RefundStatus.FAILED: "FAILED",
    RefundStatus.CANCELLED: "FAILED",
}


def request_place(transaction: str) -> str:
    return f"transactions.request:{transaction}"


def secrets_place(payment_id: str) -> str:
    return f"payments.secrets:{payment_id}"


def plain_array(items: Iterable[object]) -> str:
    """Of numbers, booleans and texts without anything to escape (our own ids, hex)."""
    return "{" + ",".join("NULL" if item is None else str(item) for item in items) + "}"


def text_array(items: Iterable[str | None]) -> str:
    """Of any text."""
    return (
        "{"
        + ",".join(
            "NULL" if item is None else '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items
        )
        + "}"
    )


_PLAIN, _TEXT = plain_array, text_array
_CHANGE_ARRAYS = (
    _PLAIN, _PLAIN, _TEXT, _TEXT, _PLAIN, _PLAIN, _PLAIN, _TEXT, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN,
    _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN,
)  # fmt: skip
_EVENT_ARRAYS = (_PLAIN,) * 7
_OUTBOX_ARRAYS = (_PLAIN,) * 6
_INBOX_ARRAYS = (_TEXT, _PLAIN)
_TRANSACTION_ARRAYS = (
    _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _TEXT, _PLAIN, _TEXT, _PLAIN, _PLAIN,
    _PLAIN,
)  # fmt: skip
_REFUND_ARRAYS = (_PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _PLAIN, _TEXT, _TEXT, _PLAIN, _PLAIN)


@dataclass(frozen=True, slots=True)
class Encoder:
    """What encoding needs to know."""

    cipher: Cipher
    chain_key: bytes
    shards: int


@dataclass(slots=True)
class Encoded:
    """The rows of one change. `size` is what it adds to a statement, in bytes, roughly."""

    change: Change
    row: tuple[Any, ...] | None
    events: list[tuple[Any, ...]] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    transactions: list[tuple[Any, ...]] = field(default_factory=list)
    refunds: list[tuple[Any, ...]] = field(default_factory=list)
    size: int = 0


def encode_change(change: Change, encoder: Encoder) -> Encoded:
    """All rows of a change, hashed, sealed and encoded: done once, however often its statement is repeated."""
    if not change.steps:
        return Encoded(change, None, size=len(change.command_id))
    payment, head, payment_id = change.steps[-1].after, change.loaded.head, change.payment_id
    encoded = Encoded(change, None)
    for step in change.steps:
        data, name = encode_event(step.event), type(step.event).__name__
        head = next_hash(encoder.chain_key, head, payment_id, step.version, step.sequence, name, data)
        at_ms = step.event.at_ms
        encoded.events.append((payment_id, step.version, step.sequence, name, at_ms, data.hex(), head.hex()))
        if step.topic is not None and step.sequence is not None:
            shard, value = shard_of(payment_id, encoder.shards), encode_published(step)
            encoded.outbox.append(OutboxRow(shard, payment_id, step.sequence, step.topic, at_ms, None, value))
            encoded.size += len(value) * 2
        encoded.size += len(data) * 2
    secrets = change.secrets
    sealed = None
    if secrets is not None and (secrets.method_token or secrets.next_action):
        sealed = encoder.cipher.seal(encode_secrets(secrets), secrets_place(payment_id)).hex()
    state = encode_state(payment)
    before = change.loaded.payment
    encoded.row = (
        payment_id, before.version if before is not None else 0, payment.order_id, payment.user_id,
        status_of(payment), payment.provider, payment.amount_minor, payment.currency, payment.authorized,
        payment.captured, payment.refund_pending, payment.refunded, payment.disputed, bool(payment.review),
        payment.version, payment.sequence, state.hex(), sealed, secrets is None, head.hex(), payment.created_at_ms,
        payment.updated_at_ms,
    )  # fmt: skip
    encoded.size += len(state) * 2
    if payment.attempts or payment.refunds:
        _add_calls(encoded, before, payment, encoder)
    return encoded


def _add_calls(encoded: Encoded, before: Payment | None, after: Payment, encoder: Encoder) -> None:
    """Rows of the attempts and refunds that this change touched."""
    intents = {intent.call.key: intent for intent in encoded.change.intents}
    old_attempts = before.attempts if before is not None else ()
    for number, attempt in enumerate(after.attempts):
        if number >= len(old_attempts) or (old_attempts[number] is not attempt and old_attempts[number] != attempt):
            encoded.transactions.append(_attempt_row(after, attempt, intents, encoder))
    old_refunds = before.refunds if before is not None else ()
    for number, refund in enumerate(after.refunds):
        if number >= len(old_refunds) or (old_refunds[number] is not refund and old_refunds[number] != refund):
            encoded.transactions.append(_refund_call_row(after, refund, intents, encoder))
            encoded.refunds.append((
                refund_id(after.payment_id, refund.number), after.payment_id, refund.number, refund.amount_minor,
                after.currency, refund.status, refund.reason, refund.provider_id, refund.created_at_ms,
                refund.updated_at_ms,
            ))  # fmt: skip
    encoded.size += 1000 * (len(encoded.transactions) + len(encoded.refunds))


def _attempt_row(
    payment: Payment, attempt: Attempt, intents: dict[str, Intent], encoder: Encoder
) -> tuple[Any, ...]:
    status = TRANSACTION_STATUS[attempt.state]
    return _call_row(
        payment, attempt.kind, attempt.number, attempt.amount_minor, attempt.provider, attempt.provider_id,
        status, attempt.started_at_ms, attempt.updated_at_ms, intents, encoder,
    )  # fmt: skip


def _refund_call_row(
    payment: Payment, refund: Refund, intents: dict[str, Intent], encoder: Encoder
) -> tuple[Any, ...]:
    status = REFUND_TRANSACTION_STATUS[refund.status]
    return _call_row(
        payment, Kind.REFUND, refund.number, refund.amount_minor, payment.provider, refund.provider_id, status,
        refund.created_at_ms, refund.updated_at_ms, intents, encoder,
    )  # fmt: skip


def _call_row(
    payment: Payment, kind: Kind, number: int, amount_minor: int, provider: str, provider_id: str | None,
    status: str, created_ms: int, updated_ms: int, intents: dict[str, Intent], encoder: Encoder,
) -> tuple[Any, ...]:  # fmt: skip
    key = provider_key(payment.payment_id, kind, number)
    row_id = transaction_id(payment.payment_id, kind, number)
    intent = intents.get(key)
    request = owner = None
    wait_s: float | None = LOOK_AGAIN_S if status in ("PENDING", "UNKNOWN") else None
    if intent is not None and wait_s is not None:
        request = encoder.cipher.seal(encode_call(intent.call), request_place(row_id)).hex()
        owner = intent.owner
        wait_s = intent.lease_s if owner is not None else 0.0
    return (
        row_id, payment.payment_id, number, kind, status, amount_minor, payment.currency, provider, key, provider_id,
        request, owner, wait_s, created_ms, updated_ms,
    )  # fmt: skip


def build_statement(batch: Sequence[Encoded], notify: str | None) -> tuple[str, list[str]]:
    """The text and parameters of the statement for a batch; a part that has no rows is left out."""
    changed = [one for one in batch if one.row is not None]
    unchanged = [one.change for one in batch if one.row is None]
    parts: list[str] = []
    parameters: list[str] = []

    def add(name: str, arrays: Sequence[Any], rows: Sequence[Sequence[Any]]) -> None:
        parts.append(QUERIES[name])
        if arrays:
            parameters.extend(array(column) for array, column in zip(arrays, zip(*rows, strict=True), strict=True))

    won: list[str] = []
    if changed:
        add("changes", _CHANGE_ARRAYS, [one.row for one in changed if one.row is not None])
        if any(one.row is not None and one.row[1] == 0 for one in changed):
            add("insert_payments", (), ())
            won.append("select id from ins")
        if any(one.row is not None and one.row[1] > 0 for one in changed):
            add("update_payments", (), ())
            won.append("select id from upd")
    parts.append(f"won as ({' union all '.join(won) or 'select null::text as id where false'})")
    add("insert_events", _EVENT_ARRAYS, rows) if (rows := [row for one in changed for row in one.events]) else None
    marks = [(one.change.command_id, one.change.payment_id) for one in changed if one.change.command_id]
    add("insert_inbox", _INBOX_ARRAYS, marks) if marks else None
    outbox = [
        (row.shard, row.payment_id, row.sequence, row.topic, row.at_ms, row.value.hex())
        for one in changed
        for row in one.outbox
    ]
    add("insert_outbox", _OUTBOX_ARRAYS, outbox) if outbox else None
    calls = [row for one in changed for row in one.transactions]
    add("upsert_transactions", _TRANSACTION_ARRAYS, calls) if calls else None
    refunds = [row for one in changed for row in one.refunds]
    add("upsert_refunds", _REFUND_ARRAYS, refunds) if refunds else None
    if unchanged:
        add("mark_unchanged", _INBOX_ARRAYS, [(change.command_id, change.payment_id) for change in unchanged])
    if notify is not None:
        parts.append(QUERIES["notify_owners"])
        parameters.append(notify)
        # A part that nothing reads is not run unless it writes: the notification has to be asked for.
        return f"with {', '.join(parts)} {QUERIES['result']} cross join ntf", parameters
    return f"with {', '.join(parts)} {QUERIES['result']}", parameters
