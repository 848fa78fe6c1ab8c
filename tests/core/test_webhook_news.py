"""What news of a provider means for a payment: which command follows, or why none does yet."""

from dataclasses import replace
from typing import Any

import pytest

from payment_service.core import commands as c
from payment_service.core.decide import decide
from payment_service.core.facts import apply
from payment_service.core.payment import Payment, status_of
from payment_service.core.ports import Answer, NextAction
from payment_service.core.terms import CaptureMethod, DisputeState, Kind, Source, Status, Verdict
from payment_service.core.webhook_news import IN_FLIGHT_MS, Reading, Step, object_number_of, step_of
from payment_service.core.webhooks import (
    Approved,
    AttemptNews,
    AuthorizationEnded,
    DisputeNews,
    News,
    Notice,
    RefundNews,
)

NOW = 1_000_000
ASKED = Reading(NOW + 2 * IN_FLIGHT_MS, "cmd", asked=True)
HEARD = replace(ASKED, asked=False)
TIRED = replace(ASKED, patient=False)
PENDING = Answer(Verdict.PENDING, next_action=NextAction("redirect"))


def after(*commands: Any, payment: Payment | None = None) -> Payment:
    for command in commands:
        for event in decide(payment, command):
            payment, _ = apply(payment, event, "pay_1")
    assert payment is not None
    return payment


def created(capture: CaptureMethod = CaptureMethod.AUTOMATIC) -> c.CreatePayment:
    return c.CreatePayment("pay_1", "", NOW, "user:u", "o", "u", 9999, "USD", "MOCK", capture_method=capture)


def charge(number: int, object_id: str = "obj_1") -> list[Any]:
    start = c.StartCharge("pay_1", "", NOW, "user:u", has_method=True)
    return [start, c.RecordObject("pay_1", "", NOW, number, object_id)]


def said(number: int, verdict: Verdict, kind: Kind = Kind.CHARGE, provider_id: str | None = "ch_1") -> c.RecordAnswer:
    return c.RecordAnswer("pay_1", "", NOW, kind, number, verdict, Source.LIVE, provider_id, 9999, "USD")


def acting(number: int) -> c.RequireAction:
    return c.RequireAction("pay_1", "", NOW, number, "redirect", NOW + 10_000_000)


OPEN = after(created(), *charge(1))
PAID = after(created(), *charge(1), said(1, Verdict.APPROVED))
ACTION = after(created(), *charge(1), acting(1))
HELD = after(created(CaptureMethod.MANUAL), *charge(1), said(1, Verdict.APPROVED, Kind.AUTHORIZE))
TWICE = after(created(), *charge(1), said(1, Verdict.DECLINED, provider_id="ch_0"), *charge(2))
"""Declined once, and under way again on the same object."""
YES = Answer(Verdict.APPROVED, "ch_1", "obj_1", 9999, "USD")
NO = Answer(Verdict.DECLINED, "ch_1", "obj_1", code="CARD_DECLINED")


def notice(news: News, **more: Any) -> Notice:
    fields: dict[str, Any] = {"payment_id": "pay_1", "object_id": "obj_1", "charge_id": None, **more}
    return Notice("MOCK", "evt_1", "t", NOW, news=(news,), **fields)


def step(payment: Payment, news: News, reading: Reading = HEARD, **more: Any) -> Step:
    it = notice(news, **more)
    return step_of(payment, object_number_of(payment, it), it, news, reading)


def become(payment: Payment, taken: Step) -> Payment:
    assert taken.command is not None, taken
    return after(taken.command, payment=payment)


def test_a_yes_and_a_no_reach_the_one_attempt_of_the_object() -> None:
    assert status_of(become(OPEN, step(OPEN, AttemptNews(Kind.CHARGE, YES)))) is Status.SUCCEEDED
    assert status_of(become(OPEN, step(OPEN, AttemptNews(Kind.CHARGE, NO)))) is Status.FAILED
    assert status_of(become(ACTION, step(ACTION, AttemptNews(Kind.CHARGE, YES)))) is Status.SUCCEEDED


@pytest.mark.parametrize("more", [{"object_id": "obj_of_the_shopper"}, {"object_id": None, "charge_id": "ch_x"}])
def test_who_pays_an_object_of_their_own_pays_nothing_here(more: dict[str, Any]) -> None:
    mine = AttemptNews(Kind.CHARGE, replace(YES, amount_minor=1))
    assert step(ACTION, mine, HEARD, **more).ask == "OBJECT_UNKNOWN"
    assert step(ACTION, mine, ASKED, **more).wait == "OBJECT_UNKNOWN"
    assert step(ACTION, mine, TIRED, **more) == Step(fail="WEBHOOK_OF_UNKNOWN_OBJECT")
    for news in (
        RefundNews(YES),
        DisputeNews("d", DisputeState.OPEN, 1, "USD", None),
        Approved(),
        AuthorizationEnded(),
    ):
        assert step(PAID, news, TIRED, **more).fail == "WEBHOOK_OF_UNKNOWN_OBJECT"


