"""The desk, the executor and the effects together, over the memory store and a provider that says what it is told."""

import asyncio

import pytest
from rigs.desk_rig import ADMIN, ANN, BOB, SERVICE, Rig

from payment_service.core.commands import Cancel, CreatePayment, RecordObject
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import status_of
from payment_service.core.ports import Answer, NextAction, ProviderCall
from payment_service.core.terms import CaptureMethod, Kind, RefundStatus, Status, Verdict
from payment_service.core.use_cases.payment_requests import Answered
from payment_service.core.use_cases.provider_calls import CallContext


async def test_create_process_refund(rig: Rig) -> None:
    created = await rig.create()
    assert created.created and status_of(created.payment) is Status.PENDING
    again = await rig.create()
    assert not again.created and again.payment == created.payment
    processed = await rig.process()
    assert status_of(processed.payment) is Status.SUCCEEDED and processed.payment.object_id == "obj_1"
    assert rig.sent() == ["object:CHARGE:1", "send:CHARGE:1"]
    refunded = await rig.refund(5)
    assert refunded.refund is not None and refunded.refund.status is RefundStatus.COMPLETED
    assert status_of(refunded.payment) is Status.PARTIALLY_REFUNDED
    with pytest.raises(Refused) as refused:
        await rig.refund(6)
    assert refused.value.code == "REFUND_EXCEEDS"
    topics = [(row.topic, row.sequence) for row in rig.store.outbox]
    assert topics == [("payment.created", 1), ("payment.processed", 2), ("payment.refunded", 3)]


async def test_processing_twice_charges_once(rig: Rig) -> None:
    await rig.create()
    rig.provider.gate = asyncio.Event()
    racing = [asyncio.create_task(rig.process()) for _ in range(20)]
    await asyncio.sleep(0.05)
    rig.provider.gate.set()
    answers = await asyncio.gather(*racing)
    assert rig.sent().count("send:CHARGE:1") == 1 and len(rig.sent()) == 2
    assert sum(not answer.pending for answer in answers) >= 1
    assert status_of((await rig.desk.get(ANN, payment_id_of("o1"))).payment) is Status.SUCCEEDED


async def test_somebody_elses_payment_does_not_exist(rig: Rig) -> None:
    await rig.create()
    pid = payment_id_of("o1")
    for attempt in (
        rig.desk.get(BOB, pid), rig.process(caller=BOB), rig.refund(caller=BOB), rig.desk.timeline(BOB, pid),
        rig.desk.cancel(BOB, pid, reason=None), rig.desk.capture(BOB, pid, amount=None), rig.desk.by_order(BOB, "o1"),
    ):  # fmt: skip
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.code == "PAYMENT_NOT_FOUND"
    with pytest.raises(Refused) as exists:
        await rig.create(caller=BOB)
    assert exists.value.code == "PAYMENT_EXISTS"
    assert (await rig.desk.get(ADMIN, pid)).payment.user_id == "ann"
    with pytest.raises(Refused):
        await rig.desk.get(SERVICE, pid)


async def test_decline_then_yes(rig: Rig) -> None:
    await rig.create()
    no = Answer(Verdict.DECLINED, code="CARD_DECLINED", decline_code="insufficient_funds")
    rig.provider.answers[Kind.CHARGE] = no
    declined = await rig.process(method="tok_no")
    assert declined.declined is not None and declined.declined.decline_code == "insufficient_funds"
    assert status_of(declined.payment) is Status.FAILED
    del rig.provider.answers[Kind.CHARGE]
    assert status_of((await rig.process()).payment) is Status.SUCCEEDED
    assert rig.sent() == ["object:CHARGE:1", "send:CHARGE:1", "send:CHARGE:2"]  # the same object again
    assert rig.provider.calls[2][1].key.endswith(":charge:2")


