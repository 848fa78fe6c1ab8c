"""One message on its way to the broker, and where it goes.

Room: adapters. Nothing here waits or knows a client.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from struct import unpack_from
from typing import Any, Protocol

MESSAGE_OVERHEAD_BYTES = 100
"""More than the record format adds to key, value and headers."""
KEYS_CACHED_MAX = 16_384


class NeverTaken(Exception):
    """The broker can never take this message: too large, or invalid. The text is the kind of error."""


class Holder(Protocol):
    @property
    def abandoned(self) -> bool:
        """Nobody waits for its messages any more: those that were not sent yet are not sent."""


class Message:
    """`settle` is called once, with the message and None when every replica that must has it, else NeverTaken; not at
    all when its holder abandoned it. `topic` is the full name."""

    __slots__ = ("about", "headers", "holder", "key", "settle", "size", "topic", "value")

    def __init__(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]],
        holder: Holder, settle: Callable[["Message", NeverTaken | None], None], about: Any = None, size: int = 0,
    ) -> None:  # fmt: skip
        self.topic = topic
        self.key = key
        self.value = value
        self.headers = headers
        self.holder = holder
        self.settle = settle
        self.about = about
        self.size = size or size_of(key, value, headers)


def size_of(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> int:
    """At least what the message takes in a request."""
    size = MESSAGE_OVERHEAD_BYTES + len(key or b"") + len(value or b"")
    return size + sum(len(name) + len(text) + 4 for name, text in headers)


@lru_cache(maxsize=KEYS_CACHED_MAX)
def partition_hash(key: bytes) -> int:
    """murmur2 as in Java's and aiokafka's default partitioner (which takes half as long again)."""
    words, rest = len(key) >> 2, len(key) & 3
    h = 0x9747B28C ^ len(key)
    for k in unpack_from(f"<{words}I", key):
        k = (k * 0x5BD1E995) & 0xFFFFFFFF
        h = ((h * 0x5BD1E995) & 0xFFFFFFFF) ^ (((k ^ (k >> 24)) * 0x5BD1E995) & 0xFFFFFFFF)
    if rest:
        h = ((h ^ int.from_bytes(key[-rest:], "little")) * 0x5BD1E995) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 0x5BD1E995) & 0xFFFFFFFF
    return (h ^ (h >> 15)) & 0x7FFFFFFF
