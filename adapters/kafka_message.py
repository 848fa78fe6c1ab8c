"""One message on its way to the broker, and where it goes.

Room: adapters. Nothing here waits or knows a client.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from struct import unpack_from
from typing import Any, Protocol

MESSAGE_OVERHEAD_BYTES = 100
"""More than the record format adds to key, value and headers."""
PAYMENT_KEY_BYTES = 36
"""Length of a payment's id, which is a multiple of 4."""
SIDE_BY_SIDE_MIN = 3
"""From so many keys on they are hashed side by side."""
SIDE_BY_SIDE_MAX = 1_000
"""Keys in one number of 72 KB; sizes are rounded up to a power of two, so that few masks are kept."""
_FACTOR, _SEED = 0x5BD1E995, 0x9747B28C


Headers = Sequence[tuple[str, bytes]]


class NeverTaken(Exception):
    """The broker can never take this message: too large, or invalid. The text is the kind of error."""


class Holder(Protocol):
    @property
    def abandoned(self) -> bool:
        """Nobody waits for its messages any more: those that were not sent yet are not sent."""


class Message:
    """`settle` is called once, with the message and None when every replica that must has it, else NeverTaken; not at
    all when its holder abandoned it. `topic` is the full name. `headers` may be given as what makes them once they are
    asked for: those of thousands that wait would be most of what the garbage collection walks through. `placed_by`:
    whose hash is its partition, the key's unless it is given."""

    __slots__ = ("_headers", "about", "holder", "key", "placed_by", "settle", "size", "topic", "value")

    def __init__(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | Callable[["Message"], Headers],
        holder: Holder, settle: Callable[["Message", NeverTaken | None], None], about: Any = None, size: int = 0,
        placed_by: bytes | None = None,
    ) -> None:  # fmt: skip
        """`size`: with headers that are made later it must be given, and no less than size_of would say."""
        self.topic = topic
        self.key = key
        self.placed_by = key if placed_by is None else placed_by
        self.value = value
        self._headers = headers
        self.holder = holder
        self.settle = settle
        self.about = about
        self.size = size or size_of(key, value, self.headers)

    @property
    def headers(self) -> Headers:
        headers = self._headers
        return headers(self) if callable(headers) else headers


def size_of(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]]) -> int:
    """At least what the message takes in a request."""
    size = MESSAGE_OVERHEAD_BYTES + len(key or b"") + len(value or b"")
    return size + sum(len(name) + len(text) + 4 for name, text in headers)


def partition_hash(key: bytes) -> int:
    """murmur2 as in Java's and aiokafka's default partitioner (which takes half as long again)."""
    words, rest = len(key) >> 2, len(key) & 3
    h = _SEED ^ len(key)
    for k in unpack_from(f"<{words}I", key):
        k = (k * _FACTOR) & 0xFFFFFFFF
        h = ((h * _FACTOR) & 0xFFFFFFFF) ^ (((k ^ (k >> 24)) * _FACTOR) & 0xFFFFFFFF)
    if rest:
        h = ((h ^ int.from_bytes(key[-rest:], "little")) * _FACTOR) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * _FACTOR) & 0xFFFFFFFF
    return (h ^ (h >> 15)) & 0x7FFFFFFF


def partition_hashes(keys: Iterable[bytes]) -> dict[bytes, int]:
    """partition_hash of each. Payments' ids side by side: each of a hundred takes a quarter of the time."""
    alike: list[bytes] = []
    hashes: dict[bytes, int] = {}
    for key in keys:
        if len(key) == PAYMENT_KEY_BYTES:
            alike.append(key)
        else:
            hashes[key] = partition_hash(key)
    for start in range(0, len(alike), SIDE_BY_SIDE_MAX):
        some = alike[start : start + SIDE_BY_SIDE_MAX]
        together = len(some) >= SIDE_BY_SIDE_MIN and sys.byteorder == "little"
        hashes.update(zip(some, _side_by_side(some) if together else map(partition_hash, some), strict=True))
    return hashes


@lru_cache(maxsize=32)
def _ones(lanes: int) -> int:
    """1 in each of so many lanes of 64 bits."""
    return int.from_bytes(b"\x01\0\0\0\0\0\0\0" * lanes, "little")


def _side_by_side(keys: Sequence[bytes]) -> list[int]:
    """murmur2 of many keys of PAYMENT_KEY_BYTES in one large number: a lane of 64 bits holds a 32-bit word and what
    multiplying it carries over. Each step below is one of partition_hash's, for all keys at once."""
    words, room = PAYMENT_KEY_BYTES >> 2, 1 << (len(keys) - 1).bit_length()
    padded = b"".join(keys).ljust(room * PAYMENT_KEY_BYTES, b"\0")
    ones = _ones(room * words)
    low = ones * 0xFFFFFFFF
    k = int.from_bytes(array("Q", memoryview(padded).cast("I")).tobytes(), "little")
    k = (k * _FACTOR) & low
    k = ((k ^ ((k >> 24) & (ones * 0xFF))) * _FACTOR) & low
    lanes = memoryview(k.to_bytes(room * words * 8, "little")).cast("Q")
    ones = _ones(room)
    low = ones * 0xFFFFFFFF
    h = ones * (_SEED ^ PAYMENT_KEY_BYTES)
    for word in range(words):
        h = ((h * _FACTOR) & low) ^ int.from_bytes(lanes[word::words].tobytes(), "little")
    h = ((h ^ ((h >> 13) & (ones * 0x7FFFF))) * _FACTOR) & low
    h = (h ^ ((h >> 15) & (ones * 0x1FFFF))) & (ones * 0x7FFFFFFF)
    return memoryview(h.to_bytes(room * 8, "little")).cast("Q").tolist()[: len(keys)]
