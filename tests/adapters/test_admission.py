"""Who may call a provider now: the urgent first, nobody longer than told, and no place is ever lost."""

import asyncio

import pytest
import uvloop
from rigs.settable_clock import SettableClock

from payment_service.adapters import admission as admission_module
from payment_service.adapters.admission import STALE_MAX, Admission, Urgency
from payment_service.adapters.clock import SystemClock
from payment_service.core.resilience import SLOWDOWN_EVERY_S, RateRule

CHARGE, CAPTURE, LOOKUP = "CHARGE", "CAPTURE", "LOOKUP"


async def test_the_urgent_ones_come_in_first() -> None:
    admission = Admission(1, None, SettableClock())
    assert admission.enter_now(CHARGE)
    order: list[str] = []

    async def enter(urgency: Urgency, name: str) -> None:
        assert await admission.enter(CHARGE, urgency, 5.0)
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
    assert not admission.enter_now(CHARGE), "nobody overtakes those who wait"
    admission.leave()
    await asyncio.gather(*waiting)
    assert order == ["capture", "charge 1", "charge 2", "refund", "look-up"]
    assert admission.inside == 0


async def test_those_who_gave_up_or_were_cancelled_keep_nothing() -> None:
    admission = Admission(1, None, SettableClock())
    assert admission.enter_now(CHARGE)
    assert not any(await asyncio.gather(*(admission.enter(CHARGE, Urgency.CHARGE, 0.01) for _ in range(300))))
    assert len(admission._queues[CHARGE]) <= 2 * STALE_MAX, "those who gave up are taken out"
    tasks = [asyncio.create_task(admission.enter(CHARGE, Urgency.CHARGE, 5.0)) for _ in range(2)]
    await asyncio.sleep(0)
    admission.leave()  # the first is let in, and cancelled before it knows
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert admission.inside == 0
    assert admission.enter_now(CHARGE)


async def test_a_cancelled_waiter_that_was_let_in_passes_its_place_on() -> None:
    admission = Admission(1, None, SettableClock())
    assert admission.enter_now(CHARGE)
    first = asyncio.create_task(admission.enter(CHARGE, Urgency.CHARGE, 5.0))
    second = asyncio.create_task(admission.enter(CHARGE, Urgency.CHARGE, 5.0))
    await asyncio.sleep(0)
    admission.leave()
    first.cancel()
    assert await second
    assert admission.inside == 1


async def test_more_than_may_wait_are_turned_away_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "WAITERS_MAX", 1)
    admission = Admission(1, None, SettableClock())
    assert admission.enter_now(CHARGE)
    first = asyncio.create_task(admission.enter(CHARGE, Urgency.CHARGE, 5.0))
    await asyncio.sleep(0)
    assert not await asyncio.wait_for(admission.enter(CHARGE, Urgency.SETTLE, 5.0), 0.5)
    admission.leave()
    assert await first


async def test_waiters_are_let_in_at_the_rate() -> None:
    admission = Admission(100, RateRule(per_s=100, burst=1), SystemClock())
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    assert all(await asyncio.gather(*(admission.enter(CHARGE, Urgency.CHARGE, 5.0) for _ in range(6))))
    assert 0.049 <= loop.time() - started_s < 0.5
    assert admission.inside == 6


def taken(admission: Admission, endpoint: str) -> int:
    """How many calls get in without waiting."""
    count = 0
    while admission.enter_now(endpoint):
        count += 1
        admission.inside -= 1
    return count


def test_each_endpoint_has_a_rate_of_its_own_and_the_account_one_for_all() -> None:
    clock = SettableClock()
    admission = Admission(1000, RateRule(per_s=25, burst=25), clock)
    assert [taken(admission, name) for name in ("A", "B", "A", "C", "D", "E")] == [25, 25, 0, 25, 25, 0]
    assert admission.bucket.tokens == 0
    clock.pass_s(0.2)  # 20 tokens of the account, 5 of each endpoint
    assert [taken(admission, name) for name in ("A", "B", "C", "D", "E")] == [5, 5, 5, 5, 0]
    assert Admission(1, None, clock).bucket.tokens == float("inf")


def test_too_many_requests_of_one_endpoint_slow_that_one_alone() -> None:
    clock = SettableClock()
    admission = Admission(1000, RateRule(per_s=16, burst=16), clock)
    assert (taken(admission, CHARGE), taken(admission, LOOKUP)) == (16, 16)
    admission.slow_down(CHARGE)
    admission.slow_down("NEVER_ASKED")
    clock.pass_s(SLOWDOWN_EVERY_S)
    assert (taken(admission, CHARGE), taken(admission, LOOKUP)) == (8, 16)


def test_the_accounts_rate_is_divided_by_the_workers_that_are_alive() -> None:
    clock, alive = SettableClock(), [1]
    admission = Admission(1000, RateRule(per_s=20, burst=20), clock, lambda: alive[0])
    assert taken(admission, CHARGE) == 20
    alive[0] = 4
    clock.pass_s(1)
    assert (taken(admission, CHARGE), taken(admission, LOOKUP)) == (5, 5)
    alive[0] = 0  # a database that was never reached has counted nobody
    clock.pass_s(100)
    assert taken(admission, CHARGE) == 20


async def test_who_waits_for_a_tired_endpoint_holds_nobody_else_up() -> None:
    admission = Admission(100, RateRule(per_s=20, burst=1), SystemClock())
    assert admission.enter_now(CHARGE)
    late = asyncio.create_task(admission.enter(CHARGE, Urgency.CHARGE, 5.0))
    await asyncio.sleep(0)
    assert not late.done()
    assert await asyncio.wait_for(admission.enter(LOOKUP, Urgency.LOOKUP, 5.0), 0.02), "its own bucket is full"
    assert await asyncio.wait_for(admission.enter(CAPTURE, Urgency.SETTLE, 5.0), 0.02)
    assert not late.done()
    assert await late
    assert admission.inside == 4


async def test_the_accounts_tokens_go_to_the_urgent_ones_first() -> None:
    admission = Admission(100, RateRule(per_s=4, burst=1), SystemClock())
    assert all(admission.enter_now(name) for name in ("A", "B", "C", "D")), "the account's burst"
    order: list[str] = []

    async def enter(endpoint: str, urgency: Urgency) -> None:
        assert await admission.enter(endpoint, urgency, 5.0)
        order.append(endpoint)

    await asyncio.gather(enter("E", Urgency.LOOKUP), enter("F", Urgency.REFUND), enter("G", Urgency.SETTLE))
    assert order == ["G", "F", "E"]


def test_on_the_workers_own_loop_many_wait_for_tokens_that_are_due_at_once() -> None:
    """uvloop's handles of what is due at once do not tell when that is."""

    async def crowd() -> list[bool]:
        admission = Admission(1000, RateRule(per_s=5_000, burst=1), SystemClock())
        return await asyncio.gather(*(admission.enter(CHARGE, Urgency.CHARGE, 5.0) for _ in range(300)))

    assert all(uvloop.run(crowd()))
