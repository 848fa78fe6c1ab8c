"""In which order committed events go out, and when their rows may go. Pure: no waiting, no clock, no broker.

Room: adapters. The rule: an event is handed over only when everything older of its payment is acked, or was gone from
the table when this event was seen there; a row may be deleted only when it is acked. Every holder of rows obeys it by
itself, so that first deliveries stay in order also while two workers believe that they own the same shard.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from enum import Enum

from payment_service.core.ports import OutboxRow

ROWS_MAX = 20_000
"""Rows in memory, acked ones included until they are deleted. What is above stays in the table and is read later."""


class PaymentQueue:
    """The rows of one payment that this process has in hand, without a hole."""

    __slots__ = ("abandoned", "behind", "handed", "last", "payment_id", "shard", "undeleted")

    def __init__(self, row: OutboxRow) -> None:
        self.shard = row.shard
        self.payment_id = row.payment_id
        self.last = row.sequence
        self.handed: OutboxRow | None = row  # handed over, without an ack
        self.behind: deque[OutboxRow] | None = None  # few payments ever have one
        self.undeleted = 0  # acked ones whose rows are still in the table
        self.abandoned = False

    @property
    def unacked(self) -> int:
        return (self.handed is not None) + len(self.behind or ())


class Place(Enum):
    """What became of a row that was offered or read."""

    TAKEN = "taken"
    KNOWN = "known"
    """In hand already."""
    LEFT = "left"
    """Stays in the table: something older of its payment must be read first, or its topic cannot be written now."""
    FULL = "full"
    """Stays in the table: no room in memory."""


class PublishOrder:
    """`hand_over` gets one row of a payment at a time and answers with `acked`; `delete` gets rows that were acked
    and answers with `deleted`. A row whose topic is blocked starts no new queue."""

    def __init__(
        self,
        hand_over: Callable[[PaymentQueue, OutboxRow], None],
        delete: Callable[[PaymentQueue, OutboxRow], None],
        blocked: Callable[[str], bool] = lambda topic: False,
        rows_max: int = ROWS_MAX,
    ) -> None:
        self._hand_over = hand_over
        self._delete = delete
        self._blocked = blocked
        self._rows_max = rows_max
        self._shards: dict[int, dict[str, PaymentQueue]] = {}
        self.in_memory = 0

    @property
    def room(self) -> int:
        return self._rows_max - self.in_memory

    def busy(self, shard: int) -> bool:
        return bool(self._shards.get(shard))

    def add(self, rows: Iterable[tuple[OutboxRow, bool]]) -> dict[Place, set[int]]:
        """Rows of shards that we own, each payment's in order. With each: whether, when it was seen, nothing older of
        its payment was in the table, or only rows that come before it here. Returns which shards met which fate.

        Limits: once a row is left, the later ones of its payment are left too, whatever their topic.
        """
        fates: dict[Place, set[int]] = {}
        left: set[str] = set()
        for row, first in rows:
            place = self._add(row, first and row.payment_id not in left)
            if place is not Place.TAKEN and place is not Place.KNOWN:
                left.add(row.payment_id)
            shards = fates.get(place)
            if shards is None:
                shards = fates[place] = set()
            shards.add(row.shard)
        return fates

    def _add(self, row: OutboxRow, first: bool) -> Place:
        queues = self._shards.get(row.shard)
        if queues is None:
            queues = self._shards[row.shard] = {}
        queue = queues.get(row.payment_id)
        if queue is None:
            if not first or self._blocked(row.topic):
                return Place.LEFT
        elif row.sequence <= queue.last:
            return Place.KNOWN
        elif row.sequence != queue.last + 1:
            return Place.LEFT
        if self.in_memory >= self._rows_max:
            return Place.FULL
        self.in_memory += 1
        if queue is None:
            queue = queues[row.payment_id] = PaymentQueue(row)
        else:
            queue.last = row.sequence
            if queue.handed is not None:
                if queue.behind is None:
                    queue.behind = deque()
                queue.behind.append(row)
                return Place.TAKEN
            queue.handed = row
        self._hand_over(queue, row)
        return Place.TAKEN

    def acked(self, queue: PaymentQueue) -> None:
        """The broker has the event that was handed over: its row may go, and the next event may follow."""
        row, following = queue.handed, queue.behind.popleft() if queue.behind else None
        assert row is not None, "an ack answers what was handed over"
        queue.handed = following
        queue.undeleted += 1
        self._delete(queue, row)
        if following is not None and not queue.abandoned:
            self._hand_over(queue, following)

    def deleted(self, queue: PaymentQueue) -> None:
        queue.undeleted -= 1
        if queue.abandoned:
            return
        self.in_memory -= 1
        if queue.handed is None and not queue.undeleted:
            del self._shards[queue.shard][queue.payment_id]

    def abandon(self, shards: Collection[int]) -> None:
        """Not ours any more: nothing further of them is handed over. What is handed over may still be acked, and its
        row may be deleted then; meanwhile the new owner sends it too, which a consumer recognises by its id."""
        for shard in shards:
            for queue in self._shards.pop(shard, {}).values():
                queue.abandoned = True
                self.in_memory -= queue.unacked + queue.undeleted

    def abandon_all(self) -> None:
        self.abandon(list(self._shards))
