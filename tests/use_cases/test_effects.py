"""Calls that nearly go wrong: leases, a database that goes away at the worst moment, a worker that has to stop."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from rigs.desk_rig import Rig, desk_over

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.core.commands import CreatePayment, RecordAnswer
from payment_service.core.errors import PaymentError, Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import Payment, provider_key, status_of
from payment_service.core.ports import Answer, ClaimedCall, Loaded, NextAction, ProviderCall
from payment_service.core.terms import Kind, Source, Status, Verdict
from payment_service.core.use_cases.provider_calls import CallContext


@dataclass(slots=True)
class AbsentStore(MemoryPaymentStore):
    """Is away for the next so many calls of each kind."""

    loads_away: int = 0
    reschedules_away: int = 0
    claim_gate: asyncio.Event = field(default_factory=asyncio.Event)
    held: bool = False

    async def load(self, payment_id: str, command_id: str = "") -> Loaded:
        if self.loads_away > 0:
            self.loads_away -= 1
            raise Unavailable("the database is away")
        return await MemoryPaymentStore.load(self, payment_id, command_id)

    async def reschedule(self, key: str, owner: str, delay_s: float, *, sent: bool) -> None:
        if self.reschedules_away > 0:
            self.reschedules_away -= 1
            raise Unavailable("the database is away")
        await MemoryPaymentStore.reschedule(self, key, owner, delay_s, sent=sent)

    async def claim(self, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        claimed = await MemoryPaymentStore.claim(self, owner, limit, lease_s)
        if claimed and self.held:
            await self.claim_gate.wait()
        return claimed


def order(command_id: str = "a", order_id: str = "o1") -> CreatePayment:
    return CreatePayment(
        payment_id_of(order_id), f"order.created:{order_id}:{command_id}", 1, "order", order_id, "ann", 1050, "USD",
        "MOCK", by_order=True, charge=True,
    )  # fmt: skip


async def eventually(reached: Callable[[], bool]) -> None:
    for _ in range(100):
        if reached():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


async def scheduled(rig: Rig, order_id: str = "o1") -> str:
    """A charge that an order started, for any runner to take; its key."""
    await rig.execute(order(order_id=order_id), CallContext(stored_token="tok_visa"))
    return provider_key(payment_id_of(order_id), Kind.CHARGE, 1)


def is_(status: Status) -> Any:
    def reached(payment: Payment) -> bool:
        return status_of(payment) is status

    return reached


async def test_while_a_call_is_under_way_its_lease_stays_with_its_worker(rig: Rig) -> None:
    key = await scheduled(rig)
    rig.provider.gate = asyncio.Event()
    await rig.until(lambda payment: payment.object_id is not None)
    assert await rig.store.renew(key, "w1", 30.0)
    rig.provider.gate.set()
    await rig.until(is_(Status.SUCCEEDED))


async def test_an_object_that_took_long_is_still_charged_by_who_made_it() -> None:
    async with desk_over(MemoryPaymentStore(), lease_s=0.3, deadline_s=0.25) as rig:
        await rig.create()
        original = rig.provider.create_object

        async def slowly(call: ProviderCall) -> Answer:
            await asyncio.sleep(0.1)  # less is left of the lease now than a call may take
            return await original(call)

        rig.provider.create_object = slowly  # type: ignore[method-assign]
        assert status_of((await rig.process()).payment) is Status.SUCCEEDED


async def test_what_was_settled_while_its_object_was_made_is_not_sent(rig: Rig) -> None:
    await rig.create()
    pid = payment_id_of("o1")
    original = rig.provider.create_object

    async def settled_meanwhile(call: ProviderCall) -> Answer:
        said = RecordAnswer(pid, "", 5, Kind.CHARGE, 1, Verdict.NOT_SENT, Source.OPERATOR, code="BY_HAND")
        await rig.execute(said)
        return await original(call)

    rig.provider.create_object = settled_meanwhile  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await rig.process()
    assert "send:CHARGE:1" not in rig.sent()


@pytest.mark.parametrize("loads_away", [1, 3])
async def test_a_scheduled_charge_survives_a_database_that_is_away_before_it_is_sent(loads_away: int) -> None:
    store = AbsentStore()
    async with desk_over(store, running=False) as rig:
        await scheduled(rig)
        store.loads_away = loads_away
        runner = asyncio.create_task(rig.effects.run())
        await eventually(lambda: store.loads_away == 0)
        await rig.until(is_(Status.SUCCEEDED))
        assert rig.sent() == ["object:CHARGE:1", "send:CHARGE:1"]
        await rig.effects.stop(1.0)
        await runner


async def test_not_sent_is_remembered_also_when_the_database_is_away() -> None:
    store = AbsentStore()
    async with desk_over(store) as rig:
        rig.provider.answers[Kind.CHARGE] = Answer(Verdict.NOT_SENT, code="PROVIDER_UNAVAILABLE")
        store.reschedules_away = 2
        key = await scheduled(rig)
        await rig.until(lambda payment: store._calls[key].owner is None and len(rig.sent()) == 2)
        assert store._calls[key].tries == 0  # the next runner sends it, instead of looking for what never was


async def test_a_lease_that_cannot_be_renewed_leaves_the_charge_to_be_sent_later(rig: Rig) -> None:
    asked: list[str] = []

    async def lost(key: str, owner: str, lease_s: float) -> bool:
        asked.append(key)
        raise Unavailable("the database is away")

    rig.effects.calling.queue = QueueOf(rig.store, lost)
    rig.effects.calling.deadline_s = rig.effects.lease_s  # so that the lease never suffices without a renewal
    key = await scheduled(rig)
    await eventually(lambda: asked == [key] and rig.store._calls[key].owner is None)
    assert (rig.store._calls[key].tries, rig.sent()) == (0, [])


@dataclass
class QueueOf:
    """The queue of a store, with a renewal of one's own."""

    store: MemoryPaymentStore
    renew: Any

    async def claim(self, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        return await self.store.claim(owner, limit, lease_s)

    async def claim_of(self, payment_id: str, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        return await self.store.claim_of(payment_id, owner, limit, lease_s)

    async def reschedule(self, key: str, owner: str, delay_s: float, *, sent: bool) -> None:
        await self.store.reschedule(key, owner, delay_s, sent=sent)


async def test_what_is_claimed_while_the_worker_stops_is_given_back_unsent() -> None:
    store = AbsentStore(held=True)
    async with desk_over(store, running=False) as rig:
        keys = [await scheduled(rig, f"o{n}") for n in range(3)]
        runner = asyncio.create_task(rig.effects.run())
        await eventually(lambda: all(store._calls[key].owner == "w1" for key in keys))
        stopping = asyncio.create_task(rig.effects.stop(1.0))
        await asyncio.sleep(0.02)
        assert not stopping.done()
        store.claim_gate.set()
        await stopping
        assert [(store._calls[key].owner, store._calls[key].tries) for key in keys] == [(None, 0)] * 3
        assert rig.sent() == []
        await runner


async def test_stopping_waits_for_calls_that_began_after_it_was_told(rig: Rig) -> None:
    await rig.create()
    release = await rig.effects.admit()  # a request that is committing its intent just now
    stopping = asyncio.create_task(rig.effects.stop(2.0))
    await asyncio.sleep(0.05)
    assert not stopping.done()
    call = ProviderCall(
        "k", Kind.VOID, 1, payment_id_of("o1"), "o1", "MOCK", 1050, "USD", (await rig.payment()).capture_method
    )
    rig.provider.gate = asyncio.Event()
    task = rig.effects.start(call, rig.execute.clock.monotonic_s(), release)
    await asyncio.sleep(0.05)
    assert not stopping.done()
    rig.provider.gate.set()
    await stopping
    assert task.done()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_bug_in_a_call_is_heard_of(rig: Rig) -> None:
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))

    async def broken(call: ProviderCall) -> Answer:
        raise RuntimeError("a bug")

    rig.provider.send = broken  # type: ignore[method-assign]
    await scheduled(rig)
    await eventually(lambda: bool(heard))
    assert isinstance(heard[0]["exception"], RuntimeError) and "tok_visa" not in repr(heard)


