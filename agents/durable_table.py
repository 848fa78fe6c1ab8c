"""Tables whose changelog is awaited before an event is finished; Faust throws those sends away.

Room: Kafka in. Two ways to write, with the same guarantee: `table[key] = value` inside
`app.durable_writes(record)` (Faust's own, about 100 microseconds each), and `table.write(...)` for the tables
that take an event per payment: many writes of a partition become one batch of its changelog.

Overrides Faust's private methods, read against faust-streaming 0.15.3 and aiokafka 0.14.
"""

import asyncio
import contextvars
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import faust
import faust.streams
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faust.stores import memory
from faust.types import TP, Message
from faust.types.tuples import FutureMessage

from payment_service.core.errors import Malformed, Unavailable
from payment_service.tables.writes import Writes

if TYPE_CHECKING:
    from payment_service.agents.faust_app import PaymentApp

CHANGELOG_TIMEOUT_S = 40.0
"""Longer than the producer's request time-out, so that its own verdict comes first."""
BATCH_RECORDS_MAX = 1_000
"""Writes in one changelog batch; the producer's batch size in bytes ends it earlier."""
VALUE_BYTES_MAX = 900_000
"""Less than the largest message a broker takes by default (1 MiB, with its headers)."""

_Writes = list[FutureMessage]
writes_of_event: contextvars.ContextVar[_Writes | None] = contextvars.ContextVar("table_writes", default=None)

_Written = tuple[bytes, bytes | None, int, Writes]
"""Key, value, the assignment it was written in, and who waits for it."""


