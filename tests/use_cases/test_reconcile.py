"""What is decided about a call without an answer, and what whoever asks at once gets, over the memory store."""

import asyncio
import time
from dataclasses import replace

import pytest
from rigs.desk_rig import ANN, BOB, Rig, desk_over
from rigs.histories import given

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.core.commands import Cancel, CreatePayment, GiveUp, RecordObject, StartCharge
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import attempt_of, provider_key, status_of
from payment_service.core.ports import Answer, ClaimedCall, NextAction, ProviderCall
from payment_service.core.terms import Kind, Status, Verdict
from payment_service.core.use_cases import perform_effects
from payment_service.core.use_cases.call_provider import KEY_REFUSED
from payment_service.core.use_cases.provider_calls import CallContext, build_call
from payment_service.core.use_cases.reconcile import KEYS_KEPT_S, LOOKUP_DELAYS_S, Next, next_step

UNANSWERED = Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")
NOT_DONE = Answer(Verdict.UNKNOWN, code="NOT_FOUND")
CHARGE_KEY = provider_key(payment_id_of("o1"), Kind.CHARGE, 1)
WORDS = {"again": Next.SEND_AGAIN, "end": Next.GIVE_UP, "wait": Next.WAIT}
TABLE = """
created, charge, object                                                      | CHARGE 1    | again   | end     | end
created, charge, object, unknown                                             | CHARGE 1    | again   | end     | end
created, charge, object, pending                                             | CHARGE 1    | wait    | wait    | wait
created, charge, object, action                                              | CHARGE 1    | wait    | wait    | wait
created, charge, object, unknown, order-cancel                               | CHARGE 1    | end | end | end
created, charge, object, unknown, give-up                                    | CHARGE 1    | wait    | wait    | wait
created, charge, object, unknown, give-up                                    | VOID 2      | again   | again   | again
created manual, charge, object, unknown                                      | AUTHORIZE 1 | again   | end     | end
created manual, charge, object, approved, capture, unknown                   | CAPTURE 2   | again   | again   | wait
created manual, charge, object, approved, capture, unknown, order-cancel     | CAPTURE 2   | wait    | wait    | wait
created manual, charge, object, approved, order-cancel, unknown              | VOID 2      | again   | again   | again
created, charge, object, approved, refund 100                                | REFUND 1    | again   | again   | wait
created, charge, object, approved, refund 100, unknown r#1                   | REFUND 1    | again   | again   | wait
created, charge, object, approved, refund 100, unknown r#1, external 100 re_x | REFUND 1    | again   | wait    | wait
created, charge, object, approved, refund 100, unknown r#1, dispute open 100 | REFUND 1    | again   | wait    | wait
created, charge, object, approved, refund 100, pending r#1                   | REFUND 1    | wait    | wait    | wait
created, charge, object, declined, cancel, approved, created, charge, object, approved #1 | CHARGE 3 | end | end | end
"""
ROWS = [tuple(part.strip() for part in line.split("|")) for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize(
    ("history", "call", "soon", "later", "late"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS]
)
def test_what_follows_when_the_provider_does_not_have_it(
    history: str, call: str, soon: str, later: str, late: str
) -> None:
    """Within the window; after it; when the provider may have forgotten the key."""
    payment = given(history)
    kind, number = call.split()
    asked = build_call(payment, Kind(kind), int(number), CallContext())
    assert next_step(payment, asked, in_window=True, key_kept=True) is WORDS[soon]
    assert next_step(payment, asked, in_window=False, key_kept=True) is WORDS[later]
    assert next_step(payment, asked, in_window=False, key_kept=False) is WORDS[late]


async def unknown_charge(rig: Rig, lookup: Answer = NOT_DONE) -> None:
    await rig.create()
    rig.provider.answers[Kind.CHARGE] = UNANSWERED
    rig.provider.lookups[Kind.CHARGE] = lookup
    assert (await rig.process()).pending
    rig.provider.answers.clear()
    rig.provider.calls.clear()


async def claimed(rig: Rig, tries: int = 1) -> ClaimedCall:
    call = rig.store._calls[CHARGE_KEY]
    call.due_at, call.tries = time.monotonic(), tries
    (claim,) = await rig.store.claim("w1", 1, 30.0)
    return claim


async def test_a_look_up_that_says_nothing_is_followed_by_nothing(rig: Rig) -> None:
    rig.effects.reconciler.unanswered = frozenset({"PROVIDER_TIMEOUT"})
    for window_s in (120.0, 0.0):
        rig.effects.reconciler.resend_window_s = window_s
        await unknown_charge(rig, UNANSWERED)
        await rig.effects.reconciler.reconcile(await claimed(rig))
        assert rig.sent() == ["lookup:CHARGE:1"]
        assert len((await rig.payment()).attempts) == 1


async def test_what_goes_out_again_is_the_same(rig: Rig) -> None:
    await rig.create()
    rig.provider.answers[Kind.CHARGE] = UNANSWERED
    await rig.process()
    (first,) = [call for what, call in rig.provider.calls if what == "send"]
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.APPROVED, "ch_1", amount_minor=1050, currency="USD")
    await rig.effects.reconciler.reconcile(await claimed(rig))
    assert [call for what, call in rig.provider.calls if what == "send"] == [first, first]
    assert status_of(await rig.payment()) is Status.SUCCEEDED


