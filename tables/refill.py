"""Rows that the table's changelog has forgotten, written again from PostgreSQL.

Room: tables. On OCI Streaming nothing is compacted: a changelog keeps its records for seven days at most, then its
front is gone, and with it the rows of payments that were quiet since. A new topic, or an embedded broker that was
started anew, has forgotten everything. So whoever gets a partition looks whether its changelog begins later than it
could, and fills in what the table lacks, in the background: nothing waits for it, and it never replaces a newer row.

Not everything: carts that nobody paid stay in the table longer than finished payments do, but are not brought back
after that time, for there may be millions of them. A payment with a call that is not settled is, however old it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Sequence
from typing import Any, Protocol

import structlog
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from faust.types import TP

from payment_service.codecs.published import decode_published
from payment_service.core.errors import Malformed, Unavailable
from payment_service.tables.payments import PaymentsTable

SLACK_MS = 600_000
"""Clocks of workers and brokers may differ by so much."""
AGAIN_S_MIN = 1.0
AGAIN_S_MAX = 60.0

_log = structlog.get_logger(__name__)


class PublishedEvents(Protocol):
    def between(self, from_ms: int, to_ms: int) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        """(payment id, value of its last message) of all that published something in this time. Raises Unavailable."""

    def unsettled(self) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        """The same of all that have a provider call which is not settled."""


class Refill:
    """One for an App. `app`: a PaymentApp, not started yet."""

    def __init__(
        self, app: Any, table: PaymentsTable, events: PublishedEvents, *, now_ms: Callable[[], int], ttl_s: float
    ) -> None:
        self._app = app
        self._table = table
        self._events = events
        self._now_ms = now_ms
        self._ttl_ms = int(ttl_s * 1000)
        self._whole: set[int] = set()
        """Partitions that need nothing more while they stay with this worker."""
        self._running: asyncio.Future[Any] | None = None
        table.on_recovered = self.start

    def start(self, partitions: set[int]) -> None:
        """These partitions of the table are read back."""
        if self._running is not None:
            self._running.cancel()
        self._whole &= partitions
        wanted = partitions - self._whole
        self._running = self._app.add_future(self._run(wanted)) if wanted else None

    def is_whole(self, partition: int) -> bool:
        """Nothing is filled in any more: what the table does not have was never there, or has left in time."""
        return partition in self._whole and not self._table.is_full(partition)

    async def _run(self, partitions: set[int]) -> None:
        generation, pause_s = self._app.consumer_generation_id, AGAIN_S_MIN
        while generation == self._app.consumer_generation_id:
            try:
                fronts = await self._forgotten(partitions)
                count = await self._fill(fronts, generation) if fronts else 0
            except (Unavailable, KafkaError, AssertionError) as error:  # away, or the partitions went meanwhile
                _log.warning("table not refilled yet", error=repr(error), again_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, AGAIN_S_MAX)
                continue
            if count is not None:
                self._whole |= partitions
                if fronts:
                    _log.info("table refilled", rows=count, partitions=sorted(fronts))
            return

    async def _forgotten(self, partitions: set[int]) -> dict[int, int]:
        """Partition -> until when its changelog may lack rows, for those that lack some."""
        tps = {TP(self._table.changelog, number): number for number in partitions}
        consumer = self._app.consumer
        firsts, ends = await consumer.earliest_offsets(*tps), await consumer.highwaters(*tps)
        now = self._now_ms()
        return {
            number: self._table.read_back_from_ms(number, now) + SLACK_MS
            for tp, number in tps.items()
            if firsts[tp] or not ends[tp]
        }

    async def _fill(self, until_ms: dict[int, int], generation: int) -> int | None:
        """How many rows were written. None: the partitions went meanwhile.

        Raises: Unavailable; the same again is always right.
        """
        count, since_ms = 0, self._now_ms() - self._ttl_ms
        for found in (self._events.between(since_ms, max(until_ms.values())), self._events.unsettled()):
            async for batch in found:
                if generation != self._app.consumer_generation_id:
                    return None
                count += await self._write(batch, until_ms)
        return count

    async def _write(self, batch: Sequence[tuple[str, bytes]], wanted: Container[int]) -> int:
        ours: dict[int, list[tuple[str, Any]]] = {}
        for payment_id, value in batch:
            number = (murmur2(payment_id.encode()) & 0x7FFFFFFF) % self._app.conf.topic_partitions
            if number in wanted:
                ours.setdefault(number, []).append((payment_id, decode_published(value)))
        written = [it for number, rows in ours.items() for it in self._table.fill(number, rows)]
        await asyncio.gather(*(_unless_malformed(it) for it in written))
        return len(written)


async def _unless_malformed(written: "asyncio.Future[None]") -> None:
    try:
        await written
    except Malformed as error:  # larger than a message may be: as good as it gets
        _log.error("a row does not fit the table's changelog", error=error.message)
