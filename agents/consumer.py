"""Our Kafka consumer under Faust: whole batches to a feed, commits of exactly what the feed has finished.

Room: Kafka in. Overrides Faust's private methods, read and reproduced against faust-streaming 0.15.3 and
aiokafka 0.14; both are pinned to these minor versions for that reason.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from payment_service.agents.committed_offsets import first_positions_at_once, seek_to_committed
from payment_service.agents.fetch_pace import pace_fetches

if TYPE_CHECKING:
    from payment_service.agents.faust_app import PaymentApp

FETCH_MAX_WAIT_MS = 100
"""Faust asks for 1,500: a partition left out of a running long poll then waits that long."""
FULL_POLL_S = 0.05
"""Length of a poll that leaves out a full partition: so long its next records wait at most."""
POLL_GAP_S = 0.02
"""Least time between two polls that bring little: under a steady flow the next records share one, and so do the
changelog batches that follow. The first record after a pause is never held back."""
POLL_FULL = 500
"""Records of one poll that make the next one follow at once: there is a backlog."""
COMMIT_TIMEOUT_S = 5.0
"""For the last commit of an assignment; without it the same work comes again, which is allowed."""
NO_PARTITION = frozenset({TP("", -1)})
"""Matches nothing. An empty set means every partition to aiokafka, and no poll at all ends the membership."""


class RecordFeed(Protocol):
    """What takes the records of some topics instead of a Faust stream. Called on the app's event loop."""

    name: str

    def wants(self, tp: TP, generation: int) -> bool:
        """Whether more records of this partition would be welcome now."""

    def take(self, tp: TP, records: Sequence[Any], generation: int) -> bool:
        """Own these records (aiokafka's, ascending offsets). Never blocks, and has always room.

        False: none of them was taken, the assignment is ending. A record known already is dropped.
        """

    def start_anew(self, tp: TP) -> None:
        """What comes next of this partition is below what was taken: forget its offsets. What was done is done."""

    def partitions(self) -> Iterable[TP]:
        """Partitions that have something to commit or had once, in this assignment."""

    def committable(self, tp: TP) -> int | None:
        """The next offset to read after a restart; everything before it is finished for good."""

    def suspend(self) -> None:
        """Start nothing more of this assignment; what has been started goes on."""

    async def drain(self, timeout_s: float) -> bool:
        """Wait for started work, no longer than this. True: all of it ended."""

    def forget(self) -> None:
        """The assignment is over: late endings may not be committed any more."""

    def observe(self) -> float:
        """Report the gauges; returns for how many seconds the most stuck partition has not moved."""


class PaymentConsumerThread(driver.AIOKafkaConsumerThread):
    consumer: "PaymentConsumer"

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        gap_ms = int(self.consumer.app.fetch_gap_s * 1000)
        consumer._fetch_max_wait_ms = max(FETCH_MAX_WAIT_MS, gap_ms)  # read when the consumer starts
        consumer._isolation_level = "read_committed"  # an order that its shop took back is none
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        consumer = self._ensure_consumer()
        first_positions_at_once(consumer)
        if self.consumer.app.fetch_gap_s:
            pace_fetches(consumer, self.consumer.app.fetch_gap_s)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        committed: Mapping[TP, int] = await self.call_thread(seek_to_committed, self._ensure_consumer())
        return committed


