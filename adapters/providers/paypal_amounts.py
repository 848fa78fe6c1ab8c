"""How PayPal writes an amount: a decimal string, in the currencies that it takes.

Room: adapters/providers, beside paypal.py. Source: developer.paypal.com/api/rest/reference/currency-codes, of 8/2026.
"""

import re
from decimal import Decimal

from payment_service.core.money import AMOUNT_MINOR_MAX, EXPONENTS

CURRENCIES = frozenset({
    *("AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY", "MXN", "MYR"),
    *("NOK", "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD"),
})  # fmt: skip
"""Some only in their own country; PayPal refuses those by itself."""
WHOLE = frozenset({"HUF", "JPY", "TWD"})
"""Without decimals at PayPal; an amount with decimals is an error there. ISO 4217 gives HUF and TWD two."""
_VALUE = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,3})?", re.ASCII)


def to_paypal(amount_minor: int, currency: str) -> dict[str, str] | None:
    """Our minor units as PayPal's amount object. None: PayPal cannot take this amount, so nothing may be sent."""
    if currency not in CURRENCIES:
        return None
    factor = 10 ** EXPONENTS[currency]
    whole, part = divmod(amount_minor, factor)
    if currency in WHOLE:
        return {"currency_code": currency, "value": str(whole)} if part == 0 else None
    return {"currency_code": currency, "value": f"{whole}.{part:02}"}


def from_paypal(currency: object, value: object) -> tuple[int, str] | None:
    """(our minor units, currency). None: it is no amount, or none that our units can say."""
    if not isinstance(currency, str) or currency not in EXPONENTS:
        return None
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        return None
    minor = Decimal(value).scaleb(EXPONENTS[currency])
    if minor != int(minor) or minor > AMOUNT_MINOR_MAX:
        return None
    return int(minor), currency
