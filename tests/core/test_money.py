"""Money: the table against the standard's own list, exact there and back, and refused rather than rounded."""

from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from payment_service.core.errors import Refused
from payment_service.core.money import (
    AMOUNT_MINOR_MAX,
    AMOUNT_TEXT_MAX,
    EXPONENTS,
    currency_code,
    to_decimal_text,
    to_major,
    to_minor,
)

CURRENCIES = st.sampled_from(sorted(EXPONENTS))
AMOUNTS = st.integers(1, AMOUNT_MINOR_MAX) | st.integers(1, 10_000)


def test_exponents_are_those_of_iso_4217() -> None:
    """Gold, test codes and the like have no minor unit and cannot be paid with."""
    assert {c.code: c.exponent for c in Currency if c.exponent is not None} == EXPONENTS


@given(AMOUNTS, CURRENCIES)
def test_there_and_back(minor: int, currency: str) -> None:
    major = to_major(minor, currency)
    assert to_minor(major, currency) == minor
    assert to_minor(orjson.loads(orjson.dumps(major)), currency) == minor
    assert to_minor(to_decimal_text(minor, currency), currency) == minor
    assert Decimal(repr(major)).scaleb(EXPONENTS[currency]) == minor


@given(st.floats() | st.decimals(allow_nan=False, places=5, min_value=0, max_value=10**6).map(float), CURRENCIES)
def test_a_number_is_taken_exactly_or_refused(amount: float, currency: str) -> None:
    try:
        minor = to_minor(amount, currency)
    except Refused as refused:
        minor = None
        code = refused.code
    if minor is None:
        assert code == "VALIDATION_ERROR"
        exact = Decimal(amount) if amount == amount and abs(amount) != float("inf") else Decimal(0)
        scaled = Decimal(repr(amount)).scaleb(EXPONENTS[currency]) if exact else exact
        assert scaled <= 0 or scaled > AMOUNT_MINOR_MAX or scaled != scaled.to_integral_value()
    else:
        assert 0 < minor <= AMOUNT_MINOR_MAX
        assert Decimal(repr(amount)).scaleb(EXPONENTS[currency]) == minor


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        (99.99, "USD", 9999), ("99.99", "USD", 9999), (100, "USD", 10000), (100.0, "USD", 10000),
        ("100.00", "USD", 10000), ("1.10", "USD", 110), ("0.01", "USD", 1), (0.07, "USD", 7), (1.005, "KWD", 1005),
        (5000, "JPY", 5000), (5000.0, "JPY", 5000), ("5000.000", "JPY", 5000), (19.999, "BHD", 19999),
        ("0.0001", "CLF", 1), (9999999999.99, "USD", AMOUNT_MINOR_MAX), ("999999999999", "JPY", AMOUNT_MINOR_MAX),
        ("007", "JPY", 7), ("1.50000000", "USD", 150),
    ],
)  # fmt: skip
def test_amounts_that_are_taken(amount: object, currency: str, minor: int) -> None:
    assert to_minor(amount, currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        (0, "USD"), (0.0, "USD"), (-0.0, "USD"), ("0", "USD"), ("0.00", "USD"), (-1, "USD"), (-0.01, "USD"),
        ("-1", "USD"), ("+1", "USD"), (1.001, "USD"), ("1.001", "USD"), (0.5, "JPY"), ("0.5", "JPY"),
        (0.1 + 0.2, "USD"), (10_000_000_000.0, "USD"), (10_000_000_000, "USD"), ("10000000000", "USD"),
        (10**5000, "USD"), (1e300, "USD"), (float("inf"), "USD"), (float("nan"), "USD"), (5e-324, "USD"),
        (True, "USD"), (None, "USD"), ([], "USD"), ({}, "USD"), (Decimal(1), "USD"), (b"1", "USD"),
        ("", "USD"), (" 1", "USD"), ("1 ", "USD"), ("1\n", "USD"), ("1.", "USD"), (".5", "USD"), ("1,00", "USD"),
        ("1_000", "USD"), ("1e3", "USD"), ("0x10", "USD"), ("NaN", "USD"), ("١", "USD"), ("１", "USD"),
        ("1" * (AMOUNT_TEXT_MAX + 1), "USD"), ("0." + "0" * 10_000 + "1", "USD"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_amounts_that_are_refused(amount: object, currency: str) -> None:
    with pytest.raises(Refused) as caught:
        to_minor(amount, currency)
    assert caught.value.code == "VALIDATION_ERROR"
    assert list(caught.value.fields or {}) == ["amount"]
    assert len(str(caught.value)) < 200


def test_the_field_that_was_wrong_is_named() -> None:
    with pytest.raises(Refused) as caught:
        to_minor("x", "USD", field="totalAmount")
    assert list(caught.value.fields or {}) == ["totalAmount"]


@pytest.mark.parametrize(("text", "code"), [("USD", "USD"), ("usd", "USD"), ("Kwd", "KWD")])
def test_currency_codes(text: str, code: str) -> None:
    assert currency_code(text) == code


@pytest.mark.parametrize("text", ["", "US", "USDX", "XAU", "XXX", "ABC", "ＵＳＤ", "uſd", None, 840, ["USD"]])
def test_what_is_no_currency_is_refused(text: object) -> None:
    with pytest.raises(Refused) as caught:
        currency_code(text)
    assert list(caught.value.fields or {}) == ["currency"]


@pytest.mark.parametrize(
    ("minor", "currency", "exponent", "text"),
    [
        (1000, "USD", None, "10.00"), (1, "USD", None, "0.01"), (1000, "JPY", None, "1000"), (1, "KWD", None, "0.001"),
        (1000, "ISK", 2, "1000.00"), (50_000, "HUF", 0, "500"), (AMOUNT_MINOR_MAX, "USD", None, "9999999999.99"),
    ],
)  # fmt: skip
def test_decimal_text_for_providers(minor: int, currency: str, exponent: int | None, text: str) -> None:
    assert to_decimal_text(minor, currency, exponent) == text


def test_a_provider_that_cannot_hold_the_amount_is_not_sent_a_rounded_one() -> None:
    with pytest.raises(Refused):
        to_decimal_text(50_050, "HUF", 0)
