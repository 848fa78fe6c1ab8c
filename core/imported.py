"""THE state machine, how a payment of the service before this one begins: PaymentImported -> Payment.

Room: core. Part of `apply`: it never refuses, and follows from the event alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from payment_service.core.events import PaymentImported
from payment_service.core.payment import Attempt, Payment, Refund, status_of
from payment_service.core.terms import (
    IN_THE_WAY,
    REFUND_OPEN,
    AttemptState,
    CaptureMethod,
    Kind,
    RefundStatus,
)

BY_IMPORT = "import"


def imported(payment_id: str, event: PaymentImported) -> Payment:
    attempts = tuple(_attempt(number, call, event) for number, call in enumerate(event.calls, 1))
    refunds = tuple(_refund(number, fields) for number, fields in enumerate(event.refunds, 1))
    captured = sum(attempt.moved_minor for attempt in attempts)
    taken = [attempt.updated_at_ms for attempt in attempts if attempt.moved_minor]
    payment = Payment(
        payment_id, event.order_id, event.user_id, event.amount_minor, event.currency, event.provider,
        event.payment_method_id, CaptureMethod.AUTOMATIC, event.description, event.metadata, event.created_at_ms,
        event.updated_at_ms,
        authorized=captured,
        captured=captured,
        refund_pending=_sum_of(refunds, REFUND_OPEN),
        refunded=_sum_of(refunds, (RefundStatus.COMPLETED,)),
        object_id=event.object_id,
        object_number=int(event.object_id is not None),
        object_open=any(attempt.state in IN_THE_WAY and attempt.object_number for attempt in attempts),
        attempts=attempts,
        refunds=refunds,
        cancelled=event.cancelled,
        cancel_requested=event.cancel_requested,
        order_charged=bool(attempts),
        review=tuple(event.review),
        processed_at_ms=max(taken, default=None),
    )  # fmt: skip
    return replace(payment, told=status_of(payment))


def _attempt(number: int, call: Mapping[str, Any], event: PaymentImported) -> Attempt:
    kind, state, amount = Kind(call["kind"]), AttemptState(call["state"]), int(call["amount_minor"])
    return Attempt(
        number, kind, amount, state, event.provider, False, int(call["started_at_ms"]), int(call["updated_at_ms"]),
        accepted=state is AttemptState.ACTION,
        provider_id=call.get("provider_id"),
        action_type=call.get("action_type"),
        action_expires_at_ms=call.get("action_expires_at_ms"),
        code=call.get("code"),
        object_number=int(event.object_id is not None and bool(call.get("of_object"))),
        moved_minor=amount if kind is Kind.CHARGE and state is AttemptState.APPROVED else 0,
    )  # fmt: skip


def _refund(number: int, fields: Mapping[str, Any]) -> Refund:
    return Refund(
        number, int(fields["amount_minor"]), RefundStatus(fields["status"]), BY_IMPORT, False,
        int(fields["created_at_ms"]), int(fields["updated_at_ms"]), fields.get("reason"), fields.get("metadata") or {},
        provider_id=fields.get("provider_id"),
    )  # fmt: skip


def _sum_of(refunds: Sequence[Refund], statuses: Any) -> int:
    return sum(refund.amount_minor for refund in refunds if refund.status in statuses)
