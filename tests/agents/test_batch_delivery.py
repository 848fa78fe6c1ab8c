"""BatchDelivery without a broker: batches handed over by hand, work that ends when the test says so."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP
from rigs.delivery_rig import TP0, TP1, WAIT_S, Counts, Letters, batch_record, rigs_in

from payment_service.agents import batch_delivery as module
from payment_service.agents import retrying
from payment_service.agents.batch_delivery import BatchDelivery
from payment_service.agents.faust_app import PaymentApp
from payment_service.agents.records import Carried
from payment_service.core.errors import Malformed, OutcomeUnknown, Unavailable


@dataclass
class Batches:
    """A batch is known by its partition and the offsets in it. Values: "bad…" is refused, "skip…" skipped."""

    name: str = "payment-events"
    started: list[tuple[int, list[int]]] = field(default_factory=list)
    open: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    failures: list[BaseException] = field(default_factory=list)

    async def carry_out(self, partition: int, records: Sequence[Any]) -> Carried:
        self.started.append((partition, [record.offset for record in records]))
        if self.failures:
            raise self.failures.pop(0)
        future = self.open[partition] = asyncio.get_running_loop().create_future()
        await future
        refused = [(it, Malformed("bad")) for it in records if it.value.startswith(b"bad")]
        return Carried(list(refused), sum(it.value.startswith(b"skip") for it in records))


@dataclass
class Rig:
    app: PaymentApp
    delivery: BatchDelivery
    handler: Batches
    letters: Letters
    counts: Counts
    crashes: list[BaseException]

    def take(self, tp: TP, *offsets: int, values: str = "fine", generation: int = 1) -> bool:
        records = [batch_record(tp, offset, "k", values) for offset in offsets]
        return self.delivery.take(tp, records, generation)

    async def finish(self, partition: int = 0) -> None:
        await self.until(lambda: partition in self.handler.open, "a batch under way")
        self.handler.open.pop(partition).set_result(None)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():  # noqa: ASYNC110 the condition has no event of its own
                    await asyncio.sleep(0.001)
        except TimeoutError:
            pytest.fail(f"not seen: {what}; started {self.handler.started}, {self.counts.outcomes}")

    async def committed(self, offset: int | None, tp: TP = TP0) -> None:
        await self.until(lambda: self.delivery.committable(tp) == offset, f"{offset} to commit")


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(retrying, "RETRY_DELAY_S_MIN", 0.001)
    with rigs_in(tmp_path, monkeypatch) as make:
        other = make()
        handler = Batches()
        delivery = BatchDelivery(other.app, ["payments"], handler, dead_letters=other.letters, metrics=other.counts)
        delivery.attach()
        other.app.consumer_generation_id = 1
        yield Rig(other.app, delivery, handler, other.letters, other.counts, other.crashes)


def away() -> Unavailable:
    return Unavailable("the broker is away", retry_after_s=0.001)


async def test_its_records_pass_fausts_streams(rig: Rig) -> None:
    assert rig.app.feed_of["payments"] is rig.delivery


async def test_what_may_be_committed_is_the_end_of_a_finished_batch(rig: Rig) -> None:
    rig.take(TP0, 5, 6, 9)
    await rig.until(lambda: bool(rig.handler.open), "a start")
    assert rig.delivery.committable(TP0) is None
    await rig.finish()
    await rig.committed(10)
    assert rig.counts.outcomes == {"done": 3}
    assert list(rig.delivery.partitions()) == [TP0]


async def test_while_a_batch_is_on_its_way_the_next_gathers_and_partitions_run_side_by_side(rig: Rig) -> None:
    rig.take(TP0, 0)
    await rig.until(lambda: bool(rig.handler.open), "a start")
    rig.take(TP0, 1)
    rig.take(TP0, 2, 3)
    rig.take(TP1, 0)
    await rig.until(lambda: len(rig.handler.open) == 2, "two at a time")
    assert rig.handler.started == [(0, [0]), (1, [0])]
    await rig.finish(0)
    await rig.until(lambda: len(rig.handler.started) == 3, "the third")
    assert rig.handler.started[2] == (0, [1, 2, 3])
    assert rig.delivery.committable(TP0) == 1


async def test_a_batch_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_RECORDS_MAX", 2)
    rig.take(TP0, 0, 1, 2, 3, 4)
    for committable in (2, 4, 5):
        await rig.finish()
        await rig.committed(committable)
    assert [offsets for _, offsets in rig.handler.started] == [[0, 1], [2, 3], [4]]


async def test_a_full_partition_is_not_fetched(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG_LOW", 3)
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    rig.take(TP0, 0)
    await rig.until(lambda: bool(rig.handler.open), "a start")
    rig.take(TP0, 1, 2, 3)
    assert not rig.delivery.wants(TP0, 1)
    assert rig.delivery.wants(TP1, 1)
    assert rig.delivery.wants(TP0, 2)
    await rig.finish()
    await rig.until(lambda: rig.delivery.wants(TP0, 1), "room")


async def test_little_is_gathered_and_much_is_not_held_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_RECORDS_MAX", 4)
    monkeypatch.setattr(module, "GATHER_S", 0.03)
    assert rig.delivery.wants(TP0, 1)
    rig.take(TP0, 0)
    assert not rig.delivery.wants(TP0, 1)
    assert not rig.delivery.wants(TP1, 1)
    await asyncio.sleep(0.04)
    assert rig.delivery.wants(TP0, 1)
    rig.take(TP0, 1, 2)
    rig.take(TP1, 0, 1)
    assert rig.delivery.wants(TP0, 1)


@pytest.mark.parametrize("error", [away(), OutcomeUnknown("who knows")])
async def test_what_is_away_is_asked_again_with_the_same_batch(rig: Rig, error: Exception) -> None:
    rig.handler.failures = [error, error]
    rig.take(TP0, 0, 1)
    await rig.until(lambda: len(rig.handler.started) == 3, "two more tries")
    assert rig.delivery.committable(TP0) is None
    rig.take(TP0, 2)
    await rig.finish()
    await rig.committed(2)
    assert rig.handler.started[:3] == [(0, [0, 1])] * 3
    assert rig.counts.outcomes == {"retried": 2, "done": 2}


async def test_a_batch_is_finished_when_the_dead_letters_have_what_it_refused(rig: Rig) -> None:
    rig.letters.failures = [away(), away()]
    rig.take(TP0, 0, 1, values="bad")
    await rig.finish()
    await rig.committed(2)
    assert rig.letters.kept == [(offset, "MALFORMED_JSON", "Malformed: bad") for offset in (0, 1)]
    assert len(rig.handler.started) == 1
    assert rig.counts.outcomes == {"retried": 2, "dead_letter": 2, "done": 0}


async def test_nothing_is_committed_while_the_dead_letters_are_away(rig: Rig) -> None:
    rig.letters.failures = [away()] * 1000
    rig.take(TP0, 0, values="bad")
    await rig.finish()
    await rig.until(lambda: rig.counts.outcomes["retried"] > 3, "retries")
    assert rig.delivery.committable(TP0) is None
    rig.delivery.suspend()
    assert await rig.delivery.drain(WAIT_S)


async def test_what_means_nothing_to_us_is_counted_apart(rig: Rig) -> None:
    rig.take(TP0, 0, values="skip")
    await rig.finish()
    await rig.committed(1)
    assert rig.counts.outcomes == {"done": 0, "skipped": 1}


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a bug"), asyncio.CancelledError(), Malformed("not of one record")]
)
async def test_a_bug_crashes_and_is_never_committed(rig: Rig, error: BaseException) -> None:
    rig.handler.failures = [error]
    rig.take(TP0, 0, 1)
    await rig.until(lambda: bool(rig.crashes), "the crash")
    assert not rig.take(TP0, 2)
    assert not rig.take(TP1, 0)
    assert rig.delivery.committable(TP0) is None
    assert rig.counts.outcomes["crashed"] == 1


async def test_a_revoked_assignment_starts_nothing_and_commits_what_ends_in_the_drain(rig: Rig) -> None:
    rig.take(TP0, 0)
    await rig.until(lambda: bool(rig.handler.open), "a start")
    rig.take(TP0, 1)
    rig.delivery.suspend()
    assert not rig.take(TP0, 2)
    draining = asyncio.ensure_future(rig.delivery.drain(WAIT_S))
    await asyncio.sleep(0.005)
    assert not draining.done()
    await rig.finish()
    assert await draining
    assert rig.delivery.committable(TP0) == 1
    assert rig.handler.started == [(0, [0])]


async def test_a_pause_between_tries_ends_with_the_assignment(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "RETRY_DELAY_S_MIN", 30.0)
    rig.handler.failures = [away()]
    rig.take(TP0, 0)
    await rig.until(lambda: rig.counts.outcomes["retried"] == 1, "a failure")
    rig.delivery.suspend()
    assert await rig.delivery.drain(WAIT_S)
    assert rig.delivery.committable(TP0) is None
    assert rig.counts.outcomes["dropped"] == 1


async def test_work_that_outlives_the_drain_commits_nothing(rig: Rig) -> None:
    rig.take(TP0, 0, 1)
    await rig.until(lambda: bool(rig.handler.open), "a start")
    old = rig.handler.open.pop(0)
    rig.delivery.suspend()
    assert not await rig.delivery.drain(0.005)
    rig.delivery.forget()
    rig.take(TP0, 0, generation=2)
    await rig.until(lambda: len(rig.handler.started) == 2, "its second start")
    old.set_result(None)
    await asyncio.sleep(0.005)
    assert rig.delivery.committable(TP0) is None
    await rig.finish()
    await rig.committed(1)


async def test_records_of_a_new_assignment_do_not_wait_for_the_old_ones_end(rig: Rig) -> None:
    """The number may change without a word from Faust."""
    rig.take(TP0, 0)
    await rig.until(lambda: bool(rig.handler.open), "a start")
    old = rig.handler.open.pop(0)
    rig.take(TP0, 0, 1, generation=2)
    await rig.finish()
    await rig.committed(2)
    old.set_result(None)
    await asyncio.sleep(0.005)
    assert rig.delivery.committable(TP0) == 2


async def test_a_record_read_again_after_a_seek_is_not_worked_on_twice(rig: Rig) -> None:
    rig.take(TP0, 0, 1)
    assert rig.take(TP0, 0, 1, 2)
    assert rig.take(TP0, 1)
    await rig.finish()
    await rig.committed(3)
    assert rig.handler.started == [(0, [0, 1, 2])]


async def test_a_log_that_was_cut_is_worked_on_whole(rig: Rig) -> None:
    rig.take(TP0, 7, 8)
    await rig.finish()
    await rig.committed(9)
    rig.delivery.start_anew(TP0)
    assert rig.take(TP0, 0, 1)
    await rig.finish()
    await rig.committed(2)


async def test_silence_is_stuck_and_a_retry_is_not(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"s": 1000.0}
    monkeypatch.setattr(module, "monotonic", lambda: now["s"])
    rig.take(TP0, 0, 1)
    rig.take(TP1, 0)
    await rig.until(lambda: len(rig.handler.open) == 2, "two starts")
    await rig.finish(1)
    await rig.committed(1, TP1)
    now["s"] += 50
    assert rig.delivery.observe() == pytest.approx(50)
    assert rig.counts.gauges == {"in_flight": 2, "window": 2, "backlog": 0, "oldest_age_s": pytest.approx(50)}
    rig.handler.open.pop(0).set_exception(away())
    await rig.until(lambda: len(rig.handler.started) == 3, "another try")
    assert rig.delivery.observe() < 1
    await rig.finish()
    await rig.committed(2)
    assert rig.delivery.observe() == 0