class DurableTable(faust.Table):  # type: ignore[type-arg]
    """`keeps`, if set, is asked for every record that is read back from the changelog, in order: False leaves it
    out. It may not raise: Faust would log it and lose the whole batch.
    """

    app: "PaymentApp"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keeps: Callable[[int, bytes, bytes | None, int], bool] | None = None
        """(partition, key, value, the record's time in milliseconds) -> keep it."""
        self._queued: dict[int, deque[_Written]] = {}
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._batch_max = BATCH_RECORDS_MAX

    # -- one by one, inside durable_writes

    def send_changelog(self, *args: Any, **kwargs: Any) -> FutureMessage:
        writes = writes_of_event.get()
        if writes is None:
            raise RuntimeError(f"table {self.name} may only be written inside app.durable_writes(record)")
        sent = super().send_changelog(*args, **kwargs)
        sent.add_done_callback(_look_at)
        writes.append(sent)
        return sent

    # -- many at once

    def write(self, partition: int, key: bytes, value: bytes | None, writes: Writes) -> None:
        """Set (None: delete) a row. `writes` is told when the broker has it; only then is it seen in the table.

        So the table never shows what its changelog may not have, and a failed write leaves no trace: the same
        again is always right. Writes of one partition happen in the order of these calls. Call it for an event
        of that partition only, and finish that event after it.

        Raises Malformed (larger than a message may be). What `writes` is told: Unavailable (the same again),
        Malformed (the broker takes no message that large).
        Limits: one batch of a partition in flight, BATCH_RECORDS_MAX each; what queues behind it is bounded by
        the events in flight. VALUE_BYTES_MAX, CHANGELOG_TIMEOUT_S.
        """
        if value is not None and len(value) > VALUE_BYTES_MAX:
            raise _too_large()
        queue = self._queued.get(partition)
        if queue is None:
            queue = self._queued[partition] = deque()
        writes.add()
        queue.append((key, value, self.app.consumer_generation_id, writes))
        if partition not in self._sending:
            self._sending[partition] = asyncio.ensure_future(self._send_queued(partition, queue))

    async def _send_queued(self, partition: int, queue: "deque[_Written]") -> None:
        """While one batch is on its way the next writes gather: no timer, and small batches when it is quiet."""
        batch: list[_Written] = []
        try:
            while queue:
                batch.clear()
                await self._send_batch(partition, queue, batch)
        except asyncio.CancelledError:
            for *_, writes in (*batch, *queue):
                writes.done.cancel()
            queue.clear()
            raise
        finally:
            del self._sending[partition]

    async def _send_batch(self, partition: int, queue: "deque[_Written]", batch: "list[_Written]") -> None:
        topic = self.changelog_topic_name
        error: Exception | None = None
        first_offset = -1
        try:
            async with asyncio.timeout(CHANGELOG_TIMEOUT_S):
                producer = await self._producer()
                builder = producer.create_batch()
                while queue and len(batch) < self._batch_max:
                    key, value = queue[0][:2]
                    if builder.append(timestamp=None, key=key, value=value) is None:
                        break
                    batch.append(queue.popleft())
                sent = await producer.send_batch(builder, topic, partition=partition)
                first_offset = (await sent).offset
        except (KafkaError, TimeoutError, Unavailable) as exc:
            error = self._translated(exc, len(batch))
        except Exception as exc:  # a bug: whoever waits for these writes ends the stream side with it
            error = exc
        if error is None:
            self._apply(TP(topic, partition), batch, first_offset)
        elif not batch:  # nothing could be sent at all: all of them must know
            batch.extend(queue)
            queue.clear()
        for key, _, _, writes in batch:
            writes.told(key, error)

    async def _producer(self) -> Any:
        """aiokafka's, under Faust's."""
        app = self.app
        producer: Any = None if app.should_stop else (await app.maybe_start_producer())
        if producer is None or producer.should_stop or producer._producer is None:
            raise Unavailable("the stream side is ending")
        return producer._producer

    def _translated(self, exc: Exception, count: int) -> Exception:
        error: Exception
        if isinstance(exc, MessageSizeTooLargeError) and count == 1:
            error = _too_large()
        else:
            if isinstance(exc, MessageSizeTooLargeError):
                self._batch_max = 1  # the topic takes less than one batch; alone it is seen who is too large
            error = Unavailable("a table write was not delivered")
        error.__cause__ = exc
        return error

    def _apply(self, tp: TP, batch: "list[_Written]", first_offset: int) -> None:
        """Show it, unless the partition may not be ours any more: who has it now reads the changelog."""
        generation = self.app.consumer_generation_id
        mine = [(key, value) for key, value, written_in, _ in batch if written_in == generation]
        store: Any = self.data
        if isinstance(store, memory.Store):
            for key, value in mine:
                if value is None:
                    store.data.pop(key, None)
                    store._key_partition.pop(key, None)
                else:
                    store.data[key] = value
                    store._key_partition[key] = tp.partition  # by which Faust removes the keys of a lost partition
            return
        event = event_at(self.app, tp, first_offset, 0.0)
        token = faust.streams._current_event.set(weakref.ref(event))
        try:
            for key, value in mine:
                if value is None:
                    del store[key]
                else:
                    store[key] = value
            if len(mine) == len(batch):
                store.set_persisted_offset(tp, first_offset + len(batch) - 1)
        finally:
            faust.streams._current_event.reset(token)

    # -- read back

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        keeps = self.keeps
        if keeps is None:
            super().apply_changelog_batch(batch)
            return
        for event in batch:  # one by one: what is kept depends on what came before it
            message = event.message
            if keeps(message.partition, message.key, message.value, int(message.timestamp * 1000)):
                super().apply_changelog_batch((event,))


def event_at(app: "PaymentApp", tp: TP, offset: int, timestamp_s: float) -> Any:
    """A Faust event: its tables take the partition of a write from the current one."""
    message = Message(tp.topic, tp.partition, offset, timestamp_s, 0, None, None, None, None)
    return app.create_event(None, None, {}, message)


def _too_large() -> Malformed:
    return Malformed("a table value is larger than a message may be", code="TOO_LARGE")


def _look_at(sent: "asyncio.Future[Any]") -> None:
    """Marks an error as seen: when the block was left early nobody awaits its sends."""
    if not sent.cancelled():
        sent.exception()


async def delivered(writes: list[FutureMessage]) -> None:
    """Raises: Unavailable, Malformed. Limits: CHANGELOG_TIMEOUT_S."""
    if not writes:
        return
    _, late = await asyncio.wait(writes, timeout=CHANGELOG_TIMEOUT_S)
    if late:
        raise Unavailable(f"{len(late)} table writes were not delivered in time")
    for sent in writes:
        error = sent.exception()
        if isinstance(error, MessageSizeTooLargeError):
            raise _too_large() from error
        if error is not None:
            raise Unavailable("a table write was not delivered") from error
