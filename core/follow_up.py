"""THE state machine, what follows when the truth has landed: a wanted cancellation becomes a void or a refund.

Room: core. Called by decide.py and answers.py.
"""

from payment_service.core import commands as c
from payment_service.core import events as e
from payment_service.core.facts import apply
from payment_service.core.payment import (
    ATTEMPTS_MAX,
    CLOSING_ATTEMPTS,
    Payment,
    attempt_in_the_way,
    attempt_of,
    authorization_ended,
    is_unanswered,
    moved_another_currency,
    refundable,
)
from payment_service.core.terms import TAKES_MONEY, AttemptState, Kind, RefundStatus, Source, Verdict

AUTHORIZATION_ENDED = "AUTHORIZATION_ENDED"
CANCEL_VOID_FAILED = "CANCEL_VOID_FAILED"
CANCEL_REFUND_FAILED = "CANCEL_REFUND_FAILED"
GIVEN_UP = "GIVEN_UP"
"""Cause of the void of an object whose charge nobody will send again, and the code with which that charge ends."""
GIVE_UP_FAILED = "GIVE_UP_FAILED"


def may_void(payment: Payment) -> bool:
    """Voids are bounded too: one that can never be sent must not be started for ever."""
    return len(payment.attempts) < ATTEMPTS_MAX + CLOSING_ATTEMPTS


def start_void(payment: Payment, at_ms: int, by: str, cause: str) -> e.AttemptStarted:
    """Cancel the provider object. Always scheduled: whoever asked need not wait, and it is retried until done."""
    amount, provider = payment.authorization_open or payment.amount_minor, provider_of_object(payment)
    return e.AttemptStarted(at_ms, by, len(payment.attempts) + 1, Kind.VOID, amount, provider, None, True, cause)


def provider_of_object(payment: Payment) -> str:
    """The one that was asked last; a reopened payment may name another one by now."""
    return next((a.provider for a in reversed(payment.attempts) if a.kind in TAKES_MONEY), payment.provider)


def flag_once(payment: Payment, at_ms: int, reason: str, by: str = "system") -> list[e.Event]:
    return [] if reason in payment.review else [e.ReviewFlagged(at_ms, by, reason)]


def give_up(payment: Payment, at_ms: int, number: int) -> list[e.Event]:
    """A charge that may have been sent and is not sent again: its object is cancelled, and only when the provider
    confirms that does the charge end as a no (answers.py). Without an object nothing can have been confirmed: it was
    never sent. A void that the provider refused is not repeated: it may have been paid, and a person looks."""
    attempt = attempt_of(payment, number)
    if attempt.kind not in TAKES_MONEY or not is_unanswered(attempt):
        return []
    if attempt.object_number == 0:
        ended = e.AttemptNotSent(at_ms, number, Source.LOOKUP, GIVEN_UP)
        return [ended, *cancel_follow_up(apply(payment, ended)[0], at_ms)]
    if attempt.object_number != payment.object_number or not payment.object_open:
        return []
    refused = any(
        a.kind is Kind.VOID and a.cause == GIVEN_UP and a.object_number == attempt.object_number
        and a.state is AttemptState.DECLINED
        for a in payment.attempts
    )  # fmt: skip
    if refused or not may_void(payment):
        return flag_once(payment, at_ms, GIVE_UP_FAILED)
    return [start_void(payment, at_ms, "system", GIVEN_UP)]


def cancel_follow_up(payment: Payment, at_ms: int, answered: c.RecordAnswer | None = None) -> list[e.Event]:
    """What a wanted cancellation does now that the truth has landed: refund, void, or simply cancelled.

    Also for money that lands on a payment that was cancelled already, for a hold that is gone, and for a second
    object that the shopper could still pay. A void or refund of ours that failed is not repeated by itself: a
    person is asked, so that nothing loops.
    """
    in_the_way = attempt_in_the_way(payment)
    acting = in_the_way is not None and in_the_way.state is AttemptState.ACTION
    if in_the_way is not None and not acting:
        return []
    ended = not acting and authorization_ended(payment)
    if not (payment.cancel_requested or payment.cancelled or ended):
        if acting and payment.captured > 0 and payment.object_open and may_void(payment):
            return [start_void(payment, at_ms, "system", "PAID_ALREADY")]
        return []
    no = answered is not None and answered.verdict in (Verdict.DECLINED, Verdict.NOT_SENT)
    if answered is not None and answered.kind is Kind.REFUND:
        return flag_once(payment, at_ms, CANCEL_REFUND_FAILED) if no else []
    flagged: list[e.Event] = []
    if acting or (payment.captured == 0 and (payment.object_open or payment.authorization_open > 0)):
        refused = no and answered is not None and answered.kind is Kind.VOID
        if not refused and may_void(payment):
            return [start_void(payment, at_ms, "system", "CANCEL")]
        flagged = flag_once(payment, at_ms, CANCEL_VOID_FAILED)
        if payment.captured == 0:
            return flagged
    if payment.captured > 0:
        return [*flagged, *_give_back(payment, at_ms, answered)]
    if payment.cancelled:
        return []
    reason = "cancelled as requested" if payment.cancel_requested else AUTHORIZATION_ENDED
    return [e.PaymentCancelled(at_ms, "system", reason, payment.cancel_final)]


def _give_back(payment: Payment, at_ms: int, answered: c.RecordAnswer | None) -> list[e.Event]:
    left = refundable(payment)
    if left == 0:
        return []
    if moved_another_currency(payment):
        return flag_once(payment, at_ms, CANCEL_REFUND_FAILED)
    failed = any(
        r.cause == "CANCEL" and r.status in (RefundStatus.FAILED, RefundStatus.CANCELLED) for r in payment.refunds
    )
    if failed and (answered is None or answered.verdict is not Verdict.APPROVED):
        return flag_once(payment, at_ms, CANCEL_REFUND_FAILED)
    number = len(payment.refunds) + 1
    return [e.RefundRequested(at_ms, "system", number, left, "the order was cancelled", {}, True, "CANCEL")]
