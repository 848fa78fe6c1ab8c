"""From many Kafka records to one piece of finished work: for what is done for a batch at once, in the order of its
partition, such as writing rows of a table.

Room: Kafka in. As delivery.py, with a batch where that has an event: no task, no future and no bookkeeping for each
record. One batch of a partition at a time, and while it is on its way the next one gathers; so what may be committed
is simply the end of the last one. One `BatchDelivery` serves the topics of one handler.

What happened to the work          What happens to its records
it returned                        finished, once the dead letters have those that it refused
Unavailable, OutcomeUnknown        the same batch again after a pause, however long it takes; its partition waits
anything else, a cancellation      our bug: the app crashes, the records are not finished and come again
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from time import monotonic
from typing import Any

from faust.types import TP

from payment_service.agents.faust_app import PaymentApp
from payment_service.agents.records import (
    BatchHandler,
    Carried,
    DeadLetters,
    DeliveryMetrics,
    Fate,
    record_of,
    release,
)
from payment_service.agents.retrying import retry_pause_s
from payment_service.core.errors import OutcomeUnknown, PaymentError, Unavailable

BATCH_RECORDS_MAX = 256
"""Records that are decoded without a pause: about 3 ms; REST shares the event loop."""
BACKLOG_LOW = 1_000
"""Fetch a partition again when fewer records than this wait; the most that can wait is one fetch more."""
GATHER_S = 0.05
"""Least time between two rounds of records that bring little: under a steady flow the next records share a fetch, a
batch and a request to the broker. The first record after a pause is never held back."""

_log = logging.getLogger(__name__)


class _Partition:
    """One partition in one assignment."""

    __slots__ = ("backlog", "batch", "committable", "generation", "last", "live", "moved_at_s", "task", "wake")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.backlog: deque[Any] = deque()
        self.batch: Sequence[Any] = ()  # what is being worked on
        self.committable: int | None = None
        self.last = -1  # the highest offset that was taken
        self.live = True  # False: nothing of it is started any more
        self.moved_at_s = 0.0  # when something of it was last started, finished or put off
        self.task: asyncio.Task[None] | None = None
        self.wake: asyncio.Future[None] | None = None  # whoever waits to try again


class BatchDelivery:
    """Limits: BATCH_RECORDS_MAX in work for each partition, BACKLOG_LOW plus one fetch of records waiting.

    Back-pressure: what has no room is not fetched; nothing is ever dropped to make room.
    """

    def __init__(
        self,
        app: PaymentApp,
        topics: Sequence[str],
        handler: BatchHandler,
        *,
        dead_letters: DeadLetters,
        metrics: DeliveryMetrics,
    ) -> None:
        """`topics` without the prefix; attach() makes the agent."""
        self.name = handler.name
        self._app = app
        self._topics = topics
        self._handler = handler
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._parts: dict[TP, _Partition] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._gather_until_s = 0.0
        self._taken = 0  # records of the present poll
        self._failed = False
        self._crash: asyncio.Future[None] | None = None

    def attach(self) -> Any:
        """Register the agent of these topics, and return it: they are subscribed by it, its stream stays empty."""
        topic = self._app.raw_topic(*self._topics)
        self._app.add_feed(self, topic.topics)

        async def events(stream: Any) -> None:
            async for _ in stream.noack().events():
                raise RuntimeError(f"{self.name} takes records from the consumer alone")

        events.__doc__ = self._handler.__doc__
        return self._app.agent(topic, name=self.name, concurrency=1)(events)

    # -- in

    def wants(self, tp: TP, generation: int) -> bool:
        if monotonic() < self._gather_until_s:
            return False
        self._taken = 0
        part = self._parts.get(tp)
        return part is None or part.generation != generation or len(part.backlog) < BACKLOG_LOW

    def take(self, tp: TP, records: Sequence[Any], generation: int) -> bool:
        part = self._parts.get(tp)
        if part is None or part.generation != generation:
            if part is not None:
                part.live = False
            part = self._parts[tp] = _Partition(generation)
        if self._failed or not part.live:
            return False
        if records[0].offset <= part.last:  # a seek back inside one assignment reads it again
            records = [record for record in records if record.offset > part.last]
        if records:
            part.last = records[-1].offset
            part.backlog.extend(records)
            if part.task is None:
                self._work_on(tp, part)
        self._taken += len(records)
        self._gather_until_s = monotonic() + GATHER_S if self._taken < BATCH_RECORDS_MAX else 0.0
        return True

    # -- through

    def _work_on(self, tp: TP, part: _Partition) -> None:
        task = part.task = asyncio.ensure_future(self._work(tp, part))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, tp: TP, part: _Partition) -> None:
        """Lives as long as something waits."""
        backlog = part.backlog
        try:
            while backlog and part.live:
                batch = part.batch = list(islice(backlog, BATCH_RECORDS_MAX))
                for _ in batch:
                    backlog.popleft()
                part.moved_at_s = monotonic()
                if await self._carry_out(tp, part, batch):
                    part.committable = batch[-1].offset + 1
                else:
                    self._metrics.counted(self.name, Fate.DROPPED, len(batch))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the loop itself ends
            self._fail(error)
        except Exception as error:
            self._fail(error)
        finally:
            part.batch = ()
            part.task = None

    async def _carry_out(self, tp: TP, part: _Partition, batch: Sequence[Any]) -> bool:
        """Until it is done. False: the assignment ended, and it comes again."""
        carried: Carried | None = None
        attempts = dead = 0
        while True:
            try:
                if carried is None:
                    carried = await self._handler.carry_out(tp.partition, batch)
                for record, refusal in carried.refused[dead:]:
                    await self._bury(record, refusal)
                    dead += 1
                break
            except (Unavailable, OutcomeUnknown) as error:
                self._metrics.counted(self.name, Fate.RETRIED)
                part.moved_at_s = monotonic()
                await self._pause(part, retry_pause_s(attempts, error))
                attempts += 1
                if not part.live:
                    return False
        self._metrics.counted(self.name, Fate.DONE, len(batch) - dead - carried.skipped)
        if carried.skipped:
            self._metrics.counted(self.name, Fate.SKIPPED, carried.skipped)
        return True

    async def _bury(self, raw: Any, refusal: PaymentError) -> None:
        record = record_of(raw)
        await self._dead_letters(record, refusal.code, f"{type(refusal).__name__}: {refusal}")
        self._metrics.counted(self.name, Fate.DEAD)
        _log.warning("dead letter: %s-%d@%d %r", *record.place, refusal)

    async def _pause(self, part: _Partition, pause_s: float) -> None:
        """Ended by `suspend`."""
        if part.live:
            part.wake = asyncio.get_running_loop().create_future()
            await asyncio.wait({part.wake}, timeout=pause_s)
            part.wake = None

    def _fail(self, error: BaseException) -> None:
        """A bug: start nothing more, finish nothing of it, and end the stream side loudly."""
        _log.error("%s crashes the stream side", self.name, exc_info=error)
        if not self._failed:
            self._failed = True
            self._metrics.counted(self.name, Fate.CRASHED)
            self.suspend()
            self._crash = asyncio.ensure_future(self._app.crash(error))

    # -- out: acknowledgements

    def partitions(self) -> Iterable[TP]:
        return list(self._parts)

    def committable(self, tp: TP) -> int | None:
        part = self._parts.get(tp)
        return None if part is None else part.committable

    # -- rebalance, end, watch

    def suspend(self) -> None:
        for part in self._parts.values():
            _suspend(part)

    def start_anew(self, tp: TP) -> None:
        part = self._parts.pop(tp, None)
        if part is not None:
            _suspend(part)

    async def drain(self, timeout_s: float) -> bool:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        return not self._tasks

    def forget(self) -> None:
        self.suspend()
        self._parts.clear()

    def observe(self) -> float:
        """Report the gauges; returns for how many seconds the most stuck partition has not moved.

        Waiting for something that says it is away is no standstill: only silence is.
        """
        now = monotonic()
        busy = [part for part in self._parts.values() if part.batch]
        in_flight = sum(len(part.batch) for part in busy)
        backlog = sum(len(part.backlog) for part in self._parts.values())
        still_s = max((now - part.moved_at_s for part in busy), default=0.0)
        self._metrics.observed(self.name, in_flight=in_flight, window=in_flight, backlog=backlog, oldest_age_s=still_s)
        return still_s


def _suspend(part: _Partition) -> None:
    part.live = False
    part.backlog.clear()
    release(part.wake)
