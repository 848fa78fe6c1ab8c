"""Delivery without a broker: Faust's own stream (agent.test_context) and batches handed over by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rigs.delivery_rig import TP0, TP1, WAIT_S, Rig, rigs_in

from payment_service.agents import delivery as module
from payment_service.agents import retrying
from payment_service.agents.delivery import DeliveryLimits
from payment_service.core.errors import Malformed, OutcomeUnknown, Refused, Unavailable


@pytest.fixture
def make_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    with rigs_in(tmp_path, monkeypatch) as make:
        yield make


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "RETRY_DELAY_S_MIN", 0.001)
    monkeypatch.setattr(module, "ROOM_POLL_S", 0.01)


def away() -> Unavailable:
    return Unavailable("the database is away", retry_after_s=0.001)


# -- Faust's own way


@asynccontextmanager
async def streaming(rig: Rig) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    async with rig.agent.test_context() as agent:

        async def put(key: str, value: str) -> Any:
            return await agent.put(value.encode(), key=key.encode(), wait=False)

        yield put


async def test_an_event_is_acknowledged_when_its_work_is_done_and_not_before(rig: Rig) -> None:
    async with streaming(rig) as put:
        event = await put("a", "one")
        await rig.started("one")
        await asyncio.sleep(0.01)
        assert not event.message.acked
        rig.handler.finish("one")
        await rig.until(lambda: event.message.acked, "the ack")
    assert rig.counts.outcomes == {"done": 1}


async def test_acknowledgements_keep_the_order_of_the_partition(rig: Rig) -> None:
    async with streaming(rig) as put:
        events = [await put(key, key) for key in "abcd"]
        await rig.started("a", "b", "c", "d")
        rig.handler.finish("d", "b", "c")
        await rig.until(lambda: rig.counts.outcomes["done"] == 3, "three done")
        assert [event.message.acked for event in events] == [False] * 4
        rig.handler.finish("a")
        await rig.until(lambda: all(event.message.acked for event in events), "all acks")


async def test_poison_is_acknowledged_after_the_dead_letter(rig: Rig) -> None:
    rig.letters.failures = [away(), away()]
    async with streaming(rig) as put:
        event = await put("a", "poison")
        await rig.until(lambda: event.message.acked, "the ack")
    assert rig.letters.kept == [(0, "MALFORMED_JSON", "Malformed: not JSON")]
    assert rig.counts.outcomes == {"retried": 2, "dead_letter": 1}


async def test_what_means_nothing_to_us_is_skipped_and_acknowledged(rig: Rig) -> None:
    async with streaming(rig) as put:
        event = await put("a", "skip")
        await rig.until(lambda: event.message.acked, "the ack")
    assert rig.counts.outcomes == {"skipped": 1}


@pytest.mark.parametrize("value", ["plan-bug", "one"])
async def test_a_bug_crashes_and_is_never_acknowledged(rig: Rig, value: str) -> None:
    rig.handler.failures["one"] = [ZeroDivisionError("a bug")]
    async with streaming(rig) as put:
        event = await put("a", value)
        await rig.until(lambda: bool(rig.crashes), "the crash")
        later = await put("b", "two")
        await asyncio.sleep(0.03)
        assert (event.message.acked, later.message.acked) == (False, False)
        assert "two" not in rig.handler.started
    assert rig.counts.outcomes["crashed"] == 1


async def test_a_stream_waits_for_room_and_drops_nothing(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(DeliveryLimits(2, 2, 10))
    async with streaming(rig) as put:
        for key in "abcde":
            await put(key, key)
        await rig.started("a", "b")
        await asyncio.sleep(0.02)
        assert rig.handler.started == ["a", "b"]
        rig.handler.finish("b")
        await rig.started("a", "b", "c")
        rig.handler.finish("a", "c")
        await rig.started("a", "b", "c", "d", "e")
        rig.handler.finish("d", "e")


async def test_an_event_that_waited_into_the_next_assignment_is_not_started(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(DeliveryLimits(1, 1, 10))
    async with streaming(rig) as put:
        await put("a", "a")
        await rig.started("a")
        event = await put("b", "b")
        await asyncio.sleep(0.01)
        rig.app.consumer_generation_id += 1
        rig.handler.finish("a")
        await asyncio.sleep(0.03)
        assert rig.handler.started == ["a"]
        assert not event.message.acked


# -- batches, as they come from a real broker


async def test_batches_are_committed_by_contiguous_prefix(rig: Rig) -> None:
    rig.take(TP0, (5, "a", "five"), (6, "b", "six"), (9, "c", "nine"))
    await rig.started("five", "six", "nine")
    assert rig.delivery.committable(TP0) is None
    rig.handler.finish("nine", "six")
    await rig.until(lambda: rig.counts.outcomes["done"] == 2, "two done")
    assert rig.delivery.committable(TP0) is None
    rig.handler.finish("five")
    await rig.until(lambda: rig.delivery.committable(TP0) == 10, "10 committable")


async def test_one_lane_runs_in_order_and_others_beside_it(rig: Rig) -> None:
    rig.take(TP0, (0, "a", "a1"), (1, "a", "a2"), (2, "b", "b1"))
    rig.take(TP1, (0, "a", "a3"))
    await rig.started("a1", "b1")
    rig.handler.finish("a1")
    await rig.started("a1", "b1", "a2")
    rig.handler.finish("a2")
    await rig.started("a1", "b1", "a2", "a3")
    rig.handler.finish("a3", "b1")


@pytest.mark.parametrize("error", [away(), OutcomeUnknown("the connection broke")])
async def test_what_is_away_is_asked_again_and_its_lane_waits(rig: Rig, error: Exception) -> None:
    rig.handler.failures["a1"] = [error, error, error]
    rig.take(TP0, (0, "a", "a1"), (1, "a", "a2"))
    await rig.started("a1", "a1", "a1", "a1")
    rig.handler.fail("a1", away())
    await rig.started("a1", "a1", "a1", "a1", "a1")
    assert rig.delivery.committable(TP0) is None
    rig.handler.finish("a1")
    await rig.started("a1", "a1", "a1", "a1", "a1", "a2")
    rig.handler.finish("a2")
    await rig.until(lambda: rig.delivery.committable(TP0) == 2, "both committable")
    assert rig.counts.outcomes == {"retried": 4, "done": 2}


@pytest.mark.parametrize("error", [Refused("too late", code="INVALID_STATE"), Malformed("odd")])
async def test_a_final_no_goes_to_the_dead_letters(rig: Rig, error: Exception) -> None:
    rig.take(TP0, (0, "a", "a1"), (1, "a", "a2"))
    await rig.started("a1")
    rig.handler.fail("a1", error)
    await rig.started("a1", "a2")
    assert [letter[0] for letter in rig.letters.kept] == [0]
    assert rig.delivery.committable(TP0) == 1
    rig.handler.finish("a2")


async def test_a_refusal_of_the_dead_letters_themselves_is_a_bug(rig: Rig) -> None:
    rig.letters.failures = [Malformed("cannot be")]
    rig.take(TP0, (0, "a", "poison"))
    await rig.until(lambda: bool(rig.crashes), "the crash")
    assert rig.delivery.committable(TP0) is None


async def test_cancelled_work_is_a_bug_and_not_an_acknowledgement(rig: Rig) -> None:
    rig.take(TP0, (0, "a", "a1"))
    await rig.started("a1")
    rig.handler.open.pop("a1").cancel()
    await rig.until(lambda: bool(rig.crashes), "the crash")
    assert rig.delivery.committable(TP0) is None


async def test_a_long_lane_of_ready_answers_needs_no_recursion(rig: Rig) -> None:
    rig.take(TP0, (0, "a", "first"), *((n, "a", f"now{n}") for n in range(1, 60)))
    await rig.started("first")
    rig.handler.finish("first")
    await rig.until(lambda: rig.delivery.committable(TP0) == 60, "60 committable")


async def test_one_partition_cannot_fill_everything(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(DeliveryLimits(4, 3, 100))
    rig.take(TP0, *((n, "hot", f"h{n}") for n in range(10)))
    rig.take(TP1, (0, "a", "a"), (1, "b", "b"))
    await rig.until(lambda: rig.handler.started == ["h0", "a"], "the other partition started")
    assert rig.delivery.observe() < 1
    assert (rig.counts.gauges["in_flight"], rig.counts.gauges["backlog"]) == (4, 8)
    rig.handler.finish("a")
    await rig.started("h0", "a", "b")
    rig.handler.finish("b", "h0")


async def test_what_is_finished_behind_an_unfinished_one_is_bounded(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(DeliveryLimits(100, 100, 5))
    rig.take(TP0, (0, "slow", "slow"), *((n, f"k{n}", f"now{n}") for n in range(1, 20)))
    await rig.until(lambda: rig.counts.outcomes["done"] == 4, "the window filled")
    await asyncio.sleep(0.01)
    assert len(rig.handler.started) == 5
    rig.handler.finish("slow")
    await rig.until(lambda: rig.delivery.committable(TP0) == 20, "all committable")


async def test_a_full_partition_is_not_fetched(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(DeliveryLimits(1, 1, 1))
    assert rig.delivery.wants(TP0, 1)
    rig.take(TP0, *((n, "a", f"a{n}") for n in range(module.BACKLOG_LOW + 1)))
    assert not rig.delivery.wants(TP0, 1)
    assert rig.delivery.wants(TP1, 1)
    assert rig.delivery.wants(TP0, 2)  # a new assignment starts empty


async def test_pause_takes_nothing_more_and_resume_goes_on(rig: Rig) -> None:
    rig.delivery.pause()
    rig.take(TP0, (0, "a", "a"))
    await asyncio.sleep(0.01)
    assert rig.handler.started == []
    rig.delivery.resume()
    await rig.started("a")
    rig.handler.finish("a")


# -- rebalance


async def test_a_revoked_assignment_starts_nothing_and_commits_what_ends_in_the_drain(rig: Rig) -> None:
    rig.handler.failures["retrying"] = [Unavailable("away", retry_after_s=30)]
    rig.take(TP0, (0, "a", "a1"), (1, "a", "a2"), (2, "b", "retrying"))
    await rig.until(lambda: rig.counts.outcomes["retried"] == 1, "the retry")
    rig.delivery.suspend()
    await asyncio.sleep(0)
    assert rig.counts.outcomes["dropped"] == 2
    drained = asyncio.ensure_future(rig.delivery.drain(WAIT_S))
    await asyncio.sleep(0.01)
    assert not drained.done()
    rig.handler.finish("a1")
    assert await drained
    assert rig.delivery.committable(TP0) == 1
    rig.delivery.forget()
    assert rig.delivery.committable(TP0) is None
    assert rig.handler.started == ["a1", "retrying"]


async def test_work_that_outlives_the_drain_keeps_its_lane_and_commits_nothing(rig: Rig) -> None:
    rig.take(TP0, (7, "a", "old"))
    await rig.started("old")
    rig.delivery.suspend()
    assert not await rig.delivery.drain(0.01)
    rig.delivery.forget()
    rig.take(TP0, (7, "a", "again"), (8, "b", "other"), generation=2)
    await rig.started("old", "other")
    rig.handler.finish("other")
    rig.handler.finish("old")
    await rig.started("old", "other", "again")
    assert rig.delivery.committable(TP0) is None
    rig.handler.finish("again")
    await rig.until(lambda: rig.delivery.committable(TP0) == 9, "9 committable")


async def test_a_record_read_again_after_a_seek_is_not_worked_on_twice(rig: Rig) -> None:
    rig.take(TP0, (0, "a", "a"), (1, "b", "b"))
    await rig.started("a", "b")
    rig.take(TP0, (0, "a", "a"), (1, "b", "b"), (2, "c", "c"))
    await rig.started("a", "b", "c")
    rig.handler.finish("a", "b", "c")


# -- the watch


async def test_a_log_that_was_cut_is_worked_on_whole(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(DeliveryLimits(4, 2, 10))
    rig.take(TP0, (7, "k1", "old"), (8, "k2", "old too"), (9, "k3", "left"))
    await rig.started("old", "old too")
    rig.take(TP1, (1, "k4", "other"))
    rig.delivery.start_anew(TP0)
    rig.take(TP0, (0, "k1", "new"), (1, "k5", "now-new"))
    rig.handler.finish("old too")
    await rig.started("old", "old too", "other", "now-new")
    rig.handler.finish("old")
    await rig.started("old", "old too", "other", "now-new", "new")
    rig.handler.finish("new")
    await rig.until(lambda: rig.delivery.committable(TP0) == 2, "both of the new ones")


async def test_silence_is_stuck_and_a_retry_is_not(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1_000_000
    monkeypatch.setattr(module, "now_ms", lambda: clock)
    rig.take(TP0, (0, "a", "a1"))
    await rig.started("a1")
    clock += 90_000
    assert rig.delivery.observe() == 90
    assert rig.counts.gauges["oldest_age_s"] == 90
    rig.handler.fail("a1", away())
    await rig.started("a1", "a1")
    clock += 10_000
    assert rig.delivery.observe() == 10
    assert rig.counts.gauges["oldest_age_s"] == 100
    rig.handler.finish("a1")
    await rig.until(lambda: rig.delivery.observe() == 0, "nothing open")
