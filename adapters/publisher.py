"""The outbox publisher: committed events to the broker, in order per payment, at least once.

Room: adapters. At most one unacked event of a payment; after a failure nothing later of that payment is sent or
removed; a row leaves the outbox only after the broker's ack. Lives outside Faust: it works, or waits, whatever the
stream side does, and a worker that starts without a broker keeps its events in the outbox.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.postgres.outbox import OutboxConnection
from payment_service.codecs.published import cloud_event_headers
from payment_service.codecs.times import rfc3339
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Metrics, OutboxRow
from payment_service.core.terms import Topic

ROWS_MAX = 20_000
"""Rows in memory; what is above stays in the table and is read later."""
REREAD_S = 1.0
DEPTH_EVERY_S = 5.0
DELETE_MAX = 2000
CONNECT_DELAY_S_MAX = 10.0
PAUSE_S = 0.5
"""After a failed send, before the shards are read again."""
SEND_S = 35.0
"""Longest wait for one ack of `send`; longer than the producer's own request time-out."""
DRAIN_S = 5.0
ALIASES = {Topic.PROCESSED.value: "payment.succeeded"}

_log = logging.getLogger(__name__)


class OutboxPublisher:
    """`offer` is called by the store after each commit of this process; `run` does the rest until cancelled."""

    def __init__(
        self, client: KafkaClient, outbox: OutboxConnection, metrics: Metrics, *, topic_prefix: str,
        aliases: bool = False,
    ) -> None:  # fmt: skip
        self._client = client
        self._outbox = outbox
        self._metrics = metrics
        self._prefix = topic_prefix
        self._aliases = ALIASES if aliases else {}
        self._producer: AIOKafkaProducer | None = None
        self._lanes: dict[str, deque[OutboxRow]] = {}  # payment -> its rows in order; the first is under way
        self._ready: deque[OutboxRow] = deque()  # first rows of lanes that wait for their send
        self._acked: dict[tuple[str, int], None] = {}  # acked and not yet deleted
        self._last_acked: dict[str, int] = {}
        self._in_memory = 0
        self._reread = asyncio.Event()
        self._send_wake = asyncio.Event()
        self._delete_wake = asyncio.Event()
        self._stopping = False
        self._paused_until = 0.0
        self._oversized: set[tuple[str, int]] = set()

    @property
    def connected(self) -> bool:
        """The producer has reached a broker."""
        return self._producer is not None

    def foreign(self, shards: set[int]) -> set[int]:
        """Those whose owner is somebody else and must be woken."""
        return shards - self._outbox.owned

    def offer(self, rows: Sequence[tuple[OutboxRow, bool]]) -> None:
        """Rows that were just committed. A row goes out from memory only when everything older of its payment is
        known to be sent or queued here; all others are read from the table by the shard's owner."""
        owned = self._outbox.owned
        for row, direct in rows:
            if row.shard not in owned:
                continue
            lane = self._lanes.get(row.payment_id)
            before = lane[-1].sequence if lane else self._last_acked.get(row.payment_id)
            if self._in_memory < ROWS_MAX and (before == row.sequence - 1 or (direct and lane is None)):
                self._append(row)
            else:
                self._reread.set()

    def _append(self, row: OutboxRow) -> None:
        lane = self._lanes.get(row.payment_id)
        self._in_memory += 1
        if lane is not None:
            lane.append(row)
            return
        self._lanes[row.payment_id] = deque((row,))
        self._ready.append(row)
        self._send_wake.set()

    # --- running ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. Nothing that goes wrong outside ends it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._connect())
            group.create_task(self._own())
            group.create_task(self._send_ready())
            group.create_task(self._delete_acked())

    async def stop(self) -> None:
        """Sends and deletes what is under way, at most DRAIN_S; what is unacked stays in the table."""
        self._stopping = True
        deadline = asyncio.get_running_loop().time() + DRAIN_S
        while (self._lanes or self._acked) and self._producer and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(producer.stop(), DRAIN_S)
        await self._outbox.close()

    async def _connect(self) -> None:
        """Once connected, aiokafka reconnects by itself."""
        delay = 0.5
        while self._producer is None:
            producer = AIOKafkaProducer(**self._client.producer_options())
            try:
                await producer.start()
            except (KafkaError, OSError) as error:
                self._metrics.count("publisher_failures", reason=type(error).__name__)
                with contextlib.suppress(KafkaError, OSError):
                    await producer.stop()
                await asyncio.sleep(delay)
                delay = min(delay * 2, CONNECT_DELAY_S_MAX)
            except BaseException:
                await producer.stop()
                raise
            else:
                self._producer = producer
        self._send_wake.set()

    async def _own(self) -> None:
        """Keep the lock connection, own a fair share of the shards, read what is not in memory."""
        loop = asyncio.get_running_loop()
        depth_at = 0.0
        while True:
            try:
                if self._outbox.lost.is_set() or not self._outbox.owned:
                    await self._outbox.open()
                listening = asyncio.ensure_future(self._listen())
                try:
                    while True:
                        gained, given = await self._outbox.balance()
                        if given:
                            self._forget(given)
                        if loop.time() >= depth_at:
                            depth_at = loop.time() + DEPTH_EVERY_S
                            count, age_s = await self._outbox.depth()
                            self._metrics.gauge("outbox_depth", count)
                            self._metrics.gauge("outbox_age_s", age_s)
                        self._reread.clear()
                        await self._read_all()
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._reread.wait(), REREAD_S)
                        if loop.time() < self._paused_until:
                            await asyncio.sleep(self._paused_until - loop.time())
                finally:
                    listening.cancel()
            except Unavailable:
                self._metrics.count("publisher_failures", reason="outbox connection")
                self._forget(None)
                await asyncio.sleep(REREAD_S)

    async def _listen(self) -> None:
        with contextlib.suppress(Unavailable):
            while True:
                await self._outbox.notified()
                self._reread.set()

    async def _read_all(self) -> None:
        """Rows of our shards that are not in memory, in order, page by page, while there is room."""
        after = ("", 0)
        held_back: set[str] = set()
        while self._in_memory < ROWS_MAX and self._producer is not None and not self._stopping:
            shards = sorted(self._outbox.owned)
            rows = await self._outbox.read(shards, after) if shards else []
            for row in rows:
                if row.shard not in self._outbox.owned or row.payment_id in held_back:
                    continue
                lane = self._lanes.get(row.payment_id)
                acked = self._last_acked.get(row.payment_id, 0)
                last = lane[-1].sequence if lane else acked
                if (row.payment_id, row.sequence) in self._oversized:
                    held_back.add(row.payment_id)
                elif row.sequence > last:
                    self._append(row)
            if not rows:
                return
            after = (rows[-1].payment_id, rows[-1].sequence)

    def _forget(self, shards: set[int] | None) -> None:
        """Not ours any more: send nothing further of them. What is under way may still be acked; the new owner sends
        it again, which a consumer recognises by its id."""
        for payment_id in list(self._lanes):
            lane = self._lanes[payment_id]
            if shards is None or lane[0].shard in shards:
                self._in_memory -= len(lane)
                del self._lanes[payment_id]
        self._ready = deque(row for row in self._ready if row.payment_id in self._lanes)
        if shards is None:
            self._acked.clear()
            self._last_acked.clear()

    # --- sending ---------------------------------------------------------------------------------------------

    async def _send_ready(self) -> None:
        while True:
            await self._send_wake.wait()
            self._send_wake.clear()
            while self._ready and self._producer is not None:
                row = self._ready.popleft()
                try:
                    await self._send_row(row)
                except (KafkaError, OSError) as error:
                    self._failed(row, error)

    async def _send_row(self, row: OutboxRow) -> None:
        producer = self._producer
        assert producer is not None
        key = row.payment_id.encode()
        if row.topic in self._aliases:
            alias = self._aliases[row.topic]
            value = row.value.replace(f'"eventType":"{row.topic}"'.encode(), f'"eventType":"{alias}"'.encode(), 1)
            headers = self._headers(alias, row)
            await (await producer.send(self._prefix + alias, value, key, headers=headers))
        sent = await producer.send(self._prefix + row.topic, row.value, key, headers=self._headers(row.topic, row))
        sent.add_done_callback(lambda done: self._answered(row, done))

    def _headers(self, topic: str, row: OutboxRow) -> list[tuple[str, bytes]]:
        return cloud_event_headers(topic, row.payment_id, row.sequence, rfc3339(row.at_ms), row.traceparent)

    def _answered(self, row: OutboxRow, done: "asyncio.Future[object]") -> None:
        if done.cancelled():
            self._failed(row, None)
            return
        error = done.exception()
        if error is not None:
            self._failed(row, error)
            return
        self._metrics.count("events_published", topic=row.topic)
        lane = self._lanes.get(row.payment_id)
        if lane is None or lane[0] is not row:
            return  # not ours any more: the new owner settles it
        lane.popleft()
        self._in_memory -= 1
        self._acked[(row.payment_id, row.sequence)] = None
        self._last_acked[row.payment_id] = row.sequence
        self._delete_wake.set()
        if lane:
            self._ready.append(lane[0])
            self._send_wake.set()
        else:
            del self._lanes[row.payment_id]

    def _failed(self, row: OutboxRow, error: BaseException | None) -> None:
        """Nothing later of this payment goes out: its lane is dropped and read again from the table."""
        reason = type(error).__name__
        self._metrics.count("publisher_failures", reason=reason)
        if isinstance(error, TopicAuthorizationFailedError | UnknownTopicOrPartitionError):
            _log.error("events wait: topic %s%s cannot be written: %s", self._prefix, row.topic, reason)
        elif isinstance(error, MessageSizeTooLargeError):
            # Our events are a few hundred bytes: one that does not fit is a bug, and everything after it waits.
            _log.error("event %s/%d does not fit a message", row.payment_id, row.sequence)
            self._oversized.add((row.payment_id, row.sequence))
        lane = self._lanes.get(row.payment_id)
        if lane is not None and lane[0] is row:
            self._in_memory -= len(lane)
            del self._lanes[row.payment_id]
        self._paused_until = asyncio.get_running_loop().time() + PAUSE_S
        self._reread.set()

    async def _delete_acked(self) -> None:
        """Batched by what gathers while one delete runs."""
        while True:
            await self._delete_wake.wait()
            self._delete_wake.clear()
            while self._acked:
                rows = list(self._acked)[:DELETE_MAX]
                try:
                    await self._outbox.delete(rows)
                except Unavailable:
                    break  # ownership is over; whoever owns them next sends them again
                for row in rows:
                    self._acked.pop(row, None)
                    if self._last_acked.get(row[0]) == row[1]:
                        del self._last_acked[row[0]]

    # --- for others ------------------------------------------------------------------------------------------

    async def send(self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        """One message of any topic (without prefix), acked. Raises Unavailable, or MessageSizeTooLargeError."""
        producer = self._producer
        if producer is None:
            raise Unavailable("the broker is away")
        try:
            async with asyncio.timeout(SEND_S):
                await (await producer.send(self._prefix + topic, value, key, headers=headers))
        except MessageSizeTooLargeError:
            raise
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unavailable(f"the broker did not take it: {type(error).__name__}") from None