async def test_that_it_did_not_go_out_again_says_nothing_about_the_first_time(rig: Rig) -> None:
    await unknown_charge(rig)
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.NOT_SENT, code="PROVIDER_UNAVAILABLE")
    await rig.effects.reconciler.reconcile(await claimed(rig))
    assert status_of(await rig.payment()) is Status.UNKNOWN


async def test_the_same_where_its_worker_died_before_it_could_say_anything() -> None:
    async with desk_over(MemoryPaymentStore(), running=False) as rig:
        await rig.create()
        charge = StartCharge(payment_id_of("o1"), "", 2, "user:ann", "ann", has_method=True)
        await rig.execute(charge, CallContext(method_token="tok_visa"))
        await rig.execute(RecordObject(payment_id_of("o1"), "made", 3, 1, "obj_1"))
        rig.provider.answers[Kind.CHARGE] = Answer(Verdict.NOT_SENT, code="PROVIDER_UNAVAILABLE")
        rig.provider.lookups[Kind.CHARGE] = NOT_DONE
        await rig.effects.reconciler.reconcile(await claimed(rig))
        assert rig.sent() == ["lookup:CHARGE:1", "send:CHARGE:1"]
        assert status_of(await rig.payment()) is Status.UNKNOWN


async def test_whose_object_another_worker_committed_never_says_that_nothing_was_sent(rig: Rig) -> None:
    await rig.create()
    pid, original = payment_id_of("o1"), rig.provider.create_object

    async def another_and_a_cancellation(call: ProviderCall) -> Answer:
        await rig.execute(RecordObject(pid, "faster", 5, call.number, "obj_1"))
        await rig.execute(Cancel(pid, "order.cancelled:o1", 5, "order", by_order=True, order_id="o1"))
        return await original(call)

    rig.provider.create_object = another_and_a_cancellation  # type: ignore[method-assign]
    await rig.process()
    assert status_of(await rig.payment()) is Status.UNKNOWN
    rig.provider.lookups[Kind.CHARGE] = NOT_DONE
    await rig.effects.reconciler.reconcile(await claimed(rig))
    await rig.until(lambda payment: status_of(payment) is Status.CANCELLED)
    assert "send:CHARGE:1" not in rig.sent()


async def test_a_cancellation_that_comes_while_it_is_looked_up_stops_the_second_sending(rig: Rig) -> None:
    await unknown_charge(rig)
    original = rig.provider.lookup

    async def cancelled_meanwhile(call: object) -> Answer:
        pid = payment_id_of("o1")
        await rig.execute(Cancel(pid, "order.cancelled:o1", 5, "order", by_order=True, order_id="o1"))
        return await original(call)  # type: ignore[arg-type]

    rig.provider.lookup = cancelled_meanwhile  # type: ignore[method-assign,assignment]
    await rig.effects.reconciler.reconcile(await claimed(rig))
    await rig.until(lambda payment: status_of(payment) is Status.CANCELLED)
    assert "send:CHARGE:1" not in rig.sent() and "send:VOID:2" in rig.sent()


async def test_at_the_end_of_the_look_ups_a_person_is_asked_once() -> None:
    heard: list[tuple[str, str]] = []
    async with desk_over(MemoryPaymentStore(), running=False) as rig:
        rig.effects.reconciler.unanswered = frozenset({"PROVIDER_TIMEOUT"})
        rig.effects.calling.on_alarm = lambda reason, key: heard.append((reason, key))
        await unknown_charge(rig, UNANSWERED)
        for tries, flagged in (
            (len(LOOKUP_DELAYS_S) - 1, ()),
            (8, ("NO_ANSWER:attempt:1",)),
            (9, ("NO_ANSWER:attempt:1",)),
        ):
            await rig.effects.reconciler.reconcile(await claimed(rig, tries))
            assert (await rig.payment()).review == flagged
        due_at = rig.store._calls[CHARGE_KEY].due_at
        assert due_at is not None and due_at - time.monotonic() > 80_000, "and it is looked up for ever"
        assert heard == [("NO_ANSWER", CHARGE_KEY)] * 2
        assert [e.type for e in await rig.store.events(payment_id_of("o1"))].count("ReviewFlagged") == 1


