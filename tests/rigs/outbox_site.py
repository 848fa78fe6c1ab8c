"""Publishers of the outbox on a real PostgreSQL and a real broker, for tests: in this process and in others.

This file is also the other process: `python outbox_site.py` with its settings in the environment.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg2
from aiokafka import AIOKafkaConsumer, TopicPartition
from servers.waiting import until

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import NeededTopic, create_missing
from payment_service.adapters.postgres.outbox import SHARD_LOCKS, OutboxConnection
from payment_service.adapters.publisher import OutboxPublisher
from payment_service.core.ids import payment_id_of, shard_of
from payment_service.core.ports import OutboxRow

TESTS = Path(__file__).parent.parent
SHARDS = 8
PARTITIONS = 4
CREATED = "payment.created"
INSERT = """insert into payment_service.outbox (shard, payment_id, sequence, topic, at, traceparent, value)
select s, p, q, t, to_timestamp(a / 1000.0), r, v
from unnest(%s::smallint[], %s::text[], %s::int[], %s::text[], %s::bigint[], %s::text[], %s::bytea[])
  as x(s, p, q, t, a, r, v)"""


class NoMetrics:
    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...


def row(number: int, sequence: int, topic: str = CREATED, pad: int = 0) -> OutboxRow:
    payment = payment_id_of(f"order-{number}")
    value = json.dumps({"eventType": topic, "sequence": sequence, "pad": "x" * pad}).encode()
    return OutboxRow(shard_of(payment, SHARDS), payment, sequence, topic, 1_764_000_000_123, None, value)


class Site:
    """A database, a broker with topics of this test's own, and publishers on them."""

    def __init__(self, broker: str, dsn: str, prefix: str) -> None:
        self.broker, self.dsn, self.prefix = broker, dsn, prefix
        self._database = psycopg2.connect(dsn)
        self._database.autocommit = True

    def close(self) -> None:
        self._database.close()

    def rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._database.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    def commit(self, rows: Iterable[OutboxRow], notify: bool = False) -> None:
        columns = zip(
            *((it.shard, it.payment_id, it.sequence, it.topic, it.at_ms, it.traceparent, it.value) for it in rows),
            strict=True,
        )
        self.rows(INSERT, tuple(list(column) for column in columns))
        if notify:
            self.rows("select pg_notify('payment_outbox', '')")

    def shard_locks(self) -> int:
        query = """select count(*) from pg_locks where locktype = 'advisory' and classid = %s and granted
            and database = (select oid from pg_database where datname = current_database())"""
        return int(self.rows(query, (SHARD_LOCKS,))[0][0])

    def left(self) -> int:
        return int(self.rows("select count(*) from payment_service.outbox")[0][0])

    async def topics(self, *names: str) -> None:
        await create_missing(KafkaClient(self.broker), [NeededTopic(it) for it in names], self.prefix, PARTITIONS)

    @asynccontextmanager
    async def publisher(
        self, broker: str = "", **options: Any
    ) -> AsyncIterator[tuple[OutboxPublisher, OutboxConnection]]:
        outbox = OutboxConnection(self.dsn, SHARDS)
        publisher = OutboxPublisher(
            KafkaClient(broker or self.broker), outbox, NoMetrics(), topic_prefix=self.prefix, **options
        )
        running = asyncio.create_task(publisher.run())
        try:
            yield publisher, outbox
        finally:
            await publisher.stop()
            await running

    async def read(self, enough: Callable[["Heard"], bool], *topics: str, wait_s: float = 40.0) -> "Heard":
        """From the beginning of every topic until there is enough. Each partition has its order; no group needed."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker, enable_auto_commit=False, fetch_max_wait_ms=50)
        await consumer.start()
        try:
            places = [TopicPartition(self.prefix + topic, number) for topic in topics for number in range(PARTITIONS)]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            heard = Heard()
            deadline = time.monotonic() + wait_s
            while not enough(heard):
                assert time.monotonic() < deadline, f"not enough after {wait_s} s: {len(heard.records)} records"
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    heard.records += records
            return heard
        finally:
            await consumer.stop()


class Heard:
    def __init__(self) -> None:
        self.records: list[Any] = []

    def firsts(self) -> dict[str, list[int]]:
        """Per payment the sequences in the order in which each was first appended. Topics are merged by the broker's
        own time of appending, so it is exact only within one topic."""
        firsts: dict[str, list[int]] = defaultdict(list)
        for record in self.records:
            sequence = json.loads(record.value)["sequence"]
            if sequence not in firsts[record.key.decode()]:
                firsts[record.key.decode()].append(sequence)
        return firsts

    def payments(self) -> set[str]:
        return {record.key.decode() for record in self.records}


async def owns_all(publisher: OutboxPublisher, outbox: OutboxConnection) -> None:
    await until(lambda: publisher.connected and len(outbox.owned) == SHARDS, "owns every shard")


@contextlib.contextmanager
def other_process(site: Site, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    settings = {**os.environ, "BROKER": site.broker, "DSN": site.dsn, "PREFIX": site.prefix, "PYTHONPATH": str(TESTS)}
    with (tmp_path / f"worker-{uuid.uuid4().hex[:6]}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, __file__], env=settings, stderr=log, stdout=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def serve() -> None:
    env = os.environ
    outbox = OutboxConnection(env["DSN"], SHARDS)
    publisher = OutboxPublisher(KafkaClient(env["BROKER"]), outbox, NoMetrics(), topic_prefix=env["PREFIX"])
    await publisher.run()


if __name__ == "__main__":
    asyncio.run(serve())
