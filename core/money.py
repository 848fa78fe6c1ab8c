"""Money: integer minor units, and the one table that says what a minor unit is.

Room: core. Nothing here rounds: an amount that its currency cannot hold is refused.
Provider quirks (Stripe's two-decimal ISK, PayPal's undivided HUF) live in the provider's own file.
"""

import re
from decimal import Decimal

from payment_service.core.errors import Refused, invalid_field

AMOUNT_MINOR_MAX = 999_999_999_999
"""The largest amount of one payment, in minor units (contract §1). Also keeps every amount exact as a JSON number."""

AMOUNT_TEXT_MAX = 32
"""Longest decimal string that is looked at, so that nobody feeds us a number of a million digits."""

# ISO 4217 active codes by number of decimals; a test compares this with the `iso4217` library's list.
_CODES_BY_EXPONENT = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF "
    "CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG "
    "HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR "
    "MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD "
    "SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD "
    "XCG YER ZAR ZMW ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
EXPONENTS: dict[str, int] = {code: exponent for exponent, codes in _CODES_BY_EXPONENT.items() for code in codes.split()}
_DECIMAL_TEXT = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_FACTORS = {code: 10**exponent for code, exponent in EXPONENTS.items()}


def currency_code(text: object) -> str:
    """The ISO 4217 code in upper case. Raises Refused (422) for anything else."""
    if isinstance(text, str) and text.isascii():  # "uſd".upper() is "USD"
        code = text.upper()
        if code in EXPONENTS:
            return code
    raise invalid_field("currency", "is not an ISO 4217 currency code")


def to_minor(amount: object, currency: str, field: str = "amount") -> int:
    """Minor units of a JSON number or decimal string in major units.

    Raises Refused (422) when it is no number, not above zero, above the maximum, or has more decimals
    than `currency` has.
    """
    factor = _FACTORS[currency]
    if type(amount) is float:
        # A double with at most 15 significant digits stands for exactly one decimal: if scaling and scaling
        # back gives the same double, that decimal is the one with this many places. Cheaper than Decimal.
        if 0 < amount * factor <= AMOUNT_MINOR_MAX:
            minor = round(amount * factor)
            if minor / factor == amount:
                return _in_range(minor, field)
        amount = repr(amount)
    if type(amount) is int:
        # Compared before it is multiplied: a JSON integer may have thousands of digits.
        if not 0 < amount <= AMOUNT_MINOR_MAX:
            raise invalid_field(field, f"must be above 0 and at most {AMOUNT_MINOR_MAX} minor units")
        return _in_range(amount * factor, field)
    match = _DECIMAL_TEXT.fullmatch(amount) if isinstance(amount, str) and len(amount) <= AMOUNT_TEXT_MAX else None
    if match is None:
        raise invalid_field(field, "must be a number or a decimal string, such as 99.99")
    whole, fraction = match.group(1), (match.group(2) or "").rstrip("0")
    if len(fraction) > EXPONENTS[currency]:
        raise invalid_field(field, f"has more decimals than {currency} has")
    return _in_range(int(whole + fraction.ljust(EXPONENTS[currency], "0")), field)


def _in_range(minor: int, field: str) -> int:
    if not 0 < minor <= AMOUNT_MINOR_MAX:
        raise invalid_field(field, f"must be above 0 and at most {AMOUNT_MINOR_MAX} minor units")
    return minor


def to_major(minor: int, currency: str) -> int | float:
    """The JSON number in major units. Exact: at most 12 digits, and a double keeps 15."""
    factor = _FACTORS[currency]
    return minor if factor == 1 else minor / factor


def to_decimal_text(minor: int, currency: str, exponent: int | None = None) -> str:
    """The decimal string that providers take, e.g. "10.00". `exponent` is a provider's own number of decimals.

    Raises Refused (422) when the provider's decimals cannot hold the amount.
    """
    iso = EXPONENTS[currency]
    places = iso if exponent is None else exponent
    scaled = Decimal(minor).scaleb(-iso)
    quantized = scaled.quantize(Decimal(1).scaleb(-places))
    if quantized != scaled:
        raise Refused(f"{currency} has {places} decimals at this provider", code="VALIDATION_ERROR")
    return f"{quantized:f}"
