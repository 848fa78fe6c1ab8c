"""Stream workers as real processes, and a judge of what they wrote down.

This file is also the worker: it runs itself as a program, with its settings in the environment.
Each line of its log: S (started) or D (durable), key, sequence, partition, offset, pid, time.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from payment_service.agents.delivery import Delivery, DeliveryLimits, Record, Work
from payment_service.agents.faust_app import PaymentApp, stream_app

PARTITIONS = 4
KEYS = 2_000
WAIT_S = 60.0


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
    def counted(self, stream: str, outcome: str, amount: int = 1) -> None: ...

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


if __name__ == "__main__":
    asyncio.run(serve())
