"""What the audit log keeps of an attempt, and what checking it may find.

Room: core. Who tried what, from where, with which result. Never a body, a token or a reason that a stranger wrote.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

OK = "OK"
ACCEPTED = "ACCEPTED"
"""Taken, and the outcome is not known yet."""


class AuditEntry(NamedTuple):
    """One attempt. A tuple, since the REST side makes one for each request: a frozen dataclass costs five times as
    much."""

    at_ms: int
    action: str
    """A word such as `payment.refund` or `dead_letter.replay`."""
    result: str
    """OK, ACCEPTED, or the contract's word for a failure."""
    actor: str
    """`user:…`, `service`, `operator:…`, `system`, or `anonymous`."""
    roles: Collection[str] = ()
    client: str = ""
    """The address it came from."""
    request_id: str = ""
    payment_id: str = ""
    """May be left out where `order_id` tells it."""
    order_id: str = ""
    refund_id: str = ""
    detail: str = ""
    """For a person: an operator's reason, a dead letter's id."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A row of the audit log: `number` counts from 1 in its `chain`, one of each worker process."""

    chain: str
    number: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """One row that is not as it was written. `where`: a payment id, or a chain of the audit log."""

    kind: str
    """`payment`, `audit` or `anchor`."""
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Verified:
    """A batch that was checked: how much was in it, and what is wrong with it."""

    payments: int = 0
    entries: int = 0
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """What is no proof of anything but should be known."""


class Auditor(Protocol):
    """Reads the audit log and checks every chain. Its methods raise Unavailable when the database or broker is away."""

    async def sizes(self) -> tuple[int, int]:
        """Payments and rows of the audit log, about; 0 where nobody counted yet."""

    async def read_anchors(self) -> None:
        """What was kept outside the database; without it a cut end and a payment removed as a whole are not seen."""

    def verify(self, payment_id: str | None) -> AsyncIterator[Verified]:
        """Everything, or one payment, in bounded batches."""

    async def entries(self, payment_id: str | None, limit: int) -> Sequence[StoredEntry]:
        """Of the audit log, newest first."""
