"""An object that a caller named, whose money is less than the payment costs: whoever says so, it pays nothing."""

import pytest
from rigs.histories import given, outcome

from payment_service.core.payment import status_of
from payment_service.core.ports import Answer
from payment_service.core.terms import Kind, Status, Verdict
from payment_service.core.webhook_news import Reading, Step, step_of
from payment_service.core.webhooks import AttemptNews, Notice

NAMED = "created, process object=pi_theirs"
UNKNOWN = "AttemptUnknown(#1)>unknown, ReviewFlagged({}) = UNKNOWN"


@pytest.mark.parametrize("source", ["live", "lookup", "webhook"])
@pytest.mark.parametrize(
    ("said", "reason"),
    [("amount=1 currency=EUR", "AMOUNT_DIFFERS"), ("amount=3000 currency=JPY", "CURRENCY_DIFFERS")],
)
def test_it_is_for_a_person_before_anything_else_is_taken(source: str, said: str, reason: str) -> None:
    assert outcome(NAMED, f"approved {said} by={source}") == UNKNOWN.format(reason)
    assert outcome(f"{NAMED}, approved {said}", "charge") == "nothing"
    assert outcome(f"{NAMED}, approved {said}", f"approved {said} by={source}") == "nothing"


def test_a_hold_is_no_other_thing() -> None:
    assert outcome("created manual, process object=pi_theirs", "approved amount=1") == UNKNOWN.format("AMOUNT_DIFFERS")


def test_paid_after_it_was_refused_it_pays_nothing_either() -> None:
    refused = f"{NAMED}, declined gone"
    assert outcome(refused, "approved amount=1 by=webhook") == "ReviewFlagged(AMOUNT_DIFFERS)"
    assert "AttemptApproved(#1 3000)" in outcome(refused, "approved amount=3000 by=webhook"), "what it costs is money"


@pytest.mark.parametrize("source", ["webhook", "lookup"])
def test_an_object_of_ours_that_the_page_has_changed_and_taken_pays_nothing_either(source: str) -> None:
    """PayPal's script can: `actions.order.patch`, then `actions.order.capture`."""
    sent, waits = "created, charge, object pi_1", "created, process, object pi_1, action"
    assert outcome(sent, f"approved amount=1 by={source}") == UNKNOWN.format("AMOUNT_DIFFERS")
    assert outcome(waits, f"approved amount=1 by={source}") == "ReviewFlagged(AMOUNT_DIFFERS)"
    assert outcome(waits, f"approved amount=3000 currency=JPY by={source}") == "ReviewFlagged(CURRENCY_DIFFERS)"


def test_what_is_ours_or_enough_or_a_persons_word_counts() -> None:
    assert status_of(given("created, charge, object pi_1, approved amount=1")) is Status.SUCCEEDED
    assert status_of(given(f"{NAMED}, approved amount=3001")) is Status.SUCCEEDED
    assert status_of(given(f"{NAMED}, approved amount=1, by-hand approved")) is Status.SUCCEEDED
    assert status_of(given(f"{NAMED}, approved amount=1, by-hand declined")) is Status.FAILED


@pytest.mark.parametrize("answered", ["", ", declined gone", ", approved amount=1"])
def test_nor_is_it_a_hold_that_was_captured_in_the_dashboard(answered: str) -> None:
    """Taken at once, where a hold was asked for: that looks like a hold and its capture."""
    payment = given(f"created manual, process object=pi_theirs{answered}")
    taken = AttemptNews(Kind.CHARGE, Answer(Verdict.APPROVED, "cap_1", "pi_theirs", 1, "EUR"))
    notice = Notice("mock", "evt_1", "t", 1, payment.payment_id, "pi_theirs", "cap_1", (taken,))
    assert step_of(payment, 1, notice, taken, Reading(2, "c", asked=True)) == Step(fail="MOVED_OUTSIDE")


def test_a_hold_that_was_named_and_is_this_payments_is_captured_there_as_any() -> None:
    payment = given("created manual, process object=pi_front, approved amount=3000")
    taken = AttemptNews(Kind.CAPTURE, Answer(Verdict.APPROVED, "cap_1", "pi_front", 3000, "EUR"))
    notice = Notice("mock", "evt_1", "t", 1, payment.payment_id, "pi_front", "cap_1", (taken,))
    assert step_of(payment, 1, notice, taken, Reading(2, "c", asked=True)).command is not None
