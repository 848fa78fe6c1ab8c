"""Delivery on Apache Kafka: workers are real processes, killed and joined with hundreds of events in flight."""

import asyncio
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from rigs.stream_workers import PARTITIONS, WAIT_S, Bench, Uncounted, make_app, make_topic, no_letters

from payment_service.agents.delivery import Delivery, DeliveryLimits, Record, Work
from payment_service.agents.faust_app import PaymentApp

pytestmark = pytest.mark.kafka


@pytest.fixture
def bench(kafka_broker: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(kafka_broker, f"t{uuid.uuid4().hex[:8]}-", tmp_path)
    yield bench
    for worker in bench.workers:
        if worker.poll() is None:
            worker.kill()
        worker.wait(10)


def kill(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.wait(10)


async def end(worker: "subprocess.Popen[bytes]", within_s: float = 15.0) -> None:
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, within_s) == 0


@pytest.mark.parametrize("by_batches", [True, False], ids=["batches", "faust-stream"])
async def test_kill_9_with_a_thousand_in_flight_loses_nothing(bench: Bench, by_batches: bool) -> None:
    await make_topic(bench.broker, bench.topic)
    sent = await bench.produce(12_000)
    # So slow that the window is full however slow the machine is.
    first = bench.worker(by_batches=by_batches, delay_s=1.5)
    await bench.until(lambda: len(bench.done()) > 3_000 and bench.in_flight_of(first.pid) > 1_200, "3,000 done")
    kill(first)
    assert bench.in_flight_of(first.pid) > 1_000
    second = bench.worker(by_batches=by_batches)
    await bench.until(lambda: bench.done() == sent, "all done")
    assert bench.judge() < 6_000  # what was done and not yet committed, bounded by the window
    await bench.all_committed()
    await end(second)


async def test_out_of_order_work_then_kill_9_skips_nothing(bench: Bench) -> None:
    await make_topic(bench.broker, bench.topic)
    sent = await bench.produce(4_000)
    first = bench.worker(stuck="k0", delay_s=0.05)
    # k0 (partition 0) blocks its later event only: everything else ends
    await bench.until(lambda: len(bench.done()) == len(sent) - 2, "all but the stuck lane")
    await asyncio.sleep(1.5)  # three commit intervals
    committed, ends = await bench.offsets()
    assert committed[0] in (None, 0)
    assert [committed[n] for n in (1, 2, 3)] == [ends[n] for n in (1, 2, 3)]
    kill(first)
    second = bench.worker(delay_s=0.05)
    await bench.until(lambda: bench.done() == sent, "the stuck ones")
    bench.judge()
    await bench.all_committed()
    await end(second)


async def test_a_second_worker_joins_and_leaves_and_nothing_is_lost_or_side_by_side(bench: Bench) -> None:
    await make_topic(bench.broker, bench.topic)
    sent = await bench.produce(30_000)
    first = bench.worker(in_flight=600)
    await bench.until(lambda: len(bench.done()) > 2_000, "2,000 done")
    second = bench.worker(in_flight=600)
    await bench.until(lambda: bench.in_flight_of(second.pid) > 300, "the second one at work")
    await end(second)
    await bench.until(lambda: bench.done() == sent, "all done")
    assert bench.judge() < 1_200
    await bench.all_committed()
    await end(first)


async def test_sigterm_ends_what_runs_commits_it_and_leaves_the_rest(bench: Bench) -> None:
    await make_topic(bench.broker, bench.topic)
    sent = await bench.produce(8_000)
    first = bench.worker(in_flight=1_200, delay_s=0.5)
    await bench.until(lambda: len(bench.done()) > 1_000, "1,000 done")
    began = time.monotonic()
    await end(first)
    assert time.monotonic() - began < 10
    assert bench.in_flight_of(first.pid) == 0
    left = len(sent) - len(bench.done())
    assert left > 0
    second = bench.worker(delay_s=0.05)
    await bench.until(lambda: bench.done() == sent, "the rest")
    # what ended behind an event that was still queued in its lane cannot be committed, and comes again
    assert bench.judge() < 1_200
    await end(second)


async def test_a_table_is_back_after_a_restart_with_every_acknowledged_write(kafka_broker: str, tmp_path: Path) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    topic = f"{prefix}orders"

    class Snapshots:
        name = "snapshots"

        def __init__(self, app: PaymentApp) -> None:
            self.app = app
            self.table: Any = app.Table("snapshots", partitions=PARTITIONS)
            self.written = 0

        def plan(self, record: Record) -> Work | None:
            async def start() -> None:
                assert record.value is not None
                async with self.app.durable_writes(record):
                    self.table[record.value.decode()] = record.offset
                self.written += 1

            return Work(f"{record.partition}", start)

    async def run(app: PaymentApp) -> Snapshots:
        handler = Snapshots(app)
        delivery = Delivery(
            app,
            ["orders"],
            handler,
            dead_letters=no_letters,
            limits=DeliveryLimits.of(100),
            metrics=Uncounted(),
        )
        delivery.attach()
        await asyncio.wait_for(app.start(), WAIT_S)
        return handler

    async def produce(count: int, first: int) -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka_broker, acks="all") as producer:
            sends = [
                await producer.send(topic, f"p{number}".encode(), partition=number % PARTITIONS)
                for number in range(first, first + count)
            ]
            await asyncio.gather(*sends)

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 the condition has no event of its own
                await asyncio.sleep(0.05)

    before = make_app(kafka_broker, prefix, str(tmp_path / "one"), create_topics=True)
    handler = await run(before)
    await produce(200, 0)
    await until(lambda: handler.written == 200)
    await before.stop()
    await produce(5, 200)
    after = make_app(kafka_broker, prefix, str(tmp_path / "two"), create_topics=True)
    handler = await run(after)
    await until(lambda: handler.written == 5)
    assert len(handler.table) == 205
    await after.stop()
