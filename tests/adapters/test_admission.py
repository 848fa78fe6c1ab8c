"""Who may call a provider now: the urgent first, nobody longer than told, and no place is ever lost."""

import asyncio

import pytest
from rigs.settable_clock import SettableClock

from payment_service.adapters import admission as admission_module
from payment_service.adapters.admission import STALE_MAX, Admission, Urgency
from payment_service.adapters.clock import SystemClock
from payment_service.core.resilience import RateRule


async def test_the_urgent_ones_come_in_first() -> None:
    admission = Admission(1, None, SettableClock())
    assert admission.enter_now()
    order: list[str] = []

    async def enter(urgency: Urgency, name: str) -> None:
        assert await admission.enter(urgency, 5.0)
        order.append(name)
        admission.leave()

    waiting = [
        asyncio.create_task(enter(urgency, name))
        for urgency, name in (
            (Urgency.LOOKUP, "look-up"),
            (Urgency.REFUND, "refund"),
            (Urgency.CHARGE, "charge 1"),
            (Urgency.CHARGE, "charge 2"),
            (Urgency.SETTLE, "capture"),
        )
    ]
    await asyncio.sleep(0)
    assert not admission.enter_now(), "nobody overtakes those who wait"
    admission.leave()
    await asyncio.gather(*waiting)
    assert order == ["capture", "charge 1", "charge 2", "refund", "look-up"]
    assert admission.inside == 0


async def test_those_who_gave_up_or_were_cancelled_keep_nothing() -> None:
    admission = Admission(1, None, SettableClock())
    assert admission.enter_now()
    assert not any(await asyncio.gather(*(admission.enter(Urgency.CHARGE, 0.01) for _ in range(300))))
    assert len(admission._queue) <= 2 * STALE_MAX, "those who gave up are taken out"
    tasks = [asyncio.create_task(admission.enter(Urgency.CHARGE, 5.0)) for _ in range(2)]
    await asyncio.sleep(0)
    admission.leave()  # the first is let in, and cancelled before it knows
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert admission.inside == 0
    assert admission.enter_now()


async def test_a_cancelled_waiter_that_was_let_in_passes_its_place_on() -> None:
    admission = Admission(1, None, SettableClock())
    assert admission.enter_now()
    first = asyncio.create_task(admission.enter(Urgency.CHARGE, 5.0))
    second = asyncio.create_task(admission.enter(Urgency.CHARGE, 5.0))
    await asyncio.sleep(0)
    admission.leave()
    first.cancel()
    assert await second
    assert admission.inside == 1


async def test_more_than_may_wait_are_turned_away_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "WAITERS_MAX", 1)
    admission = Admission(1, None, SettableClock())
    assert admission.enter_now()
    first = asyncio.create_task(admission.enter(Urgency.CHARGE, 5.0))
    await asyncio.sleep(0)
    assert not await asyncio.wait_for(admission.enter(Urgency.SETTLE, 5.0), 0.5)
    admission.leave()
    assert await first


async def test_waiters_are_let_in_at_the_rate() -> None:
    admission = Admission(100, RateRule(per_s=100, burst=1), SystemClock())
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    assert all(await asyncio.gather(*(admission.enter(Urgency.CHARGE, 5.0) for _ in range(6))))
    assert 0.049 <= loop.time() - started_s < 0.5
    assert admission.inside == 6
