"""What would lose money or give it to the wrong one: objects that somebody names, workers that wake up late, refunds
of another object, scheduled charges of a worker that died."""

import json
import time

import pytest
from rigs.desk_rig import ANN, Rig, desk_over
from rigs.histories import given, outcome
from rigs.stripe_recorded import event

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.providers.stripe_events import notice_of
from payment_service.adapters.providers.stripe_webhooks import check_signature
from payment_service.core.commands import CreatePayment, DecideByHand, GiveUp, RecordAnswer, StartCharge
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import attempt_of, provider_key, status_of
from payment_service.core.payment_method import Usable
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import AttemptState, Kind, Source, Status, Verdict
from payment_service.core.use_cases.payment_requests import Answered
from payment_service.core.use_cases.provider_calls import CallContext, build_call
from payment_service.core.webhook_news import Reading, Step, step_of
from payment_service.core.webhooks import Notice, RefundNews

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


def test_whose_it_is_is_asked_by_what_was_committed() -> None:
    """It was the payment's open object when this request was read, and was let go before it was committed."""
    payment = given("created, process object=pi_theirs, not-sent, process object=pi_theirs")
    assert build_call(payment, Kind.CHARGE, 2, CallContext(adopted=False, named=True)).adopted
    ours = given("created, charge, object pi_1, declined, process object=pi_1")
    assert not build_call(ours, Kind.CHARGE, 2, CallContext(named=True)).adopted


@pytest.mark.parametrize("stored", ["saved", "one-time"])
async def test_naming_our_own_object_is_a_question_and_no_charge_with_what_is_stored(rig: Rig, stored: str) -> None:
    """Declined, tried again in the browser with another card: the front end names the object that it has confirmed."""
    saved = Usable("pmt_1", "MOCK", "tok_saved", None) if stored == "saved" else None
    method, token = ("pmt_1", None) if stored == "saved" else (None, "tok_once")
    create = CreatePayment(ID, "", 1, "user:ann", "o1", "ann", 1050, "USD", "MOCK", method)
    await rig.execute(create, CallContext(stored_token=token))
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.DECLINED, object_id="obj_1", code="CARD_DECLINED")
    charge = StartCharge(ID, "", 2, "user:ann", "ann", method)
    started = await rig.execute(charge, CallContext(saved=saved))
    await rig.effects.start(started.intents[0].call, time.monotonic(), await rig.effects.admit())
    assert rig.provider.calls[-1][1].method_token == f"tok_{'saved' if saved else 'once'}"
    rig.provider.answers.clear()
    paid = await named(rig, "obj_1")
    what, call = rig.provider.calls[-1]
    assert (what, call.object_id, call.adopted, call.method_token) == ("send", "obj_1", False, None)
    assert status_of(paid.payment) is Status.SUCCEEDED and paid.declined is None


async def test_our_own_object_stays_ours_when_nothing_could_be_asked(rig: Rig) -> None:
    await rig.create()
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.DECLINED, object_id="obj_1", code="CARD_DECLINED")
    await rig.process()
    rig.provider.answers[Kind.CHARGE] = HELD_BACK
    with pytest.raises(Unavailable):
        await named(rig, "obj_1")
    payment = await rig.payment()
    assert (payment.object_id, payment.object_open) == ("obj_1", True)


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


async def test_a_worker_that_wakes_up_between_another_charges_object_and_its_commit(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.create()
    first = StartCharge(ID, "", 2, "user:ann", "ann", has_method=True)
    zombie = (await rig.execute(first, CallContext(method_token="tok_visa"))).intents[0].call
    await rig.execute(GiveUp(ID, "", 3, 1))

    async def made(call: ProviderCall) -> Answer:
        if call.number == 2:  # the key is the same, and so is what the provider gives
            await rig.effects.calling.call(zombie, time.monotonic())
        return Answer(Verdict.APPROVED, object_id="obj_1")

    monkeypatch.setattr(rig.provider, "create_object", made)
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")
    assert (await rig.process()).pending
    assert rig.sent() == ["send:CHARGE:2"]
    await rig.execute(GiveUp(ID, "", 4, 2))
    payment = await rig.payment()
    assert [a.state for a in payment.attempts[1:]] == [AttemptState.DISPLACED, AttemptState.OPEN]


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


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"balance_transaction": None, "metadata": {}}, False),
        ({"balance_transaction": None, "metadata": {}, "status": "pending"}, True),
        ({"metadata": {}}, True),
        ({"balance_transaction": None}, True),
    ],
    ids=["of a hold", "of the dashboard, on its way", "of the dashboard", "ours"],
)
def test_a_hold_that_is_let_go_is_no_refund(changed: dict[str, object], told: bool) -> None:
    """Else each partial capture looks refunded, and its order is told so."""
    body = json.loads(event("refund_created"))
    body["data"]["object"] |= changed
    assert bool(notice_of(json.dumps(body).encode(), live=False).news) is told


def test_nor_is_it_however_long_it_waits() -> None:
    voided = given("created manual, charge, object pi_1, approved, cancel, approved")
    notice = Notice("mock", "evt_1", "charge.refunded", 1, voided.payment_id, "pi_1", None, ())
    news = RefundNews(Answer(Verdict.APPROVED, "re_1", "pi_1", 3000, "EUR"))
    assert step_of(voided, 1, notice, news, Reading(2, "c", asked=True, patient=False)) == Step()


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


# --- who sent it -------------------------------------------------------------------------------------------------


def test_a_header_that_is_no_text_is_no_signature() -> None:
    with pytest.raises(Refused) as refused:
        check_signature("t=1,v1=\udcff", b"{}", ["whsec_1"], 1.0)
    assert refused.value.code == "INVALID_SIGNATURE"
