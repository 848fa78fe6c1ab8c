"""The outbox publisher: committed events to the broker, in order per payment, at least once.

Room: adapters. What may go when is publish_order.py's; batches and the broker are kafka_sender.py's; shards and rows
are postgres/outbox.py's. Here they are put together. Lives outside Faust: it works, or waits, whatever the stream side
does, and a worker that starts without a broker or a database keeps trying while its events wait in the outbox.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Protocol

import orjson

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_message import Headers, Message, NeverTaken
from payment_service.adapters.kafka_sender import KafkaSender
from payment_service.adapters.postgres.outbox import DELETE_ROWS_MAX, OutboxConnection
from payment_service.adapters.publish_order import ROWS_MAX, PaymentQueue, Place, PublishOrder
from payment_service.codecs.published import cloud_event_headers
from payment_service.codecs.times import rfc3339
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Metrics, OutboxRow
from payment_service.core.terms import Topic

TICK_S = 1.0
"""Free shards are tried, and owned ones read, so often: a missed notification is harmless."""
GAP_S = 0.03
"""Between two rounds of deletes and reads: what comes meanwhile shares a statement."""
STOP_POLL_S = 0.01
DEPTH_EVERY_S = 5.0
RECONNECT_S = 1.0
ROW_OVERHEAD_BYTES = 700
"""More than key and headers of an event take; adding them up for each costs more than the waste."""
SEND_S = 35.0
"""Longest wait for the ack of `send`; longer than the producer's own request time-out."""
BURY_AT_ONCE = 4
BURY_DELAY_S_MIN = 0.5
BURY_DELAY_S_MAX = 30.0
DRAIN_S = 3.0
CANCEL_S = 3.0
"""For the producer and the connection to close."""
ALIASES = {Topic.PROCESSED.value: "payment.succeeded"}

_log = logging.getLogger(__name__)


class KeepsDeadLetters(Protocol):
    async def keep(
        self, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None,
        headers: tuple[tuple[str, bytes], ...], reason: str, error: str,
    ) -> None: ...  # fmt: skip


