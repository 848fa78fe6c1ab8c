"""What the old service's rows become: one line, one payment. All are of 100.00 USD and known to Stripe as pi_1.

`calls` and `refunds`: word and amount. Behind `=`: our status, captured/refunded/refund pending, why a person looks.
"""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from payment_service.codecs.events import decode_event, encode_event
from payment_service.core.commands import RecordAnswer, StartCharge
from payment_service.core.decide import decide
from payment_service.core.errors import Refused
from payment_service.core.facts import apply
from payment_service.core.legacy import LegacyCall, LegacyPayment, LegacyRefund, chosen, event_of, minor_of
from payment_service.core.payment import Payment, status_of
from payment_service.core.payment_method import is_saved, own_method_id
from payment_service.core.terms import AttemptState, Kind, Source, Verdict

NOW_MS = 1_764_000_000_000
DAY_MS = 86_400_000
OLD_MS = NOW_MS - 100 * DAY_MS
ID = "cjld2cjxh0000qzrmn831i7rn"

TABLE = """
PENDING without id |                              |                              = PENDING            0/0/0
PENDING            |                              |                              = REQUIRES_ACTION    0/0/0
PENDING            | charge pending 100           |                              = REQUIRES_ACTION    0/0/0
pending            | charge succeeded 100         |                              = SUCCEEDED          10000/0/0 LEGACY_PENDING_BUT_CHARGED
PROCESSING         | CHARGE PENDING 100           |                              = UNKNOWN            0/0/0
PROCESSING         |                              |                              = UNKNOWN            0/0/0
PROCESSING without id |                           |                              = UNKNOWN            0/0/0 LEGACY_WITHOUT_PROVIDER_ID
SUCCEEDED          | CHARGE SUCCEEDED 100         |                              = SUCCEEDED          10000/0/0
succeeded          |                              |                              = SUCCEEDED          10000/0/0
SUCCEEDED          | CHARGE PENDING 100           |                              = SUCCEEDED          10000/0/0
SUCCEEDED          | CHARGE FAILED 100            |                              = SUCCEEDED          10000/0/0 LEGACY_PAID_WITHOUT_CHARGE
SUCCEEDED          | CHARGE FAILED 100, CHARGE SUCCEEDED 100 |                   = SUCCEEDED          10000/0/0
SUCCEEDED          | CHARGE SUCCEEDED 100, CHARGE SUCCEEDED 100 |                = SUCCEEDED          20000/0/0 LEGACY_CHARGED_TWICE
SUCCEEDED          | CHARGE SUCCEEDED 90          |                              = SUCCEEDED          9000/0/0 LEGACY_CHARGED_OTHER_AMOUNT
SUCCEEDED          | CHARGE SUCCEEDED 100         | COMPLETED 30, COMPLETED 20   = PARTIALLY_REFUNDED 10000/5000/0
SUCCEEDED          | CHARGE SUCCEEDED 100         | COMPLETED 100                = REFUNDED           10000/10000/0 LEGACY_FULLY_REFUNDED
SUCCEEDED          | CHARGE SUCCEEDED 100         | COMPLETED 60, COMPLETED 60   = REFUNDED           10000/12000/0 LEGACY_REFUNDED_MORE
SUCCEEDED          | CHARGE SUCCEEDED 100         | FAILED 30                    = SUCCEEDED          10000/0/0
SUCCEEDED          | CHARGE SUCCEEDED 100         | PROCESSING 30                = SUCCEEDED          10000/0/3000 LEGACY_REFUND_OPEN
SUCCEEDED          | CHARGE SUCCEEDED 100, REFUND SUCCEEDED 30 |                 = SUCCEEDED          10000/0/0 LEGACY_REFUND_ROWS_DIFFER
SUCCEEDED          | CHARGE SUCCEEDED 100, REFUND SUCCEEDED 30 | completed 30    = PARTIALLY_REFUNDED 10000/3000/0
REFUNDED           | CHARGE SUCCEEDED 100         | COMPLETED 100                = REFUNDED           10000/10000/0
REFUNDED           | CHARGE SUCCEEDED 100         | COMPLETED 40                 = PARTIALLY_REFUNDED 10000/4000/0 LEGACY_REFUNDED_OTHER_AMOUNT
REFUNDED           |                              |                              = REFUNDED           10000/10000/0 LEGACY_REFUNDED_WITHOUT_ROWS
FAILED             | CHARGE FAILED 100            |                              = FAILED             0/0/0
FAILED             |                              |                              = FAILED             0/0/0
FAILED             | CHARGE PENDING 100           |                              = FAILED             0/0/0
FAILED young       | CHARGE FAILED 100            |                              = UNKNOWN            0/0/0
FAILED young without id | CHARGE FAILED 100       |                              = FAILED             0/0/0
FAILED             | CHARGE SUCCEEDED 100         |                              = SUCCEEDED          10000/0/0 LEGACY_FAILED_BUT_CHARGED
CANCELLED          |                              |                              = CANCELLED          0/0/0
CANCELLED          | CHARGE FAILED 100            |                              = CANCELLED          0/0/0
CANCELLED          | CHARGE FAILED 100, VOID SUCCEEDED 100 |                     = CANCELLED          0/0/0
CANCELLED          | VOID PENDING 100             |                              = CANCELLED          0/0/0 LEGACY_VOID_OPEN
CANCELLED young    | CHARGE PENDING 100           |                              = UNKNOWN            0/0/0
CANCELLED          | CHARGE SUCCEEDED 100         |                              = SUCCEEDED          10000/0/0 LEGACY_CANCELLED_BUT_CHARGED
"""  # noqa: E501 a table


