"""What the API's description shows as examples: bodies to send and what they are answered.

Room: web. A test holds each against its schema; made-up ids, and a card's tokens of a test alone.
"""

from collections.abc import Mapping
from typing import Any

Examples = Mapping[str, Any]
"""Name -> value."""

_ID = "pay_56001da0573c47966118322a04c95b2f"
_AT, _LATER = "2026-01-31T12:00:00.000Z", "2026-01-31T12:00:02.500Z"
RETURN_URL = "https://shop.example/checkout/done"
_AMOUNTS = {"authorized": 0, "captured": 0, "refundPending": 0, "refunded": 0, "disputed": 0}
PENDING: Mapping[str, Any] = {
    "id": _ID, "orderId": "order-1001", "userId": "user-7", "status": "PENDING", "paymentProvider": "STRIPE",
    "paymentMethodId": None, "amount": 99.99, "amountMinor": 9999, "currency": "USD", "amounts": _AMOUNTS,
    "description": None, "metadata": {}, "cancelRequested": False, "disputed": False, "needsReview": False,
    "unconfirmed": False, "nextAction": None, "failure": None, "providerPaymentId": None, "version": 1,
    "createdAt": _AT, "updatedAt": _AT, "processedAt": None,
}  # fmt: skip
_OPEN = {**PENDING, "providerPaymentId": "pi_3Qx", "version": 4, "updatedAt": _LATER}
_SUCCEEDED = {
    **_OPEN, "status": "SUCCEEDED", "amounts": {**_AMOUNTS, "authorized": 9999, "captured": 9999}, "version": 5,
    "processedAt": _LATER,
}  # fmt: skip
_REFUND = {
    "id": f"ref_{_ID[4:]}_1", "paymentId": _ID, "status": "COMPLETED", "amount": 10.0, "amountMinor": 1000,
    "currency": "USD", "reason": "damaged", "createdAt": _LATER,
}  # fmt: skip
_PARTLY = {
    **_SUCCEEDED, "status": "PARTIALLY_REFUNDED", "version": 7,
    "amounts": {**_AMOUNTS, "authorized": 9999, "captured": 9999, "refunded": 1000},
}  # fmt: skip


def _waits(action: Mapping[str, str]) -> Mapping[str, Any]:
    return {**_OPEN, "status": "REQUIRES_ACTION", "nextAction": action}


def _with_history(payment: Mapping[str, Any]) -> Mapping[str, Any]:
    transaction = {
        "id": f"txn_{_ID[4:]}_1", "type": "CHARGE", "status": "SUCCEEDED", "amount": 99.99, "amountMinor": 9999,
        "currency": "USD", "provider": "STRIPE", "providerTransactionId": "ch_3Qx", "failure": None,
        "createdAt": _AT, "updatedAt": _LATER,
    }  # fmt: skip
    return {**payment, "transactions": [transaction], "refunds": []}


_METHOD = {
    "id": "pmt_f18f5911f3a80cb704be1647", "type": "card", "provider": "STRIPE", "status": "ACTIVE", "isDefault": True,
    "brand": "visa", "last4": "4242", "expMonth": 12, "expYear": 2034, "nextAction": None, "createdAt": _AT,
}  # fmt: skip

_EVENT = {
    "id": "evt_3Qx", "object": "event", "type": "payment_intent.succeeded", "created": 1769860802, "livemode": False,
    "data": {"object": {"id": "pi_3Qx", "object": "payment_intent", "status": "succeeded"}},
}  # fmt: skip
SENT: Mapping[str, Examples] = {
    "post /api/v1/payments": {
        "Pay now": {"orderId": "order-1001", "amount": 99.99, "currency": "USD"},
        "Authorize now, capture later": {
            "orderId": "order-1002", "amount": "250.00", "currency": "EUR", "captureMethod": "manual",
            "description": "two chairs", "metadata": {"basket": "b-17"},
        },
    },
    "post /api/v1/payments/{payment_id}/process": {
        "A token, or a saved method": {"paymentMethodId": "tok_visa"},
        "The same, and the bank asks the shopper": {"paymentMethodId": "tok_threeDSecure", "returnUrl": RETURN_URL},
        "The front end collects the card, or the shopper approves at PayPal": {"returnUrl": RETURN_URL},
        "The front end has confirmed": {"paymentIntentId": "pi_3Qx"},
    },
    "post /api/v1/payments/{payment_id}/capture": {"All of it": {}, "A part, and let go of the rest": {"amount": 50}},
    "post /api/v1/payments/{payment_id}/cancel": {"With a reason": {"reason": "the shopper left"}},
    "post /api/v1/payments/{payment_id}/refund": {"All that is left": {}, "A part": {"amount": 10, "reason": "broken"}},
    "post /api/v1/refunds": {"A part": {"paymentId": _ID, "amount": 10, "reason": "damaged"}},
    "post /api/v1/payment-methods": {
        "A card": {"type": "card", "provider": "stripe", "token": "tok_visa", "isDefault": True},
    },
    "post /api/v1/webhooks": {"As Stripe sends it": _EVENT},
    "post /api/v1/webhooks/{provider}": {"As Stripe sends it": _EVENT},
}  # fmt: skip
"""Bodies by call."""

ANSWERED: Mapping[tuple[str, int], Examples] = {
    ("post /api/v1/payments", 201): {"Created": PENDING},
    ("post /api/v1/payments/{payment_id}/process", 200): {
        "Charged": _SUCCEEDED,
        "The shopper has to go somewhere": _waits({"type": "redirect", "url": "https://hooks.stripe.com/3ds/x"}),
        "The provider's own elements go on": _waits(
            {"type": "use_client_secret", "clientSecret": "made_up_client_secret"}
        ),
    },
    ("post /api/v1/payments/{payment_id}/process", 202): {"Not known yet": {**_OPEN, "status": "PROCESSING"}},
    ("get /api/v1/payments/{payment_id}", 200): {"Charged": _with_history(_SUCCEEDED)},
    ("post /api/v1/payments/{payment_id}/refund", 200): {"Given back": {"refund": _REFUND, "payment": _PARTLY}},
    ("post /api/v1/refunds", 200): {"Given back": _REFUND},
    ("post /api/v1/payment-methods", 201): {"Saved": _METHOD},
}
"""`data` of an answer by call and status."""


def failed(code: str, message: str, **more: Any) -> Mapping[str, Any]:
    return {
        "success": False, "code": code, "message": message, "requestId": "req-96c639652e57d6ea-7", "timestamp": _LATER,
        **more,
    }  # fmt: skip


FAILED: Mapping[int, Mapping[str, Any]] = {
    402: failed("CARD_DECLINED", "the card has insufficient funds", declineCode="insufficient_funds"),
    422: failed("VALIDATION_ERROR", "some fields are not valid", errors={"amount": ["has more decimals than USD has"]}),
}
"""The failure with members of its own, of a status."""
