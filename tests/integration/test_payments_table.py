"""The payments table on brokers: its changelog, read back by a new worker and by the command."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from rigs.stream_workers import PARTITIONS, Uncounted, make_app, no_letters

from payment_service.adapters.changelog import read_changelog
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import NeededTopic, create_missing
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.agents.batch_delivery import BatchDelivery
from payment_service.agents.payment_events import PaymentEvents
from payment_service.codecs.times import rfc3339
from payment_service.core.errors import Refused, Unavailable
from payment_service.tables.payments import TOPICS, PaymentsTable, place_of

CIPHER = AesGcmCipher(b"k" * 32)
PAYMENTS = 200
WAIT_S = 60.0


def now_ms() -> int:
    return int(time.time() * 1000)


@asynccontextmanager
async def worker(broker: str, prefix: str, datadir: Path) -> AsyncIterator[PaymentsTable]:
    app = make_app(broker, prefix, str(datadir))
    table = PaymentsTable(app, cipher=CIPHER, now_ms=now_ms, ttl_s=3600)
    BatchDelivery(app, TOPICS, PaymentEvents(table), dead_letters=no_letters, metrics=Uncounted()).attach()
    await app.start()
    try:
        yield table
    finally:
        await app.stop()


async def publish(broker: str, prefix: str, sequence: int, topic: str, status: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker)
    await producer.start()
    try:
        sends = []
        for number in range(PAYMENTS):
            payment_id = f"pay_{number}"
            event = {
                "id": f"evt_{number}_{sequence}", "eventType": topic, "sequence": sequence,
                "timestamp": rfc3339(now_ms()), "data": {"paymentId": payment_id, "status": status},
            }  # fmt: skip
            sends.append(await producer.send(prefix + topic, orjson.dumps(event), key=payment_id.encode()))
        await asyncio.gather(*sends)
    finally:
        await producer.stop()


async def until_all(table: PaymentsTable, status: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            rows = [table.get(f"pay_{number}") for number in range(PAYMENTS)]
            if all(row is not None and row["status"] == status for row in rows):
                return
            await asyncio.sleep(0.05)


async def make_topics(broker: str, prefix: str) -> str:
    changelog = "payment-service-payments-changelog"
    topics = [*(NeededTopic(name) for name in TOPICS), NeededTopic(changelog, compacted=True)]
    await create_missing(KafkaClient(broker), topics, prefix, PARTITIONS)
    return prefix + changelog


@pytest.mark.kafka
async def test_a_new_worker_has_the_rows_of_the_old_one(kafka_broker: str, tmp_path: Path) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    changelog = await make_topics(kafka_broker, prefix)
    await publish(kafka_broker, prefix, 2, "payment.processed", "SUCCEEDED")
    async with worker(kafka_broker, prefix, tmp_path) as table:
        await publish(kafka_broker, prefix, 1, "payment.created", "PENDING")
        await until_all(table, "SUCCEEDED")
    values = await read_changelog(KafkaClient(kafka_broker), changelog)
    assert set(values) == {f"pay_{number}".encode() for number in range(PAYMENTS)}
    async with worker(kafka_broker, prefix, tmp_path) as table:
        await until_all(table, "SUCCEEDED")
        assert len(table) == PAYMENTS
        await publish(kafka_broker, prefix, 3, "payment.refunded", "REFUNDED")
        await until_all(table, "REFUNDED")


async def test_the_changelog_is_read_without_a_worker(tansu_broker: str) -> None:
    """The last value of each key, deleted ones left out; the embedded broker's end is its silence."""
    topic = f"t{uuid.uuid4().hex[:8]}-changelog"
    client = KafkaClient(tansu_broker)
    await create_missing(client, [NeededTopic(topic, compacted=True)], "", PARTITIONS)
    assert await read_changelog(client, topic, silence_s=0.5) == {}
    producer = AIOKafkaProducer(bootstrap_servers=tansu_broker)
    await producer.start()
    try:
        for version in range(3):
            sends = [
                await producer.send(topic, CIPHER.seal(b"%d" % version, place_of(key)), key=key.encode())
                for key in (f"pay_{number}" for number in range(20))
            ]
            await asyncio.gather(*sends)
        await producer.send_and_wait(topic, None, key=b"pay_7")
    finally:
        await producer.stop()
    values = await read_changelog(client, topic, silence_s=0.5)
    opened = {key.decode(): CIPHER.unseal(value, place_of(key.decode())) for key, value in values.items()}
    assert opened == {f"pay_{number}": b"2" for number in range(20) if number != 7}
    assert set(await read_changelog(client, topic, key=b"pay_3", silence_s=0.5)) == {b"pay_3"}
    with pytest.raises(Refused, match="no topic"):
        await read_changelog(client, f"{topic}-not", silence_s=0.5)


async def test_a_broker_that_is_away_is_unavailable(unused_tcp_port: int) -> None:
    with pytest.raises(Unavailable):
        await read_changelog(KafkaClient(f"127.0.0.1:{unused_tcp_port}"), "any")
