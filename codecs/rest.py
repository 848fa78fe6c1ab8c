"""What REST shows: payments, refunds, timelines and pages as JSON-ready dictionaries with the contract's fields (§3).

Room: codecs. Exactly the documented fields: what is not named here is never shown.
"""

import re
from dataclasses import fields as fields_of
from functools import lru_cache
from typing import Any

from payment_service.codecs.published import amounts_of, refund_id, transaction_id
from payment_service.codecs.times import rfc3339
from payment_service.core.events import Event
from payment_service.core.money import to_major
from payment_service.core.payment import Attempt, Payment, Refund, is_disputed, last_decline, status_of
from payment_service.core.ports import NextAction, PaymentFilter, PaymentPage, StoredEvent
from payment_service.core.terms import AttemptState, Kind, RefundStatus, Source, Status

ATTEMPT_WORDS: dict[AttemptState, str] = {
    AttemptState.OPEN: "PENDING",
    AttemptState.ACTION: "PENDING",
    AttemptState.DISPLACED: "PENDING",
    AttemptState.UNKNOWN: "UNKNOWN",
    AttemptState.APPROVED: "SUCCEEDED",
    AttemptState.DECLINED: "FAILED",
    AttemptState.NOT_SENT: "FAILED",
    AttemptState.SUPERSEDED: "FAILED",
}
REFUND_WORDS: dict[RefundStatus, str] = {
    RefundStatus.PENDING: "PENDING",
    RefundStatus.PROCESSING: "PENDING",
    RefundStatus.UNKNOWN: "UNKNOWN",
    RefundStatus.COMPLETED: "SUCCEEDED",
    RefundStatus.FAILED: "FAILED",
    RefundStatus.CANCELLED: "FAILED",
}
BY_PROVIDER = "provider"
"""`by` of a refund that was made beside us; it has no call of ours, so no transaction."""
_DETAILS = frozenset(
    {
        *("order_id", "user_id", "amount_minor", "currency", "provider", "payment_method_id", "capture_method"),
        *("description", "unconfirmed", "changed", "number", "kind", "object_id", "provider_id", "action_type"),
        *("expires_at_ms", "code", "message", "decline_code", "dispute_id", "state", "status", "final"),
        *("subject", "recorded", "said", "legacy_id", "legacy_status"),
    }
)
"""What a timeline row shows of an event beside when, who and why. A field that is added to an event is not shown
until it is added here."""
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def payment_view(payment: Payment, next_action: NextAction | None = None) -> dict[str, Any]:
    """`next_action` lets whoever has it pay: the caller of this passes it only to whom it belongs."""
    status = status_of(payment)
    return {
        "id": payment.payment_id,
        "orderId": payment.order_id,
        "userId": payment.user_id,
        "status": status,
        "paymentProvider": payment.provider,
        "paymentMethodId": payment.payment_method_id,
        "amount": to_major(payment.amount_minor, payment.currency),
        "amountMinor": payment.amount_minor,
        "currency": payment.currency,
        "amounts": amounts_of(payment),
        "description": payment.description,
        "metadata": payment.metadata,
        "cancelRequested": payment.cancel_requested,
        "disputed": is_disputed(payment),
        "needsReview": bool(payment.review),
        "unconfirmed": payment.unconfirmed,
        "nextAction": next_action_view(next_action) if next_action is not None else None,
        "failure": _failure(last_decline(payment)) if status is Status.FAILED else None,
        "providerPaymentId": payment.object_id,
        "version": payment.version,
        "createdAt": rfc3339(payment.created_at_ms),
        "updatedAt": rfc3339(payment.updated_at_ms),
        "processedAt": rfc3339(payment.processed_at_ms) if payment.processed_at_ms is not None else None,
    }


def payment_with_history_view(payment: Payment, next_action: NextAction | None = None) -> dict[str, Any]:
    return {
        **payment_view(payment, next_action),
        "transactions": transactions_view(payment),
        "refunds": [refund_view(payment, refund) for refund in payment.refunds],
    }


def next_action_view(action: NextAction) -> dict[str, str]:
    view = {"type": action.type}
    if action.url is not None:
        view["url"] = action.url
    if action.client_secret is not None:
        view["clientSecret"] = action.client_secret
    return view


