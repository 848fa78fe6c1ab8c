"""What goes out on the payment.* topics: a fact -> CloudEvents headers and the value's JSON (contract §4).

Room: codecs. No card holder data, no token: only ids and amounts.
"""

from typing import Any

import orjson

from payment_service.codecs.times import rfc3339
from payment_service.core import events as e
from payment_service.core.errors import Malformed
from payment_service.core.money import to_major
from payment_service.core.payment import Payment, attempt_of, last_decline, refund_of, status_of
from payment_service.core.ports import Step

SOURCE = "payment-service"


def event_id(payment_id: str, sequence: int) -> str:
    """The same however often the event is delivered, and from whatever worker."""
    return f"evt_{payment_id.removeprefix('pay_')}_{sequence}"


def amounts_of(payment: Payment) -> dict[str, int]:
    return {
        "authorized": payment.authorized,
        "captured": payment.captured,
        "refundPending": payment.refund_pending,
        "refunded": payment.refunded,
        "disputed": payment.disputed,
    }


def encode_published(step: Step) -> bytes:
    """The value of the message for a published step."""
    payment = step.after
    assert step.sequence is not None
    assert step.topic is not None
    data: dict[str, Any] = {
        "paymentId": payment.payment_id,
        "orderId": payment.order_id,
        "userId": payment.user_id,
        "status": status_of(payment),
        "amount": to_major(payment.amount_minor, payment.currency),
        "amountMinor": payment.amount_minor,
        "currency": payment.currency,
        "paymentProvider": payment.provider,
        "amounts": amounts_of(payment),
    }
    if payment.payment_method_id is not None:
        data["paymentMethodId"] = payment.payment_method_id
    if payment.object_id is not None:
        data["providerPaymentId"] = payment.object_id
    if not isinstance(step.event, e.PaymentCreated):
        data.update(_details(step, payment))
    return orjson.dumps(
        {
            "id": event_id(payment.payment_id, step.sequence),
            "eventType": step.topic,
            "source": SOURCE,
            "timestamp": rfc3339(step.event.at_ms),
            "sequence": step.sequence,
            "data": data,
        }
    )


def _details(step: Step, payment: Payment) -> dict[str, Any]:
    event = step.event
    match event:
        case e.RefundCompleted() | e.ExternalRefund() | e.RefundFailed():
            refund = refund_of(payment, event.number)
            details: dict[str, Any] = {
                "refundId": refund_id(payment.payment_id, refund.number),
                "refundAmount": to_major(refund.amount_minor, payment.currency),
                "refundAmountMinor": refund.amount_minor,
            }
            if refund.reason is not None:
                details["reason"] = refund.reason
            if isinstance(event, e.RefundFailed):
                details["error"] = event.code
            return details
        case e.AttemptDeclined():
            declined = last_decline(payment) or attempt_of(payment, event.number)
            return {"error": declined.code, "reason": declined.decline_code or declined.code}
        case e.AttemptUnknown() | e.AttemptNotSent():
            return {"error": event.code}
        case e.PaymentCancelled():
            return {"reason": event.reason} if event.reason is not None else {}
        case e.AuthorizationExpired():
            return {"reason": "AUTHORIZATION_EXPIRED"}
        case e.DisputeChanged():
            return {"reason": event.state.value}
        case _:
            return {}


def refund_id(payment_id: str, number: int) -> str:
    """Our id of a refund: made from the payment's, so that every process makes the same."""
    return f"ref_{payment_id.removeprefix('pay_')}_{number}"


def transaction_id(payment_id: str, kind: str, number: int) -> str:
    """Our id of a provider call; refunds are numbered apart from attempts."""
    suffix = f"r{number}" if kind == "REFUND" else str(number)
    return f"txn_{payment_id.removeprefix('pay_')}_{suffix}"


def cloud_event_headers(
    topic: str, payment_id: str, sequence: int, time: str, traceparent: str | None
) -> list[tuple[str, bytes]]:
    """Binary mode of the CloudEvents Kafka binding. `topic` is the event type, without any prefix."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id(payment_id, sequence).encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", topic.encode()),
        ("ce_subject", payment_id.encode()),
        ("ce_time", time.encode()),
        ("content-type", b"application/json"),
    ]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return headers


def decode_published(value: bytes) -> dict[str, Any]:
    """A published event as a table or a command reads it back. Raises Malformed."""
    try:
        event: dict[str, Any] = orjson.loads(value)
        payment_id = event["data"]["paymentId"]
        if not isinstance(event["sequence"], int) or not isinstance(payment_id, str) or not payment_id:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Malformed("not a published payment event") from None
    return event
