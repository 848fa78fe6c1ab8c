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
from collections.abc import Callable
from typing import Any, Protocol

import orjson
from faust.stores import memory

from payment_service.codecs.times import from_rfc3339
from payment_service.core.errors import Malformed
from payment_service.core.ports import Cipher
from payment_service.core.terms import Status

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

Row = dict[str, Any]


class RowWrites(Protocol):
    """What DurableTable.write gives: done when the changelog has it."""

    def write(self, partition: int, key: bytes, value: bytes | None) -> "asyncio.Future[None]": ...


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
        self._nothing: asyncio.Future[None] | None = None

    # -- in

    def put(self, partition: int, payment_id: str, event: Row) -> "asyncio.Future[None]":
        """Take the snapshot out of a published event of this partition. Done when it is durable.

        Raises (through the result): Unavailable, Malformed; the same again is always right.
        """
        key = payment_id.encode()
        now = self._now_ms()
        held = self._read(key)
        row = row_of(event)
        # An event without a row that is too old may be of a row that has left: it would bring the past back.
        if now < self._leaves_ms(row, now) if held is None else row["sequence"] > held["sequence"]:
            value = self._cipher.seal(orjson.dumps(row), place_of(payment_id))
            done = self._writes.write(partition, key, value)
            if held is None or key in self._leaving:
                self._watch(partition, now + self._ttl_ms, key)
        else:
            done = self._done()
        self._expire(partition, now)
        return done

    def _done(self) -> "asyncio.Future[None]":
        if self._nothing is None:
            self._nothing = asyncio.get_running_loop().create_future()
            self._nothing.set_result(None)
        return self._nothing

    # -- out

    def get(self, payment_id: str) -> Row | None:
        """The row, if this worker has the payment's partition."""
        return self._read(payment_id.encode())

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

    # -- bounded

    def _watch(self, partition: int, due_ms: int, key: bytes) -> None:
        heapq.heappush(self._due.setdefault(partition, []), (due_ms, key))

    def _expire(self, partition: int, now: int) -> None:
        heap = self._due.get(partition)
        looks = LOOKS_MAX
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
        self._writes.write(partition, key, None).add_done_callback(look)

    # -- read back after a start or a rebalance

    def _keeps(self, partition: int, key: bytes, value: bytes | None, at_ms: int) -> bool:
        """A worker that lost this partition may still have written an older row behind a newer one."""
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
