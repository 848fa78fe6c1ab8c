"""Order events from OCI Queue into the topic of orders: the topic is what is worked on, the queue only a way there.

Room: adapters. A message is deleted from the queue only after the broker's ack, so what dies in between comes again,
and an order event that comes twice changes nothing (it has an id of its own). While the broker is away nothing is
taken, and what was taken already is held: neither costs a delivery.

What cannot be put into the topic (larger than a message may be, no text), and what was delivered so often that
something must be wrong with it, goes to the dead letters and is deleted, before the queue itself puts it away where
nobody of ours looks. Replayed from there it goes to the topic of orders.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

from payment_service.adapters.kafka_message import NeverTaken
from payment_service.adapters.oci_queue import VISIBILITY_S, OciQueue, QueueMessage, QueuePlace
from payment_service.adapters.oci_sign_on import OciRefused
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Metrics

POLLERS = 4
"""Threads that take messages, GET_MAX each at once."""
LOOK_S = 1.0
"""What was acked meanwhile is deleted so often; all of a batch at once, where the broker is not slow."""
HOLD_AGAIN_S = VISIBILITY_S / 3
HELD_S_MAX = 3600.0
"""So long a message is held for a broker that does not take it; then it is given back and comes again."""
AGAIN_S_MIN = 0.5
AGAIN_S_MAX = 30.0
REFUSED_S = 30.0
"""What only an operator can mend (a right, a wrong id) is asked again so often, with an alarm in the log."""
AWAY_S = 1.0
DELETES_MAX = 4
DEPTH_EVERY_S = 30.0
NO_PARTITION = -1
"""A queue has none: in a dead letter it stands before the message's id."""
MESSAGE_HEADER = "oci_queue_message"

DONE, LETTER, GIVEN_BACK = "done", "dead_letter", "given_back"
Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


class Publishes(Protocol):
    """What OutboxPublisher does."""

    @property
    def connected(self) -> bool: ...

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None: ...


class KeepsDeadLetters(Protocol):
    async def keep(
        self, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None,
        headers: tuple[tuple[str, bytes], ...], reason: str, error: str,
    ) -> None: ...  # fmt: skip