def refund_view(payment: Payment, refund: Refund) -> dict[str, Any]:
    return {
        "id": refund_id(payment.payment_id, refund.number),
        "paymentId": payment.payment_id,
        "status": refund.status,
        "amount": to_major(refund.amount_minor, payment.currency),
        "amountMinor": refund.amount_minor,
        "currency": payment.currency,
        "reason": refund.reason,
        "createdAt": rfc3339(refund.created_at_ms),
    }


def transactions_view(payment: Payment) -> list[dict[str, Any]]:
    """Every provider call of ours, oldest first."""
    calls = [_attempt_view(payment, attempt) for attempt in payment.attempts]
    calls += [_refund_call_view(payment, refund) for refund in payment.refunds if refund.by != BY_PROVIDER]
    calls.sort(key=lambda call: str(call["createdAt"]))
    return calls


def _attempt_view(payment: Payment, attempt: Attempt) -> dict[str, Any]:
    return {
        "id": transaction_id(payment.payment_id, attempt.kind, attempt.number),
        "type": attempt.kind,
        "status": ATTEMPT_WORDS[attempt.state],
        "amount": to_major(attempt.amount_minor, payment.currency),
        "amountMinor": attempt.amount_minor,
        "currency": payment.currency,
        "provider": attempt.provider,
        "providerTransactionId": attempt.provider_id,
        "failure": _failure(attempt) if attempt.code is not None else None,
        "createdAt": rfc3339(attempt.started_at_ms),
        "updatedAt": rfc3339(attempt.updated_at_ms),
    }


def _refund_call_view(payment: Payment, refund: Refund) -> dict[str, Any]:
    failure = {"code": refund.code, "message": refund.message, "declineCode": None}
    return {
        "id": transaction_id(payment.payment_id, Kind.REFUND, refund.number),
        "type": Kind.REFUND,
        "status": REFUND_WORDS[refund.status],
        "amount": to_major(refund.amount_minor, payment.currency),
        "amountMinor": refund.amount_minor,
        "currency": payment.currency,
        "provider": payment.provider,
        "providerTransactionId": refund.provider_id,
        "failure": failure if refund.code is not None else None,
        "createdAt": rfc3339(refund.created_at_ms),
        "updatedAt": rfc3339(refund.updated_at_ms),
    }


def _failure(attempt: Attempt | None) -> dict[str, Any] | None:
    if attempt is None:
        return None
    return {"code": attempt.code, "message": attempt.message, "declineCode": attempt.decline_code}


def page_view(page: PaymentPage, query: PaymentFilter) -> dict[str, Any]:
    seen = query.offset + len(page.payments)
    return {
        "payments": [payment_view(payment) for payment in page.payments],
        "total": page.total,
        "totalCapped": page.total_capped,
        "limit": query.limit,
        "offset": query.offset,
        # Beyond the exact count a full page is the only sign that there is another.
        "hasMore": seen < page.total or (page.total_capped and len(page.payments) == query.limit),
    }


def timeline_view(stored: StoredEvent) -> dict[str, Any]:
    """One row: what, when, who (`by`, and by which way `source`), why (`reason`), and the event's own fields."""
    event = stored.event
    source = getattr(event, "source", None)
    by = getattr(event, "by", None) or ("operator" if source is Source.OPERATOR else BY_PROVIDER)
    reason = getattr(event, "reason", None) or getattr(event, "cause", None) or getattr(event, "code", None)
    return {
        "version": stored.version,
        "sequence": stored.sequence,
        "type": event_word(type(event).__name__),
        "timestamp": rfc3339(stored.at_ms),
        "by": by,
        "source": source,
        "reason": reason,
        "details": _details(event),
    }


@lru_cache(maxsize=64)
def event_word(name: str) -> str:
    """`OrderConfirmed` -> "order_confirmed"."""
    return _CAPITAL.sub("_", name).lower()


def _details(event: Event) -> dict[str, Any]:
    details: dict[str, Any] = {}
    cls: Any = type(event)
    for name, shown, is_time in _detail_names(cls):
        value = getattr(event, name)
        if value is not None:
            details[shown] = rfc3339(value) if is_time else value
    return details


@lru_cache(maxsize=64)
def _detail_names(cls: type[Any]) -> tuple[tuple[str, str, bool], ...]:
    """(field, its name in JSON, whether it is a time) of the fields that are shown."""
    names = []
    for one in fields_of(cls):
        if one.name in _DETAILS:
            is_time = one.name.endswith("_at_ms")
            first, *rest = one.name.removesuffix("_ms" if is_time else "").split("_")
            names.append((one.name, first + "".join(part.capitalize() for part in rest), is_time))
    return tuple(names)
