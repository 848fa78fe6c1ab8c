"""Our consumer without a broker: its thread is played by the test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP

from payment_service.agents import consumer
from payment_service.agents.consumer import NO_PARTITION, POLL_FULL, PaymentConsumer
from payment_service.agents.faust_app import PaymentApp, stream_app

TP0, TP1, OTHER = TP("orders", 0), TP("orders", 1), TP("changelog", 0)


class Feed:
    name = "orders"

    def __init__(self) -> None:
        self.taken: list[tuple[TP, list[int], int]] = []
        self.full: set[TP] = set()
        self.done: dict[TP, int | None] = {}
        self.refuses = False
        self.anew: list[TP] = []

    def wants(self, tp: TP, generation: int) -> bool:
        return tp not in self.full

    def take(self, tp: TP, records: Sequence[Any], generation: int) -> bool:
        if self.refuses:
            return False
        self.taken.append((tp, [record.offset for record in records], generation))
        return True

    def start_anew(self, tp: TP) -> None:
        self.anew.append(tp)

    def partitions(self) -> list[TP]:
        return list(self.done)

    def committable(self, tp: TP) -> int | None:
        return self.done.get(tp)

    def suspend(self) -> None: ...

    async def drain(self, timeout_s: float) -> bool:
        return True

    def forget(self) -> None: ...

    def observe(self) -> float:
        return 0.0


class Thread:
    """What the consumer asks of its thread, with positions like a broker's."""

    def __init__(self, ends: dict[TP, int], committed: dict[TP, int | None]) -> None:
        self.ends, self.committed = ends, committed
        self.position = dict.fromkeys(ends, 0)
        self.asked: list[frozenset[TP]] = []
        self.seeks = 0
        self.during_poll: Callable[[], None] | None = None
        self.broken: Exception | None = None

    async def getmany(self, partitions: frozenset[TP], timeout: float) -> dict[TP, list[Any]]:
        self.asked.append(frozenset(partitions))
        records = {}
        for tp in self.ends:
            if tp in partitions and self.position[tp] < self.ends[tp]:
                records[tp] = [SimpleNamespace(offset=n) for n in range(self.position[tp], self.ends[tp])]
                self.position[tp] = self.ends[tp]
        if self.during_poll is not None:
            self.during_poll()
            self.during_poll = None
        return records

    async def seek_to_committed(self) -> dict[TP, int | None]:
        if self.broken is not None:
            error, self.broken = self.broken, None
            raise error
        self.seeks += 1
        for tp, offset in self.committed.items():
            if offset:
                self.position[tp] = offset
        return self.committed

    async def seek_to_beginning(self, *partitions: TP) -> None:
        for tp in partitions:
            self.position[tp] = 0


class Rig:
    def __init__(self, app: PaymentApp) -> None:
        self.app = app
        self.feed = Feed()
        app.add_feed(self.feed, ["orders"])
        app.consumer_generation_id = 1
        ours: Any = app.consumer
        assert isinstance(ours, PaymentConsumer)
        self.consumer = ours
        self._thread_loop = ours._thread.thread_loop
        ours.resume_flow()
        ours._set_active_tps({TP0, TP1})

    def thread(self, ends: dict[TP, int], committed: dict[TP, int | None]) -> Thread:
        thread = Thread(ends, committed)
        self.consumer._thread = thread  # type: ignore[assignment]
        return thread

    async def poll(self) -> Any:
        return await self.consumer._getmany(self.consumer._active_partitions, 0.01)

    def next_generation(self) -> None:
        self.app.consumer_generation_id += 1


@pytest.fixture
async def rig(tmp_path: Any) -> AsyncIterator[Rig]:
    app = stream_app(
        "payment-service",
        "127.0.0.1:1",
        topic_prefix="",
        partitions=4,
        create_topics=False,
        instance_id=None,
        datadir=str(tmp_path),
    )
    rig = Rig(app)
    yield rig
    rig._thread_loop.close()


async def test_fed_topics_go_to_the_feed_and_the_rest_to_faust(rig: Rig) -> None:
    rig.consumer._set_active_tps({TP0, OTHER})
    rig.thread({TP0: 3, OTHER: 2}, {})
    rest = await rig.poll()
    assert rig.feed.taken == [(TP0, [0, 1, 2], 1)]
    assert [record.offset for record in rest[OTHER]] == [0, 1]
    assert list(rest) == [OTHER]


async def test_a_full_partition_is_left_out_and_never_all_of_them_asked_for(rig: Rig) -> None:
    thread = rig.thread({TP0: 3, TP1: 3}, {})
    rig.feed.full = {TP0}
    await rig.poll()
    rig.feed.full = {TP0, TP1}
    await rig.poll()
    assert thread.asked == [frozenset({TP1}), NO_PARTITION]


