"""A changed record is what `dataclasses.replace` would make of it."""

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from rigs.changes import change_of, create

from payment_service.core.payment import Attempt, Payment
from payment_service.core.records import replace as replaced


@pytest.fixture
def payment() -> Payment:
    after = change_of(create("o1", charge=True)).steps[-1].after
    assert after.attempts
    return after


def test_each_field_can_be_changed_and_the_others_stay(payment: Payment) -> None:
    records: tuple[Payment | Attempt, ...] = (payment, payment.attempts[0])
    for record in records:
        assert replaced(record) == record
        for field in fields(record):
            changes: dict[str, Any] = {field.name: f"another {field.name}"}
            changed = replaced(record, **changes)
            assert changed == replace(record, **changes) != record
            assert type(changed) is type(record)


def test_several_at_once(payment: Payment) -> None:
    assert replaced(payment, version=7, told=None, review=("A",)) == replace(
        payment, version=7, told=None, review=("A",)
    )


def test_a_field_that_is_none_is_refused(payment: Payment) -> None:
    with pytest.raises(KeyError):
        replaced(payment, captrued=1)  # type: ignore[call-arg]


def test_a_record_that_is_not_made_by_position_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Named:
        first: int
        second: int

    with pytest.raises(AssertionError):
        replaced(Named(first=1, second=2), first=3)