class PaymentConsumer(driver.Consumer):
    """Hands whole batches of the fed topics to their feed; changelogs and the rest go Faust's own way.

    Faust's way costs about 70 microseconds an event, and its bookkeeping of acks commits past unfinished
    events when it sees them out of order. For fed topics neither is used: the offset to commit is asked from
    the feed, and sent by Faust's commit machinery.
    """

    app: "PaymentApp"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.polled_at_s = monotonic()
        self._poll_from_s = 0.0
        self._skipped = False
        """Something was fetched and not taken since the positions were last set back: they must be first."""

    def _new_consumer_thread(self) -> PaymentConsumerThread:
        """With a loop of Python's own. Faust and mode reach from thread to thread without asking, when they stop above
        all; what is a lost wake-up there is a SIGSEGV in uvloop (seen, one SIGTERM in fifty)."""
        python_s_own = asyncio.SelectorEventLoop()
        thread = PaymentConsumerThread(self, loop=self.loop, thread_loop=python_s_own, beacon=self.beacon)
        thread._close_thread_loop_on_stop = True
        return thread

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        if active_partitions is None:
            return await super()._getmany(active_partitions, timeout)
        if self._skipped and self.flow_active:
            await self._read_again()
        pause_s = self._poll_from_s - monotonic()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        feed_of, generation = self.app.feed_of, self.app.consumer_generation_id
        # A copy: Faust empties its own set while the consumer thread still reads it, and empty means "all".
        wanted = frozenset(
            tp for tp in active_partitions if (it := feed_of.get(tp.topic)) is None or it.wants(tp, generation)
        )
        if len(wanted) < len(active_partitions):
            timeout = min(timeout, FULL_POLL_S)
        records = await super()._getmany(wanted or NO_PARTITION, timeout)  # type: ignore[arg-type]
        self.polled_at_s = monotonic()
        rest, fed = {}, 0
        for tp, batch in records.items():
            feed = feed_of.get(tp.topic)
            if feed is None:
                rest[tp] = batch
            else:
                fed += len(batch)
                self._feed(feed, tp, batch, generation)
        if 0 < fed < POLL_FULL and not rest:  # what goes Faust's way, a table that is read back too, is not paced
            self._poll_from_s = self.polled_at_s + POLL_GAP_S
        return rest

    def _feed(self, feed: RecordFeed, tp: TP, batch: Sequence[Any], generation: int) -> None:
        """Hand over, unless the assignment these records belong to is ending or over.

        What is not taken has moved the fetch position all the same. So nothing more is taken until positions
        were set back: a rebalance does it, but a poll may outlive one (it then brings records of the new
        assignment under the old number, and at the end of a partition nothing else comes to show the hole).
        """
        ours = self.flow_active and generation == self.app.consumer_generation_id and tp in self._active_partitions
        if self._skipped or not ours:
            self._skipped = True
            return
        read = self._read_offset[tp]
        if read is not None and batch[0].offset < read:
            # The broker's log ends before what was read or committed: it has lost its end, or is another one. Nothing
            # of it is known by its offset, so all of it is taken; what was done before is known by ids of its own.
            self.log.error("%s-%d goes on at %d, below %d: its log was cut", *tp, batch[0].offset, read)
            self._committed_offset[tp] = None  # lower ones are committed too, or a restart would pass over them
            feed.start_anew(tp)
        self._read_offset[tp] = batch[-1].offset
        self._skipped = not feed.take(tp, batch, generation)

    async def _read_again(self) -> None:
        """From the committed offsets; a feed drops what it has already."""
        self.log.info("Reading again from the committed offsets: records were skipped")
        try:
            await self.perform_seek()
        except (KafkaError, AssertionError) as exc:  # the assignment ended meanwhile: the next one starts anew
            self.log.warning("Could not read again yet: %r", exc)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        yield from super()._filter_tps_with_pending_acks(topics)
        for feed in set(self.app.feed_of.values()):
            for tp in feed.partitions():
                if topics is None or tp in topics or tp.topic in topics:
                    yield tp

    def _new_offset(self, tp: TP) -> int | None:
        feed = self.app.feed_of.get(tp.topic)
        return super()._new_offset(tp) if feed is None else feed.committable(tp)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """As Faust's, and also back to the start where nothing was committed yet.

        Faust leaves such a partition where it is: what was fetched and dropped in a rebalance would be lost.
        """
        self._skipped = False  # before, not after: what is skipped meanwhile needs another round
        try:
            committed = await super().seek_to_committed()
            fresh = [tp for tp, offset in committed.items() if not offset and tp.topic in self.app.feed_of]
            if fresh:
                await self._thread.seek_to_beginning(*fresh)
        except BaseException:
            self._skipped = True
            raise
        return committed

    async def lags(self, feed_of: Mapping[str, RecordFeed]) -> dict[str, int]:
        """By topic how many records of its partitions here are not finished, by the broker's own end of each: what the
        last fetch told of it is old where a partition is not fetched. One request for all, and one more for partitions
        that nobody has read yet. Raises KafkaError, AssertionError (revoked)."""
        mine = [tp for tp in self.assignment() if tp.topic in feed_of]
        ends = await self.highwaters(*mine) if mine else {}
        done: dict[TP, int | None] = {}
        for tp in mine:
            finished = feed_of[tp.topic].committable(tp)
            done[tp] = self._committed_offset[tp] if finished is None else finished
        untouched = [tp for tp, offset in done.items() if offset is None]
        firsts = await self.earliest_offsets(*untouched) if untouched else {}
        lags = dict.fromkeys(feed_of, 0)
        for tp, offset in done.items():
            lags[tp.topic] += max(0, ends[tp] - (firsts.get(tp, 0) if offset is None else offset))
        return lags

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """As Faust's; nothing after a crash, when the thread that talks to the broker has ended."""
        if self.crashed:
            return False
        return await super().commit(topics, start_new_transaction)

    async def commit_now(self) -> None:
        """Commit what is finished at this moment. Limits: COMMIT_TIMEOUT_S."""
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                if not await self.commit():  # it may only have waited for an older commit to end
                    await self.commit()
        except TimeoutError:
            self.log.warning("The last commit took more than %r s: its events come again", COMMIT_TIMEOUT_S)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.stop_flow()
        for feed in self.app.feeds:
            feed.suspend()
        await self.commit_now()  # super() forgets what was acked and not committed before it commits
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        for feed in self.app.feeds:
            feed.forget()
        await super().on_partitions_assigned(assigned, generation_id)

    async def verify_all_partitions_active(self) -> None:
        """Nothing: Faust only logs here, from sensors we switched off. PaymentApp watches and acts."""


class PaymentTransport(driver.Transport):
    Consumer = PaymentConsumer