async def test_an_answer_that_does_not_come_is_202_and_lands_later(rig: Rig) -> None:
    await rig.create()
    rig.provider.gate = asyncio.Event()
    answer = await rig.process()
    assert answer.pending and status_of(answer.payment) is Status.PROCESSING
    assert (await rig.process()).pending
    rig.provider.gate.set()
    await asyncio.sleep(0.05)
    assert status_of((await rig.desk.get(ANN, payment_id_of("o1"))).payment) is Status.SUCCEEDED
    assert rig.sent().count("send:CHARGE:1") == 1


async def test_unknown_stays_unknown_and_is_not_tried_again(rig: Rig) -> None:
    await rig.create()
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")
    first = await rig.process()
    assert first.pending and status_of(first.payment) is Status.UNKNOWN
    again = await rig.process()
    assert again.pending and rig.sent().count("send:CHARGE:1") == 1 and "send:CHARGE:2" not in rig.sent()


async def test_not_sent_is_503_and_frees_the_payment(rig: Rig) -> None:
    await rig.create()
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.NOT_SENT, code="PROVIDER_UNAVAILABLE")
    with pytest.raises(Unavailable) as unavailable:
        await rig.process()
    assert unavailable.value.code == "PROVIDER_UNAVAILABLE"
    assert status_of((await rig.desk.get(ANN, payment_id_of("o1"))).payment) is Status.PENDING


async def test_requires_action(rig: Rig) -> None:
    await rig.create()
    action = NextAction("redirect", url="https://bank.example/3ds")
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.PENDING, next_action=action)
    answer = await rig.process()
    assert status_of(answer.payment) is Status.REQUIRES_ACTION and answer.next_action == action
    again = await rig.process(method=None)
    assert again.next_action == action and len(rig.provider.calls) == 2
    cancelled = await rig.desk.cancel(ANN, payment_id_of("o1"), reason="changed my mind")
    assert status_of(cancelled.payment) is Status.CANCELLED
    assert rig.sent()[-1] == "send:VOID:2"
    reopened = await rig.create()
    assert reopened.created and status_of(reopened.payment) is Status.PENDING


async def test_a_charge_that_was_never_sent_leaves_the_action_as_it_was(rig: Rig) -> None:
    await rig.create()
    action = NextAction("redirect", url="https://bank.example/3ds")
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.PENDING, next_action=action)
    await rig.process()
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.NOT_SENT, code="PROVIDER_UNAVAILABLE")
    with pytest.raises(Unavailable):
        await rig.process()
    assert (await rig.process(method=None)).next_action == action


async def test_a_second_provider_object_is_never_shown_to_the_shopper(rig: Rig) -> None:
    await rig.create()
    pid, action = payment_id_of("o1"), NextAction("redirect", url="https://bank.example/second")
    rig.provider.object_answer = Answer(Verdict.APPROVED, object_id="obj_2", next_action=action)
    original = rig.provider.create_object

    async def somebody_was_faster(call: ProviderCall) -> Answer:
        await rig.execute(RecordObject(pid, "faster", 5, call.number, "obj_1"))
        return await original(call)

    rig.provider.create_object = somebody_was_faster  # type: ignore[method-assign]
    answered = await rig.process(method=None)
    assert answered.pending and "send:CHARGE:1" not in rig.sent()  # whoever was faster may have sent it
    found = await rig.desk.get(ANN, pid)
    assert (found.next_action, found.payment.object_id) == (None, "obj_1")
    assert found.payment.review == ("SECOND_OBJECT:obj_2",)


async def test_after_an_object_that_is_over_the_next_attempt_makes_a_new_one(rig: Rig) -> None:
    await rig.create()
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.DECLINED, code="OBJECT_EXPIRED", object_closed=True)
    await rig.process()
    await rig.process()
    assert rig.sent() == ["object:CHARGE:1", "send:CHARGE:1", "object:CHARGE:2", "send:CHARGE:2"]


async def test_manual_capture_and_void(rig: Rig) -> None:
    await rig.create(capture_method=CaptureMethod.MANUAL)
    assert status_of((await rig.process()).payment) is Status.AUTHORIZED
    captured = await rig.desk.capture(ANN, payment_id_of("o1"), amount=4)
    assert status_of(captured.payment) is Status.SUCCEEDED and captured.payment.captured == 400
    assert (await rig.desk.capture(ANN, payment_id_of("o1"), amount=4)).payment.captured == 400
    assert rig.sent().count("send:CAPTURE:2") == 1
    assert rig.provider.calls[-1][1].charge_id is not None


