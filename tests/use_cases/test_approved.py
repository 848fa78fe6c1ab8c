"""A shopper approved the provider's object, and no webhook said so: whoever looks takes the money, once."""

import asyncio
import time
from dataclasses import replace

from rigs.desk_rig import ANN, Rig

from payment_service.core.commands import Cancel, CreatePayment, RecordObject, RequireAction, StartCharge
from payment_service.core.decide import decide
from payment_service.core.facts import apply
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import provider_key, status_of
from payment_service.core.ports import Answer, ClaimedCall, NextAction
from payment_service.core.terms import Kind, Status, Verdict

PAYMENT = payment_id_of("o1")
ASKED = Answer(Verdict.APPROVED, object_id="obj_1", next_action=NextAction("redirect", url="https://pay.test/obj_1"))
APPROVED = Answer(Verdict.UNKNOWN, object_id="obj_1", code="NOT_FOUND", approved=True)


async def asked(rig: Rig) -> None:
    """The shopper was sent away, and has approved it."""
    await rig.create()
    rig.provider.object_answer = ASKED
    answered = await rig.process(method=None)
    assert status_of(answered.payment) is Status.REQUIRES_ACTION
    rig.provider.lookups[Kind.CHARGE] = APPROVED


async def claimed(rig: Rig, number: int = 1) -> ClaimedCall:
    call = rig.store._calls[provider_key(PAYMENT, Kind.CHARGE, number)]
    call.due_at, call.tries = time.monotonic(), 1
    (claim,) = await rig.store.claim("w1", 1, 30.0)
    return claim


async def test_the_next_look_up_takes_the_money(rig: Rig) -> None:
    await asked(rig)
    await rig.effects.reconciler.reconcile(await claimed(rig))
    assert rig.sent() == ["object:CHARGE:1", "lookup:CHARGE:1", "send:CHARGE:2"]
    payment = await rig.payment()
    assert (status_of(payment), payment.captured) == (Status.SUCCEEDED, 1050)
    (sent,) = [call for what, call in rig.provider.calls if what == "send"]
    assert (sent.object_id, sent.key) == ("obj_1", f"{PAYMENT}:charge:2")


async def test_the_front_end_that_says_so_is_answered_with_the_outcome(rig: Rig) -> None:
    await asked(rig)
    done = await rig.desk.process(ANN, PAYMENT, method=None, return_url=None, object_id="obj_1")
    assert status_of(done.payment) is Status.SUCCEEDED
    assert rig.sent().count("send:CHARGE:2") == 1


async def test_a_look_up_beside_the_webhook_takes_it_once(rig: Rig) -> None:
    await asked(rig)
    rig.provider.gate = asyncio.Event()
    claim = await claimed(rig)
    looking = asyncio.create_task(rig.effects.reconciler.reconcile(claim))
    await rig.until(lambda payment: len(payment.attempts) == 2)
    told = await rig.execute(StartCharge(PAYMENT, "webhook", 2, "provider", approved=True))
    assert told.intents == ()
    rig.provider.gate.set()
    await looking
    assert rig.sent().count("send:CHARGE:2") == 1
    assert len((await rig.payment()).attempts) == 2


async def test_what_was_cancelled_meanwhile_is_not_taken(rig: Rig) -> None:
    await asked(rig)
    claim = await claimed(rig)
    await rig.execute(Cancel(PAYMENT, "cancel", 2, "user:ann", "ann", None))
    await rig.effects.reconciler.reconcile(claim)
    payment = await rig.until(lambda payment: status_of(payment) is Status.CANCELLED)
    assert payment.captured == 0
    assert "send:CHARGE:2" not in rig.sent()


def test_what_was_approved_pays_and_not_the_method_that_was_saved() -> None:
    at_ms, payment = 1, None
    for command in (
        CreatePayment(PAYMENT, "", at_ms, "user:ann", "o1", "ann", 1050, "USD", "PAYPAL", payment_method_id="pmt_1"),
        StartCharge(PAYMENT, "", at_ms, "user:ann", "ann"),
        RecordObject(PAYMENT, "", at_ms, 1, "obj_1"),
        RequireAction(PAYMENT, "", at_ms, 1, "redirect", at_ms + 1000),
        StartCharge(PAYMENT, "", at_ms, "provider", approved=True),
    ):
        for event in decide(payment, command):
            payment, _ = apply(payment, event, PAYMENT)
    assert payment is not None
    assert [attempt.payment_method_id for attempt in payment.attempts] == ["pmt_1", None]


async def test_a_no_to_what_was_approved_is_a_no(rig: Rig) -> None:
    await asked(rig)
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.DECLINED, code="CARD_DECLINED", object_closed=True)
    await rig.effects.reconciler.reconcile(await claimed(rig))
    assert status_of(await rig.payment()) is Status.FAILED
    rig.provider.answers.clear()
    rig.provider.object_answer = replace(ASKED, object_id="obj_2")
    assert status_of((await rig.process(method=None)).payment) is Status.REQUIRES_ACTION
    assert (await rig.payment()).object_id == "obj_2"
