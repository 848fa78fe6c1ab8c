"""Dead letters: what cannot be read or may not be done, kept with its reason so that it can be replayed.

Room: adapters. Returns only when the letter is durable: acked by the broker, or, when it does not fit a message,
in PostgreSQL.
"""

import base64

import orjson
from aiokafka.errors import MessageSizeTooLargeError

from payment_service.adapters.kafka_topics import DEAD_LETTERS
from payment_service.adapters.postgres.pool import ConnectionLost, Database, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.publisher import OutboxPublisher
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Cipher

REASON_MAX = 200
MESSAGE_BYTES_MAX = 950_000
"""Leaves room for headers below the broker's 1 MB."""


class DeadLetterBox:
    """`cipher` None: values are kept plain (the default outside production)."""

    def __init__(self, publisher: OutboxPublisher, database: Database, cipher: Cipher | None) -> None:
        self._publisher = publisher
        self._database = database
        self._cipher = cipher

    async def keep(
        self, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None,
        headers: tuple[tuple[str, bytes], ...], reason: str, error: str,
    ) -> None:  # fmt: skip
        """Raises Unavailable: nobody took it, try again. A letter may be kept twice; its place tells."""
        if value is not None and self._cipher is not None:
            value = self._cipher.seal(value, f"dead-letter:{topic}:{partition}:{offset}")
        about = [
            ("reason", reason[:REASON_MAX].encode()),
            ("error", error[:REASON_MAX].encode()),
            ("source-topic", topic.encode()),
            ("source-partition", str(partition).encode()),
            ("source-offset", str(offset).encode()),
        ]
        if len(value or b"") + len(key or b"") <= MESSAGE_BYTES_MAX:
            try:
                await self._publisher.send(DEAD_LETTERS, key, value, [*headers, *about])
                return
            except MessageSizeTooLargeError:
                pass
        kept = orjson.dumps([[name, base64.b64encode(text).decode()] for name, text in headers]).decode()
        parameters = (topic, partition, offset, key, value, kept, reason[:REASON_MAX], error[:REASON_MAX])
        try:
            await self._database.fetch(QUERIES["keep_dead_letter"], parameters)
        except (ConnectionLost, TryAgain):
            raise Unavailable("the dead letter could not be stored") from None