def test_another_account_mode_or_provider_is_never_applied() -> None:
    for reading, field in ((HEARD, "ask"), (ASKED, "fail")):
        assert getattr(step(OPEN, AttemptNews(Kind.CHARGE, YES), reading, review=("LIVEMODE",)), field) == "LIVEMODE"
        foreign = replace(notice(AttemptNews(Kind.CHARGE, YES)), provider="STRIPE")
        taken = step_of(OPEN, 1, foreign, foreign.news[0], reading)
        assert getattr(taken, field) == "WEBHOOK_OF_ANOTHER_PROVIDER"


def test_an_earlier_attempt_s_no_is_not_given_to_the_one_under_way() -> None:
    no = AttemptNews(Kind.CHARGE, replace(NO, provider_id=None))
    assert step(TWICE, no).ask == "WHICH_ATTEMPT"
    assert step(TWICE, no, replace(ASKED, at_ms=NOW + 1)).wait == "IN_FLIGHT"
    numbered = step(TWICE, AttemptNews(Kind.CHARGE, NO, number=1), ASKED)
    assert become(TWICE, numbered) == TWICE
    by_id = step(TWICE, AttemptNews(Kind.CHARGE, replace(NO, provider_id="ch_0")), ASKED)
    assert become(TWICE, by_id) == TWICE
    assert status_of(become(TWICE, step(TWICE, no, ASKED))) is Status.FAILED


def test_a_yes_is_for_the_attempt_that_waits_whatever_number_the_object_carries() -> None:
    paid = become(TWICE, step(TWICE, AttemptNews(Kind.CHARGE, YES, number=1)))
    assert (paid.captured, paid.attempts[1].state, paid.review) == (9999, "APPROVED", ())


def test_what_contradicts_is_asked_for_first_and_then_recorded() -> None:
    no = AttemptNews(Kind.CHARGE, NO)
    assert step(PAID, no).ask == "CONTRADICTS"
    contradicted = become(PAID, step(PAID, no, ASKED))
    assert (status_of(contradicted), contradicted.attempts[0].contradicted_by) == (Status.SUCCEEDED, "DECLINED")
    for other in (replace(YES, amount_minor=1), replace(YES, currency="EUR")):
        assert step(OPEN, AttemptNews(Kind.CHARGE, other)).ask == "CONTRADICTS"
        assert become(OPEN, step(OPEN, AttemptNews(Kind.CHARGE, other), ASKED)).review


def test_timid_news_takes_nothing_away() -> None:
    for verdict in (Verdict.UNKNOWN, Verdict.NOT_SENT):
        news = AttemptNews(Kind.CHARGE, Answer(verdict))
        assert (step(OPEN, news).ask, step(OPEN, news, ASKED)) == ("SAYS_NOTHING", Step())
        assert step(PAID, RefundNews(Answer(verdict, "re")), ASKED) == Step()
    assert step(ACTION, AttemptNews(Kind.CHARGE, Answer(Verdict.PENDING))).ask
    assert step(ACTION, AttemptNews(Kind.CHARGE, PENDING), ASKED) == Step()
    assert become(PAID, step(PAID, AttemptNews(Kind.CHARGE, Answer(Verdict.PENDING)))) == PAID


def test_a_hold_that_was_captured_in_the_dashboard_is_captured_here() -> None:
    captured = AttemptNews(Kind.CAPTURE, replace(YES, provider_id="cap_1", amount_minor=7000))
    assert step(HELD, captured).ask == "MOVED_OUTSIDE"
    paid = become(HELD, step(HELD, captured, ASKED))
    assert (status_of(paid), paid.captured, paid.authorization_open, paid.review) == (Status.SUCCEEDED, 7000, 0, ())
    assert [(a.kind, a.provider_id, a.moved_minor) for a in paid.attempts[1:]] == [(Kind.CAPTURE, "cap_1", 7000)]
    assert become(paid, step(paid, captured)) == paid, "told again, it is the same money"
    rest = AttemptNews(Kind.CAPTURE, replace(YES, provider_id="cap_2", amount_minor=2999))
    assert (step(paid, rest).ask, become(paid, step(paid, rest, ASKED)).captured) == ("MOVED_OUTSIDE", 9999)
    # Without a hold a capture there is our charge.
    assert status_of(become(OPEN, step(OPEN, AttemptNews(Kind.CAPTURE, YES)))) is Status.SUCCEEDED