@pytest.mark.parametrize(
    ("ends", "held_back"),
    [
        ({TP0: POLL_FULL - 1}, True),
        ({TP0: POLL_FULL}, False),  # a backlog
        ({TP0: 0}, False),  # the first record after a pause must not wait
        ({TP0: 1, OTHER: 1}, False),  # a table that is read back
    ],
)
async def test_only_polls_that_bring_little_are_held_apart(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, ends: dict[TP, int], held_back: bool
) -> None:
    monkeypatch.setattr(consumer, "POLL_GAP_S", 3600.0)
    rig.consumer._set_active_tps({TP0, OTHER})
    thread = rig.thread(ends, {})
    await rig.poll()
    following = asyncio.ensure_future(rig.poll())
    await asyncio.wait({following}, timeout=0.05)
    assert len(thread.asked) == (1 if held_back else 2)
    following.cancel()


async def test_what_a_rebalance_empties_meanwhile_does_not_widen_the_poll(rig: Rig) -> None:
    thread = rig.thread({TP0: 1}, {})
    thread.during_poll = rig.consumer._active_partitions.clear
    await rig.poll()
    assert thread.asked == [frozenset({TP0, TP1})]
    assert rig.feed.taken == []


@pytest.mark.parametrize("committed", [None, 0, 1])
async def test_a_poll_that_outlived_a_rebalance_leaves_no_hole(rig: Rig, committed: int | None) -> None:
    """It brings the last records of the partition under the old number; nothing comes after them."""
    thread = rig.thread({TP0: 3}, {TP0: committed})
    thread.during_poll = rig.next_generation
    await rig.poll()
    assert rig.feed.taken == []
    await rig.poll()
    assert rig.feed.taken == [(TP0, list(range(committed or 0, 3)), 2)]
    assert thread.seeks == 1
    await rig.poll()
    assert thread.seeks == 1


async def test_after_a_hole_nothing_later_is_taken_before_the_positions_are_set_back(rig: Rig) -> None:
    thread = rig.thread({TP0: 2, TP1: 2}, {TP0: None, TP1: None})
    rig.consumer.stop_flow()
    await rig.poll()
    thread.ends = {TP0: 4, TP1: 4}
    thread.during_poll = rig.consumer.resume_flow  # as a recovery does
    await rig.poll()
    assert rig.feed.taken == []
    await rig.poll()
    assert rig.feed.taken == [(TP0, [0, 1, 2, 3], 1), (TP1, [0, 1, 2, 3], 1)]


async def test_a_feed_that_takes_nothing_leaves_no_hole_either(rig: Rig) -> None:
    rig.thread({TP0: 2}, {TP0: None})
    rig.feed.refuses = True
    await rig.poll()
    rig.feed.refuses = False
    await rig.poll()
    assert rig.feed.taken == [(TP0, [0, 1], 1)]


async def test_setting_back_is_tried_until_it_works(rig: Rig) -> None:
    thread = rig.thread({TP0: 2}, {TP0: None})
    thread.during_poll = rig.next_generation
    await rig.poll()
    thread.broken = IllegalStateError("not assigned")
    await rig.poll()
    assert rig.feed.taken == []
    await rig.poll()
    assert rig.feed.taken == [(TP0, [0, 1], 2)]


async def test_a_log_that_was_cut_is_read_whole(rig: Rig) -> None:
    """A broker that lost the end of its log, or was made anew: aiokafka goes back to its start, and what is there has
    offsets that were read, and committed, before."""
    thread = rig.thread({TP0: 5}, {TP0: 5})
    await rig.consumer.perform_seek()
    thread.ends[TP0] = 8
    await rig.poll()
    rig.consumer._committed_offset[TP0] = 8
    thread.ends[TP0], thread.position[TP0] = 3, 0
    await rig.poll()
    assert rig.feed.taken == [(TP0, [5, 6, 7], 1), (TP0, [0, 1, 2], 1)]
    assert rig.feed.anew == [TP0]
    rig.feed.done = {TP0: 2}
    assert rig.consumer._filter_committable_offsets([TP0]) == {TP0: 2}
    thread.ends[TP0] = 4
    await rig.poll()
    assert rig.feed.taken[2:] == [(TP0, [3], 1)] and rig.feed.anew == [TP0]


async def test_what_faust_commits_is_what_the_feed_says(rig: Rig) -> None:
    rig.feed.done = {TP0: 5, TP1: None}
    consumer = rig.consumer
    tps = list(consumer._filter_tps_with_pending_acks())
    assert consumer._filter_committable_offsets(tps) == {TP0: 5}
    consumer._committed_offset[TP0] = 5
    assert consumer._filter_committable_offsets(tps) == {}
