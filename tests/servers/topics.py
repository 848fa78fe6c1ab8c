"""What tests do with topics on a real broker: make them, and read them to their end."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

READ_WAIT_S = 30.0


class Message(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


async def create_topics(brokers: str, names: Sequence[str], *, partitions: int = 4, compacted: bool = False) -> None:
    """Topics that are there when this returns; one that exists already is an error of the test."""
    configs = {"cleanup.policy": "compact"} if compacted else {}
    client = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await client.start()
    try:
        made = [NewTopic(name, partitions, 1, topic_configs=configs) for name in names]
        response = await client.create_topics(made)
        failed = [error for error in response.topic_errors if error[1] != 0]
        assert not failed, failed
    finally:
        await client.close()


async def read_to_end(brokers: str, *topics: str, wait_s: float = READ_WAIT_S) -> list[Message]:
    """Everything that is in the topics now, in order of offset within each partition.

    Needs a broker that answers "latest offset" correctly: Apache Kafka, not the embedded one.
    """
    partitions = await partitions_of(brokers, *topics)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(partitions)
        return await asyncio.wait_for(_read(consumer, partitions), wait_s)
    finally:
        await consumer.stop()


async def partitions_of(brokers: str, *topics: str) -> list[TopicPartition]:
    client = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await client.start()
    try:
        described = await client.describe_topics(list(topics))
    finally:
        await client.close()
    missing = [one["topic"] for one in described if one["error_code"] != 0]
    assert not missing, f"no such topics: {missing}"
    return [TopicPartition(one["topic"], part["partition"]) for one in described for part in one["partitions"]]


async def _read(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> list[Message]:
    ends = await consumer.end_offsets(partitions)
    await consumer.seek_to_beginning(*partitions)
    found: list[Message] = []
    while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
        for partition, records in (await consumer.getmany(timeout_ms=200)).items():
            found += [
                Message(partition.topic, partition.partition, one.offset, one.key, one.value, tuple(one.headers))
                for one in records
                if one.offset < ends[partition]
            ]
    return found
