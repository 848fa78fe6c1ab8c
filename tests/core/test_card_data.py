import pytest

from payment_service.core.card_data import (
    card_data_in,
    has_card_number,
    hide_card_numbers,
    names_card_data,
    without_card_data,
    without_card_data_in_path,
)

# Numbers that the card schemes and Stripe publish for tests.
NUMBERS = [
    "4242424242424242", "4000056655665556", "5555555555554444", "2223003122003222", "5200828282828210",
    "378282246310005", "371449635398431", "6011111111111117", "3056930009020004", "36227206271667",
    "3566002020360505", "6200000000000005", "4222222222222", "6304000000000000",
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
def test_card_numbers_are_found_however_they_are_grouped(number: str) -> None:
    grouped = " ".join(number[at : at + 4] for at in range(0, len(number), 4))
    for text in (
        number,
        grouped,
        f"7 {grouped} 12",
        grouped.replace(" ", "-"),
        f"card {number}, thanks",
        f"x{number}y",
    ):
        assert has_card_number(text), text
        assert number not in hide_card_numbers(text).replace(" ", "").replace("-", "")


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424241",  # the check digit
        "1234567890123452",  # no issuer begins like this
        "42424242424242424242424242424242",  # too long to be one
        "order 20261125-000123",
        "+49 170 1234567",
        "424242424242",
        "4242/4242/4242/4242",
        "",
    ],
)
def test_other_digits_are_left_alone(text: str) -> None:
    assert not has_card_number(text)
    assert hide_card_numbers(text) == text


@pytest.mark.parametrize("name", ["cvc", "CVV2", "card_cvc", "card-number", "securityCode", "track1", "PAN"])
def test_fields_that_hold_card_data_are_known_by_name(name: str) -> None:
    assert names_card_data(name)


@pytest.mark.parametrize("name", ["recipient", "panel", "civic", "cardType", "brand", "last4"])
def test_other_names_are_not(name: str) -> None:
    assert not names_card_data(name)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"description": "pay with 4242 4242 4242 4242"}, "description"),
        ({"metadata": {"note": {"deep": ["a", 4242424242424242]}}}, "metadata"),
        ({"metadata": {"4242424242424242": "x"}}, "metadata"),
        ({"metadata": {"cvc": "1"}}, "metadata"),
        ({"cvc": "123"}, "cvc"),
        ({"metadata": {"n": 4242424242424242.0}}, "metadata"),
        ({"orderId": "4242424242424242", "paymentMethodId": "4242424242424242"}, None),
        ({"amount": 4242424242424242, "metadata": {"ok": True, "n": None, "x": 1.5}}, None),
    ],
)
def test_bodies(fields: dict[str, object], found: str | None) -> None:
    assert card_data_in(fields) == found


@pytest.mark.parametrize("around", ["{}", "a{}b", '"{}"', "card {}, please", "\\xff{}\\x00"])
def test_numbers_are_hidden_whatever_is_around_them(around: str) -> None:
    assert without_card_data(around.format("4242 4242 4242 4242")) == around.format("[card number]")


@pytest.mark.parametrize("token", ["tok_visa", "pm_1Abc_9", "seti_123", "src_abc"])
def test_a_providers_token_is_hidden(token: str) -> None:
    assert without_card_data(f'{{"m":"{token}"}}') == '{"m":"[token]"}'


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/api/v1/payments/4242 4242 4242 4242/process", "/api/v1/payments/[card number]/process"),
        ("/api/v1/payments/tok_visa", "/api/v1/payments/[token]"),
        ("/api/v1/payments/pay_4242424242424242", "/api/v1/payments/pay_[card number]"),
        ("pay_" + "4242424242424242" * 2, "pay_" + "4242424242424242" * 2),
        ("pmt_4242424242424242abcdef01", "pmt_4242424242424242abcdef01"),
    ],
)
def test_in_a_path_our_own_ids_stay(path: str, shown: str) -> None:
    assert without_card_data_in_path(path) == shown
