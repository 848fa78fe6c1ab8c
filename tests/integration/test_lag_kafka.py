"""How far behind the broker's end a worker is, as its gauge tells: also where nothing is fetched any more."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from rigs.stream_workers import PARTITIONS, WAIT_S, Uncounted, make_app, make_topic, no_letters

from payment_service.agents import faust_app
from payment_service.agents.delivery import Delivery, DeliveryLimits, Record, Work

pytestmark = pytest.mark.kafka


class Gated:
    """What is done waits until the test opens the gate."""

    name = "orders"

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    def plan(self, record: Record) -> Work | None:
        return Work(f"{record.place}", self.gate.wait)


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 the condition has no event of its own
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"not seen: {what}")


async def produce(broker: str, topic: str, count: int, *partitions: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker, acks="all") as producer:
        sends = [await producer.send(topic, b"x", partition=partitions[n % len(partitions)]) for n in range(count)]
        await asyncio.gather(*sends)


async def test_lag_is_what_is_not_finished(kafka_broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faust_app, "LAG_INTERVAL_S", 0.2)
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    topic = f"{prefix}orders"
    await make_topic(kafka_broker, topic)
    handler, told = Gated(), dict[tuple[str, str], int]()
    for number in range(2):  # the second takes over what the first has committed
        app = make_app(kafka_broker, prefix, str(tmp_path / str(number)))
        app.on_lag = lambda stream, name, lag: told.update({(stream, name): lag})
        limits = DeliveryLimits.of(100)
        delivery = Delivery(app, ["orders"], handler, dead_letters=no_letters, limits=limits, metrics=Uncounted())
        delivery.attach()
        await asyncio.wait_for(app.start(), WAIT_S)
        await until(lambda: told == {("orders", topic): 0}, "nothing is behind")
        handler.gate.clear()
        await produce(kafka_broker, topic, 5_000, *range(PARTITIONS))
        await until(lambda: told["orders", topic] == 5_000, "all of them, though few are fetched")
        delivery.pause()
        await produce(kafka_broker, topic, 300, 1)
        await until(lambda: told["orders", topic] == 5_300, "and those that nobody fetches")
        delivery.resume()
        handler.gate.set()
        await until(lambda: told["orders", topic] == 0, "nothing any more")
        await app.stop()
        told.clear()
