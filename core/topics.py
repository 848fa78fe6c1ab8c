"""THE state machine, what the world hears: the topic a fact is published to.

Room: core. Called by facts.py alone.
The world hears statuses, not steps: PROCESSING is never told. Where a fact takes a payment back to a status other
than the one last told (a capture that was UNKNOWN turns out refused, so the hold is still there), that is told
too; else whoever follows the topics would keep the old word for ever.
"""

from payment_service.core import events as e
from payment_service.core.payment import Payment, attempt_of, authorization_ended, refund_of, status_of
from payment_service.core.terms import TAKES_MONEY, Kind, RefundStatus, Status, Topic

_NEWS: dict[Status, Topic] = {
    Status.AUTHORIZED: Topic.PROCESSED,
    Status.SUCCEEDED: Topic.PROCESSED,
    Status.PARTIALLY_REFUNDED: Topic.PROCESSED,
    Status.REFUNDED: Topic.PROCESSED,
    Status.REQUIRES_ACTION: Topic.REQUIRES_ACTION,
    Status.UNKNOWN: Topic.UNKNOWN,
    Status.FAILED: Topic.FAILED,
    Status.PENDING: Topic.FAILED,  # it was told that it may have happened: now it certainly did not
    Status.CANCELLED: Topic.CANCELLED,
}


def topic_of(before: Payment | None, event: e.Event, after: Payment) -> Topic | None:
    """Where a fact is published, or None for an internal step. `after` need not have its counters yet."""
    match event:
        case e.PaymentCreated() | e.Reopened():
            return Topic.CREATED
        case e.PaymentImported():
            return None
        case e.OrderConfirmed():
            return Topic.CREATED if event.changed else None
        case e.PaymentCancelled():
            return Topic.CANCELLED if event.announced else None
        case e.RefundCompleted():
            return Topic.REFUNDED if event.counted else None
        case e.ExternalRefund():
            return Topic.REFUNDED if event.status is RefundStatus.COMPLETED else None
        case e.RefundFailed():
            return Topic.REFUND_FAILED if refund_of(after, event.number).counted else None
        case e.DisputeChanged():
            return Topic.DISPUTED
        case _:
            assert before is not None or isinstance(event, e.CancelledBeforeCreation)
            return None if before is None else _topic_of_attempt(before, event, after)


def _topic_of_attempt(before: Payment, event: e.Event, after: Payment) -> Topic | None:
    status = status_of(after)
    match event:
        case e.ExternalCapture():
            return Topic.PROCESSED if before.captured == 0 else _correction(before, status)
        case e.AttemptApproved():
            if before.captured == 0 < after.captured:
                return Topic.PROCESSED
            if attempt_of(after, event.number).kind is Kind.VOID and status is not Status.CANCELLED:
                return None  # what the void ended (cancelled, expired) is a fact of its own that comes next
            return _correction(before, status)
        case e.AttemptDeclined() | e.AttemptNotSent():
            kind = attempt_of(after, event.number).kind
            if isinstance(event, e.AttemptDeclined) and status is Status.FAILED and kind in TAKES_MONEY:
                return Topic.FAILED
            cancelling = after.cancel_requested and (kind is not Kind.VOID or not after.object_open)
            if status is Status.PENDING and (cancelling or authorization_ended(after)):
                return None  # the cancellation that comes next tells it
            return _correction(before, status)
        case e.ActionRequired():
            # Nobody is sent to act for a payment that is about to be voided.
            return Topic.REQUIRES_ACTION if status is Status.REQUIRES_ACTION and not after.cancel_requested else None
        case e.AttemptUnknown():
            return Topic.UNKNOWN if status is Status.UNKNOWN else None
        case e.AuthorizationExpired():
            return _correction(before, status)
        case _:
            return None


def _correction(before: Payment, status: Status) -> Topic | None:
    return _NEWS.get(status) if status is not before.told else None  # PROCESSING is no news
