"""What would lose money or give it to the wrong one: objects that somebody names, workers that wake up late, refunds
of another object, scheduled charges of a worker that died."""

import time

import pytest
from rigs.desk_rig import ANN, Rig, desk_over
from rigs.histories import given, outcome

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.core.commands import CreatePayment, DecideByHand, RecordAnswer, StartCharge
from payment_service.core.errors import Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import attempt_of, provider_key, status_of
from payment_service.core.ports import Answer
from payment_service.core.terms import AttemptState, Kind, Source, Status, Verdict
from payment_service.core.use_cases.payment_requests import Answered
from payment_service.core.use_cases.provider_calls import CallContext, build_call

ID = payment_id_of("o1")
HELD_BACK = Answer(Verdict.NOT_SENT, code="RATE_LIMITED")


async def named(rig: Rig, object_id: str, method: str | None = None) -> Answered:
    return await rig.desk.process(ANN, ID, method=method, return_url=None, object_id=object_id)


async def not_looked_at(rig: Rig, how: str) -> None:
    """Somebody names another one's object, and its provider never gets to look whose it is."""
    await rig.create()
    if how == "held back":
        rig.provider.answers[Kind.CHARGE] = HELD_BACK
        with pytest.raises(Unavailable):
            await named(rig, "pi_theirs")
    elif how == "method gone":
        command = StartCharge(ID, "", 2, "user:ann", "ann", "pmt_gone", has_method=True, object_id="pi_theirs")
        started = await rig.execute(command, CallContext(adopted=True))
        await rig.effects.start(started.intents[0].call, time.monotonic(), await rig.effects.admit())
    else:
        rig.provider.answers[Kind.CHARGE] = Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")
        assert (await named(rig, "pi_theirs")).pending
        verdict = Verdict.NOT_SENT if how == "by hand: not sent" else Verdict.DECLINED
        said = RecordAnswer(ID, "", 3, Kind.CHARGE, 1, verdict, Source.OPERATOR)
        await rig.execute(DecideByHand(ID, "", 3, "operator:eve", "asked", said))
    rig.provider.answers.clear()
    rig.provider.calls.clear()


HOWS = ["held back", "method gone", "by hand: not sent", "by hand: declined"]


@pytest.mark.parametrize("how", HOWS)
async def test_an_object_that_nobody_looked_at_does_not_pay(rig: Rig, how: str) -> None:
    """Else whoever names the object of a smaller payment while the provider is busy has paid with it the next time."""
    await not_looked_at(rig, how)
    await rig.process()
    assert [(what, call.object_id) for what, call in rig.provider.calls] == [("object", None), ("send", "obj_1")]


@pytest.mark.parametrize("how", HOWS)
async def test_an_object_that_nobody_looked_at_is_not_cancelled(rig: Rig, how: str) -> None:
    await not_looked_at(rig, how)
    cancelled = await rig.desk.cancel(ANN, ID, reason=None)
    assert status_of(cancelled.payment) is Status.CANCELLED
    assert rig.provider.calls == []


async def test_named_again_it_is_looked_at(rig: Rig) -> None:
    """The shopper has paid it in the browser: nobody may be asked to pay another one instead."""
    await not_looked_at(rig, "held back")
    done = await named(rig, "pi_theirs")
    assert [(what, call.object_id, call.adopted) for what, call in rig.provider.calls] == [("send", "pi_theirs", True)]
    assert status_of(done.payment) is Status.SUCCEEDED


# --- workers that wake up late -----------------------------------------------------------------------------------


LATE_OBJECT = "created, charge, give-up, charge, object pi_1 #1"
"""A worker made the object and was stopped; its charge was given up and another one started, whose worker has just
been given the same object, since its key is the same; then the first one wakes up and commits it."""


def test_a_charge_knows_its_object_although_an_earlier_one_committed_it() -> None:
    payment = given(f"{LATE_OBJECT}, object pi_1 #2")
    assert [a.object_number for a in payment.attempts] == [1, 1]
    assert (payment.object_number, payment.object_id, payment.object_open) == (1, "pi_1", True)


def test_so_it_is_not_called_unsent_without_a_look() -> None:
    given_up = outcome(f"{LATE_OBJECT}, object pi_1 #2, unknown", "give-up #2")
    assert given_up.startswith("AttemptStarted(#3 VOID"), given_up


def test_a_second_worker_with_the_same_charge_is_not_the_first_again() -> None:
    assert outcome(f"{LATE_OBJECT}, object pi_1 #2", "object pi_1 #2") == "nothing"
    assert outcome("created, charge, object pi_1, declined gone", "object pi_1 #1") == "nothing"


# --- refunds -----------------------------------------------------------------------------------------------------


def test_a_refund_is_of_the_object_that_took_the_money() -> None:
    payment = given("created, charge, object pi_1, declined gone, charge, object pi_2, approved #1 id=ch_1, refund 100")
    call = build_call(payment, Kind.REFUND, 1, CallContext())
    assert (call.object_id, call.charge_id) == (None, "ch_1")


async def test_also_one_that_a_runner_sends(rig: Rig) -> None:
    """Cancelled, paid all the same on its first object, while the second is open: the money goes back."""
    await rig.create()
    gone = Answer(Verdict.DECLINED, object_id="obj_1", code="OBJECT_CANCELLED", object_closed=True)
    rig.provider.answers[Kind.CHARGE] = gone
    await rig.process()
    rig.provider.object_answer = Answer(Verdict.APPROVED, object_id="obj_2")
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.DECLINED, object_id="obj_2", code="CARD_DECLINED")
    await rig.process()
    rig.provider.answers[Kind.VOID] = Answer(Verdict.DECLINED, code="INVALID_STATE")
    await rig.desk.cancel(ANN, ID, reason=None)
    yes = RecordAnswer(ID, "", 3, Kind.CHARGE, 1, Verdict.APPROVED, Source.WEBHOOK, "ch_1", 1050, "USD")
    await rig.execute(yes)
    await rig.until(lambda payment: status_of(payment) is Status.REFUNDED)
    [refund] = [call for what, call in rig.provider.calls if call.kind is Kind.REFUND]
    assert (refund.object_id, refund.charge_id) == (None, "ch_1")


# --- scheduled charges -------------------------------------------------------------------------------------------


async def test_an_orders_charge_outlives_the_worker_that_had_claimed_it() -> None:
    """Nobody waits for it, and it was never sent: dropped in silence, its order would wait for ever."""
    async with desk_over(MemoryPaymentStore(), running=False) as rig:
        rig.effects.reconciler.resend_window_s = 0.0
        order = CreatePayment(ID, "order:o1", 1, "order", "o1", "ann", 1050, "USD", "MOCK", by_order=True, charge=True)
        await rig.execute(order, CallContext(stored_token="tok_visa"))
        (dead,) = await rig.store.claim("dead", 1, 0.0)
        assert dead.tries == 0
        (claim,) = await rig.store.claim("w1", 1, 30.0)
        assert claim.tries == 1
        await rig.effects.reconciler.reconcile(claim)
        payment = await rig.payment()
        assert attempt_of(payment, 1).state is AttemptState.APPROVED
        assert rig.sent() == ["object:CHARGE:1", "send:CHARGE:1"]
        assert rig.provider.calls[-1][1].key == provider_key(ID, Kind.CHARGE, 1)
