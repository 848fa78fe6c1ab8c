"""From a Kafka record to finished work and back to a committed offset: keyed, bounded, nothing lost.

Room: Kafka in. With batch_delivery.py the only file that decides what Faust may acknowledge. A handler says what a
record means (`plan`, at once) and does it (`start`, done when the outcome is DURABLE); everything about order, limits,
retries, dead letters and rebalances is here. One `Delivery` serves one input topic (or one list of them).

What happened to the work          What happens to its event
it returned                        finished
Unavailable, OutcomeUnknown        the same work again after a pause, however long it takes; its lane waits
Malformed, Refused                 to the dead letters, and finished when they have it for good
anything else, a cancellation      our bug: the app crashes, the event is not finished and comes again

Guarantees: work of one lane runs one after another in the order of arrival, in every assignment of this
process; Faust is shown only the contiguous prefix of finished events of a partition and assignment.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from faust.types import TP

from payment_service.agents.faust_app import PaymentApp
from payment_service.agents.records import (
    DeadLetters,
    DeliveryLimits,
    DeliveryMetrics,
    Fate,
    InFlight,
    PartitionState,
    Record,
    StreamHandler,
    Work,
    now_ms,
    record_of,
    record_of_event,
    release,
)
from payment_service.agents.retrying import retry_pause_s
from payment_service.core.errors import Malformed, OutcomeUnknown, PaymentError, Refused, Unavailable

BACKLOG_LOW = 1_000
"""Fetch a partition again when fewer records than this wait; the most that can wait is one fetch more."""
PUMP_MAX = 32
"""Records taken from backlogs in one turn of the event loop, about 2 ms; REST shares it."""
PUMP_SLICE = 16
"""Records of one partition before another one gets its turn."""
ROOM_POLL_S = 1.0

_log = logging.getLogger(__name__)

__all__ = ["Delivery", "DeliveryLimits", "Record", "Work"]


class Delivery:
    """Limits: DeliveryLimits, and for each partition BACKLOG_LOW plus one fetch of records in memory.

    Back-pressure: what has no room is not fetched; nothing is ever dropped to make room.
    """

    def __init__(
        self,
        app: PaymentApp,
        topics: Sequence[str],
        handler: StreamHandler,
        *,
        dead_letters: DeadLetters,
        limits: DeliveryLimits,
        metrics: DeliveryMetrics,
    ) -> None:
        """`topics` without the prefix; attach() makes the agent."""
        self.name = handler.name
        self._app = app
        self._topics = topics
        self._handler = handler
        self._dead_letters = dead_letters
        self._limits = limits
        self._metrics = metrics
        self._parts: dict[TP, PartitionState] = {}
        self._lanes: dict[object, InFlight] = {}  # lane -> its running item
        self._retrying: set[InFlight] = set()
        self._hungry: deque[PartitionState] = deque()  # those with a backlog, in the order of their turns
        self._in_flight, self._running, self._paused = 0, 0, False
        self._failed: BaseException | None = None
        self._turn_due = False
        self._counts: Counter[str] = Counter()  # outcomes since the last turn
        self._crash: asyncio.Future[None] | None = None
        self._room_waiter: asyncio.Future[None] | None = None
        self._idle_waiter: asyncio.Future[None] | None = None

    def attach(self, *, by_batches: bool = True) -> Any:
        """Register the agent of these topics, and return it.

        `by_batches`: on a real broker the records come straight from the consumer, and the agent's stream
        stays empty; without it they take Faust's way (ten times the processor time).
        """
        topic = self._app.raw_topic(*self._topics)
        self._app.add_feed(self, topic.topics if by_batches else ())

        async def events(stream: Any) -> None:
            await self.run(stream)

        events.__doc__ = self._handler.__doc__
        return self._app.agent(topic, name=self.name, concurrency=1)(events)

    # -- in: a Faust stream, or batches from the consumer

    async def run(self, stream: Any) -> None:
        """Take events from a Faust stream for ever."""
        async for event in stream.noack().events():
            message = event.message
            record = record_of_event(message)
            while not self._stale(message.generation_id):
                part = self._partition(message.tp, message.generation_id)
                if self._room(part) > 0:
                    self._admit(part, record, now_ms(), event)
                    break
                self._room_waiter = asyncio.get_running_loop().create_future()
                await asyncio.wait({self._room_waiter}, timeout=ROOM_POLL_S)

    def _stale(self, generation: int) -> bool:
        """Revoked or failed while it waited for room: it is not ours any more, and comes again by itself."""
        over = generation != self._app.consumer_generation_id or not self._app.flow_control.is_active()
        return over or self._failed is not None

    def wants(self, tp: TP, generation: int) -> bool:
        part = self._parts.get(tp)
        return part is None or part.generation != generation or len(part.backlog) < BACKLOG_LOW

    def take(self, tp: TP, records: Sequence[Any], generation: int) -> bool:
        part = self._partition(tp, generation)
        if self._failed is not None or not part.live:
            return False
        if not part.backlog:
            self._hungry.append(part)
        part.backlog.extend(records)
        self._wake()
        return True

    def start_anew(self, tp: TP) -> None:
        part = self._parts.pop(tp, None)
        if part is not None:
            part.live, part.over = False, True
            if part.backlog:
                part.backlog.clear()
                self._hungry.remove(part)

    def _partition(self, tp: TP, generation: int) -> PartitionState:
        part = self._parts.get(tp)
        if part is None or part.generation != generation:
            self.start_anew(tp)
            part = self._parts[tp] = PartitionState(generation)
        return part

    def _room(self, part: PartitionState) -> int:
        """How many more events of this partition may be started now; below 1: none."""
        if self._paused or not part.live:
            return 0
        at_most = self._limits
        left = at_most.in_flight_max - self._in_flight, at_most.partition_in_flight_max - part.in_flight
        return min(*left, at_most.window_max - len(part.window))

    def _wake(self) -> None:
        """Something changed: once in this turn of the event loop, however many events end in it."""
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Fill what became free; whoever waits for room or for the end looks again."""
        self._turn_due = False
        if self._hungry:
            self._pump()
        release(self._room_waiter)
        if self._running == 0:
            release(self._idle_waiter)
        if self._counts:
            for outcome, amount in self._counts.items():
                self._metrics.counted(self.name, outcome, amount)
            self._counts.clear()

    def _pump(self) -> None:
        """Take from the backlogs what has room, partition by partition."""
        hungry, left, without_room, now = self._hungry, PUMP_MAX, 0, now_ms()
        while without_room < len(hungry):
            if left <= 0:
                self._wake()
                return
            part = hungry.popleft()
            backlog, taken = part.backlog, 0
            room = min(PUMP_SLICE, self._room(part))
            while backlog and taken < room:
                taken += 1
                self._admit(part, record_of(backlog.popleft()), now)
            left -= taken
            without_room = 0 if taken else without_room + 1
            if part.backlog:
                hungry.append(part)

    # -- through: lanes and attempts

    def _admit(self, part: PartitionState, record: Record, at_ms: int, event: Any = None) -> None:
        if not part.window.register(record.offset, at_ms):
            return
        if event is not None:
            part.events.append(event)
        try:
            work = self._handler.plan(record)
        except (Malformed, Refused) as exc:
            item = InFlight(self, part, record, record.place)
            item.refusal = exc
        except Exception as exc:
            self._fail(exc)
            return
        else:
            if work is None:
                self._counts[Fate.SKIPPED] += 1
                self._wake()
                self._finish(part, record.offset)
                return
            item = InFlight(self, part, record, work.lane)
            item.work = work
        self._in_flight += 1
        part.in_flight += 1
        ahead = self._lanes.get(item.lane)
        if ahead is None:
            self._lanes[item.lane] = item
            self._start(item)
        elif ahead.waiting is None:
            ahead.waiting = deque((item,))
        else:
            ahead.waiting.append(item)

    def _start(self, item: InFlight | None) -> None:
        """Run it and, while answers are there at once, those behind it: a loop, for a lane may be long."""
        while item is not None:
            if not item.part.live:
                item = self._leave(item, Fate.DROPPED)
                continue
            self._running += 1
            future = item.future = self._attempt(item)
            if not future.done():
                future.add_done_callback(item)
                return
            item = self._settle(item, future)

    def _attempt(self, item: InFlight) -> "asyncio.Future[Any]":
        refusal = item.refusal
        try:
            if refusal is not None:
                error = f"{type(refusal).__name__}: {refusal}"
                answer: Awaitable[object] = self._dead_letters(item.record, refusal.code, error)
            else:
                assert item.work is not None
                answer = item.work.start()
        except Exception as exc:
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(exc)
            return failed
        return answer if type(answer) is asyncio.Future else asyncio.ensure_future(answer)

    def answered(self, item: InFlight, future: "asyncio.Future[Any]") -> None:
        self._start(self._settle(item, future))

    def _settle(self, item: InFlight, future: "asyncio.Future[Any]") -> InFlight | None:
        """One attempt ended. Returns what its lane runs next, if that is now."""
        self._running -= 1
        item.future = None
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            self._finish(item.part, item.record.offset)
            return self._leave(item, Fate.DONE if item.refusal is None else Fate.DEAD)
        if isinstance(error, Unavailable | OutcomeUnknown):
            return self._later(item, error)
        if isinstance(error, Malformed | Refused) and item.refusal is None:
            item.refusal = error
            item.attempts = 0
            return item
        self._fail(error)
        return None

    def _later(self, item: InFlight, error: PaymentError) -> InFlight | None:
        """Nobody can do it now. The lane stays busy and the partition waits: losing it is not allowed."""
        self._counts[Fate.RETRIED] += 1
        item.part.retried_at_ms = now_ms()
        if not item.part.live:
            return self._leave(item, Fate.DROPPED)
        pause = retry_pause_s(item.attempts, error)
        item.attempts += 1
        self._retrying.add(item)
        item.timer = asyncio.get_running_loop().call_later(pause, self._again, item)
        self._wake()
        return None

    def _again(self, item: InFlight) -> None:
        self._retrying.discard(item)
        item.timer = None
        self._start(item)

    def _leave(self, item: InFlight, outcome: str) -> InFlight | None:
        """Free its place, and give its lane to the next."""
        if outcome is Fate.DEAD:
            _log.warning("dead letter: %s-%d@%d %r", *item.record.place, item.refusal)
        self._free(item, outcome)
        behind = item.waiting
        self._wake()
        if not behind:
            del self._lanes[item.lane]
            return None
        following = behind.popleft()
        following.waiting = behind
        self._lanes[item.lane] = following
        return following

    def _free(self, item: InFlight, outcome: str) -> None:
        self._counts[outcome] += 1
        self._in_flight -= 1
        item.part.in_flight -= 1

    def _fail(self, error: BaseException) -> None:
        """A bug: start nothing more, finish nothing of it, and end the stream side loudly."""
        _log.error("%s crashes the stream side", self.name, exc_info=error)
        if self._failed is None:
            self._failed = error
            self._counts[Fate.CRASHED] += 1
            self.suspend()
            self._crash = asyncio.ensure_future(self._app.crash(error))

    # -- out: acknowledgements

    def _finish(self, part: PartitionState, offset: int) -> None:
        shown = part.window.done(offset, now_ms())
        if shown is not None and not part.over:
            events = part.events
            while events and events[0].message.offset < shown:
                events.popleft().ack()

    def partitions(self) -> Iterable[TP]:
        return list(self._parts)

    def committable(self, tp: TP) -> int | None:
        part = self._parts.get(tp)
        return None if part is None else part.window.committable

    # -- rebalance, end, limits, watch

    def suspend(self) -> None:
        for part in self._parts.values():
            part.live = False
            part.backlog.clear()
        self._hungry.clear()
        for item in self._lanes.values():
            for queued in item.waiting or ():
                self._free(queued, Fate.DROPPED)
            item.waiting = None
        for item in self._retrying:
            assert item.timer is not None
            item.timer.cancel()
            self._leave(item, Fate.DROPPED)
        self._retrying.clear()
        self._wake()

    async def drain(self, timeout_s: float) -> bool:
        if self._running:
            self._idle_waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._idle_waiter}, timeout=timeout_s)
        return self._running == 0

    def forget(self) -> None:
        self.suspend()
        for tp in list(self._parts):
            self.start_anew(tp)

    def pause(self) -> None:
        """Take nothing more for now; what is in flight goes on. For whoever runs the work behind us."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._wake()

    def observe(self) -> float:
        """Report the gauges; returns for how many seconds the most stuck partition has not moved.

        Waiting for something that says it is away is no standstill: only silence is.
        """
        now = now_ms()
        parts = self._parts.values()
        oldest_s = max((part.window.oldest_age_ms(now) for part in parts), default=0) / 1000
        window, backlog = sum(len(part.window) for part in parts), sum(len(part.backlog) for part in parts)
        self._metrics.observed(
            self.name, in_flight=self._in_flight, window=window, backlog=backlog, oldest_age_s=oldest_s
        )
        stuck = (min(part.window.stuck_ms(now), now - part.retried_at_ms) for part in parts)
        return max(stuck, default=0) / 1000
