"""What may be committed of one partition: the contiguous prefix of finished offsets, nothing beyond it.

Core: pure; the caller brings the clock (any monotonic milliseconds). One `DonePrefix` lives for one
(topic, partition, generation of the assignment): a new assignment starts a new one, so that work which
finishes late can never move a position that meanwhile belongs to somebody else.

Why our own: Faust's consumer commits past unfinished offsets when it sees acks out of order.
"""

from collections import deque


class DonePrefix:
    """Offsets in the order they were read, and how far from the front all of them are finished.

    Only offsets that were registered count: what the broker never showed us (compaction holes, transaction
    markers, records skipped by a seek forward) is not waited for.

    Limits: grows by one entry for every registered offset behind the oldest unfinished one; the caller
    bounds that by looking at `len()` before it takes more.
    """

    __slots__ = ("_advanced_at_ms", "_order", "_unfinished", "committable", "last")

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._unfinished: dict[int, int] = {}  # offset -> registered at (ms)
        self._advanced_at_ms = 0
        self.last = -1
        """The highest offset registered so far; -1 before the first."""
        self.committable: int | None = None
        """The next offset to read after a restart (Kafka's convention: last finished + 1); None at first."""

    def __len__(self) -> int:
        """Offsets that are registered and not yet part of the prefix: the window."""
        return len(self._order)

    @property
    def unfinished(self) -> int:
        """How many of the window are not done yet."""
        return len(self._unfinished)

    def register(self, offset: int, now_ms: int) -> bool:
        """Note an offset that is about to be worked on.

        False: it was registered before (a seek back inside one assignment reads it again); its first reading
        counts, the caller drops this one.
        """
        if offset <= self.last:
            return False
        self.last = offset
        self._order.append(offset)
        self._unfinished[offset] = now_ms
        return True

    def done(self, offset: int, now_ms: int) -> int | None:
        """Finish an offset. Returns the new committable offset if the prefix grew, else None.

        Raises: ValueError for an offset that is not open: finishing twice is a bug that must be heard.
        """
        if self._unfinished.pop(offset, None) is None:
            raise ValueError(f"offset {offset} is not open")
        order, unfinished = self._order, self._unfinished
        if order[0] != offset:
            return None
        while order and order[0] not in unfinished:
            self.committable = order.popleft() + 1
        self._advanced_at_ms = now_ms
        return self.committable

    def oldest_age_ms(self, now_ms: int) -> int:
        """How long the oldest unfinished offset has been open; 0 when none is."""
        return now_ms - self._unfinished[self._order[0]] if self._order else 0

    def stuck_ms(self, now_ms: int) -> int:
        """How long the prefix has not moved although something is open.

        Differs from the age under load: a queue of slow work is old and moves all the same.
        """
        if not self._order:
            return 0
        return now_ms - max(self._unfinished[self._order[0]], self._advanced_at_ms)
