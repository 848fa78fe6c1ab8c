"""What differs between the sides of a payment, as a text table; and what never is a difference."""

import random
from typing import Any

import pytest
from rigs.histories import PAYMENT_ID, command_of
from rigs.provider_rig import call_for

from payment_service.codecs.published import decode_published, encode_published
from payment_service.core import reconciliation as r
from payment_service.core.commands import RecordAnswer
from payment_service.core.decide import decide
from payment_service.core.errors import Refused
from payment_service.core.facts import apply
from payment_service.core.payment import Payment
from payment_service.core.ports import Answer, Step
from payment_service.core.reconciliation import Difference
from payment_service.core.terms import AttemptState, Kind, Source, Verdict

T = 1_000_000
TOLD = {"sequence": 2, "status": "SUCCEEDED", "captured": 1000, "refunded": 0}
PAYMENT: dict[str, Any] = {
    "version": 5, "sequence": 2, "status": "SUCCEEDED", "amountMinor": 1000, "currency": "USD", "captured": 1000,
    "refunded": 0, "flagged": False, "known": True, "updatedAtMs": T, "calls": {"charge:1": ["APPROVED", 1000, False]},
    "told": TOLD,
}  # fmt: skip
YES = Answer(Verdict.APPROVED, amount_minor=1000, currency="USD")


def row(**changes: Any) -> dict[str, Any]:
    """Of the table `payments`."""
    told = {**TOLD, **changes}
    amounts = {name: told.pop(name) for name in ("captured", "refunded")}
    return {**told, "amounts": amounts, "paymentId": "pay_1"}


def ours(at_ms: int = T + 10, **changes: Any) -> r.Fact:
    return {"side": r.Side.OURS, "atMs": at_ms, "payment": {**PAYMENT, **changes}}


def provider(at_ms: int = T, answer: Answer = YES, kind: Kind = Kind.CHARGE) -> r.Fact:
    fact = r.provider_fact(call_for("pay_1", kind), answer, at_ms)
    assert fact is not None
    return fact


def compared(*facts: r.Fact, published: Any = None, whole: bool = True, before: Any = None, now: int = T + 20) -> Any:
    account = r.told(before, "pay_1", "order-1", facts)
    return r.compared(account, row() if published is None else published or None, now, whole=whole)


def differs(*facts: r.Fact, **more: Any) -> list[str]:
    return list(compared(*facts, **more)["differences"])


ORDER = r.order_fact(1000, "USD", T)


def test_sides_that_agree() -> None:
    account = compared(ORDER, provider(), ours())
    assert (account["status"], account["differences"]) == ("AGREES", {})
    assert not r.is_open(account)


