"""What leaves by age: Idempotency-Keys and the inbox's marks, in small batches, by whichever worker is first.

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
BATCH_MAX = 2000
"""Rows that leave in one statement: it is over in milliseconds, and holds no lock that a payment waits for."""
BATCHES_MAX = 400
"""One after another before the other table has its turn: 800,000 rows a minute, more than a worker can add."""
PAUSE_S = 0.02
"""Between two batches: whoever takes payments comes first."""
EVERY_S = 60.0


class OldRows(Protocol):
    """Both return how many left, at most `limit`, oldest first; they raise Unavailable."""

    async def remove_old_keys(self, age_s: float, limit: int) -> int: ...

    async def remove_old_marks(self, age_s: float, limit: int) -> int: ...


@dataclass(frozen=True, slots=True)
class ForgetOld:
    rows: OldRows
    metrics: Metrics

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            for remove, age_s, what in (
                (self.rows.remove_old_keys, KEPT_S, "keys"),
                (self.rows.remove_old_marks, MARKS_KEPT_S, "inbox"),
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
            if removed < BATCH_MAX:
                break
            await asyncio.sleep(PAUSE_S)
        return total
