"""What a change of the encryption key leaves to do, and how far it has come.

Room: core. Shapes only. What is sealed in PostgreSQL is sealed anew with the present key; what is in topics cannot be,
and is gone when their retention ends. Until then the older key stays in ENCRYPTION_KEYS_OLD.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Resealed:
    """A bounded step along one sealed column."""

    round: int
    """From 1; the last one is the first that finds nothing left to do."""
    column: str
    blocks: int
    """Of the table, looked at in this step."""
    blocks_total: int
    done: int = 0
    """Values sealed anew; of a dry run: those that would be."""
    busy: int = 0
    """Values that somebody changed at that moment: they come in the next round."""
    unreadable: tuple[str, ...] = ()
    """The places (column and row id) of values that no key of ours opens."""


class Kept(StrEnum):
    """How long a topic keeps what is in it."""

    UNTIL = "UNTIL"
    FOR_EVER = "FOR_EVER"
    NOT_TOLD = "NOT_TOLD"
    """The broker does not say."""


@dataclass(frozen=True, slots=True)
class SealedRecords:
    """Records of a topic that are sealed with one older key."""

    topic: str
    key: int
    """Its place in ENCRYPTION_KEYS_OLD, from 1; 0: a key that is not there at all."""
    records: int
    newest_ms: int
    kept: Kept
    gone_ms: int | None = None
    """With UNTIL: when the broker has removed the last of them, at the latest."""


class KeyRotation(Protocol):
    """Every method raises Unavailable when what it needs is away."""

    def reseal(self, *, dry_run: bool) -> AsyncGenerator[Resealed, None]:
        """Seal what is not sealed with the present key anew, in bounded steps, until a round finds nothing to do.

        Idempotent: it may be cut off and run again, also beside workers and beside itself; a value that a worker
        changes meanwhile is never overwritten.
        """

    async def in_topics(self) -> Sequence[SealedRecords]:
        """What older keys are still needed for. Reads every sealed topic whole."""
