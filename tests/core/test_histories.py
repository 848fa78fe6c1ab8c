"""Any history: repeated, reordered, late and contradicting answers, cancels, refunds, disputes, orders.

The auditor beside the machine knows the facts only and keeps its own sums; it shares no code with apply().
A failure prints the steps as words of rigs/histories.py, and a blob that replays it.
"""

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from rigs.histories import PAYMENT_ID, command_of
from rigs.histories_auditor import Auditor

from payment_service.codecs.events import decode_event, encode_event
from payment_service.codecs.published import decode_published, encode_published
from payment_service.codecs.state import decode_state, encode_state
from payment_service.core import commands as c
from payment_service.core import events as e
from payment_service.core.decide import ORDER_MISMATCH, decide
from payment_service.core.errors import Refused
from payment_service.core.facts import apply, fold
from payment_service.core.payment import (
    ATTEMPTS_MAX,
    CLOSING_ATTEMPTS,
    Payment,
    attempt_in_the_way,
    refundable,
    status_of,
)
from payment_service.core.ports import Step
from payment_service.core.terms import IN_THE_WAY, TAKES_MONEY, AttemptState, Kind, Status, Topic

EXAMPLES, STEPS = 250, 50
WALKS, WALK_STEPS_MAX = 300, 60
STEPS_MIN = 10_000
PAID = frozenset({Status.SUCCEEDED, Status.PARTIALLY_REFUNDED, Status.REFUNDED})
BESIDE = frozenset({Topic.CREATED, Topic.REFUNDED, Topic.REFUND_FAILED, Topic.DISPUTED})
NOTHING_THERE = (AttemptState.NOT_SENT, AttemptState.DECLINED, AttemptState.SUPERSEDED)
steps_taken: Counter[str] = Counter()

LIVES = [
    "created", "created manual", "created manual confirmed", "created amount=500", "created user=u2 confirmed",
    "order", "order charge", "order amount=500", "order user=u2", "created provider=paypal", "order provider=paypal",
]  # fmt: skip
DEEDS = [
    "charge", "charge", "charge", "process", "charge approved", "charge user=u2", "charge object=pi_9",
    "capture", "capture 1000", "capture 0", "cancel", "order-cancel", "order-cancel refund",
    "refund", "refund 1000", "refund 100", "refund -5",
]  # fmt: skip
ODDITIES = [
    "expire-authorization", "external 500 re_9", "external 500 re_9 pending", "external 500 re_9 declined",
    "external 1000 re_1", "dispute open 700", "dispute won", "dispute lost", "dispute open 3000 dp_2", "flag ODD",
    "clear", "captured 1000", "captured 9000", "captured 700 ch_2",
]  # fmt: skip
VERDICTS = ["approved", "approved", "declined", "not-sent", "pending", "unknown"]
SAYS = ["", "", "", " id=none", " id=ch_1", " id=ch_2", " amount=1000", " amount=9000", " amount=0", " currency=USD",
        " by=operator", " by=lookup", " review=ACCOUNT_DIFFERS", " gone"]  # fmt: skip


SAYS_OF_REFUND = ["", "", " id=re_9", " amount=50", " by=operator"]
STEPS_OF_ONE = ["object", "object", "object pi_1", "object pi_7", "action", "expire-action", "give-up", "give-up",
                "by-hand approved", "by-hand declined", "by-hand not-sent"]  # fmt: skip
