"""What every part of the bench stands on: servers, a fresh database for each program, programs that end with us."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psycopg2
from aiokafka import AIOKafkaConsumer, TopicPartition
from bench.processor import Processors
from rich.console import Console
from servers.topics import create_topics

from payment_service.adapters.embedded_process import free_port

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BASELINES = Path(os.environ.get("BASELINES_DIR", HERE / "baselines"))
ORDERS = int(os.environ.get("BENCH_ORDERS", "50000"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "6"))
PARTITIONS = 4
SECRET = "bench-secret-of-at-least-32-characters"
WAIT_S = 90.0
"""Longest wait for one thing."""
POLL_S = 0.1
SETTLE_S = 1.0
"""Given to what follows a load (publishing, tables) before its processor time is read."""
WORKER = [sys.executable, "-m", "payment_service.cli.main", "worker"]
console = Console()


class Site(NamedTuple):
    """A worker that runs, and where its things are."""

    port: int
    pid: int
    dsn: str
    prefix: str


@dataclass
class Bench:
    broker: str
    dsn: str
    folder: Path
    processors: Processors
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    results: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    """Parts without figures."""

    def database(self, name: str) -> str:
        """A fresh database of its own for each program, so that none measures another's rows."""
        full = f"bench_{self.run}_{name}"
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            connection.cursor().execute(f'create database "{full}"')
        return re.sub(r"/[^/?]*(\?|$)", rf"/{full}\1", self.dsn, count=1) if "://" in self.dsn else self.dsn

    def env(self, **more: str) -> dict[str, str]:
        return {**os.environ, "BROKER": self.broker, "JWT_SECRET": SECRET, **more}

    def service_env(self, name: str, dsn: str, port: int, **more: str) -> dict[str, str]:
        return self.env(
            DATABASE_URL=dsn, KAFKA_BROKERS=self.broker, TOPIC_PREFIX=self.prefix(name), PORT=str(port),
            DATA_DIR=str(self.folder / name), NODE_ENV="development", ENCRYPTION_KEY="0" * 64, LOG_LEVEL="warning",
            TOPIC_PARTITIONS=str(PARTITIONS), RATE_LIMIT_MAX="100000000", **more,
        )  # fmt: skip

    def prefix(self, name: str) -> str:
        return f"b{self.run}.{name}."


def apply_sql(dsn: str, path: Path) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute(path.read_text())


class Watcher:
    """One connection for as long as something is watched: what watches must not cost the measured database."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def row(self, statement: str) -> tuple[Any, ...]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone() or ()

    def number(self, statement: str) -> int:
        return int(self.row(statement)[0])

    def payments(self) -> int:
        """Reads them all: only while there are few, and where nothing is measured."""
        return self.number("select count(*) from payment_service.payments")

    async def until(self, statement: str, wanted: int, *, every_s: float = POLL_S) -> int:
        """The number that was there when it reached what is wanted, or at the end of WAIT_S."""
        deadline = time.monotonic() + WAIT_S
        while True:
            now = self.number(statement)
            if now >= wanted or time.monotonic() >= deadline:
                return now
            await asyncio.sleep(every_s)


# --- programs --------------------------------------------------------------------------------------------------------


def baseline(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(BASELINES / name), *arguments]


@contextmanager
def running(arguments: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """In a process group of its own, which ends with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, env=env, cwd=tempfile.gettempdir(), stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@asynccontextmanager
async def service(bench: Bench, name: str, **more: str) -> AsyncIterator[Site]:
    """A worker with topics and a database of its own, once it takes requests."""
    dsn, port = bench.database(name), free_port()
    with running(WORKER, bench.service_env(name, dsn, port, **more), bench.folder / f"{name}.log") as process:
        await until_ready(port)
        yield Site(port, process.pid, dsn, bench.prefix(name))


async def until_ready(port: int) -> None:
    deadline = time.monotonic() + WAIT_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            try:
                async with session.get(f"http://127.0.0.1:{port}/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(POLL_S)
    raise TimeoutError("the service did not become ready")


# --- topics ----------------------------------------------------------------------------------------------------------


async def produce(bench: Bench, topic: str, count: int, *others: str) -> None:
    """Make the topic, and those a program writes to, and fill it."""
    await create_topics(bench.broker, [topic, *others], partitions=PARTITIONS)
    env = bench.env(TOPIC=topic, N=str(count))
    subprocess.run(baseline("orders_load.py"), env=env, check=True, capture_output=True, timeout=WAIT_S)


async def until_written(bench: Bench, topics: Sequence[str], records: int) -> bool:
    """Until each topic has so many, by its end offsets; False: not within WAIT_S. They are there since the worker is
    ready, but for a changelog, which comes with the first event."""
    deadline = time.monotonic() + WAIT_S
    consumer = AIOKafkaConsumer(bootstrap_servers=bench.broker)
    await consumer.start()
    try:
        left = list(topics)
        while left and time.monotonic() < deadline:
            partitions = [TopicPartition(left[0], number) for number in range(PARTITIONS)]
            if sum((await consumer.end_offsets(partitions)).values()) >= records:
                left.pop(0)
            else:
                await asyncio.sleep(POLL_S)
        return not left
    finally:
        await consumer.stop()
