"""What PayPal is asked, read and refused as PayPal does it (developer.paypal.com/api/rest/responses, orders/v2/errors).

Room: cli/provider_sim. Pure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from payment_service.cli.provider_sim.door import Reply
from payment_service.cli.provider_sim.paypal_issues import DESCRIPTIONS, MESSAGES
from payment_service.cli.provider_sim.world import Thing, digest

CURRENCIES = frozenset(
    ("AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY", "MXN", "MYR", "NOK",
     "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD")
)  # fmt: skip
"""developer.paypal.com/api/rest/reference/currency-codes, of August 2026."""
WITHOUT_DECIMALS = frozenset(("HUF", "JPY", "TWD"))
"""No decimals at PayPal, though ISO 4217 gives HUF and TWD two."""
ISO_WITHOUT_DECIMALS = frozenset(("JPY",))
NAMES = {
    400: "INVALID_REQUEST", 401: "AUTHENTICATION_FAILURE", 403: "NOT_AUTHORIZED", 404: "RESOURCE_NOT_FOUND",
    409: "RESOURCE_CONFLICT", 415: "UNSUPPORTED_MEDIA_TYPE",
    422: "UNPROCESSABLE_ENTITY", 429: "RATE_LIMIT_REACHED", 500: "INTERNAL_SERVER_ERROR",
}  # fmt: skip
_VALUE = re.compile(r"((-?[0-9]+)|(-?([0-9]+)?[.][0-9]+))", re.ASCII)
VALUE_LENGTH_MAX = 32


class PaypalError(Exception):
    def __init__(self, status: int, issue: str = "", description: str = "", **more: Any) -> None:
        super().__init__(issue or NAMES[status])
        self.status = status
        description = description or DESCRIPTIONS.get(issue, issue)
        details = [{"issue": issue, "description": description}] if issue else []
        self.body: Thing = {
            "name": NAMES[status], "details": details, "message": MESSAGES.get(status, description),
            "debug_id": digest(issue, status)[:13], "links": [], **more,
        }  # fmt: skip


class NeverAnswers(Exception):
    """Nothing was done and nothing will be said."""


def impossible(issue: str, description: str = "", **more: Any) -> PaypalError:
    """422: understood, and not possible."""
    return PaypalError(422, issue, description, **more)


def malformed(issue: str, description: str = "") -> PaypalError:
    return PaypalError(400, issue, description)


def missing() -> PaypalError:
    return PaypalError(
        404, "INVALID_RESOURCE_ID", "Specified resource ID does not exist. Please check the resource ID."
    )


def trouble(status: int, why: str) -> Reply:
    """Not from an operation: the request was not looked at, or the answer is to be a 500."""
    return Reply(status, PaypalError(status, "", why).body)


@dataclass(slots=True)
class Ask:
    """One request. The endpoint sets `moves_money` when it comes to that."""

    body: Thing
    match: Mapping[str, str]
    key: str | None
    now_ms: int
    moves_money: bool = False

    def table(self, name: str) -> Thing:
        value = self.body.get(name) or {}
        if not isinstance(value, dict):
            raise malformed("INVALID_PARAMETER_SYNTAX", f"{name} is an object")
        return value

    def text(self, name: str, length_max: int = 127) -> str | None:
        return text_of(self.body, name, length_max)


def text_of(given: Thing, name: str, length_max: int = 127) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise malformed("INVALID_PARAMETER_SYNTAX", f"{name} is a string")
    if not 1 <= len(value) <= length_max:
        raise malformed("INVALID_STRING_LENGTH", f"{name} has 1 to {length_max} characters")
    return value


def parsed(body: bytes) -> Any:
    """Raises PaypalError. Nothing is an empty object."""
    try:
        return orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise malformed("MALFORMED_REQUEST_JSON") from error


def money_of(given: Any, currency: str | None = None) -> tuple[int, str]:
    """(minor units of ISO 4217, currency) of an amount object. Raises PaypalError as PayPal would."""
    if not isinstance(given, dict) or not isinstance(given.get("currency_code"), str):
        raise malformed("MISSING_REQUIRED_PARAMETER", "an amount has currency_code and value")
    code, value = given["currency_code"], given.get("value")
    if not isinstance(value, str) or len(value) > VALUE_LENGTH_MAX or not _VALUE.fullmatch(value):
        raise malformed("INVALID_PARAMETER_SYNTAX", "value is a decimal string")
    if code not in CURRENCIES:
        raise impossible("INVALID_CURRENCY_CODE", "Currency code is invalid or is not currently supported.")
    if currency is not None and code != currency:
        raise impossible("CURRENCY_MISMATCH")
    whole, _, decimals = value.partition(".")
    if code in WITHOUT_DECIMALS and decimals:
        raise impossible("DECIMALS_NOT_SUPPORTED")
    if len(decimals) > 2:
        raise impossible("DECIMAL_PRECISION")
    cents = int(f"{whole or '0'}{decimals:0<2}")
    if cents <= 0:
        raise impossible("CANNOT_BE_ZERO_OR_NEGATIVE")
    return (cents // 100 if code in ISO_WITHOUT_DECIMALS else cents), code


def money(amount_minor: int, currency: str) -> Thing:
    """As PayPal writes it."""
    cents = amount_minor * 100 if currency in ISO_WITHOUT_DECIMALS else amount_minor
    value = f"{cents // 100}" if currency in WITHOUT_DECIMALS else f"{cents // 100}.{cents % 100:02}"
    return {"currency_code": currency, "value": value}