def parts(text: str) -> list[list[str]]:
    return [part.split() for part in text.split(",") if part.strip()]


def a_row(status: str, calls: str = "", refunds: str = "", **more: Any) -> LegacyPayment:
    words = status.split()
    at_ms = NOW_MS - DAY_MS if "young" in words else OLD_MS
    fields: dict[str, Any] = {
        "legacy_id": ID, "order_id": "order-1", "user_id": "u1", "method_id": None, "status": words[0],
        "provider": "stripe", "provider_payment_id": None if "without" in words else "pi_1",
        "amount": Decimal("100.00"), "currency": "usd", "description": None, "metadata": {}, "created_at_ms": at_ms,
        "updated_at_ms": at_ms,
        "calls": [LegacyCall(kind, state, Decimal(amount), "USD", None, at_ms) for kind, state, amount in parts(calls)],
        "refunds": [
            LegacyRefund(f"r{n}", state, Decimal(amount), "USD", None, "re_1", at_ms, at_ms)
            for n, (state, amount) in enumerate(parts(refunds))
        ],
    }  # fmt: skip
    return LegacyPayment(**fields | more)


def payment_of(row: LegacyPayment, payment_id: str = "pay_1") -> Payment:
    event = event_of(row, NOW_MS, "operator:ann", NOW_MS - 7 * DAY_MS)
    stored = decode_event("PaymentImported", encode_event(event))
    assert stored == event, "what was stored is what was decided"
    payment, topic = apply(None, stored, payment_id)
    assert (topic, payment.sequence, payment.version) == (None, 0, 1), "nothing is published"
    return payment


@pytest.mark.parametrize("line", TABLE.strip().splitlines())
def test_rows_become_payments(line: str) -> None:
    given, _, expected = line.partition(" = ")
    status, calls, refunds = given.split("|")
    payment = payment_of(a_row(status, calls, refunds))
    said = [str(status_of(payment)), f"{payment.captured}/{payment.refunded}/{payment.refund_pending}"]
    assert [*said, *payment.review] == expected.split()
    assert len([it for it in payment.attempts if it.state in (AttemptState.UNKNOWN, AttemptState.ACTION)]) <= 1
    assert payment.told is status_of(payment), "the old service has told it"


