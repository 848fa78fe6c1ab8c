"""What Schemathesis is told beside the API's description, so that its requests come as far as money moves.

Loaded by `st` (SCHEMATHESIS_HOOKS). It validates anew whatever is changed here, so a request that was made wrong on
purpose is still taken for wrong when something else in it is made sensible.
"""

import itertools
import json
import os
import time
import zlib
from collections import deque
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import TestPhase

from payment_service.adapters.providers.mock_webhooks import HEADER, signature_of

KEY = "Idempotency-Key"
WEBHOOK_SECRET = "whsec_of_these_tests"
TOKENS = (
    "tok_visa", "tok_visa", "tok_visa", "tok_mastercard", "tok_chargeDeclined", "tok_threeDSecure", "tok_pending",
    "tok_error",
)  # fmt: skip
EVENTS = ("charge.succeeded", "charge.failed", "refund.failed", "dispute.opened", "object.approved", "odd")
NOT_IN_A_SCHEMA = frozenset(
    {"amount", "currency", "metadata", "startDate", "endDate", "minAmount", "maxAmount", "body"}
)
"""Fields with rules that JSON schema cannot say: decimals by currency, known codes, bytes of JSON, dates; and NUL
anywhere in a body."""
RULES_OF_OURS = (
    "is none that the provider can save",
    "is not one of ",
    "is required",  # a token, of all providers but one
    "must not contain card data",
    "must not be a card",
)
NAMES = ("orderId", "paymentId", "paymentMethodId", "paymentIntentId", "token", "userId", "returnUrl")
WANTED = {
    "/process": ("PENDING", "FAILED"),
    "/capture": ("AUTHORIZED",),
    "/refund": ("SUCCEEDED", "PARTIALLY_REFUNDED"),
    "/refunds": ("SUCCEEDED", "PARTIALLY_REFUNDED"),
}
"""The states in which a call of this ending does something."""
ASKS = "ann"
"""Who asks first, and so owns nearly everything."""
PREPARED = "PAYMENTS_FILE"
"""In the environment: where api_run.py wrote the payments that it made beforehand, as they were answered."""
SEEN_MAX = 10_000
_file = os.environ.get(PREPARED)
_seen: deque[dict[str, Any]] = deque(json.loads(Path(_file).read_text()) if _file else (), maxlen=SEEN_MAX)
"""Payments as they were answered, the newest last."""
_addresses = itertools.count()


def _number(value: object) -> int:
    """By the value itself: the same request again is the same request."""
    return zlib.crc32(repr(value).encode("utf-8", "surrogatepass"))


def _choice(words: tuple[str, ...], value: object) -> str:
    return words[_number(value) % len(words)]


def _amount(path: str, body: dict[str, Any]) -> Any:
    """With as many decimals as most currencies have; of what was taken before, mostly no more than that was."""
    amount = body["amount"]
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0.01 <= amount <= 1e9:
        return amount
    if path.endswith(("/capture", "/refund", "/refunds")):
        return (None, 0.01, 1, round(float(amount), 2))[_number(body) % 4]
    return round(float(amount), 2)


def _printable(text: Any) -> Any:
    """Without what the description does not name as forbidden and Unicode calls unprintable."""
    if not isinstance(text, str) or any(ord(it) < 0x20 or 0x7F <= ord(it) <= 0x9F for it in text):
        return text
    return "".join(it if it.isprintable() else "x" for it in text)


def _sensible(path: str, body: dict[str, Any]) -> dict[str, Any]:
    made = {name: _printable(value) if name in NAMES else value for name, value in body.items()}
    if path == "/api/v1/payments" and isinstance(made.get("orderId"), str) and 0 < len(made["orderId"]) < 100:
        # Most orders are new ones: one that has a payment of another amount is a conflict, and nothing follows.
        made["orderId"] += _choice(("", *(f"-{next(_addresses)}" for _ in range(5))), body)
    if "amount" in made and _number(body) % 5:
        made["amount"] = _amount(path, made)
    if made.get("captureMethod", "automatic") in ("automatic", None) and path == "/api/v1/payments":
        made["captureMethod"] = _choice(("manual", "automatic"), body)
    if isinstance(made.get("provider"), str) and made["provider"].isalnum():
        made["provider"] = _choice(("MOCK", "MOCK", "mock", "STRIPE", made["provider"]), body)
    if path.endswith("/process") and isinstance(made.get("paymentMethodId"), str) and made["paymentMethodId"]:
        made["paymentMethodId"] = _choice((*TOKENS, made["paymentMethodId"]), body)
    if path.endswith("/payment-methods") and isinstance(made.get("token"), str) and made["token"]:
        made["token"] = _choice((*TOKENS, made["token"]), body)
    return made


