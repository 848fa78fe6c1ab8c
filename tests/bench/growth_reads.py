"""Every list and search of REST, the console and the commands, and what the workers ask by themselves, at a database
of some size: its times, and the plan of what is slow.
"""

import contextlib
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from payment_service.adapters.postgres import arrays
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.outbox import WORKER_LOCKS
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import STATEMENT_S, ConnectionLost, Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.webhooks import PostgresWebhooks
from payment_service.core.errors import Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Cipher, PaymentFilter
from payment_service.core.terms import Status

ROUNDS = 30
"""Of each query, with other values each time; before them two that are not counted, which connect."""
SLOW_MS = 20.0
PLAN_LINES_MAX = 40
DAY_MS = 86_400_000
OFFSET_MAX = 10_000
Place = Callable[[int], tuple[str, str, datetime]]
"""(order id, user, time) of a stored payment by its number."""


class WatchedDatabase(Database):
    """Keeps the slowest statement of what is asked, with its values, so that it can be explained."""

    slowest: tuple[float, str, Sequence[Any]] = (0.0, "", ())

    async def fetch(
        self, query: str, parameters: Sequence[Any] = (), timeout_s: float = STATEMENT_S, *, hot: bool = False
    ) -> list[Any]:
        started_s = time.perf_counter()
        rows = await super().fetch(query, parameters, timeout_s, hot=hot)
        taken_s = time.perf_counter() - started_s
        if taken_s > self.slowest[0]:
            self.slowest = taken_s, query, parameters
        return rows

    async def plan(self) -> list[str]:
        _, query, parameters = self.slowest
        rows = await super().fetch(f"explain (analyze, buffers, costs off) {query}", parameters)
        return [line for (line,) in rows][:PLAN_LINES_MAX]


@dataclass(slots=True)
class Read:
    name: str
    ask: Callable[[], Awaitable[Any]]
    times_ms: list[float] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.times_ms)

    @property
    def p99_ms(self) -> float:
        return max(self.times_ms)  # of ROUNDS, which are fewer than a hundred


async def time_reads(database: WatchedDatabase, reads: Sequence[Read]) -> None:
    for read in reads:
        database.slowest = (0.0, "", ())
        for number in range(ROUNDS + 2):
            started_s = time.perf_counter()
            with contextlib.suppress(Unavailable, ConnectionLost):  # after the store's own limit: that is its time
                await read.ask()
            if number > 1:
                read.times_ms.append((time.perf_counter() - started_s) * 1000)
        if read.p99_ms > SLOW_MS:
            read.plan = await database.plan()


def all_reads(database: WatchedDatabase, cipher: Cipher, size: int, place: Place, seed: int = 1) -> list[Read]:
    """The store's own methods where there are some; else their statements."""
    chosen = random.Random(seed)

    def some() -> tuple[str, str, datetime]:
        return place(chosen.randrange(size))

    def payment() -> str:
        return payment_id_of(some()[0])

    return [
        *_lists(database, cipher, some),
        *_searches(database, cipher, payment),
        *_of_workers(database, payment, some),
    ]


def _lists(database: Database, cipher: Cipher, some: Callable[[], tuple[str, str, datetime]]) -> list[Read]:
    store = PostgresPaymentStore(database, cipher, b"", 64, lambda rows: None)

    def listed(name: str, **fixed: Any) -> Read:
        def ask() -> Awaitable[Any]:
            given = {key: value() if callable(value) else value for key, value in fixed.items()}
            return store.find(PaymentFilter(**given))

        return Read(f"list: {name}", ask)

    def user() -> str:
        return some()[1]

    def at_ms() -> int:
        return int(some()[2].timestamp() * 1000)

    def a_day() -> dict[str, Any]:
        start = at_ms()
        return {"created_from_ms": start, "created_to_ms": start + DAY_MS}

    def on_a_day(name: str, **fixed: Any) -> Read:
        return Read(f"list: {name}", lambda: store.find(PaymentFilter(**a_day(), **fixed)))

    heavy = "user-heavy"
    reads = [
        listed("newest"),
        listed("oldest", descending=False),
        listed("page far in", offset=OFFSET_MAX, limit=100),
        listed("of a user", user_id=user),
        listed("of a user, by amount", user_id=user, sort_by="amount"),
        listed("of a user, one status", user_id=user, status="SUCCEEDED"),
        listed("of a user nobody knows", user_id="nobody"),
        listed("of a user with 1 %", user_id=heavy),
        listed("of a user with 1 %, page far in", user_id=heavy, offset=4000, limit=100),
        listed("of a user with 1 %, by amount", user_id=heavy, sort_by="amount"),
        listed("of a user with 1 %, a rare status", user_id=heavy, status="UNKNOWN"),
        listed("of a provider", provider="MOCK"),
        listed("of a provider without payments", provider="PAYPAL"),
        listed("since a time", created_from_ms=at_ms),
        listed("until a time", created_to_ms=at_ms),
        on_a_day("of a day"),
        on_a_day("of a day, one status", status="FAILED"),
        on_a_day("of a day, by amount", sort_by="amount"),
        listed("by amount", sort_by="amount"),
        listed("by amount, ascending", sort_by="amount", descending=False),
        listed("by amount, page far in", sort_by="amount", offset=OFFSET_MAX, limit=100),
        listed("above an amount", amount_min=1500.0),
        listed("above an amount nobody paid", amount_min=9_000_000.0),
        listed("between two amounts", amount_min=19.99, amount_max=20.01),
        listed("by status", sort_by="status"),
        listed("by status, ascending", sort_by="status", descending=False),
        listed("by status, page far in", sort_by="status", offset=OFFSET_MAX, limit=100),
    ]
    for status in Status:
        reads.append(listed(f"status {status}", status=status.value))
        reads.append(listed(f"status {status}, page far in", status=status.value, offset=OFFSET_MAX, limit=25))
    reads.append(listed("one status, by amount", status="FAILED", sort_by="amount"))
    reads.append(listed("one status of a provider without payments", status="FAILED", provider="PAYPAL"))
    return reads


