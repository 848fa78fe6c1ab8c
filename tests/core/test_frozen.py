"""Values are compared and hashed by what they hold, as Python's own frozen dataclasses are."""

from dataclasses import field, replace

import pytest

from payment_service.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Value:
    name: str
    secret: str = field(default="", repr=False)


@dataclass(slots=True)
class Changing:
    name: str


def test_equal_values_are_one_key() -> None:
    assert {Value("a", "s"), Value("a", "s"), replace(Value("a"), secret="s")} == {Value("a", "s")}
    assert Value("a") != Value("b") and "hidden" not in repr(Value("a", "hidden"))


def test_what_changes_is_no_key_and_nothing_takes_a_field_it_has_not() -> None:
    with pytest.raises(TypeError):
        hash(Changing("a"))
    with pytest.raises(AttributeError):
        Value("a").other = 1  # type: ignore[attr-defined]
