"""Telling the world again what it was told before, with the same ids: for a consumer that lost something.

Room: core. Words alone; a redelivery is allowed by the contract of the topics, and repeats what consumers drop by id.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Chosen:
    """Events of these payments, or of all when there are none named; those of `from_ms` and later, before `to_ms`."""

    payments: Sequence[str] = ()
    from_ms: int = 0
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Republished:
    """One step of it. `waiting`: events that wait for the broker already, and go out anyway."""

    payments: int = 0
    events: int = 0
    waiting: int = 0
    unknown: tuple[str, ...] = ()
    """Named payments that are not there."""
    unreadable: tuple[str, ...] = ()
    """Payments with a history that this version cannot read."""


class Republisher(Protocol):
    def republish(self, chosen: Chosen, *, dry_run: bool) -> AsyncGenerator[Republished, None]:
        """In bounded steps, each committed by itself: the running workers publish, in order per payment.

        Raises: Unavailable, when the database is away, or no worker publishes and too much waits for one. The same
        again repeats what was sent before, which is allowed.
        """