ONWARD: dict[Status, list[str]] = {
    Status.PENDING: ["charge", "process", "cancel"],
    Status.PROCESSING: ["object", "approved", "approved", "pending", "unknown", "action", "declined", "cancel"],
    Status.REQUIRES_ACTION: ["approved", "charge", "expire-action", "cancel", "charge approved"],
    Status.AUTHORIZED: ["capture", "capture 1000", "capture", "cancel", "expire-authorization", "captured 800"],
    Status.SUCCEEDED: ["refund 1000", "refund", "order-cancel refund", "approved r#1", "unknown r#1", "pending r#1"],
    Status.FAILED: ["charge", "order-cancel"],
    Status.UNKNOWN: ["approved", "declined", "pending", "order-cancel", "give-up"],
    Status.CANCELLED: ["created", "created manual"],
    Status.PARTIALLY_REFUNDED: ["refund 500", "approved r#2", "unknown r#2", "declined r#1"],
    Status.REFUNDED: ["declined r#1", "approved r#1"],
}
"""What usually comes next: most histories are ordinary for a while."""


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.payment: Payment | None = None
        self.replayed: Payment | None = None
        self.events: list[e.Event] = []
        self.auditor = Auditor()
        self.at_ms = 0
        self.published = 0
        self.closed: set[int] = set()
        """Provider objects that nobody can pay any more, by the provider's word."""
        self.looked_at = False
        """A person cleared the flags: what was odd before that is theirs."""

    # --- rules -----------------------------------------------------------------------------------------------

    @initialize(word=st.sampled_from(["created", "created manual", "created manual", *LIVES, "order-cancel"]))
    def begin(self, word: str) -> None:
        self.do(word)

    @rule(onward=st.integers(0, 7))
    def go_on(self, onward: int) -> None:
        assert self.payment is not None
        words = ONWARD[status_of(self.payment)]
        self.do(words[onward % len(words)])

    @rule(onward=st.lists(st.integers(0, 7), min_size=3, max_size=6))
    def go_far(self, onward: list[int]) -> None:
        for at in onward:
            self.go_on(at)

    @rule(word=st.sampled_from(LIVES))
    def create_again(self, word: str) -> None:
        self.do(word)

    @rule(word=st.sampled_from(DEEDS))
    def deed(self, word: str) -> None:
        self.do(word)

    @rule(word=st.sampled_from(ODDITIES))
    def oddity(self, word: str) -> None:
        self.do(word)

    @precondition(lambda self: self.payment is not None and self.payment.attempts)
    @rule(word=st.sampled_from(STEPS_OF_ONE), back=st.integers(0, 2))
    def step(self, word: str, back: int) -> None:
        self.do(f"{word} #{self.nth(back)}")

    @precondition(lambda self: self.payment is not None and self.payment.attempts)
    @rule(verdict=st.sampled_from(VERDICTS), says=st.sampled_from(SAYS), back=st.sampled_from([0, 0, 0, 1, 2]))
    def answer(self, verdict: str, says: str, back: int) -> None:
        self.do(f"{verdict} #{self.nth(back)}{says}")

    @precondition(lambda self: self.payment is not None and self.payment.refunds)
    @rule(
        verdict=st.sampled_from(VERDICTS),
        says=st.sampled_from(SAYS_OF_REFUND),
        back=st.integers(0, 2),
    )
    def refund_answer(self, verdict: str, says: str, back: int) -> None:
        assert self.payment is not None
        self.do(f"{verdict} r#{max(1, len(self.payment.refunds) - back)}{says}")

    def nth(self, back: int) -> int:
        assert self.payment is not None
        return max(1, len(self.payment.attempts) - back)

    # --- one step --------------------------------------------------------------------------------------------

    def do(self, word: str) -> None:
        steps_taken["all"] += 1
        self.at_ms += 600  # two steps outlast an action
        command = command_of(word, self.payment, self.at_ms)
        before = self.payment
        events = decided(before, command)
        if isinstance(events, str):
            assert decided(before, command) == events
            assert before is not None, "a history starts with what creates"
            return
        steps_taken["changed"] += bool(events)
        for event in events:
            self.record(event)
        assert self.payment is not None
        if isinstance(command, c.DecideByHand):
            assert decided(self.payment, command) == "INVALID_STATE", "what is decided is not open any more"
        elif not isinstance(command, c.RequestRefund):
            assert decide(self.payment, command) == [], "the same command again changes nothing"
        if isinstance(command, c.ClearReview):
            self.looked_at = True
        self.check(before, self.payment)

    def record(self, event: e.Event) -> None:
        before = self.payment
        self.allowed(before, event)
        after, topic = apply(before, event, PAYMENT_ID)
        stored = encode_event(event)
        read = decode_event(type(event).__name__, stored)
        assert read == event
        assert encode_event(read) == stored
        self.replayed, _ = apply(self.replayed, read, PAYMENT_ID)
        assert after.version == (before.version if before is not None else 0) + 1
        if topic is None:
            assert after.sequence == self.published
        else:
            self.published += 1
            assert after.sequence == self.published
            body = decode_published(encode_published(Step(event, after.version, after.sequence, topic, after)))
            assert body["data"]["status"] == after.told == status_of(after)
            assert after.told is not Status.PROCESSING or topic in BESIDE, "nobody is told of a step"
        self.auditor.hear(event)
        self.note_closed(after, event)
        self.events.append(event)
        self.payment = after

    def note_closed(self, after: Payment, event: e.Event) -> None:
        match event:
            case e.AttemptApproved() if self.auditor.kinds[event.number] is Kind.VOID:
                self.closed.add(after.attempts[event.number - 1].object_number or after.object_number)
            case e.AttemptDeclined(object_closed=True):
                self.closed.add(after.attempts[event.number - 1].object_number)
            case e.AuthorizationExpired():
                self.closed.add(after.object_number)
            case _:
                pass

    def allowed(self, before: Payment | None, event: e.Event) -> None:
        """What no decision may ever do, whatever came before."""
        if before is None:
            return
        assert not (before.cancel_final and isinstance(event, e.Reopened)), "the order's cancellation is final"
        if isinstance(event, e.ObjectCreated):
            other = event.object_id != before.object_id
            assert not (before.object_open and other), "two provider objects could both be paid"
            assert before.captured == 0
        if isinstance(event, e.RefundRequested):
            assert 0 < event.amount_minor <= refundable(before)
        if not isinstance(event, e.AttemptStarted):
            return
        in_the_way = attempt_in_the_way(before)
        if event.cause == "GIVEN_UP":
            assert event.kind is Kind.VOID and in_the_way is not None and in_the_way.kind in TAKES_MONEY
            assert in_the_way.object_number == before.object_number
            assert in_the_way.state is AttemptState.UNKNOWN or not in_the_way.accepted
            return
        assert in_the_way is None or in_the_way.state is AttemptState.ACTION, "one attempt at a time"
        assert len(before.attempts) < ATTEMPTS_MAX + CLOSING_ATTEMPTS
        if event.kind in TAKES_MONEY:
            self.allowed_elsewhere(before, event)
            assert before.captured == 0
            assert before.authorization_open == 0
            assert not (before.cancelled or before.cancel_requested or before.cancel_final)
            assert ORDER_MISMATCH not in before.review
            assert event.amount_minor == before.amount_minor
        if event.kind is Kind.CAPTURE:
            assert 0 < event.amount_minor <= before.authorization_open
            assert not before.cancel_requested

    def allowed_elsewhere(self, before: Payment, event: e.AttemptStarted) -> None:
        """Another provider is tried only when those before it have nothing: never sent, or their object is closed, by
        a void that the provider confirmed or by its own word."""
        for earlier in before.attempts:
            if earlier.kind not in TAKES_MONEY or earlier.provider == event.provider:
                continue
            steps_taken["elsewhere"] += 1
            # One that a caller named and nobody sent anything to is no object of ours (`_let_go`).
            not_ours = earlier.adopted and earlier.state is AttemptState.NOT_SENT
            nothing_made = not_ours or (earlier.object_number == 0 and earlier.state in NOTHING_THERE)
            assert nothing_made or earlier.object_number in self.closed, "two providers could both take the money"

    # --- after each step -------------------------------------------------------------------------------------

    def check(self, before: Payment | None, payment: Payment) -> None:
        self.auditor.check(payment)
        assert self.replayed == payment
        data = encode_state(payment)
        assert decode_state(data) == payment
        assert encode_state(decode_state(data)) == data
        assert sum(a.state in IN_THE_WAY for a in payment.attempts) <= 1
        if before is not None and status_of(before) in PAID:
            assert status_of(payment) in PAID
        self.check_money(before, payment)
        self.check_cancelled(payment)
        if payment.known and attempt_in_the_way(payment) is None:
            assert payment.told is status_of(payment), "the world was left with an old word"

    def check_money(self, before: Payment | None, payment: Payment) -> None:
        assert min(payment.refunded, payment.refund_pending, payment.authorization_open, payment.disputed) >= 0
        if in_order(payment) or (before is not None and not in_order(before)):
            return
        assert payment.review, "provider facts exceed what we decided, and nobody is told"

    def check_cancelled(self, payment: Payment) -> None:
        if not (payment.cancelled or payment.cancel_requested) or payment.review or self.looked_at:
            return
        in_the_way = attempt_in_the_way(payment)
        if in_the_way is not None:
            assert in_the_way.state is not AttemptState.ACTION, "a shopper may still pay what was cancelled"
        elif payment.captured > 0:
            assert payment.refunded + payment.refund_pending + payment.disputed >= payment.captured
        else:
            assert payment.cancelled
            assert not payment.object_open
            assert payment.authorization_open == 0

    def teardown(self) -> None:
        assert fold(PAYMENT_ID, self.events) == self.payment


