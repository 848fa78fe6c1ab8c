"""Card data never enters: finding a card number or a security code in what somebody sent us.

Room: core. Pure. PCI DSS 4.0.1 (3.3.1, 3.5.1): neither is stored, logged or echoed; a request that carries one is
refused (422). Ids are never looked at: an order number may be any run of digits.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

DIGITS_MIN, DIGITS_MAX = 13, 19
"""Lengths of primary account numbers in use (ISO/IEC 7812 allows 10 to 19)."""
DEPTH_MAX = 32
"""Levels of nesting that are looked through; readers of bodies refuse deeper ones."""

NOT_CARD_DATA = frozenset(
    {
        "orderId", "orderNumber", "userId", "paymentId", "paymentMethodId", "paymentIntentId", "provider", "token",
        "providerToken", "amount", "currency", "returnUrl",
    }
)  # fmt: skip
"""Fields at the top of a body that name things, and the amount."""

_GROUPS = re.compile(r"[0-9]+(?:[ \-][0-9]+)*")
"""Digits as people group them. A card number begins and ends with a group: a longer group is none."""
_ISSUERS = re.compile(
    r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|3(?:0[0-5]|[689])|35(?:2[89]|[3-8])|6(?:011|4[4-9]|5|2)"
    r"|50|5[6-9]|6[0-9]"
)
"""First digits of Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay and Maestro."""
_LENGTHS: Mapping[str, range] = {"34": range(15, 16), "37": range(15, 16), "5": range(13, 20), "2": range(16, 17)}
_CODE_NAMES = frozenset(
    {
        "cvc", "cvv", "cvc2", "cvv2", "csc", "cid", "cvn", "cardcvc", "cardcvv", "cvccode", "cvvcode", "cardcode",
        "securitycode", "cardsecuritycode", "verificationvalue", "cardverificationvalue", "cardnumber", "pan",
        "primaryaccountnumber", "track1", "track2", "trackdata", "magstripe", "pinblock",
    }
)  # fmt: skip
_TOKENS = re.compile(r"(?<![A-Za-z0-9])(?:tok|pm|src|card|btok|seti|pi)_[A-Za-z0-9_]{3,}")
_OUR_IDS = re.compile(r"pay_[0-9a-f]{32}|pmt_[0-9a-f]{24}")
_DIGITS = re.compile(r"[0-9]+")
_SEPARATORS = re.compile(r"[^a-z0-9]")


def has_card_number(text: str) -> bool:
    """Whether there is a card number in a text: issuer, length and check digit (ISO/IEC 7812-1, annex B) all fit."""
    return next(_card_numbers(text), None) is not None


def hide_card_numbers(text: str) -> str:
    """The same text with every card number replaced: for logs, where a text cannot be refused."""
    for start, end in reversed(list(_card_numbers(text))):
        text = f"{text[:start]}[card number]{text[end:]}"
    return text


def without_card_data(text: str) -> str:
    """The same without card numbers and without providers' own names of a card, which may be chargeable."""
    return _TOKENS.sub("[token]", hide_card_numbers(text))


def without_card_data_in_path(path: str) -> str:
    """A path as somebody wrote it, or an id out of it. Our own ids stay: by chance one in a thousand has a run of
    digits that could be a card number."""
    return "/".join(part if _OUR_IDS.fullmatch(part) else without_card_data(part) for part in path.split("/"))


def _card_numbers(text: str) -> Iterator[tuple[int, int]]:
    """Where card numbers begin and end, none within another."""
    for found in _GROUPS.finditer(text):
        groups = [(g.start() + found.start(), g.end() + found.start()) for g in _DIGITS.finditer(found.group())]
        first = 0
        while first < len(groups):
            last = _last_group(text, groups, first)
            if last is not None:
                yield groups[first][0], groups[last][1]
                first = last
            first += 1


def _last_group(text: str, groups: list[tuple[int, int]], first: int) -> int | None:
    digits = ""
    for at in range(first, len(groups)):
        digits += text[slice(*groups[at])]
        if len(digits) > DIGITS_MAX:
            return None
        if _is_card_number(digits):
            return at
    return None


def names_card_data(name: str) -> bool:
    """Whether a field of this name holds a security code, a card number or a magnetic stripe, whatever is in it."""
    return _SEPARATORS.sub("", name.lower()) in _CODE_NAMES


def card_data_in(fields: Mapping[str, Any]) -> str | None:
    """The top-level field of a body that carries card data, or None. The value is never in the answer."""
    for name, value in fields.items():
        if names_card_data(name):
            return name
        if name not in NOT_CARD_DATA and any(_is_card_data(*one) for one in _leaves(name, value, 0)):
            return name
    return None


def _is_card_data(name: str, value: object) -> bool:
    if names_card_data(name) or has_card_number(name):
        return True
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        return value.is_integer() and has_card_number(str(int(value)))
    return isinstance(value, int | str) and has_card_number(str(value))


def _leaves(name: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    """Every (name, value) below; a list's members have its name."""
    yield name, None if isinstance(value, dict | list) else value
    if depth >= DEPTH_MAX:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(str(key), inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(name, inner, depth + 1)


def _is_card_number(digits: str) -> bool:
    if not DIGITS_MIN <= len(digits) <= DIGITS_MAX or not _ISSUERS.match(digits):
        return False
    lengths = _LENGTHS.get(digits[:2]) or _LENGTHS.get(digits[0])
    return (lengths is None or len(digits) in lengths) and _luhn(digits)


def _luhn(digits: str) -> bool:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + position % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
