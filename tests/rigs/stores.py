"""One PaymentStore with its CallQueue, whatever is behind them, for the contract suites."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.core.ports import CallQueue, ClaimedCall, OutboxRow

KEY = b"k" * 32
SHARDS = 16
WAIT_S = 5.0
T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks until the answer is something."""
    deadline = time.monotonic() + WAIT_S
    while True:
        answered = await ask()
        if answered:
            return answered
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)


@dataclass(slots=True)
class StoreRig:
    store: MemoryPaymentStore | PostgresPaymentStore
    queue: CallQueue
    empty_outbox: Callable[[], None]
    offered: list[tuple[OutboxRow, bool]] = field(default_factory=list)

    def offer(self, rows: Sequence[tuple[OutboxRow, bool]]) -> None:
        self.offered += rows

    @property
    def told(self) -> list[tuple[str, int, bool]]:
        return [(row.topic, row.sequence, direct) for row, direct in self.offered]

    async def claim_until(self, owner: str, lease_s: float = 30.0) -> ClaimedCall:
        """Claims until something is due."""
        (call,) = await eventually(lambda: self.queue.claim(owner, 10, lease_s))
        return call


def memory_rig() -> StoreRig:
    store = MemoryPaymentStore(shards=SHARDS)
    rig = StoreRig(store, store, store.outbox.clear)
    store.on_outbox = rig.offer
    return rig
