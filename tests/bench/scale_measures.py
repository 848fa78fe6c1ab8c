"""What scale_out.py measures with: processor time by whose it was, waiting in the database, sizes of tables."""

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg2
from rigs.worker import Worker

Figures = dict[str, Any]


@dataclass(frozen=True)
class Spent:
    """CPU seconds since each process began; `busy_s`: of all cores, whoever it was."""

    own_s: float
    kafka_s: float
    postgres_s: float
    busy_s: float
    at_s: float

    def since(self, start: "Spent") -> "Spent":
        return Spent(*(now - then for now, then in zip(astuple(self), astuple(start), strict=True)))

    def figures(self, payments: float) -> Figures:
        ours_s = self.own_s + self.kafka_s + self.postgres_s
        each = 1e6 / max(payments, 1)
        return {
            "own_cpu_us": self.own_s * each, "kafka_cpu_us": self.kafka_s * each,
            "postgres_cpu_us": self.postgres_s * each, "cores_busy": self.busy_s / self.at_s,
            "cores_busy_elsewhere": (self.busy_s - ours_s) / self.at_s, "seconds": self.at_s,
        }  # fmt: skip


def spent(workers: Iterable[Worker]) -> Spent:
    """Kafka's and PostgreSQL's only where this process has started them."""
    servers = Counter[str]()
    for child in psutil.Process().children(recursive=True):
        try:
            if (name := child.name()) in ("java", "postgres"):
                times = child.cpu_times()
                servers[name] += times.user + times.system
                if child.ppid() == os.getpid():  # those of its children that have ended
                    servers[name] += times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    own_s = sum(sum(psutil.Process(worker.pid).cpu_times()[:2]) for worker in workers)
    machine = psutil.cpu_times()
    busy_s = machine.user + machine.nice + machine.system + machine.irq + machine.softirq
    return Spent(own_s, servers["java"], servers["postgres"], busy_s, time.monotonic())


def resident_mb(workers: Iterable[Worker]) -> float:
    return sum(float(psutil.Process(worker.pid).memory_info().rss) for worker in workers) / 1e6


class DatabaseWatch:
    """What the database tells of waiting and of its tables, in a session of its own."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True
        self._waits = Counter[str]()
        self._looks = self._ungranted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def rows(self, query: str) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def number(self, query: str) -> int:
        return int(self.rows(query)[0][0] or 0)

    def sessions(self) -> int:
        """Of the workers, whether they have work or not."""
        return self.number(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        )

    def look(self) -> None:
        """One sample of what the sessions that have work are waiting for."""
        self._looks += 1
        found = self.rows(
            "select coalesce(wait_event_type || ':' || wait_event, 'running'), count(*) from pg_stat_activity"
            " where datname = current_database() and backend_type = 'client backend' and state = 'active'"
            " and pid <> pg_backend_pid() group by 1"
        )
        self._waits.update(dict(found))
        self._ungranted += self.number("select count(*) from pg_locks where not granted")

    def seen(self) -> Figures:
        """By kind the mean number of sessions that waited so."""
        looks = max(self._looks, 1)
        return {
            "samples": self._looks, "ungranted_locks": self._ungranted / looks,
            "sessions": {name: count / looks for name, count in self._waits.most_common(6)},
        }  # fmt: skip

    def counters(self) -> Counter[str]:
        ((commits, rollbacks, deadlocks, conflicts),) = self.rows(
            "select xact_commit, xact_rollback, deadlocks, conflicts from pg_stat_database"
            " where datname = current_database()"
        )
        since_18 = self._connection.server_version >= 180000  # then told by another view
        fsyncs = "sum(fsyncs) from pg_stat_io where object = 'wal'" if since_18 else "wal_sync from pg_stat_wal"
        return Counter(
            commits=commits, rollbacks=rollbacks, deadlocks=deadlocks, conflicts=conflicts,
            wal_bytes=self.number("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"),
            full_page_images=self.number("select wal_fpi from pg_stat_wal"),
            fsyncs=self.number(f"select {fsyncs}"),
        )  # fmt: skip

    def counted_since(self, before: Counter[str]) -> dict[str, int]:
        now = self.counters()
        now.subtract(before)
        return dict(now)

    def sizes(self) -> dict[str, tuple[int, int, int]]:
        """Of each table its rows, its bytes with everything, and the bytes of indexes among them."""
        return {
            name: self.rows(
                f"select count(*), pg_total_relation_size('payment_service.{name}'),"
                f" pg_indexes_size('payment_service.{name}') from payment_service.{name}"
            )[0]
            for name in self._tables()
        }

    def pack(self) -> None:
        """Write the tables anew, without the versions of rows that nobody sees any more."""
        for name in self._tables():
            with self._connection.cursor() as cursor:
                cursor.execute(f"vacuum full payment_service.{name}")

    def _tables(self) -> list[str]:
        named = self.rows("select relname from pg_stat_user_tables where schemaname = 'payment_service'")
        return [name for (name,) in named]


async def counted(workers: Iterable[Worker], line: str) -> list[float]:
    """Of each worker the sum of its metrics whose lines begin so."""
    found = []
    for worker in workers:
        lines = (await worker.numbers()).splitlines()
        found.append(sum(float(it.rsplit(" ", 1)[1]) for it in lines if it.startswith(line)))
    return found
