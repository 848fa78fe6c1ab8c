"""How the open calls are doing, and whether the books agree: gauges of every worker, and the brake on incoming orders.

Room: adapters/postgres. Reads alone; every statement is bounded, so that it costs the same with millions of payments.

**Money in minus money out**: what the payments' rows say (captured - refunded) minus what their transactions' and
refunds' rows say (`moved_minor`), per currency; anything but 0 means that a row was lost, or changed by somebody else.
Looked at are: the payments whose calls changed since the last look (up to CHANGED_MAX a look, by the index of
`transactions.updated_at`; with more it falls behind and catches up later); page by page all payments there are, by
id, round and round (5 million in about 14 hours); and always again those that were found wrong.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from payment_service.adapters.postgres import arrays
from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Metrics

TICK_S = 1.0
"""How often the calls that wait are counted: so much comes in beyond the limit at most."""
GAUGES_TICKS = 10
"""Every so many of these the rest is looked at."""
SCHEDULED_MAX = 10_000
"""Scheduled calls that may be due before the orders' stream is held; at half of it, it goes on. About 10 s of work
for one worker, and a bound on how long an order waits for its charge."""
OPEN_MAX = 50_000
REVIEW_MAX = 10_000
"""Rows counted; what is beyond shows as this many."""
CHANGED_MAX = 10_000
PATROL_MAX = 1_000
WRONG_MAX = 1_000
"""Payments with a difference that are remembered; with more than these something is wrong with all of them."""
AGES = ("1m", "10m", "1h", "1d", "older")
STATUSES = ("PENDING", "UNKNOWN")

_log = logging.getLogger(__name__)


class CallWatch:
    """`hold(True)`: too many scheduled calls wait, take no more orders. Called each tick, with what holds then."""

    def __init__(self, database: Database, metrics: Metrics, hold: Callable[[bool], None]) -> None:
        self._database = database
        self._metrics = metrics
        self._hold = hold
        self._holding = False
        self._since: float | None = None  # seconds since 1970: calls that changed after it were not looked at yet
        self._after = ""  # the last payment of the patrol
        self._wrong: dict[str, tuple[str, int]] = {}
        self._currencies: set[str] = set()

    async def run(self) -> None:
        """Until it is cancelled. While the database is away the gauges stay as they were."""
        ticks = 0
        while True:
            try:
                await self.brake()
                if ticks % GAUGES_TICKS == 0:
                    await self.look()
            except (Unavailable, ConnectionLost, TryAgain, StatementRefused) as error:
                _log.warning("the open calls cannot be counted: %s", type(error).__name__)
            ticks += 1
            await asyncio.sleep(TICK_S)

    async def brake(self) -> None:
        ((due,),) = await self._fetch("scheduled_due", (SCHEDULED_MAX + 1,))
        self._metrics.gauge("calls_scheduled_due", due)
        holding = due > SCHEDULED_MAX // 2 if self._holding else due > SCHEDULED_MAX
        if holding is not self._holding:
            _log.warning("the stream of orders is %s: %d scheduled calls wait", "held" if holding else "taken", due)
        self._holding = holding
        self._metrics.gauge("orders_held", holding)
        self._hold(holding)

    async def look(self) -> None:
        counts = {(status, age): n for status, age, n in await self._fetch("open_by_age", (OPEN_MAX,))}
        for status in STATUSES:
            for age in AGES:
                self._metrics.gauge("calls_open", counts.get((status, age), 0), status=status, age=age)
        ((review, overdue_s),) = await self._fetch("review_and_overdue", (REVIEW_MAX,))
        self._metrics.gauge("payments_to_review", review)
        self._metrics.gauge("calls_oldest_due_s", overdue_s)
        await self._compare()

    async def _compare(self) -> None:
        changed = await self._fetch("changed_payments", (self._since, CHANGED_MAX))
        page = await self._fetch("payments_after", (self._after, PATROL_MAX))
        ids = {row[0] for row in changed} | {row[0] for row in page} | self._wrong.keys()
        wrong: dict[str, tuple[str, int]] = {}
        for currency, differing, differences in await self._fetch("money_differences", (arrays.texts(sorted(ids)),)):
            self._currencies.add(currency)
            for payment_id, difference in zip(differing or (), differences or (), strict=True):
                if payment_id not in self._wrong:
                    _log.error("the books of %s differ by %d minor units of %s", payment_id, difference, currency)
                if len(wrong) < WRONG_MAX:
                    wrong[payment_id] = (currency, int(difference))
        self._wrong = wrong
        self._since = max((row[1] for row in changed), default=self._since)
        self._after = page[-1][0] if len(page) == PATROL_MAX else ""
        for currency in self._currencies:
            sum_minor = sum(difference for of, difference in wrong.values() if of == currency)
            self._metrics.gauge("money_difference_minor", sum_minor, currency=currency)
        self._metrics.gauge("payments_that_differ", len(wrong))

    async def _fetch(self, name: str, parameters: tuple[Any, ...]) -> list[Any]:
        return await self._database.fetch(QUERIES[name], parameters)