@pytest.mark.parametrize("reason", ["PROVIDER_NOT_CONFIGURED", KEY_REFUSED])
async def test_a_scheduled_call_that_this_worker_cannot_send_is_heard_of(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setattr(perform_effects, "UNSENDABLE_RETRY_S", 0.1)
    heard: list[tuple[str, str]] = []
    async with desk_over(MemoryPaymentStore(), running=False) as rig:
        rig.effects.calling.on_alarm = lambda reason, key: heard.append((reason, key))
        rig.provider.answers[Kind.CHARGE] = Answer(Verdict.NOT_SENT, code=KEY_REFUSED)
        monkeypatch.setattr(perform_effects, "POLL_S", 0.05)
        provider = "MOCK" if reason == KEY_REFUSED else "PAYPAL"
        runner = asyncio.create_task(rig.effects.run())
        await rig.execute(ordered(rig, provider), CallContext(method_token="tok_visa"))
        await rig.until(lambda payment: payment.review == (f"{reason}:{provider}",))
        assert heard[0] == (reason, CHARGE_KEY) and len(heard) >= 3
        assert rig.store._calls[CHARGE_KEY].tries == 0, "whoever can send it may still do so"
        rig.provider.answers.clear()
        if reason == KEY_REFUSED:
            await rig.until(lambda payment: status_of(payment) is Status.SUCCEEDED)
        await rig.effects.stop(1.0)
        await runner


async def test_whoever_waits_is_told_that_nothing_was_sent_and_an_operator_that_the_key_is_refused(rig: Rig) -> None:
    heard: list[tuple[str, str]] = []
    rig.effects.calling.on_alarm = lambda reason, key: heard.append((reason, key))
    await rig.create()
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.NOT_SENT, code=KEY_REFUSED)
    with pytest.raises(Unavailable):
        await rig.process()
    assert heard == [(KEY_REFUSED, CHARGE_KEY)]


def ordered(rig: Rig, provider: str = "MOCK") -> CreatePayment:
    at_ms = rig.execute.clock.now_ms()
    return CreatePayment(
        payment_id_of("o1"), "a", at_ms, "order", "o1", "ann", 1050, "USD", provider, by_order=True, charge=True
    )


@pytest.mark.parametrize("made", [False, True], ids=["no object was committed", "its object is cancelled first"])
async def test_an_orders_charge_that_was_given_up_can_be_paid_by_its_shopper(rig: Rig, made: bool) -> None:
    pid = payment_id_of("o1")
    runner = asyncio.create_task(rig.effects.run())
    rig.effects.reconciler.resend_window_s = 0.0
    rig.provider.lookups[Kind.CHARGE] = NOT_DONE
    if made:
        rig.provider.answers[Kind.CHARGE] = UNANSWERED
        await rig.execute(ordered(rig), CallContext(method_token="tok_visa"))
        await rig.until(lambda payment: status_of(payment) is Status.UNKNOWN)
        await rig.effects.reconciler.reconcile(await claimed(rig))
    else:
        await rig.execute(replace(ordered(rig), charge=False))
        await rig.execute(StartCharge(pid, "", 2, "order", has_method=True), CallContext(method_token="tok_visa"))
        await rig.execute(GiveUp(pid, "", 3, 1))
    await rig.until(lambda payment: status_of(payment) in (Status.PENDING, Status.FAILED))
    assert attempt_of(await rig.payment(), 1).code == "GIVEN_UP"
    rig.provider.answers.clear()
    await rig.process()
    assert status_of(await rig.payment()) is Status.SUCCEEDED
    await rig.effects.stop(1.0)
    await runner


