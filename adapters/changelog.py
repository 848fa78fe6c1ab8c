"""What is in a Faust table, from its changelog topic alone: for commands, beside a running worker or without one.

Room: adapters.
"""

import time
from collections.abc import Collection, Mapping, Sequence

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
ROWS_MAX = 2_000_000
"""Rows kept in memory at once."""


async def read_changelog(
    client: KafkaClient, topic: str, *, key: bytes | None = None, silence_s: float | None = None
) -> Mapping[bytes, bytes]:
    """The last value of each key (or of one), as the topic stood when the reading began.

    `silence_s`: end after so long without a record instead of at the end offsets, for a broker that answers
    those wrongly.

    Raises: Refused NOT_FOUND (no such topic), Unavailable.
    Limits: ROWS_MAX, STALLED_S.
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
        return await _read(consumer, [TopicPartition(topic, number) for number in numbers], key, silence_s)
    except (KafkaError, OSError) as error:
        raise Unavailable(f"the broker is away: {type(error).__name__}") from None
    finally:
        await consumer.stop()


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


async def _read(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], key: bytes | None, silence_s: float | None
) -> Mapping[bytes, bytes]:
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    ends = await consumer.end_offsets(partitions) if silence_s is None else {}
    rows: dict[bytes, bytes] = {}
    heard_at = time.monotonic()
    while True:
        if silence_s is None and not await _left(consumer, ends):
            return rows
        polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_MAX)
        now = time.monotonic()
        if polled:
            heard_at = now
        elif silence_s is not None and now - heard_at >= silence_s:
            return rows
        elif now - heard_at >= STALLED_S:
            raise Unavailable(f"the broker sends nothing of {partitions[0].topic} although there is more")
        for records in polled.values():
            for record in records:
                if record.key is None or (key is not None and record.key != key):
                    continue
                if record.value is None:
                    rows.pop(record.key, None)
                else:
                    rows[record.key] = record.value
        if len(rows) > ROWS_MAX:
            raise Unavailable(f"{partitions[0].topic} holds more than {ROWS_MAX} rows; ask for one with --key")


async def _left(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    """Positions, not records: compaction leaves holes, also at the end."""
    for partition, end in ends.items():
        if end > 0 and await consumer.position(partition) < end:
            return True
    return False