@pytest.mark.parametrize(
    ("facts", "published", "whole", "what"),
    [
        ([provider(), ours(calls={})], None, True, [Difference.NOT_RECORDED]),
        *[
            ([provider(), ours(calls={"charge:1": [state.value, 0, False]})], None, True, [Difference.NOT_RECORDED])
            for state in AttemptState
            if state is not AttemptState.APPROVED
        ],
        ([provider(), ours(calls={"charge:1": ["DECLINED", 0, True]})], None, True, []),  # flagged when it was
        ([provider(), ours(calls={"charge:1": ["DECLINED", 0, False]}, flagged=True)], None, True, []),
        ([provider(), ours(calls={"charge:1": ["APPROVED", 0, False]})], None, True, []),  # counted elsewhere
        ([provider(), ours(calls={"charge:1": ["APPROVED", 999, False]})], None, True, [Difference.AMOUNT_DIFFERS]),
        ([provider(kind=Kind.REFUND), ours()], None, True, [Difference.NOT_RECORDED]),
        ([provider(kind=Kind.REFUND), ours(calls={"refund:1": ["COMPLETED", 1000, False]})], None, True, []),
        ([r.order_fact(999, "USD", T), ours()], None, True, [Difference.ORDER_DIFFERS]),
        ([r.order_fact(1000, "EUR", T), ours()], None, True, [Difference.ORDER_DIFFERS]),
        ([r.order_fact(999, "USD", T), ours(flagged=True)], None, True, []),
        ([r.order_fact(999, "USD", T), ours(known=False)], None, True, []),  # cancelled before it came
        ([ours()], {}, True, [Difference.NOT_PUBLISHED]),
        ([ours()], {}, False, []),  # the table may have forgotten it
        ([ours()], row(sequence=1, status="PENDING", captured=0), True, [Difference.NOT_PUBLISHED]),
        ([ours()], row(sequence=3), True, [Difference.PUBLISHED_AHEAD]),
        ([ours(told=None, sequence=0)], None, True, [Difference.PUBLISHED_AHEAD]),
        ([ours(told=None, sequence=0)], {}, True, []),  # an old service's payment: nothing was told of it
        ([ours()], row(status="FAILED"), True, [Difference.PUBLISHED_DIFFERS]),
        ([ours()], row(captured=999), True, [Difference.PUBLISHED_DIFFERS]),
        ([ours()], row(refunded=1), True, [Difference.PUBLISHED_DIFFERS]),
        ([ours(sequence=3)], None, True, [Difference.HISTORY_DIFFERS]),
        ([ours(), ours(T + 11, version=4)], None, True, [Difference.WENT_BACK]),
        ([ours(T + 11), ours(T + 10, version=4)], None, True, []),  # read before, told later
        ([provider(), r.our_fact(None, None, T + 10)], None, True, [Difference.NO_PAYMENT]),
        ([ORDER, r.our_fact(None, None, T + 10)], None, True, [Difference.NO_PAYMENT]),
        ([r.our_fact(None, None, T + 10)], {}, True, []),
    ],
)  # fmt: skip
def test_what_differs(facts: list[r.Fact], published: Any, whole: bool, what: list[Difference]) -> None:
    assert differs(*facts, published=published, whole=whole) == what


@pytest.mark.parametrize("fact", [provider(T + 10), r.order_fact(7, "USD", T + 10)])
def test_a_word_that_came_after_the_row_was_read_waits(fact: r.Fact) -> None:
    account = compared(ours(calls={}), fact)
    assert (account["status"], account["differences"]) == ("WAITS", {})
    assert r.is_open(account)


def test_an_order_that_was_agreed_with_once_is_settled_and_a_newer_word_is_not() -> None:
    account = compared(ORDER, ours())
    assert differs(ours(T + 11, amountMinor=5), before=account) == []
    assert differs(r.order_fact(5, "USD", T + 12), ours(T + 13), before=account) == [Difference.ORDER_DIFFERS]


def test_one_that_was_shown_to_a_person_is_settled_too() -> None:
    account = compared(r.order_fact(7, "USD", T), ours(flagged=True))
    assert differs(ours(T + 11), before=account) == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(Verdict.DECLINED), Kind.CHARGE), (Answer(Verdict.UNKNOWN), Kind.REFUND),
        (Answer(Verdict.PENDING), Kind.CHARGE), (YES, Kind.AUTHORIZE), (YES, Kind.VOID),
        (Answer(Verdict.APPROVED, amount_minor=1000, currency="EUR"), Kind.CHARGE),
    ],
)  # fmt: skip
def test_answers_that_moved_nothing_are_no_facts(answer: Answer, kind: Kind) -> None:
    assert r.provider_fact(call_for("pay_1", kind), answer, T) is None


def test_an_answer_without_an_amount_moved_what_was_asked() -> None:
    assert provider(answer=Answer(Verdict.APPROVED))["amountMinor"] == 1000


def test_a_difference_keeps_its_beginning_until_it_ends() -> None:
    first = compared(provider(), ours(calls={}), now=T + 100)
    later = compared(ours(T + 200, calls={}), before=first, now=T + 300)
    assert later["differences"] == {"NOT_RECORDED": T + 100}
    mended = compared(ours(T + 400), before=later, now=T + 500)
    assert mended["differences"] == {}
    again = compared(ours(T + 600, calls={}), before=mended, now=T + 700)
    assert again["differences"] == {"NOT_RECORDED": T + 700}


def test_an_alarm_needs_its_time_and_a_row_that_was_read_again() -> None:
    account = compared(provider(), ours(calls={}), now=T + 20)
    long = T + 20 + r.ALARM_MS
    assert r.alarms_of(account, long) == [], "not read again: the database may be away"
    again = compared(ours(T + 20 + r.CONFIRMED_MS, calls={}), before=account)
    assert r.alarms_of(again, long - 1) == []
    assert r.alarms_of(again, long) == ["NOT_RECORDED"]