def test_what_may_have_happened_excludes_a_second_attempt() -> None:
    payment = payment_of(a_row("PROCESSING", "CHARGE PENDING 100"))
    assert decide(payment, StartCharge("pay_1", "", NOW_MS, "user:u1", has_method=True)) == []
    said = RecordAnswer("pay_1", "", NOW_MS, Kind.CHARGE, 1, Verdict.APPROVED, Source.LOOKUP, "ch_1", 10_000, "USD")
    for event in decide(payment, said):
        payment, topic = apply(payment, event)
    assert (status_of(payment), payment.sequence, topic) == ("SUCCEEDED", 1, "payment.processed")


def test_what_failed_may_be_tried_again() -> None:
    payment = payment_of(a_row("FAILED", "CHARGE FAILED 100"))
    (started,) = decide(payment, StartCharge("pay_1", "", NOW_MS, "user:u1", has_method=True))
    assert (started.number, started.object_id) == (2, None)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [("100.00", "JPY", 100), ("10.25", "KWD", 10_250), ("0.01", "USD", 1), ("1000000.00", "USD", 100_000_000)],
)
def test_amounts_had_two_decimals_whatever_the_currency(amount: str, currency: str, minor: int) -> None:
    assert minor_of(Decimal(amount), currency) == minor


@pytest.mark.parametrize(
    "more",
    [
        {"amount": Decimal("99.50"), "currency": "JPY"}, {"amount": Decimal("0.00")}, {"currency": "ZZZ"},
        {"provider": "ADYEN"}, {"status": "LOST"}, {"order_id": ""},
        {"calls": [LegacyCall("TRANSFER", "SUCCEEDED", Decimal(1), "USD", None, 1)]},
        {"refunds": [LegacyRefund("r", "LOST", Decimal(1), "USD", None, None, 1, 1)]},
    ],
)  # fmt: skip
def test_what_cannot_be_a_payment_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        event_of(replace(a_row("SUCCEEDED"), **more), NOW_MS, "operator:ann", 0)


def test_another_currency_in_a_call_is_seen() -> None:
    calls = [LegacyCall("CHARGE", "SUCCEEDED", Decimal("100.00"), "EUR", "ch_1", OLD_MS)]
    assert payment_of(replace(a_row("SUCCEEDED"), calls=calls)).review == ("LEGACY_CURRENCY_DIFFERS",)


def events(*rows: tuple[str, str, str, int]) -> list[Any]:
    return [
        event_of(a_row(status, calls, legacy_id=name, created_at_ms=OLD_MS + day * DAY_MS), NOW_MS, "o", 0)
        for name, status, calls, day in rows
    ]


def test_of_several_payments_of_an_order_the_one_that_took_money_is_its_payment() -> None:
    paid, tried, later = ("a", "SUCCEEDED", "", 1), ("b", "FAILED", "CHARGE FAILED 100", 2), ("c", "PENDING", "", 3)
    first, others = chosen(events(tried, paid, later))
    assert (first.legacy_id, [it.legacy_id for it in others]) == ("a", ["b", "c"])
    assert list(first.review) == ["LEGACY_OTHER_OPEN:b", "LEGACY_OTHER_OPEN:c"], "young enough to be asked, and open"
    first, _ = chosen(events(("b", "FAILED", "", 2), ("d", "CANCELLED", "", 1)))
    assert first.legacy_id == "b"
    first, _ = chosen(events(paid, ("e", "SUCCEEDED", "CHARGE SUCCEEDED 100", 5)))
    assert (first.legacy_id, list(first.review)) == ("e", ["LEGACY_OTHER_PAID:a"])


def test_methods_are_known_by_their_old_ids() -> None:
    own = own_method_id(ID)
    assert own is not None
    assert own.startswith("pmt_")
    assert own_method_id(own) == own
    assert is_saved(ID)
    for token in ("tok_visa", "pm_1NirD82eZvKYlo2CjQk0xRSl", "card_1", None, "c" * 24):
        assert not is_saved(token)
        assert own_method_id(token) == token
