"""What one odd message, or a bug of the driver, does to the service's one producer: nothing."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka.client import AIOKafkaClient
from rigs.outbox_site import NoMetrics
from servers.topics import create_topics
from servers.waiting import until

from payment_service.adapters import kafka_sender
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_message import NeverTaken
from payment_service.adapters.kafka_sender import KafkaSender

SEND_S = 10.0


@pytest_asyncio.fixture
async def topic(tansu_broker: str) -> str:
    name = f"t{uuid.uuid4().hex[:8]}"
    await create_topics(tansu_broker, [name], partitions=1)
    return name


@pytest_asyncio.fixture
async def sender(tansu_broker: str) -> AsyncIterator[KafkaSender]:
    sender = KafkaSender(KafkaClient(tansu_broker), NoMetrics())
    running = asyncio.create_task(sender.run())
    await until(lambda: sender.connected, "the producer is there")
    try:
        yield sender
        assert not running.done(), "it ended"
    finally:
        running.cancel()
        await asyncio.wait((running,))


async def test_headers_may_be_any_sequence(sender: KafkaSender, topic: str) -> None:
    await sender.send(topic, b"k", b"v", (("name", b"value"),), SEND_S)


async def test_what_the_client_cannot_write_fails_alone(sender: KafkaSender, topic: str) -> None:
    with pytest.raises(NeverTaken):
        await sender.send(topic, b"k", b"v", [("name", "no bytes")], SEND_S)  # type: ignore[list-item]
    await sender.send(topic, b"k", b"v", [], SEND_S)


async def test_a_driver_that_fails_while_it_starts_or_closes_is_made_anew(
    sender: KafkaSender, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_sender, "CONNECT_DELAY_S_MIN", 0.01)
    left = {"starts": 2, "closes": 3}
    bootstrap, close = AIOKafkaClient.bootstrap, AIOKafkaClient.close

    async def bad_bootstrap(self: AIOKafkaClient) -> None:
        if left["starts"]:
            left["starts"] -= 1
            raise IndexError("as when an answer is cut")
        await bootstrap(self)

    async def bad_close(self: AIOKafkaClient) -> None:
        await close(self)
        if left["closes"]:
            left["closes"] -= 1
            raise asyncio.InvalidStateError("as when the metadata came twice")

    monkeypatch.setattr(AIOKafkaClient, "bootstrap", bad_bootstrap)
    monkeypatch.setattr(AIOKafkaClient, "close", bad_close)
    sender._renew.set()
    await until(lambda: left == {"starts": 0, "closes": 0} and sender.connected, "it is connected again")
    await sender.send(topic, b"k", b"v", [], SEND_S)
