"""A topic from its beginning to its end, as it stood when the reading began: for commands, without a group.

Room: adapters.
"""

import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.core.errors import Refused, Unavailable

POLL_MS = 200
RECORDS_MAX = 2_000
"""Records of one poll."""
STALLED_S = 15.0
"""So long nothing new may come although the end is not reached."""


async def partitions_of(client: KafkaClient, topics: Collection[str]) -> dict[str, list[int]]:
    """The partitions of those of the topics that exist; asking creates none. Raises Unavailable."""
    admin = AIOKafkaAdminClient(**client.options())
    try:
        await admin.start()
        existing = [topic for topic in await admin.list_topics() if topic in topics]
        described = await admin.describe_topics(existing) if existing else []
        return {one["topic"]: sorted(it["partition"] for it in one["partitions"]) for one in described}
    except (KafkaError, OSError) as error:
        raise Unavailable(f"the broker is away: {type(error).__name__}") from None
    finally:
        await admin.close()


async def read_topic(
    client: KafkaClient, topic: str, *, silence_s: float | None = None, since_ms: int = 0
) -> AsyncGenerator[Sequence[Any], None]:
    """Batches of aiokafka's records, in the order of their offsets within a partition.

    `silence_s`: end after so long without a record instead of at the end offsets, for a broker that answers
    those wrongly. `since_ms`: begin with what was sent then, where the broker finds that by time.

    Raises: Refused NOT_FOUND (no such topic), Unavailable.
    Limits: RECORDS_MAX a batch, STALLED_S.
    """
    numbers = (await partitions_of(client, [topic])).get(topic)
    if not numbers:
        raise Refused(f"there is no topic {topic} on the broker: nothing was ever written", code="NOT_FOUND")
    consumer = AIOKafkaConsumer(
        **client.options(), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
        fetch_max_wait_ms=POLL_MS,
    )  # fmt: skip
    try:
        await consumer.start()
        partitions = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        if since_ms and silence_s is None:
            await _seek(consumer, partitions, since_ms)
        async for records in _read(consumer, partitions, silence_s):
            yield records
    except (KafkaError, OSError) as error:
        raise Unavailable(f"the broker is away: {type(error).__name__}") from None
    finally:
        await consumer.stop()


async def _seek(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], since_ms: int) -> None:
    for partition, found in (await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))).items():
        if found is None:
            await consumer.seek_to_end(partition)
        else:
            consumer.seek(partition, found.offset)


async def _read(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], silence_s: float | None
) -> AsyncGenerator[Sequence[Any], None]:
    ends = await consumer.end_offsets(partitions) if silence_s is None else {}
    heard_at = time.monotonic()
    while silence_s is not None or await _left(consumer, ends):
        polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_MAX)
        if polled:
            yield [
                record
                for partition, records in polled.items()
                for record in records
                if silence_s is not None or record.offset < ends[partition]
            ]
            heard_at = time.monotonic()  # what the caller did with them is no silence
        elif silence_s is not None and time.monotonic() - heard_at >= silence_s:
            return
        elif time.monotonic() - heard_at >= STALLED_S:
            raise Unavailable(f"the broker sends nothing of {partitions[0].topic} although there is more")


async def _left(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    """Positions, not records: compaction leaves holes, also at the end."""
    for partition, end in ends.items():
        if end > 0 and await consumer.position(partition) < end:
            return True
    return False
