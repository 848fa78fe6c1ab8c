"""A Delivery without a broker: a handler whose work ends when the test says so, and who counts."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from payment_service.agents.delivery import Delivery, DeliveryLimits, Record, Work
from payment_service.agents.faust_app import PaymentApp, stream_app
from payment_service.core.errors import Malformed

WAIT_S = 5.0
TP0, TP1 = TP("orders", 0), TP("orders", 1)


@dataclass
class Handler:
    """The record's key is the lane, its value the instruction. Work ends when the test says so."""

    name: str = "orders"
    started: list[str] = field(default_factory=list)
    open: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    failures: dict[str, list[Exception]] = field(default_factory=dict)

    def plan(self, record: Record) -> Work | None:
        assert record.value is not None
        value = record.value.decode()
        if value.startswith("skip"):
            return None
        if value.startswith("poison"):
            raise Malformed("not JSON")
        if value.startswith("plan-bug"):
            raise KeyError("a bug")

        def start() -> Awaitable[object]:
            self.started.append(value)
            if self.failures.get(value):
                raise self.failures[value].pop(0)
            future = self.open[value] = asyncio.get_running_loop().create_future()
            if value.startswith("now"):
                future.set_result(None)
            return future

        return Work((record.key or b"").decode(), start)

    def finish(self, *values: str) -> None:
        for value in values:
            self.open.pop(value).set_result(None)

    def fail(self, value: str, error: BaseException) -> None:
        self.open.pop(value).set_exception(error)


@dataclass
class Letters:
    kept: list[tuple[int, str, str]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def __call__(self, record: Record, reason: str, error: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.kept.append((record.offset, reason, error))


@dataclass
class Counts:
    outcomes: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, float] = field(default_factory=dict)

    def counted(self, stream: str, outcome: str, amount: int = 1) -> None:
        self.outcomes[outcome] += amount

    def observed(self, stream: str, **gauges: float) -> None:
        self.gauges = gauges


@dataclass
class Rig:
    app: PaymentApp
    delivery: Delivery
    handler: Handler
    letters: Letters
    counts: Counts
    agent: Any
    crashes: list[BaseException]

    def take(self, tp: TP, *records: tuple[int, str, str], generation: int = 1) -> None:
        self.app.consumer_generation_id = generation
        self.delivery.take(tp, [batch_record(tp, *record) for record in records], generation)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():  # noqa: ASYNC110 the condition has no event of its own
                    await asyncio.sleep(0.002)
        except TimeoutError:
            pytest.fail(f"not seen: {what}; started {self.handler.started}, {self.counts.outcomes}")

    async def started(self, *values: str) -> None:
        await self.until(lambda: self.handler.started == list(values), f"{values} started")


def batch_record(tp: TP, offset: int, key: str, value: str) -> Any:
    return SimpleNamespace(
        topic=tp.topic,
        partition=tp.partition,
        offset=offset,
        key=key.encode(),
        value=value.encode(),
        headers=(("h", b"1"),),
        timestamp=1_700_000_000_000 + offset,
    )


@contextmanager
def rigs_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    """Makes rigs, and closes what their apps hold."""
    apps: list[PaymentApp] = []

    def make(limits: DeliveryLimits | None = None, stuck_after_s: float = 120.0) -> Rig:
        app = stream_app(
            "payment-service",
            "127.0.0.1:1",
            topic_prefix="",
            partitions=4,
            create_topics=False,
            instance_id=None,
            datadir=str(folder),
            stuck_after_s=stuck_after_s,
        )
        apps.append(app)
        crashes: list[BaseException] = []

        async def crash(reason: BaseException) -> None:
            crashes.append(reason)

        monkeypatch.setattr(app, "crash", crash)
        handler, letters, counts = Handler(), Letters(), Counts()
        delivery = Delivery(
            app,
            ["orders"],
            handler,
            dead_letters=letters,
            limits=limits or DeliveryLimits.of(100),
            metrics=counts,
        )
        return Rig(app, delivery, handler, letters, counts, delivery.attach(), crashes)

    yield make
    for app in apps:
        app.discard()
