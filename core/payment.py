"""THE state machine, what a payment is and how it looks. In reading order: events.py (facts) -> this file
-> facts.py (`apply`: how facts change it, and what follows) -> decide.py (`decide`: which facts follow a command).

Room: core. Nothing here decides.

A payment is totals plus at most one attempt in the way (refunds beside it, each its own small machine with a
reserved amount). The public status is a view (`status_of`): impossible combinations cannot be written down.
Invariant of what we decide: 0 <= refunded + refund_pending <= captured <= authorized. Provider facts may exceed it.
"""

from collections.abc import Mapping
from typing import Any

from payment_service.core.frozen import dataclass
from payment_service.core.terms import (
    IN_THE_WAY,
    TAKES_MONEY,
    AttemptState,
    CaptureMethod,
    DisputeState,
    Kind,
    RefundStatus,
    Status,
)

ATTEMPTS_MAX = 50
"""Charges stop at this many attempts of one payment. More is card testing, and the row must stay small."""
CLOSING_ATTEMPTS = 20
"""Captures and voids beyond ATTEMPTS_MAX: what the last charge left open must still be captured or released."""
CURRENCY_DIFFERS = "CURRENCY_DIFFERS"
"""A reason for a person to look; with what moved behind a colon, where it did: `CURRENCY_DIFFERS:10000 JPY`."""
REFUNDS_MAX = 200
"""Refunds we make of one payment; facts from the provider are never refused."""


@dataclass(frozen=True, slots=True)
class Attempt:
    number: int
    kind: Kind
    amount_minor: int
    state: AttemptState
    provider: str
    scheduled: bool
    started_at_ms: int
    updated_at_ms: int
    payment_method_id: str | None = None
    cause: str | None = None
    accepted: bool = False
    """The provider answered that it has it (PENDING): a later "don't know" does not make it UNKNOWN."""
    provider_id: str | None = None
    action_type: str | None = None
    action_expires_at_ms: int | None = None
    code: str | None = None
    message: str | None = None
    decline_code: str | None = None
    object_number: int = 0
    """Which of the payment's provider objects it confirms, captures or cancels. 0: none."""
    contradicted_by: str | None = None
    """The verdict that contradicted its final one."""
    moved_minor: int = 0
    """What it added to `captured`."""
    adopted: bool = False
    """Its provider object was named by the caller: the payment's own only once its provider has looked at it."""


@dataclass(frozen=True, slots=True)
class Refund:
    number: int
    amount_minor: int
    status: RefundStatus
    by: str
    scheduled: bool
    created_at_ms: int
    updated_at_ms: int
    reason: str | None
    metadata: Mapping[str, Any]
    cause: str | None = None
    provider_id: str | None = None
    was_completed: bool = False
    """It failed after it had been completed: an older "completed" that comes late is stale."""
    code: str | None = None
    message: str | None = None
    counted: bool = True
    """False: another refund of this list already counts the same movement of money."""
    contradicted_by: str | None = None


@dataclass(frozen=True, slots=True)
class Dispute:
    dispute_id: str
    state: DisputeState
    amount_minor: int
    reason: str | None
    opened_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True)
class Payment:
    """One order's payment. `version` counts all events, `sequence` the published ones; neither has holes."""

    payment_id: str
    order_id: str
    user_id: str
    amount_minor: int
    """0 only while `known` is False."""
    currency: str
    provider: str
    payment_method_id: str | None
    capture_method: CaptureMethod
    description: str | None
    metadata: Mapping[str, Any]
    created_at_ms: int
    updated_at_ms: int
    version: int = 1
    sequence: int = 0
    known: bool = True
    """False: cancelled before it was created; it has no amount and nothing was published."""
    unconfirmed: bool = False
    authorized: int = 0
    captured: int = 0
    refund_pending: int = 0
    refunded: int = 0
    disputed: int = 0
    authorization_open: int = 0
    """What can still be captured."""
    object_id: str | None = None
    object_number: int = 0
    """How many provider objects there were; the number is part of the key that creates the next."""
    object_open: bool = False
    attempts: tuple[Attempt, ...] = ()
    payable_since: int = 0
    """Attempts up to this number belong to a life that a cancellation ended."""
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    cancelled: bool = False
    cancel_final: bool = False
    cancel_requested: bool = False
    order_charged: bool = False
    """An order event has started its one charge."""
    review: tuple[str, ...] = ()
    """Why a person should look."""
    processed_at_ms: int | None = None
    told: Status | None = None
    """The status in the last published event."""