async def test_fifty_refunds_at_once_never_exceed(rig: Rig) -> None:
    await rig.create()
    await rig.process()
    results = await asyncio.gather(*(rig.refund(6.3) for _ in range(50)), return_exceptions=True)
    done = [r for r in results if isinstance(r, Answered)]
    assert len(done) == 1
    assert all(isinstance(r, Answered | Refused | Unavailable) for r in results)
    assert sum(s.startswith("send:REFUND") for s in rig.sent()) == 1


async def test_a_cancelled_caller_cancels_nothing(rig: Rig) -> None:
    await rig.create()
    rig.provider.gate = asyncio.Event()
    caller = asyncio.create_task(rig.process())
    await asyncio.sleep(0.02)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    rig.provider.gate.set()
    await asyncio.sleep(0.05)
    assert status_of((await rig.desk.get(ANN, payment_id_of("o1"))).payment) is Status.SUCCEEDED


async def test_an_order_charges_once_in_its_life(rig: Rig) -> None:
    pid = payment_id_of("o9")

    def order(command_id: str) -> CreatePayment:
        return CreatePayment(
            pid, command_id, 1, "order", "o9", "ann", 500, "USD", "MOCK", by_order=True, charge=True
        )  # fmt: skip

    await rig.execute(order("order.created:o9:a"), CallContext(stored_token="tok_visa"))
    await rig.execute(order("order.created:o9:a"))
    for _ in range(100):
        await asyncio.sleep(0.01)
        payment = (await rig.store.load(pid)).payment
        assert payment is not None
        if status_of(payment) is Status.SUCCEEDED:
            break
    assert status_of(payment) is Status.SUCCEEDED and rig.provider.calls[-1][1].method_token == "tok_visa"
    await rig.execute(order("order.created:o9:b"))
    assert rig.sent().count("send:CHARGE:1") == 1


async def test_cancel_in_flight_gives_the_money_back(rig: Rig) -> None:
    await rig.create()
    rig.provider.gate = asyncio.Event()
    waiting = asyncio.create_task(rig.process())
    await asyncio.sleep(0.02)
    await rig.execute(Cancel(payment_id_of("o1"), "order.cancelled:o1:x", 5, "order", by_order=True, order_id="o1"))
    rig.provider.gate.set()
    await waiting
    for _ in range(100):
        await asyncio.sleep(0.01)
        payment = (await rig.desk.get(ANN, payment_id_of("o1"))).payment
        if status_of(payment) is Status.REFUNDED:
            break
    assert status_of(payment) is Status.REFUNDED and payment.cancel_requested
    with pytest.raises(Refused):
        await rig.create()


async def test_cancelled_between_object_and_charge_sends_nothing(rig: Rig) -> None:
    await rig.create()
    pid = payment_id_of("o1")
    cancel = Cancel(pid, "order.cancelled:o1:x", 5, "order", by_order=True, order_id="o1")
    original = rig.provider.create_object

    async def create_then_cancel(call: ProviderCall) -> Answer:
        await rig.execute(cancel)
        return await original(call)

    rig.provider.create_object = create_then_cancel  # type: ignore[method-assign]
    await rig.process()
    await asyncio.sleep(0.1)
    assert "send:CHARGE:1" not in rig.sent()
    assert status_of((await rig.store.load(pid)).payment) is Status.CANCELLED  # type: ignore[arg-type]
    assert rig.sent()[-1] == "send:VOID:2"


async def test_no_room_means_nothing_was_committed(rig: Rig) -> None:
    await rig.create()
    rig.effects._slots = asyncio.Semaphore(0)
    with pytest.raises(Unavailable):
        await rig.process()
    payment = (await rig.desk.get(ANN, payment_id_of("o1"))).payment
    assert payment.attempts == () and rig.provider.calls == []
