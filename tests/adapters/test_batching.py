"""Natural batching: what waits while a batch runs becomes the next one, and nobody waits for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from payment_service.adapters.postgres.batching import Batches, Waiting
from payment_service.core.errors import Unavailable

W = Waiting[int, str]


class Rig:
    """Batches whose statements end when the test says so."""

    def __init__(self) -> None:
        self.started: list[list[int]] = []
        self.gates: list[asyncio.Event] = []
        self.error: Exception | None = None
        self.batches: Batches[int, str] = self.make()

    def make(
        self, workers: int = 1, batch_max: int = 100, bytes_max: int = 1000, queue_max: int = 50
    ) -> Batches[int, str]:
        self.batches = Batches(
            self.run, lambda waiting: waiting.answer("cut off"),
            workers=workers, batch_max=batch_max, bytes_max=bytes_max, queue_max=queue_max,
        )  # fmt: skip
        return self.batches

    async def run(self, batch: list[W]) -> None:
        self.started.append([waiting.item for waiting in batch])
        self.gates.append(asyncio.Event())
        await self.gates[-1].wait()
        if self.error is not None:
            raise self.error
        for waiting in batch:
            waiting.answer(f"done {waiting.item}")

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def finish_all(self, until: Callable[[], bool]) -> None:
        while not until():
            for gate in self.gates:
                gate.set()
            await asyncio.sleep(0)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    rig.error = None
    closing = asyncio.create_task(rig.batches.close(1.0))
    await rig.finish_all(closing.done)


async def test_what_comes_while_a_batch_runs_is_the_next_batch(rig: Rig) -> None:
    rig.batches.put(0, "k0", 1)
    await rig.settle()
    for n in range(1, 6):
        rig.batches.put(n, f"k{n}", 1)
    await rig.settle()
    assert rig.started == [[0]]
    rig.gates[0].set()
    await rig.settle()
    assert rig.started == [[0], [1, 2, 3, 4, 5]]


async def test_what_comes_at_once_is_one_batch_sorted_by_key(rig: Rig) -> None:
    for n in (3, 1, 2):
        rig.batches.put(n, f"k{n}", 1)
    await rig.settle()
    assert rig.started == [[1, 2, 3]]


async def test_what_is_patient_goes_last_and_still_goes(rig: Rig) -> None:
    rig.make(batch_max=4)
    for n in range(10):
        rig.batches.put(n, None, 1, patient=True)
    await rig.settle()
    assert rig.started == [[0, 1, 2, 3]]
    for n in range(20, 28):
        rig.batches.put(n, None, 1)
    rig.gates[0].set()
    await rig.settle()
    assert rig.started[1:] == [[20, 21, 22, 4]], "what cannot wait goes first, and leaves a share of the batch"
    await rig.finish_all(lambda: len(rig.started) == 5)
    assert rig.started[2:] == [[23, 24, 25, 5], [26, 27, 6, 7], [8, 9]]


async def test_something_patient_that_is_larger_than_its_share_goes_also_in_a_flood(rig: Rig) -> None:
    rig.make(bytes_max=100)
    rig.batches.put(99, None, 90, patient=True)
    for n in range(20):
        rig.batches.put(n, None, 25)
    await rig.settle()
    assert rig.started == [[0, 1, 2, 99]]


async def test_what_is_patient_takes_nobodys_place(rig: Rig) -> None:
    rig.make(queue_max=3)
    kept = [rig.batches.put(n, None, 1, patient=True) for n in range(3)]
    refused, urgent = rig.batches.put(3, None, 1, patient=True), rig.batches.put(4, None, 1)
    assert isinstance(refused.exception(), Unavailable)
    await rig.finish_all(lambda: urgent.done() and all(it.done() for it in kept))
    assert urgent.result() == "done 4"


async def test_a_batch_has_a_length_and_a_size(rig: Rig) -> None:
    batches = rig.make(workers=9, batch_max=3, bytes_max=100)
    for n, size in enumerate((1, 1, 1, 60, 40, 1, 500, 1)):
        batches.put(n, f"k{n}", size)
    await rig.settle()
    assert rig.started == [[0, 1, 2], [3, 4], [5], [6], [7]]


async def test_two_of_one_key_are_never_under_way_together(rig: Rig) -> None:
    batches = rig.make(workers=3)
    for n in range(4):
        batches.put(n, "same", 1)
    batches.put(9, "other", 1)
    await rig.settle()
    assert rig.started == [[9, 0]]
    for round_ in range(1, 4):
        rig.gates[round_ - 1].set()
        await rig.settle()
        assert rig.started[round_] == [round_]


async def test_more_than_may_wait_is_refused(rig: Rig) -> None:
    batches = rig.make(queue_max=2)
    futures = [batches.put(n, f"k{n}", 1) for n in range(3)]
    with pytest.raises(Unavailable):
        await futures[2]
    await rig.finish_all(lambda: all(future.done() for future in futures))
    assert [future.result() for future in futures[:2]] == ["done 0", "done 1"]


async def test_a_bug_is_told_to_its_batch_and_the_next_one_runs(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    hit = rig.batches.put(0, "k0", 1)
    await rig.settle()
    later = rig.batches.put(1, "k0", 1)
    rig.error = RuntimeError("a bug")
    rig.gates[0].set()
    with pytest.raises(RuntimeError, match="a bug"):
        await hit
    rig.error = None
    await rig.finish_all(later.done)
    assert later.result() == "done 1"
    assert "not foreseen" in caplog.text


async def test_a_cancelled_caller_changes_nothing(rig: Rig) -> None:
    future, other = rig.batches.put(0, "k0", 1), rig.batches.put(1, "k1", 1)
    await rig.settle()
    future.cancel()
    await rig.finish_all(other.done)
    assert (rig.started, other.result()) == ([[0, 1]], "done 1")


async def test_close_finishes_what_waits_and_takes_nothing_new(rig: Rig) -> None:
    futures = [rig.batches.put(0, "k0", 1)]
    await rig.settle()
    futures.append(rig.batches.put(1, "k1", 1))
    closing = asyncio.create_task(rig.batches.close(5.0))
    await rig.settle()
    with pytest.raises(Unavailable):
        await rig.batches.put(2, "k2", 1)
    await rig.finish_all(closing.done)
    assert [future.result() for future in futures] == ["done 0", "done 1"]


async def test_a_close_that_cannot_wait_answers_everybody(rig: Rig) -> None:
    under_way = rig.batches.put(0, "k0", 1)
    await rig.settle()
    waiting = rig.batches.put(1, "k1", 1)
    await rig.batches.close(0.0)
    assert under_way.result() == "cut off"
    with pytest.raises(Unavailable):
        await waiting


@pytest.mark.parametrize("workers", [1, 2, 3])
async def test_what_follows_an_answer_is_done_also_when_all_workers_end_together(rig: Rig, workers: int) -> None:
    """Seen: a payment's next command, put by the answer to the one before, waited for ever behind two workers that
    had ended in the same turn of the event loop and still counted as workers."""
    batches = rig.make(workers=workers, batch_max=1)
    followed: list[asyncio.Future[str]] = []
    for number in range(workers):
        first = batches.put(number, str(number), 1)
        first.add_done_callback(lambda done: followed.append(batches.put(9, "9", 1)))
    await rig.settle()
    assert len(rig.gates) == workers
    for _ in range(10):
        for gate in rig.gates:
            gate.set()
        await asyncio.sleep(0)
    assert [one.done() and one.result() for one in followed] == ["done 9"] * workers
