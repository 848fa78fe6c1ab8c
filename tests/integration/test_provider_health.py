"""The table of providers' health on brokers: what workers tell, and what is left after a restart and a rebalance."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from rigs.stream_workers import PARTITIONS, Uncounted, make_app, no_letters

from payment_service.adapters.changelog import read_changelog
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.health_reading import RecentHealth
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import NeededTopic, create_missing
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.agents.batch_delivery import BatchDelivery
from payment_service.agents.provider_stats import StatsEvents
from payment_service.codecs.health import encode_window, message_key, window_of
from payment_service.core.health import WINDOW_MS, HealthWindow, ProviderHealth, added_up
from payment_service.tables.provider_health import NAME, TOPICS, ProviderHealthTable

pytestmark = pytest.mark.long

CIPHER = AesGcmCipher(b"k" * 32)
WAIT_S = 60.0
CURRENCIES = ("USD", "EUR", "JPY", "KWD", "GBP", "CHF", "SEK", "INR")


def now_ms() -> int:
    return int(time.time() * 1000)


@asynccontextmanager
async def worker(broker: str, prefix: str, datadir: Path) -> AsyncIterator[ProviderHealthTable]:
    app = make_app(broker, prefix, str(datadir))
    table = ProviderHealthTable(app, cipher=CIPHER, now_ms=now_ms)
    BatchDelivery(app, TOPICS, StatsEvents(table, CIPHER), dead_letters=no_letters, metrics=Uncounted()).attach()
    await app.start()
    try:
        yield table
    finally:
        await app.stop()


def windows(worker: str, calls: int) -> list[HealthWindow]:
    start_ms = now_ms() // WINDOW_MS * WINDOW_MS - WINDOW_MS
    return [
        HealthWindow("STRIPE", currency, worker, start_ms, (0.1, 1.0), [calls, 0, 0], {"APPROVED": calls},
                     {"SUCCEEDED": calls})
        for currency in CURRENCIES
    ]  # fmt: skip


async def tell(broker: str, prefix: str, some: Sequence[HealthWindow]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        topic = prefix + TOPICS[0]
        for one in some:
            await producer.send_and_wait(topic, encode_window(one, CIPHER), key=message_key(one))


def summary(table: ProviderHealthTable) -> Mapping[str, ProviderHealth]:
    return added_up(window_of(row) for row in table.rows)


async def until_calls(calls: int, *tables: ProviderHealthTable) -> None:
    """Until they have so many between them."""

    def found() -> int:
        return sum(it.calls for table in tables for it in summary(table).values())

    deadline = time.monotonic() + WAIT_S
    while found() != calls:
        assert time.monotonic() < deadline, f"{found()} calls, not {calls}"
        await asyncio.sleep(0.05)


async def make_topics(broker: str) -> str:
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    topics = [NeededTopic(TOPICS[0]), NeededTopic(f"payment-service-{NAME}-changelog", compacted=True)]
    await create_missing(KafkaClient(broker), topics, prefix, PARTITIONS)
    return prefix


@pytest.mark.kafka
async def test_windows_of_all_workers_after_a_restart_and_a_rebalance(kafka_broker: str, tmp_path: Path) -> None:
    """The embedded broker is wrong about latest offsets: what is read back there is no proof."""
    prefix = await make_topics(kafka_broker)
    count = len(CURRENCIES)
    async with worker(kafka_broker, prefix, tmp_path / "a") as first:
        await tell(kafka_broker, prefix, windows("a:1", 10))
        await until_calls(10 * count, first)
        async with worker(kafka_broker, prefix, tmp_path / "b") as second:
            await tell(kafka_broker, prefix, windows("b:1", 5))
            await until_calls(15 * count, first, second)
            assert 0 < len(second.rows) < 2 * count, "each has its partitions' alone"
            await tell(kafka_broker, prefix, windows("a:1", 10))  # once more: a window replaces, it never adds
            await tell(kafka_broker, prefix, windows("c:1", 1))
            await until_calls(16 * count, first, second)
        await tell(kafka_broker, prefix, windows("d:1", 1))
        await until_calls(17 * count, first)
    async with worker(kafka_broker, prefix, tmp_path / "c") as third:
        await until_calls(17 * count, third)
        assert summary(third)["STRIPE"].workers == 4


async def test_windows_are_in_the_changelog_sealed(tansu_broker: str, tmp_path: Path) -> None:
    prefix = await make_topics(tansu_broker)
    async with worker(tansu_broker, prefix, tmp_path) as table:
        for _ in range(2):
            await tell(tansu_broker, prefix, windows("a:1", 10))
        await until_calls(10 * len(CURRENCIES), table)
        assert summary(table)["STRIPE"].p95_s == pytest.approx(0.095)
    client = KafkaClient(tansu_broker)
    rows = await read_changelog(client, f"{prefix}payment-service-{NAME}-changelog", silence_s=1.0)
    assert len(rows) == len(CURRENCIES)
    assert not any(b"STRIPE" in value for value in rows.values())


@pytest.mark.parametrize("broker", ["tansu_broker", pytest.param("kafka_broker", marks=pytest.mark.kafka)])
async def test_whoever_looks_sees_all_workers_together(request: pytest.FixtureRequest, broker: str) -> None:
    address = request.getfixturevalue(broker)
    prefix = await make_topics(address)
    client, count = KafkaClient(address), len(CURRENCIES)

    def looking(at: KafkaClient = client) -> RecentHealth:
        silence_s = 0.5 if broker == "tansu_broker" else None
        return RecentHealth(at, prefix + TOPICS[0], CIPHER, SystemClock(), silence_s)

    assert await looking()() == {}
    old = [replace(one, start_ms=one.start_ms - 3_600_000) for one in windows("a:1", 99)]
    await tell(address, prefix, [*old, *windows("a:1", 10), *windows("a:1", 10), *windows("b:1", 5)])
    look = looking()
    seen = await look()
    assert seen is not None
    assert (seen["STRIPE"].calls, seen["STRIPE"].workers) == (15 * count, 2)
    await tell(address, prefix, windows("c:1", 1))
    assert await look() == seen, "not read for each who looks"
    async with asyncio.timeout(10):
        assert await looking(KafkaClient("127.0.0.1:1"))() is None
