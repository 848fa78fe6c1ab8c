"""What a payment costs and how long REST takes, at whatever is stored: the same measurements each time."""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rigs.worker import PARTITIONS, Installation, Message, Worker
from servers.postgres import execute

HERE = Path(__file__).parent
WARM = 0.2
"""Of a backlog: drained before anything is measured."""
CREATES_PER_S = 40.0
DRAIN_WAIT_S = 900.0
READY_WAIT_S = 120.0
POLL_S = 0.1
console = Console()
Figures = dict[str, float]


@dataclass(slots=True)
class Bench:
    site: Installation
    arguments: argparse.Namespace
    postgres: psutil.Process
    consumer: AIOKafkaConsumer
    report: dict[str, Any] = field(default_factory=dict)

    def postgres_cpu_s(self) -> float:
        """Of the server and all its children, also of those that have ended."""
        own = self.postgres.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for child in self.postgres.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                total += times.user + times.system
        return float(total)

    async def told(self, topic: str) -> int:
        """Records in a topic of ours, by its end offsets."""
        places = [TopicPartition(self.site.prefix + topic, number) for number in range(PARTITIONS)]
        return sum((await self.consumer.end_offsets(places)).values())

    def wal_bytes(self) -> int:
        return int(self.rows("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")[0][0])

    def rows(self, query: str) -> list[Any]:
        return execute(self.site.database_url, query)


def cpu_of(worker: Worker) -> float:
    times = psutil.Process(worker.pid).cpu_times()
    return float(times.user + times.system)


def rss_mb(worker: Worker) -> float:
    return float(psutil.Process(worker.pid).memory_info().rss) / 1e6


async def measure(bench: Bench) -> Figures:
    """Of the database as it is now: an orders backlog, one with charges, REST at a fixed rate."""
    figures: Figures = {}
    orders = bench.arguments.orders
    before = await bench.told("payment.created")
    load_orders(bench, orders)
    worker = bench.site.worker()
    figures["start to ready s"], figures["start to reading Kafka s"] = await started(worker)
    figures |= await drained(bench, worker, "payment.created", before, orders, "order")
    await worker.stop()
    charges = orders // 4
    before, first = await bench.told("payment.processed"), time.time_ns()
    await bench.site.produce(*(charged_order(first, number) for number in range(charges)))
    worker = bench.site.worker(AUTO_PROCESS_ORDERS="true", PROVIDER_CONCURRENCY="500")
    await started(worker)
    figures |= await drained(bench, worker, "payment.processed", before, charges, "charged order")
    figures |= await rest(bench, worker)
    figures["RSS MB"] = rss_mb(worker)
    await worker.stop()
    return figures


def load_orders(bench: Bench, count: int) -> None:
    env = {**os.environ, "BROKER": bench.site.broker, "TOPIC": bench.site.orders, "N": str(count)}
    program = [sys.executable, str(HERE / "baselines" / "orders_load.py")]
    subprocess.run(program, env=env, check=True, capture_output=True, timeout=DRAIN_WAIT_S)


def charged_order(run: int, number: int) -> Message:
    body = {
        "eventType": "order.created", "orderId": f"charged-{run}-{number}", "userId": f"user-{number % 1000}",
        "totalAmount": 10.5, "currency": "USD", "paymentMethodId": "tok_visa",
    }  # fmt: skip
    return Message(orjson.dumps(body), number % PARTITIONS, str(number).encode())


async def started(worker: Worker, **env: str) -> tuple[float, float]:
    begun_s = time.monotonic()
    worker.start(**env)
    await worker.ready(READY_WAIT_S)
    ready_s = time.monotonic() - begun_s
    await worker.streaming(READY_WAIT_S)
    return ready_s, time.monotonic() - begun_s


async def drained(bench: Bench, worker: Worker, topic: str, before: int, count: int, what: str) -> Figures:
    """From WARM of the backlog to its end, told on Kafka; `topic` gets one event for each, behind those `before`."""
    deadline, begun = time.monotonic() + DRAIN_WAIT_S, (0.0, 0.0, 0.0, 0, 0)
    done = 0
    while done < count and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
        done = await bench.told(topic) - before
        if not begun[3] and done >= count * WARM:
            begun = time.monotonic(), cpu_of(worker), bench.postgres_cpu_s(), done, bench.wal_bytes()
    taken_s, counted = time.monotonic() - begun[0], max(done - begun[3], 1)
    own_s, postgres_s = cpu_of(worker) - begun[1], bench.postgres_cpu_s() - begun[2]
    return {
        f"{what}s /s": counted / taken_s,
        f"{what}: own CPU us": own_s / counted * 1e6,
        f"{what}: PostgreSQL CPU us": postgres_s / counted * 1e6,
        f"{what}: WAL bytes": (bench.wal_bytes() - begun[4]) / counted,
    }


async def rest(bench: Bench, worker: Worker) -> Figures:
    """create, get and process, begun CREATES_PER_S times a second whether those before are answered or not."""
    times: dict[str, list[float]] = {"create": [], "get": [], "process": []}
    failed = 0

    async def timed(what: str, *call: Any) -> Any:
        nonlocal failed
        begun_s = time.perf_counter()
        answer = await worker.call(*call, user="bench")
        times[what].append((time.perf_counter() - begun_s) * 1000)
        failed += answer.status >= 300
        return answer

    async def shopper(number: int) -> None:
        order = {"orderId": f"rest-{time.time_ns()}-{number}", "amount": 12.5, "currency": "USD"}
        answer = await timed("create", "POST", "/api/v1/payments", order)
        path = f"/api/v1/payments/{answer.data['id']}"
        await timed("get", "GET", path)
        await timed("process", "POST", f"{path}/process", {"paymentMethodId": "tok_visa"})

    count = round(CREATES_PER_S * bench.arguments.seconds)
    await asyncio.gather(*(shopper(number) for number in range(20)))  # connections
    for one in times.values():
        one.clear()
    own_s, postgres_s, begun_s = cpu_of(worker), bench.postgres_cpu_s(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, begun_s + number / CREATES_PER_S - time.monotonic()))
            group.create_task(shopper(number + 20))
    figures: Figures = {}
    for what, taken in times.items():
        figures[f"REST {what} p50 ms"] = statistics.median(taken)
        figures[f"REST {what} p99 ms"] = statistics.quantiles(taken, n=100)[98]
    figures["REST create, get, process: own CPU us"] = (cpu_of(worker) - own_s) / count * 1e6
    figures["REST create, get, process: PostgreSQL CPU us"] = (bench.postgres_cpu_s() - postgres_s) / count * 1e6
    if failed:
        figures["REST errors"] = failed
    return figures