def test_a_part_that_is_told_again_after_the_next_one_is_no_contradiction() -> None:
    """The webhook of the first part asks the provider, which shows both by then."""
    first, second = (
        AttemptNews(Kind.CAPTURE, replace(YES, provider_id=name, amount_minor=amount))
        for name, amount in (("cap_1", 3000), ("cap_2", 4000))
    )
    payment = become(HELD, step(HELD, first, ASKED))
    payment = become(payment, step(payment, second, ASKED))
    for news in (first, second):
        again = become(payment, step(payment, news, ASKED))
        assert (again.captured, again.review) == (7000, ())


def test_a_capture_of_ours_that_waits_takes_the_news_and_one_that_is_done_does_not_count_it_twice() -> None:
    waits = after(c.StartCapture("pay_1", "", NOW, "user:u"), payment=HELD)
    news = AttemptNews(Kind.CAPTURE, replace(YES, provider_id="cap_1"))
    done = become(waits, step(waits, news))
    assert (len(done.attempts), done.captured, status_of(done)) == (2, 9999, Status.SUCCEEDED)
    assert become(done, step(done, news)) == done
    other = AttemptNews(Kind.CAPTURE, replace(YES, provider_id="cap_1", amount_minor=5000))
    assert step(done, other).ask == "CONTRADICTS"
    doubted = become(done, step(done, other, ASKED))
    assert (doubted.captured, doubted.review) == (9999, ("AMOUNT_DIFFERS",))


def test_other_money_that_moved_by_itself_is_shown_to_a_person() -> None:
    captured = AttemptNews(Kind.CAPTURE, replace(YES, provider_id="cap_1"))
    for odd, reason in (
        (replace(YES, amount_minor=None), "CAPTURE_WITHOUT_AMOUNT"),
        (replace(YES, currency="EUR"), "CURRENCY_DIFFERS"),
    ):
        assert step(HELD, replace(captured, answer=odd), ASKED).fail == reason
    held = AttemptNews(Kind.AUTHORIZE, YES)
    assert (step(OPEN, held).ask, step(OPEN, held, ASKED).fail) == ("MOVED_OUTSIDE", "MOVED_OUTSIDE")
    both = replace(notice(held), news=(held, captured))
    assert step_of(OPEN, 1, both, held, ASKED) == Step(), "the capture that followed it says what became of it"


def test_a_cancellation_in_the_dashboard_ends_what_waits() -> None:
    void = AttemptNews(Kind.VOID, Answer(Verdict.APPROVED, None, "obj_1"))
    assert step(ACTION, void).ask == "CANCELLED_OUTSIDE"
    failed = become(ACTION, step(ACTION, void, ASKED))
    assert (status_of(failed), failed.object_open) == (Status.FAILED, False)
    assert status_of(become(HELD, step(HELD, void, ASKED))) is Status.CANCELLED
    assert step(PAID, void, ASKED).fail == "VOIDED_AND_CAPTURED"
    ours = after(c.Cancel("pay_1", "", NOW, "user:u"), payment=HELD)
    assert status_of(become(ours, step(ours, void))) is Status.CANCELLED


def test_a_refund_before_its_charge_waits_for_it() -> None:
    news = RefundNews(Answer(Verdict.APPROVED, "re_1", None, 4000, "USD"))
    assert step(OPEN, news).ask
    assert step(OPEN, news, ASKED).wait == "BEFORE_ITS_CHARGE"
    assert become(OPEN, step(OPEN, news, TIRED)).review == ("REFUND_EXCEEDS",)
    assert become(PAID, step(PAID, news, ASKED)).refunded == 4000


def test_a_refund_of_ours_that_is_under_way_is_not_taken_for_a_second_one() -> None:
    ours = after(c.RequestRefund("pay_1", "", NOW, "user:u", amount_minor=4000), payment=PAID)
    numbered = RefundNews(Answer(Verdict.APPROVED, "re_1", None, 4000, "USD"), number=1)
    assert (become(ours, step(ours, numbered)).refunded, len(ours.refunds)) == (4000, 1)
    unnumbered = replace(numbered, number=None)
    assert step(ours, unnumbered, ASKED).wait == "REFUND_IN_FLIGHT"
    done = become(ours, step(ours, numbered))
    assert become(done, step(done, unnumbered)) == done  # known by its id


def test_a_number_of_ours_on_a_refund_of_the_dashboard_hides_none_of_the_two() -> None:
    ours = after(
        c.RequestRefund("pay_1", "", NOW, "user:u", amount_minor=4000),
        said(1, Verdict.APPROVED, Kind.REFUND, "re_1"),
        payment=PAID,
    )
    assert ours.refunds[0].provider_id == "re_1"
    copied = RefundNews(Answer(Verdict.APPROVED, "re_2", None, 100, "USD"), number=1)
    assert become(ours, step(ours, copied, ASKED)).refunded == ours.refunded + 100