def test_the_same_words_again_change_nothing() -> None:
    words = [ORDER, provider(), ours()]
    once = compared(*words)
    assert compared(*words, *reversed(words), before=once) == once


def test_words_of_the_provider_are_bounded() -> None:
    account = None
    for number in range(2 * r.CALLS_MAX):
        account = r.told(account, "pay_1", "order-1", [{**provider(T + number), "call": f"refund:{number}"}])
    assert account is not None
    assert list(account["provider"]) == [f"refund:{n}" for n in range(r.CALLS_MAX, 2 * r.CALLS_MAX)]


# --- any history of a payment agrees with itself

WORDS = [
    "created", "created manual", "order", "order charge", "order amount=500", "charge", "charge", "process", "cancel",
    "capture", "capture 1000", "order-cancel refund", "refund", "refund 1000", "refund 100", "object", "action",
    "expire-action", "give-up", "by-hand approved", "by-hand declined", "expire-authorization", "external 500 re_9",
    "external 500 re_9 pending", "external 1000 re_1", "dispute open 700", "dispute won", "captured 1000",
    "captured 700 ch_2", "flag ODD", "clear",
]  # fmt: skip
VERDICTS = ["approved", "approved", "approved", "declined", "not-sent", "pending", "unknown"]
SAYS = ["", "", "", " id=ch_1", " id=re_9", " by=lookup", " by=webhook", " by=operator", " review=ODD", " gone"]
WALKS, STEPS_MAX = 300, 50


def next_word(dice: random.Random, payment: Payment | None) -> str:
    if payment is None or dice.random() < 0.5:
        return dice.choice(WORDS)
    of_refund, of_attempt = len(payment.refunds), len(payment.attempts)
    if of_refund and dice.random() < 0.4:
        return f"{dice.choice(VERDICTS)} r#{dice.randint(1, of_refund)}{dice.choice(SAYS)}"
    return f"{dice.choice(VERDICTS)} #{dice.randint(1, of_attempt)}{dice.choice(SAYS)}" if of_attempt else "charge"


def heard(payment: Payment | None, command: Any, at_ms: int) -> list[r.Fact]:
    """What the provider told, where the command is its answer to a call."""
    if payment is None or not isinstance(command, RecordAnswer) or command.source not in (Source.LIVE, Source.LOOKUP):
        return []
    asked: Any = (payment.refunds if command.kind is Kind.REFUND else payment.attempts)[command.number - 1]
    call = call_for("pay_1", command.kind, command.number, asked.amount_minor)
    said = Answer(command.verdict, amount_minor=command.amount_minor)
    fact = r.provider_fact(call, said, at_ms)
    return [] if fact is None else [fact]


@pytest.mark.parametrize("seed", [1, 2, random.SystemRandom().randrange(10**9)], ids=["1", "2", "another"])
def test_whatever_happens_to_a_payment_its_sides_agree(seed: int) -> None:
    """Also when answers come late, twice, or contradict each other: that is flagged, not found here."""
    dice, told_yes, last = random.Random(seed), 0, None
    for _ in range(WALKS):
        payment, last, account, words = None, None, None, list[str]()
        for step in range(dice.randrange(5, STEPS_MAX)):
            word, at_ms = next_word(dice, payment), 1000 + 10 * step
            try:
                command = command_of(word, payment, at_ms)
                events = decide(payment, command)
            except (Refused, AssertionError, IndexError):
                continue
            facts = heard(payment, command, at_ms)
            words.append(word)
            for event in events:
                payment, topic = apply(payment, event, PAYMENT_ID)
                if topic is not None:
                    step_told = Step(event, payment.version, payment.sequence, topic, payment)
                    last = decode_published(encode_published(step_told))
            told_yes += len(facts)
            account = r.told(account, PAYMENT_ID, "o", [*facts, r.our_fact(payment, last, at_ms + 1)])
            seen = {} if last is None else {**last["data"], "sequence": last["sequence"]}
            assert r.compared(account, seen or None, at_ms + 2, whole=True)["differences"] == {}, (seed, words)
    assert told_yes > WALKS, "else nothing was compared"