async def test_a_refund_is_sent_again_as_long_as_its_key_is_kept_and_then_looked_up(rig: Rig) -> None:
    await rig.create()
    await rig.process()
    rig.provider.answers[Kind.REFUND] = UNANSWERED
    rig.provider.lookups[Kind.REFUND] = NOT_DONE
    await rig.desk.refund(ANN, payment_id_of("o1"), amount=None, reason=None, metadata={})
    (first,) = [call for what, call in rig.provider.calls if what == "send" and call.kind is Kind.REFUND]
    for sent_for_s, again in ((KEYS_KEPT_S - 60, True), (KEYS_KEPT_S, False)):
        rig.provider.calls.clear()
        await rig.effects.reconciler.reconcile(ClaimedCall(first, 3, time.monotonic(), sent_for_s, None))
        assert [call for what, call in rig.provider.calls if what == "send"] == [first] * again
        assert rig.sent()[0] == "lookup:REFUND:1"


# --- asked at once --------------------------------------------------------------------------------------------


async def test_who_asks_gets_the_truth_at_once(rig: Rig) -> None:
    await unknown_charge(rig, Answer(Verdict.APPROVED, "ch_1", amount_minor=1050, currency="USD"))
    assert status_of((await rig.desk.get(ANN, payment_id_of("o1"))).payment) is Status.UNKNOWN
    answered = await rig.desk.get(ANN, payment_id_of("o1"), sync=True)
    assert status_of(answered.payment) is Status.SUCCEEDED
    assert rig.sent() == ["lookup:CHARGE:1"]


async def test_many_who_ask_are_one_question(rig: Rig) -> None:
    await unknown_charge(rig, UNANSWERED)
    rig.effects.reconciler.unanswered = frozenset({"PROVIDER_TIMEOUT"})
    due_at = rig.store._calls[CHARGE_KEY].due_at
    answers = await asyncio.gather(*(rig.desk.get(ANN, payment_id_of("o1"), sync=True) for _ in range(20)))
    assert {status_of(answer.payment) for answer in answers} == {Status.UNKNOWN}
    assert rig.sent() == ["lookup:CHARGE:1"]
    call = rig.store._calls[CHARGE_KEY]
    assert call.tries == 1 and call.owner is None
    assert call.due_at is not None and due_at is not None and abs(call.due_at - due_at) < 0.2


async def test_who_asks_while_the_call_is_under_way_waits_for_it(rig: Rig) -> None:
    await rig.create()
    rig.provider.gate = asyncio.Event()
    waiting = asyncio.create_task(rig.process())
    await asyncio.sleep(0.02)
    asking = asyncio.create_task(rig.desk.get(ANN, payment_id_of("o1"), sync=True))
    await asyncio.sleep(0.02)
    rig.provider.gate.set()
    assert status_of((await asking).payment) is Status.SUCCEEDED
    await waiting
    assert rig.sent() == ["object:CHARGE:1", "send:CHARGE:1"]


async def test_asking_does_not_wait_for_ever_and_asks_for_nobody_else(rig: Rig) -> None:
    await unknown_charge(rig)
    with pytest.raises(Refused):
        await rig.desk.get(BOB, payment_id_of("o1"), sync=True)
    rig.provider.gate = asyncio.Event()  # the second sending hangs
    started = time.monotonic()
    answered = await rig.desk.get(ANN, payment_id_of("o1"), sync=True)
    assert status_of(answered.payment) is Status.UNKNOWN and time.monotonic() - started < 2.0
    rig.provider.gate.set()
    await rig.until(lambda payment: status_of(payment) is Status.SUCCEEDED)


ASKED = Answer(Verdict.PENDING, object_id="obj-1", next_action=NextAction("redirect", url="https://bank.example"))


@pytest.mark.parametrize(
    ("lookup", "ended"),
    [
        (Answer(Verdict.APPROVED, "ch_1", "obj-1", 9999, "USD"), Status.SUCCEEDED),
        (UNANSWERED, Status.REQUIRES_ACTION),
        (ASKED, Status.PROCESSING),
        (NOT_DONE, Status.PROCESSING),
    ],
    ids=["they had said yes and nobody told", "nobody could be asked", "still waited for", "nothing was done"],
)
async def test_a_shoppers_time_is_up_only_when_the_provider_still_waits(
    rig: Rig, lookup: Answer, ended: Status
) -> None:
    rig.effects.reconciler.unanswered = frozenset({"PROVIDER_TIMEOUT"})
    await rig.create()
    rig.effects.action_ttl_ms = rig.effects.calling.action_ttl_ms = 0
    rig.provider.answers[Kind.CHARGE] = ASKED
    await rig.process()
    assert status_of(await rig.payment()) is Status.REQUIRES_ACTION
    rig.provider.lookups[Kind.CHARGE] = lookup
    await rig.effects.reconciler.reconcile(await claimed(rig))
    assert status_of(await rig.payment()) is ended
