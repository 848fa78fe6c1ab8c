"""What is asked of Stripe: a call in, the exact request out. Pure.

Room: adapters/providers, beside stripe.py. The same call gives the same request, byte for byte: Stripe compares a
repeated idempotency key's parameters with the first ones (docs.stripe.com/api/idempotent_requests).
"""

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from payment_service.adapters.providers.stripe_amounts import to_stripe
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import CaptureMethod, Kind, Verdict

AMOUNT_NOT_POSSIBLE = "AMOUNT_NOT_POSSIBLE"
"""DECLINED, nothing was sent: Stripe cannot write this amount in this currency."""
BROWSER = "browser"
"""In the metadata of a PaymentIntent whose card the front end collects: after a decline the shopper may go on trying
there, so that a decline ends nothing."""
NO_OBJECT = "NO_OBJECT"
"""UNKNOWN: the call names no PaymentIntent, so there is nothing to ask about."""
METADATA_LENGTH_MAX = 500
"""Of one metadata value (docs.stripe.com/api/metadata)."""
DESCRIPTION_LENGTH_MAX = 1000
PAGE = 100
"""Refunds in one answer; the most that Stripe gives (docs.stripe.com/api/pagination)."""

_INTENT_ID = re.compile(r"pi_[A-Za-z0-9_]{1,250}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    """"get" or "post"."""
    path: str
    params: dict[str, Any] = field(default_factory=dict, repr=False)
    """Nested; holds the shopper's token."""
    key: str | None = None
    """Idempotency key. Every "post" has one."""


def is_intent_id(text: str) -> bool:
    """Also of what a caller sent: it becomes part of a path."""
    return _INTENT_ID.fullmatch(text) is not None


def create_request(call: ProviderCall) -> Request | Answer:
    """The PaymentIntent, without a means of payment: it moves no money and is confirmed afterwards."""
    amount = _amount(call)
    if isinstance(amount, Answer):
        return amount
    metadata = {"payment_id": call.payment_id, "order_id": call.order_id[:METADATA_LENGTH_MAX]}
    if call.method_token is None:
        metadata["collected_by"] = BROWSER
    params: dict[str, Any] = {
        "amount": amount,
        "currency": call.currency.lower(),
        "capture_method": "manual" if call.capture_method is CaptureMethod.MANUAL else "automatic",
        # Without an address to come back to, only methods that need no redirect may be offered.
        "automatic_payment_methods": {"enabled": "true", "allow_redirects": "always" if call.return_url else "never"},
        "metadata": metadata,
    }
    if call.description:
        params["description"] = call.description[:DESCRIPTION_LENGTH_MAX]
    if call.customer is not None:
        params["customer"] = call.customer
    return Request("post", "/v1/payment_intents", params, _object_key(call))


def customer_request(call: ProviderCall) -> Request | None:
    """A saved method is charged only on a PaymentIntent of its customer. The first attempt made it so; one that an
    earlier attempt or a front end made may have no customer yet."""
    if call.customer is None or call.object_id is None or (call.number == 1 and not call.adopted):
        return None
    return Request("post", _intent_path(call), {"customer": call.customer}, f"{call.key}:customer")


def send_request(call: ProviderCall) -> Request | Answer:
    """Confirm, capture, cancel or refund. A charge without a means of payment only asks how things are: the front end
    collects the card and confirms with the client secret."""
    if call.kind is Kind.REFUND:
        return _refund_request(call)
    if call.object_id is None:
        return Answer(Verdict.UNKNOWN, code=NO_OBJECT, message="the call names no PaymentIntent")
    if call.kind is Kind.VOID:
        return Request("post", _intent_path(call, "/cancel"), {}, call.key)
    if call.kind is Kind.CAPTURE:
        amount = _amount(call)
        if isinstance(amount, Answer):
            return amount
        return Request("post", _intent_path(call, "/capture"), {"amount_to_capture": amount}, call.key)
    if call.method_token is None:
        return intent_request(call)
    params = _means_of_payment(call, call.method_token)
    if call.return_url:
        params["return_url"] = call.return_url
    else:
        params["use_stripe_sdk"] = "true"  # what the shopper has to do is done by Stripe's own script
    return Request("post", _intent_path(call, "/confirm"), params, call.key)


def lookup_request(call: ProviderCall) -> Request | Answer:
    """By id, never by searching: Stripe's search is up to a minute behind (docs.stripe.com/search)."""
    if call.kind is Kind.REFUND:
        return refunds_request(call.object_id, call.charge_id)
    return intent_request(call)


def intent_request(call: ProviderCall) -> Request | Answer:
    if call.object_id is None:
        return Answer(Verdict.UNKNOWN, code=NO_OBJECT, message="the call names no PaymentIntent")
    return Request("get", _intent_path(call))


def refunds_request(intent_id: str | None, charge_id: str | None, after: str | None = None) -> Request | Answer:
    """One page of a payment's refunds, those made beside us included; `after` is the last id of the page before."""
    params: dict[str, Any] = {"limit": PAGE}
    if intent_id is not None:
        params["payment_intent"] = intent_id
    elif charge_id is not None:
        params["charge"] = charge_id
    else:
        return Answer(Verdict.UNKNOWN, code=NO_OBJECT, message="the call names neither PaymentIntent nor charge")
    if after is not None:
        params["starting_after"] = after
    return Request("get", "/v1/refunds", params)


def _refund_request(call: ProviderCall) -> Request | Answer:
    amount = _amount(call)
    if isinstance(amount, Answer):
        return amount
    params: dict[str, Any] = {"amount": amount, "metadata": _numbered(call)}
    if call.object_id is not None:
        params["payment_intent"] = call.object_id
    elif call.charge_id is not None:
        params["charge"] = call.charge_id
    else:
        return Answer(Verdict.UNKNOWN, code=NO_OBJECT, message="the call names neither PaymentIntent nor charge")
    return Request("post", "/v1/refunds", params, call.key)


def _means_of_payment(call: ProviderCall, token: str) -> dict[str, Any]:
    """A one-time `tok_…` becomes a PaymentMethod on the way; that one carries our number, which tells a decline of
    this attempt from one of an earlier attempt on the same PaymentIntent."""
    if not token.startswith("tok_"):
        return {"payment_method": token}
    return {"payment_method_data": {"type": "card", "card": {"token": token}, "metadata": _numbered(call)}}


def _numbered(call: ProviderCall) -> dict[str, str]:
    return {"payment_id": call.payment_id, "number": str(call.number)}


def _object_key(call: ProviderCall) -> str:
    """With what a later attempt may ask for differently: if the first one's answer was lost, the same key with other
    parameters would be an error for ever. The PaymentIntent nobody heard of can be paid by nobody."""
    asked = f"{call.capture_method}|{bool(call.return_url)}|{call.method_token is None}|{call.description or ''}"
    if call.customer is not None:
        asked += f"|{call.customer}"
    return f"{call.object_key}:{blake2b(asked.encode(), digest_size=4).hexdigest()}"


def _amount(call: ProviderCall) -> int | Answer:
    amount = to_stripe(call.amount_minor, call.currency)
    if amount is not None:
        return amount
    return Answer(
        Verdict.DECLINED,
        object_id=call.object_id,
        code=AMOUNT_NOT_POSSIBLE,
        message=f"Stripe cannot take this amount in {call.currency}",
    )


def _intent_path(call: ProviderCall, action: str = "") -> str:
    assert call.object_id is not None, "asked for only with an object"
    return f"/v1/payment_intents/{quote(call.object_id, safe='')}{action}"