def test_a_refund_that_failed_is_not_brought_back_by_old_news() -> None:
    done = become(PAID, step(PAID, RefundNews(Answer(Verdict.APPROVED, "re_1", None, 4000, "USD")), ASKED))
    failed_news = RefundNews(Answer(Verdict.DECLINED, "re_1"))
    assert step(done, failed_news).ask == "CONTRADICTS"
    failed = become(done, step(done, failed_news, ASKED))
    assert failed.refunded == 0
    assert step(failed, RefundNews(Answer(Verdict.APPROVED, "re_1", None, 4000, "USD"))).ask == "CONTRADICTS"
    assert step(PAID, RefundNews(Answer(Verdict.DECLINED, "re_9")), ASKED) == Step()


def test_odd_refunds_are_shown_to_a_person() -> None:
    assert step(PAID, RefundNews(Answer(Verdict.APPROVED, "re", None, 1, "EUR")), ASKED).fail == "CURRENCY_DIFFERS"
    assert step(PAID, RefundNews(Answer(Verdict.APPROVED, "re")), ASKED).fail == "REFUND_WITHOUT_AMOUNT"


def test_disputes_in_any_order() -> None:
    def dispute(state: DisputeState, currency: str = "USD") -> DisputeNews:
        return DisputeNews("dp_1", state, 5000, currency, "fraudulent")

    opened = become(PAID, step(PAID, dispute(DisputeState.OPEN)))
    assert opened.disputed == 5000
    won = become(opened, step(opened, dispute(DisputeState.WON)))
    assert won.disputed == 0
    assert step(won, dispute(DisputeState.OPEN)).ask == "CONTRADICTS"
    assert step(won, dispute(DisputeState.LOST)).ask == "CONTRADICTS"
    assert step(OPEN, dispute(DisputeState.OPEN), ASKED).wait == "BEFORE_ITS_CHARGE"
    foreign = dispute(DisputeState.OPEN, "EUR")
    assert step(PAID, foreign).ask == "CURRENCY_DIFFERS"
    assert become(PAID, step(PAID, foreign, ASKED)).disputed == 0


def test_a_dispute_that_was_won_can_be_opened_again_and_lost() -> None:
    """The shopper appeals: until that is decided their money is out of reach of refunds again."""
    opened, won, lost = (DisputeNews("dp_1", it, 5000, "USD", "fraudulent") for it in DisputeState)
    payment = become(PAID, step(PAID, opened))
    payment = become(payment, step(payment, won))
    assert step(payment, opened).ask, "it may be what was said before it was won"
    assert step(payment, opened, ASKED).wait, "asked for before it was won, perhaps"
    later = replace(ASKED, at_ms=ASKED.at_ms + IN_FLIGHT_MS)
    again = become(payment, step(payment, opened, later))
    assert (again.disputed, again.disputes[0].state) == (5000, DisputeState.OPEN)
    assert become(again, step(again, lost)).disputed == 5000
    # Decided in its lane too: what is open when it is read and won when it is told stays won.
    stale = step(become(PAID, step(PAID, opened)), opened, later)
    assert become(payment, stale) == payment
    gone = become(payment, step(payment, lost, ASKED))
    assert become(gone, step(gone, opened, later)) == gone, "an appeal of ours brings nothing back yet"


def test_an_approval_starts_a_charge_only_where_the_shopper_was_waited_for() -> None:
    taken = step(ACTION, Approved())
    assert isinstance(taken.command, c.StartCharge) and taken.command.approved
    assert len(become(ACTION, taken).attempts) == 2
    assert step(OPEN, Approved()).wait == "IN_FLIGHT"
    declined = after(created(), *charge(1), said(1, Verdict.DECLINED))
    for payment in (PAID, declined, after(c.Cancel("pay_1", "", NOW, "order", by_order=True), payment=ACTION)):
        assert step(payment, Approved(), TIRED) == Step()
    # Decided in its lane too: what was true when it was read may be over.
    assert decide(declined, taken.command) == []


def test_a_hold_that_ended_cancels_unless_a_capture_is_under_way() -> None:
    assert status_of(become(HELD, step(HELD, AuthorizationEnded()))) is Status.CANCELLED
    capturing = after(c.StartCapture("pay_1", "", NOW, "user:u"), payment=HELD)
    assert step(capturing, AuthorizationEnded()).ask == "CONTRADICTS"
    assert step(capturing, AuthorizationEnded(), ASKED).wait == "IN_FLIGHT"
    assert step(PAID, AuthorizationEnded()) == Step()
