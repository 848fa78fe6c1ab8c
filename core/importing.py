"""Taking over what the service before this one has stored: what is asked for, and what became of each part of it.

Room: core. Words alone; what the rows mean is in legacy.py.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from payment_service.core.events import PaymentImported
from payment_service.core.payment import Payment


class Part(StrEnum):
    PAYMENTS = "payments"
    METHODS = "methods"
    WEBHOOKS = "webhooks"


@dataclass(frozen=True, slots=True)
class ImportStep:
    """What became of some rows. Counts rows, of payments also those that are kept as an order's history."""

    part: Part
    read: int = 0
    imported: int = 0
    history: int = 0
    before: int = 0
    """An earlier run has imported them."""
    asked: int = 0
    """Payments about which their provider is asked."""
    review: Mapping[str, int] = field(default_factory=dict)
    """Why a person should look, and at how many."""
    refused: tuple[tuple[str, str], ...] = ()
    """Ids of rows that could not be imported, each with why."""


@dataclass(frozen=True, slots=True)
class OldPayment:
    """Who has asked by an old id. `history` None: it is the payment itself."""

    payment_id: str
    history: Payment | None = None
    event: PaymentImported | None = None


class LegacyImport(Protocol):
    """Every method raises Unavailable when a database is away, Refused NOT_FOUND when there are no old tables."""

    async def sizes(self) -> Mapping[Part, int]:
        """Rows to read, exactly."""

    def run(self, part: Part, *, dry_run: bool) -> AsyncGenerator[ImportStep, None]:
        """In bounded steps, each durable when it is yielded. May be stopped and run again at any time: what is there
        is known by its id."""


class OldIds(Protocol):
    async def find(self, old_id: str) -> OldPayment | None:
        """Raises Unavailable."""
