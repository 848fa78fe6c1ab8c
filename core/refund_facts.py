"""THE state machine, how facts change a payment's refunds: each its own small machine with a reserved amount.

Room: core. Part of facts.py.
"""

from dataclasses import replace
from typing import Any, assert_never

from payment_service.core import events as e
from payment_service.core.payment import Payment, Refund, refund_of
from payment_service.core.terms import REFUND_OPEN, RefundStatus


def with_refund(payment: Payment, number: int, **changes: Any) -> tuple[Refund, ...]:
    return tuple(replace(r, **changes) if r.number == number else r for r in payment.refunds)


def _refund_completed(payment: Payment, event: e.RefundCompleted) -> Payment:
    refund = refund_of(payment, event.number)
    reserved = refund.amount_minor if refund.status in REFUND_OPEN else 0
    refunds = with_refund(
        payment, event.number, status=RefundStatus.COMPLETED, amount_minor=event.amount_minor,
        updated_at_ms=event.at_ms, provider_id=event.provider_id or refund.provider_id, counted=event.counted,
    )  # fmt: skip
    return replace(
        payment,
        refunds=refunds,
        refund_pending=payment.refund_pending - reserved,
        refunded=payment.refunded + (event.amount_minor if event.counted else 0),
    )


def _refund_ended(payment: Payment, event: e.RefundFailed | e.RefundNotSent) -> Payment:
    refund = refund_of(payment, event.number)
    reserved = refund.amount_minor if refund.status in REFUND_OPEN else 0
    completed = refund.status is RefundStatus.COMPLETED
    returned = refund.amount_minor if completed and refund.counted else 0
    status = RefundStatus.FAILED if isinstance(event, e.RefundFailed) else RefundStatus.CANCELLED
    refunds = with_refund(
        payment, event.number, status=status,
        updated_at_ms=event.at_ms, code=event.code,
        message=event.message if isinstance(event, e.RefundFailed) else None,
        was_completed=refund.was_completed or completed,
    )  # fmt: skip
    return replace(
        payment,
        refunds=refunds,
        refund_pending=payment.refund_pending - reserved,
        refunded=payment.refunded - returned,
    )


def _external_refund(payment: Payment, event: e.ExternalRefund) -> Payment:
    refund = Refund(
        event.number, event.amount_minor, event.status, "provider", False, event.at_ms, event.at_ms,
        None, {}, provider_id=event.provider_id,
    )  # fmt: skip
    pending = event.amount_minor if event.status in REFUND_OPEN else 0
    done = event.amount_minor if event.status is RefundStatus.COMPLETED else 0
    return replace(
        payment,
        refunds=(*payment.refunds, refund),
        refund_pending=payment.refund_pending + pending,
        refunded=payment.refunded + done,
    )


def evolve_refunds(payment: Payment, event: e.RefundEvent) -> Payment:
    match event:
        case e.RefundRequested():
            refund = Refund(
                event.number, event.amount_minor, RefundStatus.PENDING, event.by, event.scheduled,
                event.at_ms, event.at_ms, event.reason, event.metadata, event.cause,
            )  # fmt: skip
            pending = payment.refund_pending + event.amount_minor
            return replace(payment, refunds=(*payment.refunds, refund), refund_pending=pending)
        case e.RefundPending():
            refunds = with_refund(
                payment, event.number, status=RefundStatus.PROCESSING, updated_at_ms=event.at_ms,
                provider_id=event.provider_id or refund_of(payment, event.number).provider_id,
            )  # fmt: skip
            return replace(payment, refunds=refunds)
        case e.RefundUnknown():
            refunds = with_refund(
                payment, event.number, status=RefundStatus.UNKNOWN, updated_at_ms=event.at_ms, code=event.code
            )
            return replace(payment, refunds=refunds)
        case e.RefundCompleted():
            return _refund_completed(payment, event)
        case e.RefundFailed() | e.RefundNotSent():
            return _refund_ended(payment, event)
        case e.ExternalRefund():
            return _external_refund(payment, event)
        case _:
            assert_never(event)