# --- views -----------------------------------------------------------------------------------------------------


def attempt_of(payment: Payment, number: int) -> Attempt:
    return payment.attempts[number - 1]


def refund_of(payment: Payment, number: int) -> Refund:
    return payment.refunds[number - 1]


def attempt_in_the_way(payment: Payment) -> Attempt | None:
    """The one attempt that excludes another, if there is one."""
    for attempt in reversed(payment.attempts):
        if attempt.state in IN_THE_WAY:
            return attempt
    return None


def is_unanswered(attempt: Attempt) -> bool:
    """Sent, perhaps, and the provider never said that it has it."""
    return attempt.state is AttemptState.UNKNOWN or (attempt.state is AttemptState.OPEN and not attempt.accepted)


def subject_of(kind: Kind, number: int) -> str:
    """How an attempt or refund is named in events and reasons."""
    return f"{'refund' if kind is Kind.REFUND else 'attempt'}:{number}"


def no_answer(subject: str) -> str:
    """The reason for a person to look at a call of which nobody could tell what became of it."""
    return f"NO_ANSWER:{subject}"


def is_about_open_object(payment: Payment, attempt: Attempt) -> bool:
    """Late news of an older provider object must not close the one that is open now."""
    return attempt.object_number in (0, payment.object_number)


def last_decline(payment: Payment) -> Attempt | None:
    """The decline that makes the payment FAILED: the newest charge that was answered, if the answer was no."""
    for attempt in reversed(payment.attempts):
        if attempt.number <= payment.payable_since:
            return None
        if attempt.kind in TAKES_MONEY and attempt.state in (AttemptState.DECLINED, AttemptState.APPROVED):
            return attempt if attempt.state is AttemptState.DECLINED else None
    return None


def refundable(payment: Payment) -> int:
    """Never below zero, whatever the provider did beside us."""
    return max(0, payment.captured - payment.refunded - payment.refund_pending - payment.disputed)


def moved_another_currency(payment: Payment) -> bool:
    """Our totals are not what moved: nothing more is moved by their numbers until a person has looked."""
    return any(reason.startswith(f"{CURRENCY_DIFFERS}:") for reason in payment.review)


def is_disputed(payment: Payment) -> bool:
    return any(dispute.state is not DisputeState.WON for dispute in payment.disputes)


def authorization_ended(payment: Payment) -> bool:
    """There was a hold and it is gone without money taken: expired, or voided."""
    if payment.captured > 0 or payment.authorization_open > 0:
        return False
    return any(
        a.kind is Kind.AUTHORIZE and a.state is AttemptState.APPROVED and a.number > payment.payable_since
        for a in payment.attempts
    )


def status_of(payment: Payment) -> Status:
    if payment.captured > 0:
        if payment.refunded >= payment.captured:
            return Status.REFUNDED
        return Status.PARTIALLY_REFUNDED if payment.refunded > 0 else Status.SUCCEEDED
    open_attempt = attempt_in_the_way(payment) if payment.attempts else None
    if open_attempt is not None:
        match open_attempt.state:
            case AttemptState.ACTION:
                return Status.REQUIRES_ACTION
            case AttemptState.UNKNOWN:
                return Status.UNKNOWN
            case _:
                return Status.PROCESSING
    if payment.authorization_open > 0:
        return Status.AUTHORIZED
    if payment.cancelled:
        return Status.CANCELLED
    return Status.FAILED if payment.attempts and last_decline(payment) is not None else Status.PENDING


ORDER_WORDS: dict[Status, str] = {
    Status.SUCCEEDED: "paid",
    Status.PARTIALLY_REFUNDED: "paid",
    Status.REFUNDED: "refunded",
    Status.FAILED: "failed",
    Status.CANCELLED: "failed",
}


def order_word(payment: Payment) -> str:
    """What the order service is told (contract §3)."""
    return ORDER_WORDS.get(status_of(payment), "pending")


def provider_key(payment_id: str, kind: Kind | str, number: int) -> str:
    """The idempotency key at the provider: the same over every retry of one call, new after a definite no.

    Never made from a token, an amount or a time (design §2). At most 108 characters (PayPal's limit).
    """
    return f"{payment_id}:{str(kind).lower()}:{number}"
