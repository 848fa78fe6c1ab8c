"""Commits whose connection broke: done, not done, or done later than anybody thought."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from rigs.changes import change_of
from rigs.desk_rig import Rig, desk_over

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.core.commands import Cancel, CreatePayment, FlagReview, StartCharge
from payment_service.core.errors import OutcomeUnknown, Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Change, Committed, Loaded
from payment_service.core.terms import RefundStatus
from payment_service.core.use_cases import execute as module

LOST_DONE, LOST_LATER, LOST_NEVER, AWAY = "lost, done", "lost, done later", "lost, never done", "away"


@dataclass(slots=True)
class BreakingStore(MemoryPaymentStore):
    """Loses the commits that change a payment as told, one after another; then works."""

    faults: list[str] = field(default_factory=list)
    on_top: bool = False
    """Somebody else commits on top of what was lost before anybody can look."""
    later: list[Change] = field(default_factory=list)

    def submit(self, change: Change) -> "asyncio.Future[Committed]":
        if not change.steps or not self.faults:
            while self.later:
                MemoryPaymentStore.submit(self, self.later.pop())
            return MemoryPaymentStore.submit(self, change)
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        fault = self.faults.pop(0)
        if fault == AWAY:
            future.set_exception(Unavailable("the payment is locked"))
            return future
        if fault == LOST_DONE:
            MemoryPaymentStore.submit(self, change)
            if self.on_top:
                MemoryPaymentStore.submit(self, flagged(Loaded(change.steps[-1].after)))
        elif fault == LOST_LATER:
            self.later.append(change)
        future.set_result(Committed.LOST)
        return future


def flagged(loaded: Loaded) -> Change:
    assert loaded.payment is not None
    return change_of(FlagReview(loaded.payment.payment_id, "", 7, "operator:eve", "LOOK"), loaded)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(module, "RESOLVE_DELAY_S", 0.001)
    async with desk_over(BreakingStore()) as rig:
        yield rig


def faults(rig: Rig, *told: str, on_top: bool = False) -> None:
    assert isinstance(rig.store, BreakingStore)
    rig.store.faults[:] = told
    rig.store.on_top = on_top


async def paid(rig: Rig) -> None:
    await rig.create()
    await rig.process()


@pytest.mark.parametrize("told", [(LOST_DONE,), (LOST_LATER,), (LOST_NEVER,), (LOST_LATER, AWAY), (LOST_NEVER, AWAY)])
@pytest.mark.parametrize("on_top", [False, True])
async def test_a_refund_whose_commit_was_lost_is_made_once(rig: Rig, told: tuple[str, ...], on_top: bool) -> None:
    await paid(rig)
    faults(rig, *told, on_top=on_top)
    answered = await rig.refund(4)
    assert answered.refund is not None and answered.refund.status is RefundStatus.COMPLETED
    payment = await rig.payment()
    assert (len(payment.refunds), payment.refunded, payment.refund_pending) == (1, 400, 0)
    assert sum(sent.startswith("send:REFUND") for sent in rig.sent()) == 1


@pytest.mark.parametrize("told", [(LOST_DONE,), (LOST_LATER,), (LOST_NEVER, LOST_LATER), (LOST_LATER, AWAY)])
async def test_a_charge_whose_commit_was_lost_is_still_made_by_who_committed_it(
    rig: Rig, told: tuple[str, ...]
) -> None:
    await rig.create()
    faults(rig, *told)
    assert (await rig.process()).payment.captured == 1050
    assert rig.sent() == ["object:CHARGE:1", "send:CHARGE:1"]


async def test_after_a_lost_commit_nobody_is_told_that_nothing_happened(rig: Rig) -> None:
    await paid(rig)
    faults(rig, LOST_LATER, *[AWAY] * module.ROUNDS_MAX)
    with pytest.raises(OutcomeUnknown):
        await rig.refund(4)


async def test_before_any_lost_commit_away_means_that_nothing_happened(rig: Rig) -> None:
    await paid(rig)
    faults(rig, AWAY)
    with pytest.raises(Unavailable):
        await rig.refund(4)
    assert (await rig.payment()).refunds == ()


async def test_the_lease_of_a_lost_commit_is_counted_from_that_commit(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.create()
    monkeypatch.setattr(module, "RESOLVE_DELAY_S", 0.05)
    faults(rig, LOST_LATER, AWAY)
    before = rig.execute.clock.monotonic_s()
    outcome = await rig.execute(StartCharge(payment_id_of("o1"), "", 5, "user:ann", has_method=True))
    assert len(outcome.intents) == 1 and rig.execute.clock.monotonic_s() - before >= 0.05
    assert outcome.claimed_at - before < 0.04


async def test_a_bug_in_one_creation_does_not_hold_up_its_lane(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = rig.store.submit, []

    def submit(self: BreakingStore, change: Change) -> "asyncio.Future[Committed]":
        calls.append(change)
        if len(calls) == 2:
            raise RuntimeError("a bug")
        return original(change)

    monkeypatch.setattr(BreakingStore, "submit", submit)
    results = await asyncio.wait_for(asyncio.gather(*(rig.create() for _ in range(3)), return_exceptions=True), 1.0)
    assert [type(result).__name__ for result in results] == ["Answered", "RuntimeError", "Answered"]


async def test_what_comes_by_kafka_is_patient_and_nothing_else(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller at a screen does not wait behind a backlog of orders."""
    patient: list[bool] = []
    submit = BreakingStore.submit

    def seen(store: BreakingStore, change: Change) -> "asyncio.Future[Committed]":
        patient.append(change.patient)
        return submit(store, change)

    monkeypatch.setattr(BreakingStore, "submit", seen)
    await paid(rig)
    assert patient and not any(patient)
    patient.clear()
    payment_id = payment_id_of("o2")
    await rig.execute(CreatePayment(payment_id, "1", 7, "order", "o2", "ann", 1050, "USD", "MOCK", by_order=True))
    await rig.execute(Cancel(payment_id, "2", 7, "order", by_order=True))
    assert patient and all(patient)
