"""Dead letters: what cannot be read or may not be done, kept with its reason so that it can be replayed.

Room: adapters. Returns only when the letter is durable: acked by the broker, or, when it does not fit a message,
in PostgreSQL.
"""

import base64
from collections.abc import Callable, Sequence
from typing import Protocol

import orjson

from payment_service.adapters.kafka_message import NeverTaken, size_of
from payment_service.adapters.kafka_sender import MESSAGE_BYTES_MAX
from payment_service.adapters.kafka_topics import DEAD_LETTERS
from payment_service.adapters.postgres.pool import ConnectionLost, Database, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.dead_letters import OURS
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Cipher

TEXT_MAX = 500
"""Characters of a reason or an error."""


class Sends(Protocol):
    """What OutboxPublisher does."""

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None: ...


def sealing_place(topic: str, partition: int, offset: int) -> str:
    """What a sealed value is bound to: needed to unseal it, and told by the letter's own headers or columns."""
    return f"dead-letter:{topic}:{partition}:{offset}"


class DeadLetterBox:
    """`cipher` None: values are kept plain (the default outside production)."""

    def __init__(self, publisher: Sends, database: Database, cipher: Cipher | None) -> None:
        self._publisher = publisher
        self._database = database
        self._cipher = cipher
        self.on_kept: Callable[[str, str], None] = lambda topic, reason: None
        """Told of each letter: the topic it came from, and why."""

    async def keep(
        self, topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None,
        headers: tuple[tuple[str, bytes], ...], reason: str, error: str,
    ) -> None:  # fmt: skip
        """`topic` with its prefix. `reason` and `error` are stored in the clear: nothing of the value may be in them.

        Raises: Unavailable: nobody took it, try again. A letter may be kept twice; its place tells.
        """
        sealed = value is not None and self._cipher is not None
        if value is not None and self._cipher is not None:
            value = self._cipher.seal(value, sealing_place(topic, partition, offset))
        reason, error = _storable(reason), _storable(error)
        told = (reason, error, topic, str(partition), str(offset), "1" if sealed else "0")
        letter = [*headers, *zip(OURS, (text.encode() for text in told), strict=True)]
        if size_of(key, value, letter) <= MESSAGE_BYTES_MAX:
            try:
                # A message needs a key or a value.
                await self._publisher.send(DEAD_LETTERS, key, value if value is not None or key else b"", letter)
                self.on_kept(topic, reason)
                return
            except NeverTaken:
                pass  # the broker's own limit is lower
        kept = orjson.dumps([[name, base64.b64encode(text or b"").decode()] for name, text in headers]).decode()
        try:
            await self._database.fetch(
                QUERIES["keep_dead_letter"], (topic, partition, offset, key, value, kept, reason, error, sealed)
            )
        except (ConnectionLost, TryAgain):
            raise Unavailable("the dead letter could not be stored") from None
        self.on_kept(topic, reason)


def _storable(text: str) -> str:
    """PostgreSQL takes no NUL, UTF-8 no lone surrogate."""
    return text[:TEXT_MAX].replace("\x00", "?").encode(errors="replace").decode()