def _ready(path: str, value: object, *, always: bool) -> str | None:
    """A payment that this call would do something with, else two times out of three; if there is one."""
    states = next((states for end, states in WANTED.items() if path.endswith(end)), ())
    found = [it["id"] for it in {it["id"]: it for it in _seen}.values() if it["status"] in states]
    return found[_number(value) % len(found)] if found and (always or _number(value) % 3) else None


def _event(body: dict[str, Any]) -> dict[str, Any]:
    """Of the mock, about a payment that is there if one is."""
    payment = _seen[_number(body) % len(_seen)] if _seen else {}
    data = {
        "payment_id": payment.get("id"), "object_id": payment.get("providerPaymentId"), "provider_id": "mock_x",
        "charge_id": payment.get("providerPaymentId"), "currency": payment.get("currency", "USD"),
        "amount_minor": payment.get("amountMinor", 1),
    }  # fmt: skip
    kind = _choice(EVENTS, body)
    return {"id": f"evt_{next(_addresses)}", "type": kind, "created": int(time.time()), "data": {**data, **body}}


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: Any) -> None:
    # An address of its own for each: refusals are counted by address, and thousands are meant to happen here.
    number = next(_addresses)
    case.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    for name, value in list(case.query.items()):
        if value == "":  # a parameter without a value counts as not given
            del case.query[name]
        else:
            case.query[name] = _printable(value)
    if KEY in case.headers and case.meta.phase.name is TestPhase.STATEFUL:
        case.headers[KEY] = f"key-{number}"  # what is replayed tells of what was removed since
    path, body = case.operation.path, case.body
    if not isinstance(body, dict) or case.meta.is_negative_at(ParameterLocation.BODY):
        return
    phase = case.meta.phase.name
    # What the description shows as an example is sent as it is, of the provider that is here: so on a slow machine too
    # every call is answered well at least once, and the examples are true.
    shown = phase is TestPhase.EXAMPLES
    if "/webhooks" not in path:
        case.body = {**body, **({"provider": "mock"} if "provider" in body else {})} if shown else _sensible(path, body)
        ready = _ready(path, body, always=shown) if shown or phase is TestPhase.FUZZING else None
        if ready is not None and "paymentId" in case.body:
            case.body["paymentId"] = ready
        elif ready is not None and not case.meta.is_negative_at(ParameterLocation.PATH):
            case.path_parameters["payment_id"] = ready
    elif case.meta.generation.mode.is_positive and (
        shown or _choice(("signed", "signed", "unsigned"), body) == "signed"
    ):
        case.body = _event(body)
        content = json.dumps(case.body).encode()  # as it is written by Schemathesis
        case.headers[HEADER] = signature_of(WEBHOOK_SECRET, content, int(time.time()))
        if "provider" in case.path_parameters:
            case.path_parameters["provider"] = "mock"


@schemathesis.hook
def after_call(ctx: Any, case: Any, response: Any) -> None:
    if response.status_code < 300 and case.operation.path.startswith("/api/v1/payments"):
        data = response.json().get("data")
        data = data.get("payment", data) if isinstance(data, dict) else {}
        if str(data.get("id", "")).startswith("pay_") and data.get("userId") == ASKS:
            _seen.append(data)


@schemathesis.check
def invalid_is_said_of_what_is_invalid(ctx: Any, response: Any, case: Any) -> None:
    """422 VALIDATION_ERROR for what the description allows may only be about what a description cannot say."""
    if response.status_code != 422 or case.meta is None or case.meta.generation.mode.is_negative:
        return
    envelope = response.json()
    fields = {name for name, said in envelope.get("errors", {}).items() if not said[0].startswith(RULES_OF_OURS)}
    if envelope["code"] == "VALIDATION_ERROR" and not fields <= NOT_IN_A_SCHEMA:
        raise Failure(operation=case.operation.label, title="Described, and still refused", message=f"fields: {fields}")


@schemathesis.check
def every_answer_is_careful(ctx: Any, response: Any, case: Any) -> None:
    """No answer, whatever was sent, leaves out what browsers and intermediaries are told, or tells of our inside."""
    headers = {name.lower(): values for name, values in response.headers.items()}
    missing = {"x-content-type-options", "content-security-policy", "x-request-id", "cache-control"} - set(headers)
    told = [word for word in ("Traceback", "psycopg", 'File "/') if word in response.text]
    if missing or told:
        raise Failure(operation=case.operation.label, title="Careless answer", message=f"{missing} {told}")
