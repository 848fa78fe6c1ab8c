"""What a dead letter is: a message that could not be taken, with where it came from and why it was not.

Room: core. A letter is a message of the topic payment-dead-letters, or a row of PostgreSQL where it did not fit one.
"""

import re
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from payment_service.core.errors import Malformed, invalid_field

Headers = tuple[tuple[str, bytes], ...]
OURS = ("reason", "error", "source-topic", "source-partition", "source-offset", "sealed")
"""The last headers of a letter, in this order; those before them are the message's own, whatever their names."""
REPLAY_OF = "dl_replay_of"
"""Header of a message that was sent again: the letter it came from."""
ROW = "pg:"
_NAME = re.compile(r"pg:[0-9]{1,18}|([A-Za-z0-9._-]{1,249}/-?)?[0-9]{1,10}/[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Letter:
    id: str
    """What a person types: `partition/offset` in the dead letters' topic, or `pg:number`."""
    stamp: str
    """The same, and different also from a letter at that place before an embedded broker forgot everything."""
    topic: str
    partition: int
    offset: int
    """Where the message came from. Of an event of ours that no broker takes: -1 and its sequence."""
    reason: str
    error: str
    at_ms: int
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    sealed: bool
    headers: Headers = field(repr=False)

    @property
    def source(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def replay_of(self) -> str | None:
        """The letter that this message was in before, if it was sent again and failed again."""
        return next((text.decode(errors="replace") for name, text in self.headers if name == REPLAY_OF), None)

    def is_called(self, name: str) -> bool:
        return name in (self.id, self.source)


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Every field that is set must fit. `topic`: the source's, with or without the prefix."""

    topic: str | None = None
    reason: str | None = None
    name: str | None = None
    """An id, or the place a message came from."""

    def fits(self, letter: Letter, prefix: str) -> bool:
        return (
            (self.topic is None or letter.topic in (self.topic, prefix + self.topic))
            and (self.reason is None or letter.reason == self.reason)
            and (self.name is None or letter.is_called(self.name))
        )


class Sent(StrEnum):
    SENT = "SENT"
    ALREADY = "ALREADY"
    """It was sent again before; `again` sends it once more."""
    CLAIMED = "CLAIMED"
    """Somebody else is sending it at this moment, or died while doing so: free in a minute."""
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of sending a letter again."""

    letter: str
    source: str
    outcome: Sent
    why: str = ""


@dataclass(frozen=True, slots=True)
class LetterPage:
    """The newest letters that fit, newest last and without their values."""

    letters: Sequence[Letter]
    sizes: Mapping[str, int]
    """Bytes of each value, by stamp."""
    sent_at_ms: Mapping[str, int]
    """When it was sent again, by stamp; missing: never."""
    total: int
    foreign: int
    """Messages in the topic that are no letters of ours."""
    away: str = ""
    """Why the topic could not be read; then only PostgreSQL's are here."""


class DeadLetterDesk(Protocol):
    """Every method raises Unavailable when what it needs is away."""

    async def find(self, wanted: LetterFilter, limit: int) -> LetterPage: ...

    async def get(self, name: str) -> Letter:
        """The newest that is called so, its value unsealed. Raises Refused NOT_FOUND, Malformed (no key for it)."""

    async def choose(self, wanted: LetterFilter) -> Mapping[str, str]:
        """Stamp -> id of all that fit, for `replay`. With a name: the newest that is called so."""

    def replay(
        self, stamps: Collection[str], operator: str, *, again: bool
    ) -> AsyncGenerator[Sequence[Replayed], None]:
        """Send these to where they came from, in bounded batches; each is acked, kept as sent, and audited.

        Idempotent by: the stamp, and by what is in the message (orders and webhooks have ids of their own).
        """


def letter_of(
    partition: int, offset: int, at_ms: int, key: bytes | None, value: bytes | None, headers: Headers
) -> Letter:
    """From a message of the topic. Raises Malformed for one that is no letter of ours."""
    own = headers[-len(OURS) :]
    if tuple(name for name, _ in own) != OURS:
        raise Malformed("not a dead letter of ours")
    try:
        reason, error, topic, source_partition, source_offset, sealed = (text.decode() for _, text in own)
        place = f"{partition}/{offset}"
        return Letter(
            place, f"{place}@{at_ms}", topic, int(source_partition), int(source_offset), reason, error, at_ms, key,
            value, sealed == "1", headers[: -len(OURS)],
        )  # fmt: skip
    except ValueError:  # UnicodeDecodeError is one
        raise Malformed("not a dead letter of ours") from None


def checked_name(name: str) -> str:
    """Raises Refused for what cannot be the name of a letter."""
    if _NAME.fullmatch(name) is None:
        raise invalid_field("id", "looks like 2/17, pg:5, or orders/0/42 for the place it came from")
    return name