class OutboxPublisher:
    """`offer` is called by the store after each commit of this process; `run` does the rest until it is stopped."""

    def __init__(
        self, client: KafkaClient, outbox: OutboxConnection, metrics: Metrics, *, topic_prefix: str,
        aliases: bool = False, rows_max: int = ROWS_MAX,
    ) -> None:  # fmt: skip
        self._outbox = outbox
        self._metrics = metrics
        self._prefix = topic_prefix
        self._aliases = ALIASES if aliases else {}
        self._sender = KafkaSender(client, metrics)
        self._order = PublishOrder(self._hand_over, self._delete_later, self._blocked, rows_max)
        self._read_room_min = max(1, rows_max // 4)
        self._acked: deque[tuple[PaymentQueue, OutboxRow]] = deque()
        self._wanted: set[int] = set()  # shards that have something to read
        self._again: set[int] = set()  # those that must be read from the start once they are read to the end
        self._after: dict[int, str] = {}  # where the reading of a shard goes on
        self._wake = asyncio.Event()
        self._bury_turn = asyncio.Semaphore(BURY_AT_ONCE)
        self._group: asyncio.TaskGroup | None = None
        self._inner: asyncio.Task[None] | None = None
        self._stopping = False
        self.on_publish: Callable[[str, str, int, str], Callable[[NeverTaken | None], None]] | None = None
        """Told of each event that has a trace, before it goes; what it gives is told the ack. None: nobody traces."""
        self.dead_letters: KeepsDeadLetters | None = None
        """Where an event goes that the broker can never take. None: it waits, and what follows it of its payment."""

    @property
    def connected(self) -> bool:
        """The producer has reached a broker."""
        return self._sender.connected

    def foreign(self, shards: set[int]) -> set[int]:
        """Those whose owner is somebody else and must be woken."""
        return shards - self._outbox.owned

    def offer(self, rows: Sequence[tuple[OutboxRow, bool]]) -> None:
        """Rows that were just committed, each with: nothing older of its payment waits in the table. Never waits.

        What cannot go out from memory (not our shard, something older unread, no room) is read from the table later.
        """
        owned = self._outbox.owned
        if not owned or self._stopping:
            return
        fates = self._order.add([it for it in rows if it[0].shard in owned])
        for place in (Place.LEFT, Place.FULL):
            if place in fates:
                self._want(fates[place])

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]],
        placed_by: bytes | None = None,
    ) -> None:  # fmt: skip
        """One message of any topic (without prefix), acked; `placed_by`: what its partition is taken from, where that
        is not the key. Raises Unavailable, or NeverTaken (too large, invalid)."""
        await self._sender.send(self._prefix + topic, key, value, headers, SEND_S, placed_by)

    # --- running ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until stopped or cancelled. Nothing that goes wrong outside ends it."""
        self._inner = asyncio.create_task(self._run())
        try:
            await self._inner
        except asyncio.CancelledError:
            if not self._inner.cancelled() or not self._stopping:
                raise
        finally:
            await self._outbox.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._sender.run())
            self._group.create_task(self._tend())

    async def stop(self) -> None:
        """Sends and deletes what is under way, at most DRAIN_S and CANCEL_S; what is unacked stays in the table."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_S
        # Polled: what ends the wait is three things of different owners, and it happens once.
        while self._order.in_memory and self._sender.connected and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(STOP_POLL_S)
        if self._inner is not None:
            self._inner.cancel()
            await asyncio.wait([self._inner], timeout=CANCEL_S)
        await self._outbox.close()

    async def _tend(self) -> None:
        """The one task that asks the database, so that a delete never falls between a read and what is made of it."""
        while True:
            listening: asyncio.Task[None] | None = None
            try:
                await self._outbox.open()
                listening = asyncio.create_task(self._listen())
                await self._rounds()
            except Unavailable as error:
                self._metrics.count("publisher_failures", reason="outbox_connection")
                _log.warning("outbox not owned: %s", error.message)
            finally:
                if listening is not None:
                    listening.cancel()
                self._disown()
            await asyncio.sleep(RECONNECT_S)

    async def _rounds(self) -> None:
        loop = asyncio.get_running_loop()
        tick_at = depth_at = 0.0
        await self._delete_acked()  # of an earlier connection, before anything is read again
        while True:
            self._wake.clear()
            if loop.time() >= tick_at:
                tick_at = loop.time() + TICK_S
                loop.call_at(tick_at, self._wake.set)
                await self._tick()
            await self._delete_acked()
            await self._read_wanted()
            if loop.time() >= depth_at:
                depth_at = loop.time() + DEPTH_EVERY_S
                count, age_s = await self._outbox.depth()
                self._metrics.gauge("outbox_depth", count)
                self._metrics.gauge("outbox_age_s", age_s)
            await self._wake.wait()
            await asyncio.sleep(GAP_S)

    async def _tick(self) -> None:
        let_go = await self._outbox.tick(self._order.busy, able=self._sender.connected)
        self._order.abandon(let_go)
        self._want(self._outbox.owned)

    async def _listen(self) -> None:
        try:
            while True:
                self._want(await self._outbox.notified())
        except Unavailable:
            self._disown()
            self._wake.set()

    def _disown(self) -> None:
        """The connection is lost, and with it every shard: nothing further goes out from memory."""
        self._order.abandon_all()
        self._wanted.clear()
        self._again.clear()
        self._after.clear()

    # --- rows ------------------------------------------------------------------------------------------------

    def _want(self, shards: Iterable[int]) -> None:
        for shard in shards:
            if self._after.get(shard):
                self._again.add(shard)
            self._wanted.add(shard)
        self._wake.set()

    async def _read_wanted(self) -> None:
        """A page of each shard that has something to read and is ours, while there is room."""
        if self._stopping or not self._sender.connected or self._order.room < self._read_room_min:
            return
        wanted = self._wanted & self._outbox.owned
        self._wanted = wanted
        if not wanted:
            return
        after = {shard: self._after.get(shard, "") for shard in sorted(wanted)}
        self._again -= {shard for shard, payment in after.items() if not payment}
        rows, page = await self._outbox.read(after)
        owned = self._outbox.owned
        rows = [row for row in rows if row.shard in owned]
        fates = self._order.add([(row, True) for row in rows])
        taken, full = fates.get(Place.TAKEN, ()), fates.get(Place.FULL, ())
        pages: dict[int, list[OutboxRow]] = {shard: [] for shard in after}
        for row in rows:
            pages[row.shard].append(row)
        for shard, page_rows in pages.items():
            if shard not in full:
                self._turn_page(shard, page_rows, page, progress=shard in taken)
        if self._wanted and taken:
            self._wake.set()

    def _turn_page(self, shard: int, rows: list[OutboxRow], page: int, *, progress: bool) -> None:
        if len(rows) >= page:
            self._after[shard] = rows[-1].payment_id
            self._again.add(shard)  # the last payment may have more rows than were read
            if not progress:
                self._wanted.discard(shard)  # nothing here may go now: on with the next tick, not at once
            return
        self._after.pop(shard, None)
        if shard in self._again and progress:
            self._again.discard(shard)
        else:
            self._wanted.discard(shard)

    def _delete_later(self, queue: PaymentQueue, row: OutboxRow) -> None:
        self._acked.append((queue, row))
        self._wake.set()

    async def _delete_acked(self) -> None:
        while self._acked:
            some = list(islice(self._acked, DELETE_ROWS_MAX))
            await self._outbox.delete([(row.payment_id, row.sequence) for _, row in some])
            for queue, _ in some:
                self._acked.popleft()
                self._order.deleted(queue)

    # --- messages --------------------------------------------------------------------------------------------

    def _blocked(self, topic: str) -> bool:
        return bool(self._sender.blocked) and self._prefix + topic in self._sender.blocked

    def _hand_over(self, queue: PaymentQueue, row: OutboxRow) -> None:
        self._put(queue, row, row.topic, row.value)

    def _put(self, queue: PaymentQueue, row: OutboxRow, topic: str, value: bytes) -> None:
        key = row.payment_id.encode()
        size = len(value) + ROW_OVERHEAD_BYTES
        settle = self._settled if self.on_publish is None or row.traceparent is None else self._traced(topic, row)
        self._sender.put(Message(self._prefix + topic, key, value, self._headers_of, queue, settle, row, size))

    def _headers_of(self, message: Message) -> Headers:
        row: OutboxRow = message.about
        topic = message.topic.removeprefix(self._prefix)
        return cloud_event_headers(topic, row.payment_id, row.sequence, rfc3339(row.at_ms), row.traceparent)

    def _traced(self, topic: str, row: OutboxRow) -> Callable[[Message, NeverTaken | None], None]:
        assert self.on_publish is not None, "asked for only where traces are collected"
        assert row.traceparent is not None, "and for what belongs to one"
        ended = self.on_publish(self._prefix + topic, row.payment_id, row.sequence, row.traceparent)

        def settle(message: Message, error: NeverTaken | None) -> None:
            ended(error)
            self._settled(message, error)

        return settle

    def _settled(self, message: Message, error: NeverTaken | None) -> None:
        queue, row = message.holder, message.about
        assert isinstance(queue, PaymentQueue)
        if error is not None:
            _log.error(
                "event can never be sent payment_id=%s sequence=%d topic=%s bytes=%d error=%s",
                row.payment_id, row.sequence, message.topic, message.size, error,
            )  # fmt: skip
            assert self._group is not None
            self._group.create_task(self._bury(message, queue, str(error)))
        elif row.topic in self._aliases and message.topic == self._prefix + row.topic:
            alias = self._aliases[row.topic]
            self._put(queue, row, alias, orjson.dumps(orjson.loads(row.value) | {"eventType": alias}))
        else:
            self._order.acked(queue)

    async def _bury(self, message: Message, queue: PaymentQueue, error: str) -> None:
        """Into the dead letters, then its row may go. The outbox has no partition: -1, with the sequence as offset."""
        delay_s = BURY_DELAY_S_MIN
        row = message.about
        while not queue.abandoned:
            if self.dead_letters is not None:
                try:
                    async with self._bury_turn:
                        await self.dead_letters.keep(
                            message.topic, -1, row.sequence, message.key, message.value, tuple(message.headers),
                            "NEVER_TAKEN", error,
                        )  # fmt: skip
                    break
                except Unavailable as away:
                    _log.warning("dead letters are away: %s", away.message)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, BURY_DELAY_S_MAX)
        if not queue.abandoned:
            self._order.acked(queue)