def in_order(payment: Payment) -> bool:
    return 0 <= payment.refunded + payment.refund_pending <= payment.captured <= payment.authorized


def decided(payment: Payment | None, command: c.Command) -> list[e.Event] | str:
    """The facts, or the code of a refusal. Anything else that is raised fails the test."""
    try:
        return decide(payment, command)
    except Refused as refused:
        return refused.code


def test_any_history_keeps_the_rules() -> None:
    steps_taken.clear()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Histories,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    assert steps_taken["all"] >= STEPS_MIN
    assert steps_taken["changed"] >= STEPS_MIN / 5, "most words are refused: the machine says nothing"


def next_word(dice: random.Random, payment: Payment | None) -> str:
    """One word of a random walk: mostly what comes next, sometimes what should not."""
    if payment is None:
        return dice.choice(["created", "created manual", *LIVES, "order-cancel"])
    recent = max(1, len(payment.attempts) - dice.choice([0, 0, 0, 1, 2, 3]))
    kind = dice.random()
    if kind < 0.45:
        return dice.choice(ONWARD[status_of(payment)])
    if kind < 0.66:
        return dice.choice([*LIVES, *DEEDS, *ODDITIES])
    if kind < 0.92 and payment.attempts:
        return dice.choice(
            [f"{dice.choice(VERDICTS)} #{recent}{dice.choice(SAYS)}", f"{dice.choice(STEPS_OF_ONE)} #{recent}"]
        )
    if payment.refunds:
        refund = max(1, len(payment.refunds) - dice.randrange(3))
        return f"{dice.choice(VERDICTS)} r#{refund}{dice.choice(SAYS_OF_REFUND)}"
    return "charge"


@pytest.mark.parametrize("seed", [1, 2, random.SystemRandom().randrange(10**9)], ids=["1", "2", "another"])
def test_random_walks_keep_the_rules(seed: int) -> None:
    """Reaches deeper than the machine above, but does not shrink: a failure prints all its words."""
    dice = random.Random(seed)
    for _ in range(WALKS):
        walk, words = Histories(), []
        try:
            for _ in range(dice.randrange(5, WALK_STEPS_MAX)):
                words.append(next_word(dice, walk.payment))
                walk.do(words[-1])
            walk.teardown()
        except AssertionError as error:
            pytest.fail(f"seed {seed}: {', '.join(words)}: {error}")
