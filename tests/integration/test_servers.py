"""The fixtures themselves: what a test is given is what its name promises."""

import secrets

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from servers import KafkaServer
from servers.postgres import execute
from servers.topics import create_topics, read_to_end


def test_a_database_is_fresh_durable_and_migrated(database_url: str, postgres_server: str) -> None:
    assert database_url != postgres_server
    assert execute(database_url, "show fsync") == [("on",)]
    assert execute(database_url, "show synchronous_commit") == [("on",)]
    assert execute(database_url, "select to_regnamespace('payment_service') is not null") == [(True,)]
    execute(database_url, "create table only_here (x int)")


def test_the_next_test_sees_nothing_of_it(database_url: str) -> None:
    assert execute(database_url, "select to_regclass('only_here')") == [(None,)]


def test_an_empty_database_has_no_schema_of_ours(empty_database_url: str) -> None:
    assert execute(empty_database_url, "select to_regnamespace('payment_service')") == [(None,)]


async def test_the_embedded_broker_carries_messages_to_a_group(tansu_broker: str) -> None:
    topic = f"embedded-{secrets.token_hex(4)}"
    await create_topics(tansu_broker, [topic], partitions=1)
    async with AIOKafkaProducer(bootstrap_servers=tansu_broker, acks="all") as producer:
        await producer.send_and_wait(topic, b"value", key=b"key", headers=[("ce_id", b"1")])
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=tansu_broker,
        group_id=topic,
        auto_offset_reset="earliest",
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
        rebalance_timeout_ms=6000,
    )
    async with consumer:
        message = await consumer.getone()
    assert (message.key, message.value, message.headers) == (b"key", b"value", (("ce_id", b"1"),))


@pytest.mark.kafka
async def test_kafka_keeps_order_and_tells_its_end(kafka_broker: str) -> None:
    topic = f"servers-{secrets.token_hex(4)}"
    await create_topics(kafka_broker, [topic], partitions=2)
    assert await read_to_end(kafka_broker, topic) == []
    async with AIOKafkaProducer(bootstrap_servers=kafka_broker, acks="all") as producer:
        for number in range(20):
            await producer.send_and_wait(topic, b"%d" % number, key=b"k%d" % (number % 4))
        await producer.send_and_wait(topic, None, key=b"k0")
    messages = await read_to_end(kafka_broker, topic)
    assert len(messages) == 21
    assert [one.value for one in messages if one.key == b"k0"] == [b"0", b"4", b"8", b"12", b"16", None]
    assert {one.partition for one in messages} <= {0, 1}


@pytest.mark.kafka
async def test_kafka_has_what_a_restart_needs() -> None:
    """A broker of this test's own, killed and started again: same port, same messages."""
    with KafkaServer() as server:
        await create_topics(server.address, ["kept"], partitions=1)
        async with AIOKafkaProducer(bootstrap_servers=server.address, acks="all") as producer:
            await producer.send_and_wait("kept", b"1")
        address = server.address
        server.kill()
        server.start()
        assert server.address == address
        assert [one.value for one in await read_to_end(address, "kept")] == [b"1"]
