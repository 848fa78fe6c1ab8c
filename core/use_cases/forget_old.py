"""What leaves by age: Idempotency-Keys, the inbox's marks, settled webhooks; in small batches, by whichever worker is
first.

Room: core/use_cases. Awaits on ports only. Nothing here is in anybody's way: a batch that fails is tried again later.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from payment_service.core.errors import Unavailable
from payment_service.core.idempotency import KEPT_S
from payment_service.core.ports import Metrics

MARKS_KEPT_S = 30 * 24 * 3600.0
"""Longer than any topic keeps its events, by far (OCI Streaming: 7 days), and than a provider repeats its own: an event
that comes again is known as long as it can come again."""
WEBHOOKS_KEPT_S = 30 * 24 * 3600.0
"""Providers repeat an event for days at most, and their signatures end in minutes."""
BATCH_MAX = 2000
"""Rows that leave in one statement: it is over in milliseconds, and holds no lock that a payment waits for."""
BATCHES_MAX = 400
"""One after another before the next table has its turn: 800,000 rows a minute, more than a worker can add."""
PAUSE_S = 0.02
"""Between two batches: whoever takes payments comes first."""
EVERY_S = 60.0


class OldWebhooks(Protocol):
    async def remove_old(self, age_s: float, limit: int) -> int:
        """How many left. Of the `limit` oldest some may have to stay. Raises Unavailable."""


class OldRows(Protocol):
    """Both return how many left, at most `limit`, oldest first; they raise Unavailable."""

    async def remove_old_keys(self, age_s: float, limit: int) -> int: ...

    async def remove_old_marks(self, age_s: float, limit: int) -> int: ...


@dataclass(frozen=True, slots=True)
class ForgetOld:
    rows: OldRows
    webhooks: OldWebhooks
    metrics: Metrics

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            for remove, age_s, what in (
                (self.rows.remove_old_keys, KEPT_S, "keys"),
                (self.rows.remove_old_marks, MARKS_KEPT_S, "inbox"),
                (self.webhooks.remove_old, WEBHOOKS_KEPT_S, "webhooks"),
            ):
                try:
                    self.metrics.count("old_rows_removed", await self._remove(remove, age_s), what=what)
                except Unavailable:
                    self.metrics.count("old_rows_failed", what=what)
            await asyncio.sleep(EVERY_S)

    async def _remove(self, remove: Callable[[float, int], Awaitable[int]], age_s: float) -> int:
        total = 0
        for _ in range(BATCHES_MAX):
            removed = await remove(age_s, BATCH_MAX)
            total += removed
            if removed < BATCH_MAX // 2:  # not just fewer: a few that others hold, or that stay, must not end it
                break
            await asyncio.sleep(PAUSE_S)
        return total