def _searches(database: Database, cipher: Cipher, payment: Callable[[], str]) -> list[Read]:
    store = PostgresPaymentStore(database, cipher, b"", 64, lambda rows: None)
    webhooks, calls = PostgresWebhooks(database, cipher), PostgresCallQueue(database, cipher)

    def named(name: str, query: str, *values: Any) -> Read:
        def ask() -> Awaitable[Any]:
            given = tuple(value() if callable(value) else value for value in values)
            return database.fetch(QUERIES[query], given)

        return Read(name, ask)

    def object_id() -> str:
        return "mock_pi_" + payment()[4:28]

    return [
        Read("search: by payment or order id", lambda: store.load(payment())),
        Read("search: timeline", lambda: store.events(payment())),
        Read("search: by provider's id", lambda: webhooks.payments_of_provider_id(object_id())),
        Read("search: by an id nobody has", lambda: webhooks.payments_of_provider_id("mock_pi_nobody")),
        named("audit: newest", "audit_newest", 50),
        named("audit: of a payment", "audit_of_payment", payment, 30),
        named("audit: of commands since a week", "audit_of_commands", "2026-01-01T00:00:00.000Z", 1000),
        named("audit verify: a page of chains", "histories", payment, 200, payment, 200, 200),
        named("audit verify: a page of entries", "audit_page", "bench:1", 1000, 1000),
        Read("webhooks: newest", lambda: webhooks.listed(limit=100)),
        Read("webhooks: PARKED", lambda: webhooks.listed(status="PARKED", limit=100)),
        Read("webhooks: FAILED", lambda: webhooks.listed(status="FAILED", limit=100)),
        Read("webhooks: RECEIVED", lambda: webhooks.listed(status="RECEIVED", limit=100)),
        Read("webhooks: IGNORED", lambda: webhooks.listed(status="IGNORED", limit=100)),
        Read("webhooks: of a provider without any", lambda: webhooks.listed(provider="PAYPAL", limit=100)),
        Read("webhooks: by id", lambda: webhooks.listed(row_id=17, limit=1)),
        Read("reconcile: open calls", lambda: calls.open_calls(50)),
        named("dead letters: a page", "page_of_dead_letters", 0, 500),
        named("doctor: what waits", "look_at_work", WORKER_LOCKS),
        named("search: by an id of the service before", "find_legacy", payment),
    ]  # fmt: skip


def _of_workers(
    database: Database, payment: Callable[[], str], some: Callable[[], tuple[str, str, datetime]]
) -> list[Read]:
    """What each worker asks every second or minute, whether anybody pays or not."""

    def named(name: str, query: str, *values: Any) -> Read:
        def ask() -> Awaitable[Any]:
            given = tuple(value() if callable(value) else value for value in values)
            return database.fetch(QUERIES[query], given)

        return Read(f"worker: {name}", ask)

    def hour() -> tuple[float, float]:
        start = some()[2].timestamp() * 1000
        return start, start + 3_600_000

    async def ids() -> list[str]:
        return [row[0] for row in await database.fetch(QUERIES["payments_after"], (payment(), 1000))]

    async def books() -> None:
        await database.fetch(QUERIES["money_differences"], (arrays.texts(sorted(await ids())),))

    return [
        named("scheduled calls", "scheduled_due", 10_001),
        named("open calls by age", "open_by_age", 50_000),
        named("to review, overdue", "review_and_overdue", 10_000),
        named("changed payments", "changed_payments", None, 10_000),
        named("changed calls", "changed_calls", None, 10_000),
        named("outbox depth", "outbox_depth"),
        named("webhooks waiting", "webhooks_waiting"),
        named("order words waiting", "order_updates_waiting"),
        Read("worker: published in an hour", lambda: database.fetch(QUERIES["published_between"], (*hour(), 5000))),
        named("unsettled payments", "unsettled_payments", "", 5000),
        Read("worker: books of 1,000 payments", books),
    ]