class QueueOrders:
    """`topic` without the prefix. `find` and `connect` block; `connect` is called once in each thread.

    Limits: POLLERS x GET_MAX messages in memory.
    """

    def __init__(
        self, find: Callable[[], QueuePlace], connect: Callable[[str], OciQueue], topic: str, prefix: str,
        publisher: Publishes, letters: KeepsDeadLetters, metrics: Metrics, deliveries_max: int,
    ) -> None:  # fmt: skip
        self._find = find
        self._connect = connect
        self._topic = topic
        self._prefix = prefix
        self._publisher = publisher
        self._letters = letters
        self._metrics = metrics
        self._deliveries_max = deliveries_max
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until it is stopped. What is away is waited for."""
        self._running = asyncio.current_task()
        place = await self._found()
        if place is None:
            return
        async with asyncio.TaskGroup() as group:
            for number in range(POLLERS):
                group.create_task(self._poll(place.endpoint, tells_depth=number == 0))

    async def stop(self, timeout_s: float) -> None:
        """Takes nothing more, waits for the polls to end, and gives back what the broker has not."""
        self._stopping.set()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=timeout_s)

    async def _found(self) -> QueuePlace | None:
        with _own_thread() as thread:
            place = await self._until_answered(thread, self._find)
        if place is not None and place.deliveries_max:
            # One delivery is left for the case that a worker dies before the letter is kept.
            self._deliveries_max = max(2, min(self._deliveries_max, place.deliveries_max - 1))
        return place

    async def _poll(self, endpoint: str, *, tells_depth: bool) -> None:
        loop = asyncio.get_running_loop()
        depth_at = loop.time()
        with _own_thread() as thread:
            queue = await self._until_answered(thread, partial(self._connect, endpoint))
            while queue is not None and not self._stopping.is_set():
                if not self._publisher.connected:
                    await self._pause(AWAY_S)
                    continue
                if tells_depth and loop.time() >= depth_at:
                    depth_at = loop.time() + DEPTH_EVERY_S
                    await self._tell_depth(thread, queue)
                messages = await self._until_answered(thread, queue.get)
                if messages:
                    await _Batch(self, thread, queue, messages).forward()

    async def _until_answered(self, thread: ThreadPoolExecutor, call: Callable[[], Answer]) -> Answer | None:
        """None: it was stopped meanwhile."""
        pause_s = AGAIN_S_MIN
        while not self._stopping.is_set():
            try:
                return await in_thread(thread, call)
            except OciRefused as error:
                self._metrics.count("queue_failures", reason="refused")
                _log.error("the order queue cannot be read: %s", error.message)
                await self._pause(REFUSED_S)
            except Unavailable as error:
                self._metrics.count("queue_failures", reason="away")
                _log.warning("the order queue is away: %s again_in_s=%.1f", error.message, pause_s)
                await self._pause(pause_s * random.uniform(0.8, 1))  # noqa: S311 - spreads workers, guards nothing
                pause_s = min(pause_s * 2, AGAIN_S_MAX)
        return None

    async def _tell_depth(self, thread: ThreadPoolExecutor, queue: OciQueue) -> None:
        try:
            depth = await in_thread(thread, queue.depth)
        except (OciRefused, Unavailable) as error:
            _log.info("the depth of the order queue is not known: %s", error.message)
            return
        self._metrics.gauge("queue_depth", depth.visible, state="visible")
        self._metrics.gauge("queue_depth", depth.in_flight, state="in_flight")
        self._metrics.gauge("queue_depth", depth.dead, state="dead")

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    # --- one message -----------------------------------------------------------------------------------------

    async def take(self, message: QueueMessage) -> str:
        """Until it is in the topic or a dead letter, however long that takes. Cancelled when it is given back."""
        pause_s = AGAIN_S_MIN
        while True:
            try:
                return await self._take(message)
            except Unavailable as error:
                _log.warning("an order of the queue waits: %s again_in_s=%.1f", error.message, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, AGAIN_S_MAX)

    async def _take(self, message: QueueMessage) -> str:
        if message.deliveries >= self._deliveries_max:
            told = f"delivered {message.deliveries} times without being taken"
            return await self._bury(message, "DELIVERED_TOO_OFTEN", told)
        try:
            value, headers = message.content.encode(), _headers_of(message)
        except UnicodeEncodeError:
            return await self._bury(message, "NOT_TEXT", "the content is no text that can be written as UTF-8")
        try:
            await self._publisher.send(self._topic, None, value, headers)
        except NeverTaken as error:
            return await self._bury(message, "NEVER_TAKEN", str(error))
        return DONE

    async def _bury(self, message: QueueMessage, reason: str, error: str) -> str:
        value = message.content.encode(errors="surrogatepass")
        headers = tuple((name, text) for name, text in _headers_of(message, errors="replace"))
        await self._letters.keep(
            self._prefix + self._topic, NO_PARTITION, message.id, None, value, headers, reason, error
        )
        _log.warning("dead letter: message %d of the queue, %s", message.id, reason)
        return LETTER

    def counted(self, outcome: str, count: int = 1) -> None:
        if count:
            self._metrics.count("queue_messages", count, outcome=outcome)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()


class _Batch:
    """What one poll brought, until each of it is deleted or given back."""

    def __init__(
        self, orders: QueueOrders, thread: ThreadPoolExecutor, queue: OciQueue, messages: Sequence[QueueMessage]
    ) -> None:
        self._orders = orders
        self._thread = thread
        self._queue = queue
        self._open = {asyncio.create_task(orders.take(it)): it for it in messages}

    async def forward(self) -> None:
        """Raises what a bug of ours raises; the messages come again by themselves."""
        now = asyncio.get_running_loop().time
        give_back_at, hold_at = now() + HELD_S_MAX, now() + HOLD_AGAIN_S
        try:
            while self._open:
                done, _ = await asyncio.wait(self._open, timeout=LOOK_S)
                await self._finish(done)
                if self._open and (self._orders.stopping or now() > give_back_at):
                    await self._give_back()
                elif self._open and now() > hold_at:
                    hold_at = now() + HOLD_AGAIN_S
                    await self._try(partial(self._queue.hold, self._receipts(), VISIBILITY_S), "hold")
        finally:
            for task in self._open:
                task.cancel()

    async def _finish(self, done: "set[asyncio.Task[str]]") -> None:
        receipts = []
        for task in done:
            self._orders.counted(task.result())
            receipts.append(self._open.pop(task).receipt)
        if receipts:
            await self._try(partial(self._queue.delete, receipts), "delete")

    async def _give_back(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.wait(self._open)
        await self._finish({task for task in self._open if not task.cancelled()})
        if self._open:
            self._orders.counted(GIVEN_BACK, len(self._open))
            await self._try(partial(self._queue.hold, self._receipts(), 0), "give back")
            self._open.clear()

    def _receipts(self) -> list[str]:
        return [it.receipt for it in self._open.values()]

    async def _try(self, call: Callable[[], int], what: str) -> None:
        """Some times. What is not deleted or held comes again, which costs a delivery and nothing else."""
        for left in range(DELETES_MAX - 1, -1, -1):
            try:
                failed = await in_thread(self._thread, call)
            except (Unavailable, OciRefused) as error:
                _log.warning("messages of the queue: cannot %s them: %s", what, error.message)
                if left and isinstance(error, Unavailable):
                    await asyncio.sleep(AGAIN_S_MIN)
                    continue
                self._orders.counted(f"not_{what}".replace(" ", "_"))
            else:
                self._orders.counted(f"not_{what}".replace(" ", "_"), failed)
            return


@contextmanager
def _own_thread() -> Iterator[ThreadPoolExecutor]:
    """Not waited for at its end: a poll may last, and would hold the event loop so long."""
    thread = ThreadPoolExecutor(1, "oci-queue")
    try:
        yield thread
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


async def in_thread(thread: ThreadPoolExecutor, call: Callable[[], Answer]) -> Answer:
    return await asyncio.get_running_loop().run_in_executor(thread, call)


def _headers_of(message: QueueMessage, errors: str = "strict") -> list[tuple[str, bytes]]:
    """Its properties (a CloudEvent's ce_… among them), and which message it was."""
    named = [(name, text.encode(errors=errors)) for name, text in message.properties.items()]
    return [*named, (MESSAGE_HEADER, str(message.id).encode())]
