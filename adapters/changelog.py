"""What is in a Faust table, from its changelog topic alone: for commands, beside a running worker or without one.

Room: adapters.
"""

from collections.abc import Mapping
from contextlib import aclosing

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.topic_reading import read_topic
from payment_service.core.errors import Unavailable

ROWS_MAX = 2_000_000
"""Rows kept in memory at once."""


async def read_changelog(
    client: KafkaClient, topic: str, *, key: bytes | None = None, silence_s: float | None = None
) -> Mapping[bytes, bytes]:
    """The last value of each key (or of one), as the topic stood when the reading began.

    `silence_s`: as for `read_topic`.

    Raises: Refused NOT_FOUND (no such topic), Unavailable.
    Limits: ROWS_MAX.
    """
    rows: dict[bytes, bytes] = {}
    async with aclosing(read_topic(client, topic, silence_s=silence_s)) as batches:
        async for records in batches:
            for record in records:
                if record.key is None or (key is not None and record.key != key):
                    continue
                if record.value is None:
                    rows.pop(record.key, None)
                else:
                    rows[record.key] = record.value
            if len(rows) > ROWS_MAX:
                raise Unavailable(f"{topic} holds more than {ROWS_MAX} rows; ask for one with --key")
    return rows
