"""What is asked of PayPal: a call in, the exact request out. Pure.

Room: adapters/providers, beside paypal.py. Sources: developer.paypal.com/docs/api/orders/v2 and /payments/v2.
What is ours in an order: `custom_id` is the payment, `reference_id` the order; `invoice_id` names the order, capture or
refund within it, so that a look-up finds the one that it asks for. An account that wants invoice ids to be unique
refuses to take the money of one of ours twice.
"""

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from payment_service.adapters.providers.paypal_amounts import to_paypal
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import CaptureMethod, Kind, Verdict

AMOUNT_NOT_POSSIBLE = "AMOUNT_NOT_POSSIBLE"
"""DECLINED, nothing was sent: PayPal does not take this amount in this currency."""
REFERENCE_LENGTH_MAX = 256
DESCRIPTION_LENGTH_MAX = 127
KEY_LENGTH_MAX = 108
"""Of a PayPal-Request-Id of the Orders API."""
ONE_TIME = "tok_"
"""How a token that is used once begins. Whatever else a caller names is taken only as a method that is saved here, and
theirs: PayPal charges a saved wallet without asking its owner."""
ORDERS = "/v2/checkout/orders"
_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_VAULT_ID = re.compile(r"[0-9a-zA-Z_-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: Any = field(default=None, repr=False)
    """JSON; may hold the shopper's token. None: no body."""
    key: str | None = None
    """`PayPal-Request-Id`. Every POST that makes something has one; voiding and patching know none."""


def paypal_id(value: object) -> str | None:
    """Also of what a caller sent: it becomes part of a path."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def vault_id(value: object) -> str | None:
    """Of a setup or payment token; also of what a caller sent."""
    return value if isinstance(value, str) and _VAULT_ID.fullmatch(value) else None


def intent_of(call: ProviderCall) -> str:
    return "AUTHORIZE" if call.capture_method is CaptureMethod.MANUAL else "CAPTURE"


def create_request(call: ProviderCall) -> Request | Answer:
    """The order; it moves no money. Without a saved wallet the shopper approves it on PayPal's page."""
    amount = _amount(call)
    if isinstance(amount, Answer):
        return amount
    unit: dict[str, Any] = {
        "reference_id": call.order_id[:REFERENCE_LENGTH_MAX],
        "custom_id": call.payment_id,
        "invoice_id": call.object_key,
        "amount": amount,
    }
    if call.description:
        unit["description"] = call.description[:DESCRIPTION_LENGTH_MAX]
    body: dict[str, Any] = {"intent": intent_of(call), "purchase_units": [unit]}
    if call.method_token is None:
        # What is shipped, and where, is the shop's business.
        context = {"user_action": "PAY_NOW", "shipping_preference": "NO_SHIPPING"}
        if call.return_url:
            context |= {"return_url": call.return_url, "cancel_url": call.return_url}
        body["payment_source"] = {"paypal": {"experience_context": context}}
    return Request("POST", ORDERS, body, _object_key(call))


def order_request(object_id: str) -> Request:
    return Request("GET", f"{ORDERS}/{quote(object_id, safe='')}")


def pay_request(call: ProviderCall, object_id: str, *, with_token: bool) -> Request | Answer:
    """Capture or authorize the order: by a saved wallet, or as the shopper has approved it."""
    action = "capture" if call.kind is Kind.CHARGE else "authorize"
    body: dict[str, Any] = {}
    if with_token and call.method_token is not None:
        known = call.payment_method_id is not None or call.method_token.startswith(ONE_TIME)
        if not known or vault_id(call.method_token) is None:
            return Answer(
                Verdict.DECLINED, object_id=call.object_id, code="INVALID_PAYMENT_METHOD",
                message="it is no wallet of PayPal's that is saved here",
            )  # fmt: skip
        body["payment_source"] = {"paypal": {"vault_id": call.method_token}}
    return Request("POST", f"{ORDERS}/{quote(object_id, safe='')}/{action}", body, call.key)


def close_request(call: ProviderCall, object_id: str) -> Request:
    """PayPal cancels no order. With the other intent, whatever of ours is still on its way to take its money is
    refused (ACTION_DOES_NOT_MATCH_INTENT), and nobody else takes it: an approval by itself moves nothing."""
    other = "CAPTURE" if intent_of(call) == "AUTHORIZE" else "AUTHORIZE"
    patch = [{"op": "replace", "path": "/intent", "value": other}]
    return Request("PATCH", f"{ORDERS}/{quote(object_id, safe='')}", patch)


def capture_request(call: ProviderCall, authorization_id: str) -> Request | Answer:
    """All that will be captured: the rest of the hold is let go."""
    amount = _amount(call)
    if isinstance(amount, Answer):
        return amount
    body = {"amount": amount, "invoice_id": call.key, "final_capture": True}
    return Request("POST", f"/v2/payments/authorizations/{quote(authorization_id, safe='')}/capture", body, call.key)


def void_request(authorization_id: str) -> Request:
    return Request("POST", f"/v2/payments/authorizations/{quote(authorization_id, safe='')}/void")


def refund_request(call: ProviderCall, capture_id: str) -> Request | Answer:
    amount = _amount(call)
    if isinstance(amount, Answer):
        return amount
    body = {"amount": amount, "custom_id": call.payment_id, "invoice_id": call.key}
    return Request("POST", f"/v2/payments/captures/{quote(capture_id, safe='')}/refund", body, call.key)


def _object_key(call: ProviderCall) -> str:
    """With what a later attempt may ask for differently: PayPal would give it the first one's order. An order nobody
    heard of is taken by nobody."""
    asked = f"{intent_of(call)}|{call.return_url or ''}|{call.method_token is None}|{call.description or ''}"
    key = f"{call.object_key}:{blake2b(asked.encode(), digest_size=4).hexdigest()}"
    assert len(key) <= KEY_LENGTH_MAX, "a key is made of a payment id and a number"
    return key


def _amount(call: ProviderCall) -> dict[str, str] | Answer:
    amount = to_paypal(call.amount_minor, call.currency)
    if amount is not None:
        return amount
    return Answer(
        Verdict.DECLINED,
        object_id=call.object_id,
        code=AMOUNT_NOT_POSSIBLE,
        message=f"PayPal cannot take this amount in {call.currency}",
    )
