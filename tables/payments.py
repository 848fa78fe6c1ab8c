"""The table `payments`: what each payment was last published as, for reads that may be late but never torn.

Room: tables. Fed from our own payment.* topics alone, so it can only be wrong by being late; no decision about
money reads it. Its changelog topic is Faust's: `<app id>-payments-changelog`, key = payment id, value = a sealed
JSON object (the event's `data` with `sequence`, `eventType` and `timestamp` of the event beside it).

Bounded: a row leaves `ttl_s` after the last event of a finished payment, OPEN_TTL_FACTOR times later for one
that is not finished, and earlier when a partition has more than `rows_max` of them (the one first due). Faust
refuses table writes outside an event, so all that happens while events of the partition are handled, a few rows
for each.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson
from faust.stores import memory

from payment_service.codecs.times import from_rfc3339
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.ports import Cipher
from payment_service.core.terms import Status
from payment_service.tables.writes import LoneWrite, Writes

NAME = "payments"
TOPICS = (
    "payment.created",
    "payment.processed",
    "payment.failed",
    "payment.refunded",
    "payment.requires_action",
    "payment.cancelled",
    "payment.unknown",
    "payment.disputed",
    "payment.refund_failed",
)
FINISHED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.PARTIALLY_REFUNDED, Status.REFUNDED})
OPEN_TTL_FACTOR = 10
"""Carts nobody pays stay PENDING for ever; their rows may not."""
ROWS_MAX = 250_000
"""Rows of one partition; about 0.8 KB of memory each."""
LOOKS_MAX = 4
"""Rows looked at for expiry with each event: more than one, so that the table shrinks under load too."""
SCAN_SLICE = 256
"""Rows of a store on disk indexed in one turn of the event loop."""
TAKE_SLICE = 32
"""Events brought up to date in one turn of the event loop, about 1 ms; every partition does so in the same turn, and
REST shares the loop."""

Row = dict[str, Any]
Event = tuple[Any, str, Row]
"""Whatever its caller knows it by, its payment's id, the event."""


class RowWrites(Protocol):
    """What DurableTable gives."""

    def write(self, partition: int, key: bytes, value: bytes | None, writes: Writes) -> None:
        """`writes` is told when the changelog has it. Raises Malformed."""


def row_of(event: Row) -> Row:
    """A row from a published event (codecs.published.decode_published)."""
    return {
        **event["data"],
        "sequence": event["sequence"],
        "eventType": event.get("eventType"),
        "timestamp": event.get("timestamp"),
    }


def place_of(payment_id: str, table: str = NAME) -> str:
    """What a row's seal is bound to, so that nobody can put one payment's row under another's id."""
    return f"table.{table}:{payment_id}"


