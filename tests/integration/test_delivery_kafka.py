"""Delivery on Apache Kafka: workers are real processes, killed and joined with hundreds of events in flight.

This file is also the worker: `python test_delivery_kafka.py` with its settings in the environment.
Each line of its log: S (started) or D (durable), key, sequence, partition, offset, pid, time.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from payment_service.agents.delivery import Delivery, DeliveryLimits, Record, Work
from payment_service.agents.faust_app import PaymentApp, stream_app

pytestmark = pytest.mark.kafka

PARTITIONS = 4
KEYS = 2_000
WAIT_S = 60.0


# -- the worker


class Slow:
    """Work that takes a while, on a timer of the loop: no task for each event."""

    name = "orders"

    def __init__(self, log: int, delay_s: float, stuck: str) -> None:
        self._log, self._delay_s, self._stuck = log, delay_s, stuck

    def plan(self, record: Record) -> Work | None:
        assert record.value is not None
        key, sequence = record.value.decode().split()
        tag = f"{key} {sequence} {record.partition} {record.offset} {os.getpid()}"

        def start() -> "asyncio.Future[None]":
            loop = asyncio.get_running_loop()
            done: asyncio.Future[None] = loop.create_future()
            self._write(f"S {tag}")
            if key != self._stuck:
                spread = 0.5 + record.offset % 17 / 16  # or all of it would start and end in the same moment
                loop.call_later(self._delay_s * spread, self._end, tag, done)
            return done

        return Work(key, start)

    def _end(self, tag: str, done: "asyncio.Future[None]") -> None:
        self._write(f"D {tag}")
        done.set_result(None)

    def _write(self, line: str) -> None:
        os.write(self._log, f"{line} {time.time():.4f}\n".encode())


class Uncounted:
    def counted(self, stream: str, outcome: str) -> None: ...

    def observed(self, stream: str, **gauges: float) -> None: ...


async def no_letters(record: Record, reason: str, error: str) -> None:
    raise AssertionError(f"{record}: {reason} {error}")


def make_app(broker: str, prefix: str, datadir: str, *, create_topics: bool = False) -> PaymentApp:
    return stream_app(
        "payment-service",
        broker,
        topic_prefix=prefix,
        partitions=PARTITIONS,
        create_topics=create_topics,
        instance_id=None,
        datadir=datadir,
        session_timeout_s=6.0,
        rebalance_timeout_s=15.0,
        drain_s=5.0,
    )


async def serve() -> None:
    env = os.environ
    app = make_app(env["BROKER"], env["PREFIX"], env["DATADIR"])
    log = os.open(env["LOG"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    delivery = Delivery(
        app,
        ["orders"],
        Slow(log, float(env["DELAY_S"]), env["STUCK"]),
        dead_letters=no_letters,
        limits=DeliveryLimits.of(int(env["IN_FLIGHT"])),
        metrics=Uncounted(),
    )
    delivery.attach(by_batches=env["BY_BATCHES"] == "1")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await app.start()
    await ended.wait()
    await app.stop()


# -- the judge


class Line(NamedTuple):
    what: str
    key: str
    sequence: int
    partition: int
    offset: int
    pid: int
    at: float


@dataclass
class Bench:
    broker: str
    prefix: str
    folder: Path
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    _lines: list[Line] = field(default_factory=list)
    _done: set[tuple[str, int]] = field(default_factory=set)
    _read: int = 0

    @property
    def topic(self) -> str:
        return f"{self.prefix}orders"

    def worker(
        self, *, in_flight: int = 1_500, delay_s: float = 0.3, stuck: str = "-", by_batches: bool = True
    ) -> "subprocess.Popen[bytes]":
        env = {
            **os.environ,
            "BROKER": self.broker,
            "PREFIX": self.prefix,
            "DATADIR": str(self.folder / "data"),
            "LOG": str(self.folder / "log"),
            "IN_FLIGHT": str(in_flight),
            "DELAY_S": str(delay_s),
            "STUCK": stuck,
            "BY_BATCHES": "1" if by_batches else "0",
        }
        with (self.folder / f"stderr-{len(self.workers)}").open("wb") as errors:
            process = subprocess.Popen([sys.executable, __file__], env=env, stderr=errors)
        self.workers.append(process)
        return process

    def lines(self) -> list[Line]:
        """All of the log so far; each part is read once."""
        path = self.folder / "log"
        if path.exists():
            with path.open() as log:
                log.seek(self._read)
                text = log.read()
            text = text[: text.rfind("\n") + 1]
            self._read += len(text)
            for line in text.splitlines():
                what, key, sequence, partition, offset, pid, at = line.split()
                it = Line(what, key, int(sequence), int(partition), int(offset), int(pid), float(at))
                self._lines.append(it)
                if what == "D":
                    self._done.add((key, it.sequence))
        return self._lines

    def done(self) -> set[tuple[str, int]]:
        self.lines()
        return self._done

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > end:
                errors = "\n".join(path.read_text()[-2_000:] for path in self.folder.glob("stderr-*"))
                pytest.fail(f"not in {WAIT_S} s: {what}; {len(self.done())} done\n{errors}")
            await asyncio.sleep(0.1)

    async def produce(self, count: int, first: int = 0) -> set[tuple[str, int]]:
        """Keys in turn, so that (key, sequence) is unique and each key's sequence rises in its partition."""
        async with AIOKafkaProducer(bootstrap_servers=self.broker, acks="all", linger_ms=20) as producer:
            sends = []
            for number in range(first, first + count):
                key, sequence = f"k{number % KEYS}", number // KEYS
                value = f"{key} {sequence}".encode()
                partition = number % KEYS % PARTITIONS
                sends.append(await producer.send(self.topic, value, key=b"not-the-lane", partition=partition))
            await asyncio.gather(*sends)
        return {(f"k{number % KEYS}", number // KEYS) for number in range(first, first + count)}

    async def offsets(self) -> tuple[dict[int, int | None], dict[int, int]]:
        """(committed, end) of each partition."""
        tps = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.broker, group_id=f"{self.prefix}payment-service", enable_auto_commit=False
        )
        await consumer.start()
        try:
            consumer.assign(tps)
            committed = {tp.partition: await consumer.committed(tp) for tp in tps}
            ends = await consumer.end_offsets(tps)
            return committed, {tp.partition: end for tp, end in ends.items()}
        finally:
            await consumer.stop()

    async def all_committed(self) -> None:
        end = time.monotonic() + 15
        while True:
            committed, ends = await self.offsets()
            if committed == ends:
                return
            assert time.monotonic() < end, f"committed {committed}, end {ends}"
            await asyncio.sleep(0.3)

    def judge(self) -> int:
        """Order and exclusion of each key; returns how many events were worked on more than once."""
        running: dict[str, int] = {}
        ended: set[tuple[str, int]] = set()
        for line in self.lines():
            if line.what == "D":
                running.pop(line.key, None)
                ended.add((line.key, line.sequence))
                continue
            owner = running.get(line.key)
            assert owner is None or self._was_killed(owner), f"two at a time: {line}, {owner}"
            assert line.sequence == 0 or (line.key, line.sequence - 1) in ended, f"out of order: {line}"
            running[line.key] = line.pid
        times = Counter((line.key, line.sequence) for line in self.lines() if line.what == "D")
        return sum(1 for count in times.values() if count > 1)

    def _was_killed(self, pid: int) -> bool:
        return any(worker.pid == pid and worker.returncode == -signal.SIGKILL for worker in self.workers)

    def in_flight_of(self, pid: int) -> int:
        open_: dict[tuple[str, int], int] = defaultdict(int)
        for line in self.lines():
            if line.pid == pid:
                open_[(line.key, line.sequence)] += 1 if line.what == "S" else -1
        return sum(1 for count in open_.values() if count > 0)


async def make_topic(broker: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=PARTITIONS, replication_factor=1)])
    finally:
        await admin.close()


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
    first = bench.worker(by_batches=by_batches)
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


if __name__ == "__main__":
    asyncio.run(serve())