async def test_no_room_for_calls_does_not_spin() -> None:
    store = MemoryPaymentStore()
    async with desk_over(store, concurrency=1) as rig:
        await rig.create()
        rig.provider.gate = asyncio.Event()
        waiting = asyncio.create_task(rig.process())
        await asyncio.sleep(0.02)
        rig.effects.wake()
        await asyncio.sleep(0)
        rig.effects.wake()
        used = time.process_time()
        await asyncio.sleep(0.2)
        assert time.process_time() - used < 0.1
        rig.provider.gate.set()
        await waiting


async def test_the_look_up_of_a_shopper_who_does_not_act_is_not_later_than_their_time() -> None:
    async with desk_over(MemoryPaymentStore(), running=False) as rig:
        rig.effects.calling.action_ttl_ms = 2_000
        await rig.create()
        action = NextAction("redirect", url="https://bank.example/3ds")
        rig.provider.answers[Kind.CHARGE] = rig.provider.lookups[Kind.CHARGE] = Answer(
            Verdict.PENDING, next_action=action
        )
        await rig.process()
        key = provider_key(payment_id_of("o1"), Kind.CHARGE, 1)
        call = rig.store._calls[key]
        call.due_at, call.tries = time.monotonic(), 6  # the next look would be hours away
        (claim,) = await rig.store.claim("w1", 1, 30.0)
        await rig.effects.reconciler.reconcile(claim)
        assert call.due_at is not None and call.due_at - time.monotonic() < 2.1


@pytest.mark.parametrize(("renewal_s", "sends"), [(0.0, 1), (0.25, 0)])
async def test_a_lease_whose_renewal_was_long_in_coming_is_too_short_to_send(renewal_s: float, sends: int) -> None:
    class SlowQueue(MemoryPaymentStore):
        async def renew(self, key: str, owner: str, lease_s: float) -> bool:
            renewed = await MemoryPaymentStore.renew(self, key, owner, lease_s)
            await asyncio.sleep(renewal_s)
            return renewed

    async with desk_over(SlowQueue(), lease_s=0.5, deadline_s=0.4, running=False) as rig:
        create_object = rig.provider.create_object

        async def slow(call: ProviderCall) -> Answer:
            await asyncio.sleep(0.15)  # so that the first lease is too short for the next request
            return await create_object(call)

        rig.provider.create_object = slow  # type: ignore[method-assign]
        await rig.create()
        with suppress(PaymentError):
            await rig.process()
        await asyncio.sleep(renewal_s)
        assert sum(it.startswith("send:") for it in rig.sent()) == sends