class PaymentsTable:
    """Idempotent by the event's `sequence`: a lower or equal one changes nothing, however often it comes."""

    def __init__(
        self,
        app: Any,
        *,
        cipher: Cipher,
        now_ms: Callable[[], int],
        ttl_s: float,
        rows_max: int = ROWS_MAX,
    ) -> None:
        """`app`: a PaymentApp, not started yet. `rows_max`: of one partition."""
        table = app.Table(
            NAME,
            key_type=bytes,
            value_type=bytes,
            partitions=app.conf.topic_partitions,
            help="What each payment was last published as, by payment id.",
        )
        table.keeps = self._keeps
        table.on_recover(self._recovered)
        self._app = app
        self._table = table
        self._writes: RowWrites = table
        self._cipher = cipher
        self._now_ms = now_ms
        self._ttl_ms = int(ttl_s * 1000)
        self._rows_max = rows_max
        self._due: dict[int, list[tuple[int, bytes]]] = {}
        """Partition -> heap of (when to look at the row, its key): one entry for each row, and now and then one
        whose row has gone, or is there twice after a failed write."""
        self._leaving: set[bytes] = set()
        """Rows whose deletion is on its way."""
        self._read_from_ms: dict[int, int] = {}
        """Partition -> time of the first record that was read back."""
        self.on_recovered: Callable[[set[int]], None] = lambda partitions: None
        """Told which partitions were read back, before anything more of them is handled."""
        self._pending: dict[bytes, tuple[int, Writes]] = {}
        """Rows whose write is on its way: its sequence, and what is told of it."""

    # -- in

    async def take(self, partition: int, events: Sequence[Event]) -> list[tuple[Any, Malformed]]:
        """Bring the rows of published events of this partition up to date. Done when they are durable; of several
        events of a payment the last one is. Returns those whose row no message can hold.

        Raises: Unavailable; the same again is always right. Limits: TAKE_SLICE events in one turn of the event loop.
        """
        refused: list[tuple[Any, Malformed]] = []
        while events:
            events = await self._take(partition, events, refused)
        return refused

    async def _take(
        self, partition: int, events: Sequence[Event], refused: list[tuple[Any, Malformed]]
    ) -> Sequence[Event]:
        """Returns what must be looked at again: an event that is not newer than one whose write was on its way has
        waited for that one, and counts only if it failed."""
        now, generation = self._now_ms(), self._app.consumer_generation_id
        newest: dict[bytes, Event] = {}
        for it in events:
            key = it[1].encode()
            known = newest.get(key)
            if known is None or it[2]["sequence"] > known[2]["sequence"]:
                newest[key] = it
        writes = Writes()
        again, before = [], []
        written = []
        writes.add()  # one of our own: the first may be answered before the last is handed over
        try:
            try:
                for index, (key, it) in enumerate(newest.items(), 1):
                    earlier = self._on_the_way(key)
                    if earlier is not None and it[2]["sequence"] <= earlier[0]:
                        again.append(it)
                        before.append(earlier[1].done)
                    elif self._try_to_put(partition, key, it, now, writes, refused, new=earlier is None):
                        written.append(key)
                    self._expire(partition, now, LOOKS_MAX)
                    if index % TAKE_SLICE == 0:
                        await asyncio.sleep(0)
                        if self._app.consumer_generation_id != generation:
                            raise Unavailable("the assignment has ended")
            finally:
                writes.told(b"", None)
            await writes.done
        finally:
            for key in written:
                self._forget_pending(key, writes)
        refused.extend((newest[key][0], error) for key, error in writes.refused)
        if before:
            await asyncio.wait(before)
        return again

    def _forget_pending(self, key: bytes, writes: Writes) -> None:
        pending = self._pending.get(key)
        if pending is not None and pending[1] is writes:  # else a newer one is on its way
            del self._pending[key]

    def _on_the_way(self, key: bytes) -> tuple[int, Writes] | None:
        pending = self._pending.get(key)
        return None if pending is None or pending[1].done.done() else pending

    def _try_to_put(
        self, partition: int, key: bytes, event: Event, now: int, writes: Writes,
        refused: list[tuple[Any, Malformed]], *, new: bool,
    ) -> bool:  # fmt: skip
        try:
            return self._put(partition, key, event, now, writes, new=new)
        except Malformed as error:
            refused.append((event[0], error))
            return False

    def _put(self, partition: int, key: bytes, event: Event, now: int, writes: Writes, *, new: bool) -> bool:
        """Whether there is something to write. `new`: none of its writes is on its way."""
        held = self._read(key)
        row = row_of(event[2])
        # An event without a row that is too old may be of a row that has left: it would bring the past back.
        if not (now < self._leaves_ms(row, now) if held is None else row["sequence"] > held["sequence"]):
            return False
        self._writes.write(partition, key, self._cipher.seal(orjson.dumps(row), place_of(event[1])), writes)
        self._pending[key] = row["sequence"], writes
        if (held is None and new) or key in self._leaving:
            self._watch(partition, now + self._ttl_ms, key)
        return True

    def fill(self, partition: int, events: Sequence[tuple[str, Row]]) -> "list[asyncio.Future[None]]":
        """Rows that the changelog may have forgotten; of (payment id, its last published event). One that the table
        has or is about to have is left as it is: nothing here may replace what is newer. As put, for each written.
        """
        now, written = self._now_ms(), []
        for payment_id, event in events:
            key, row = payment_id.encode(), row_of(event)
            held = self._read(key)
            known = held is not None and held["sequence"] >= row["sequence"]
            crowded = len(self._due.get(partition, ())) >= self._rows_max
            if self._on_the_way(key) is not None or known or crowded or now >= self._leaves_ms(row, now):
                continue
            value = self._cipher.seal(orjson.dumps(row), place_of(payment_id))
            written.append(self._write_alone(partition, key, value, row["sequence"]))
            self._watch(partition, now + self._ttl_ms, key)
        return written

    def _write_alone(self, partition: int, key: bytes, value: bytes, sequence: int) -> "asyncio.Future[None]":
        write = LoneWrite()
        try:
            self._writes.write(partition, key, value, write)
        except Malformed as error:
            write.done.set_exception(error)
        else:
            self._pending[key] = sequence, write
            write.done.add_done_callback(lambda _: self._forget_pending(key, write))
        return write.done

    # -- out

    def get(self, payment_id: str) -> Row | None:
        """The row, if this worker has the payment's partition."""
        return self._read(payment_id.encode())

    def is_full(self, partition: int) -> bool:
        """Rows of it leave before their time."""
        return len(self._due.get(partition, ())) >= self._rows_max

    def __len__(self) -> int:
        return sum(len(heap) for heap in self._due.values())

    def _read(self, key: bytes) -> Row | None:
        value = self._table.data.get(key)
        return None if not value else self._opened(key, value)

    def _opened(self, key: bytes, value: bytes) -> Row | None:
        """None for what cannot be opened (a key that was taken away): the next event writes it anew."""
        try:
            row: Row = orjson.loads(self._cipher.unseal(value, place_of(key.decode())))
        except (Malformed, ValueError):
            return None
        return row

    @property
    def changelog(self) -> str:
        """The full name of its topic."""
        return str(self._table.changelog_topic_name)

    def read_back_from_ms(self, partition: int, default_ms: int) -> int:
        """The time of the first record of its changelog that was read back, if any was."""
        return self._read_from_ms.get(partition, default_ms)

    # -- bounded

    def _watch(self, partition: int, due_ms: int, key: bytes) -> None:
        heapq.heappush(self._due.setdefault(partition, []), (due_ms, key))

    def _expire(self, partition: int, now: int, looks: int) -> None:
        heap = self._due.get(partition)
        while heap and looks and (heap[0][0] <= now or len(heap) > self._rows_max):
            looks -= 1
            crowded = len(heap) > self._rows_max
            key = heapq.heappop(heap)[1]
            value = self._table.data.get(key)
            if not value or key in self._leaving:
                continue
            row = self._opened(key, value)
            leaves_ms = now if row is None else self._leaves_ms(row, now)
            if leaves_ms <= now or crowded:
                self._drop(partition, key)
            else:
                heapq.heappush(heap, (leaves_ms, key))

    def _leaves_ms(self, row: Row, now: int) -> int:
        ttl = self._ttl_ms if row.get("status") in FINISHED else self._ttl_ms * OPEN_TTL_FACTOR
        try:
            return from_rfc3339(str(row.get("timestamp"))) + ttl
        except ValueError:
            return now + ttl

    def _drop(self, partition: int, key: bytes) -> None:
        """No event waits for it: a row that stays too long harms nobody. A failed one is tried again later."""

        def look(sent: "asyncio.Future[None]") -> None:
            self._leaving.discard(key)
            if sent.cancelled() or sent.exception() is not None:
                self._watch(partition, self._now_ms() + self._ttl_ms // LOOKS_MAX, key)

        self._leaving.add(key)
        write = LoneWrite()
        self._writes.write(partition, key, None, write)
        write.done.add_done_callback(look)

    # -- read back after a start or a rebalance

    def _keeps(self, partition: int, key: bytes, value: bytes | None, at_ms: int) -> bool:
        """A worker that lost this partition may still have written an older row behind a newer one."""
        self._read_from_ms.setdefault(partition, at_ms)
        if value is None:
            return True
        row = self._opened(key, value)
        if row is None:
            return False
        held = self._table.data.get(key)
        if not held:
            self._watch(partition, at_ms + self._ttl_ms, key)
            return True
        before = self._opened(key, held)
        return before is None or row["sequence"] >= before["sequence"]

    async def _recovered(self) -> None:
        """Forget the partitions that went, and index what a store on disk had already."""
        data = self._table.data
        actives = {tp.partition for tp in self._app.assignor.assigned_actives() if self._is_ours(tp.topic)}
        for partition in [it for it in self._due if it not in actives]:
            del self._due[partition]
        for partition in actives:
            if isinstance(data, memory.Store):
                heap = [entry for entry in self._due.get(partition, ()) if data.get(entry[1])]
            else:
                heap = await self._index_disk(partition)
            heapq.heapify(heap)
            self._due[partition] = heap
        self._read_from_ms = {it: at for it, at in self._read_from_ms.items() if it in actives}
        self.on_recovered(actives)

    async def _index_disk(self, partition: int) -> list[tuple[int, bytes]]:
        store, now = self._table.data, self._now_ms()
        heap: list[tuple[int, bytes]] = []
        for key, value in store._visible_items(store._db_for_partition(partition)):
            row = self._opened(key, value)
            heap.append((now if row is None else self._leaves_ms(row, now), key))
            if len(heap) % SCAN_SLICE == 0:
                await asyncio.sleep(0)
        return heap

    def _is_ours(self, topic: str) -> bool:
        return bool(topic == self._table.changelog_topic_name)
