"""The DeadLetterDesk: reading dead letters from both places they are kept in, and sending them again.

Room: adapters. Beside a running worker or without one. What is read is never held as a whole: letters are chosen in one
pass and sent in a second, so that a letter which fails again (it comes to the end of the same topic) is not sent in a
circle.
"""

import asyncio
import base64
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from payment_service.adapters.dead_letters import sealing_place
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_message import NeverTaken
from payment_service.adapters.kafka_sender import KafkaSender
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.topic_reading import partitions_of, read_topic
from payment_service.core.audit import OK, AuditEntry
from payment_service.core.dead_letters import (
    REPLAY_OF,
    ROW,
    Letter,
    LetterFilter,
    LetterPage,
    Replayed,
    Sent,
    letter_of,
)
from payment_service.core.errors import Malformed, PaymentError, Refused, Unavailable
from payment_service.core.ports import AuditLog, Cipher, Clock, Metrics

ROWS_PAGE = 20
"""Rows of PostgreSQL at once: each is about as large as a message may be, or larger."""
REPLAY_AT_ONCE = 100
CHOSEN_MAX = 200_000
"""Letters of one replay: their stamps are held in memory."""
CLAIM_S = 60.0
"""A claim that was not sent by then is free again; longer than SEND_S."""
SEND_S = 35.0
CONNECT_S = 15.0
POLL_S = 0.05
TRIES_MAX = 3


@dataclass(slots=True)
class _Reading:
    """What a pass over all letters met beside letters."""

    foreign: int = 0
    away: str = ""


@dataclass(slots=True)
class StoredDeadLetters:
    """`topic`: the dead letters' own, in full. `silence_s`: as for `read_topic`."""

    client: KafkaClient | None
    """None: no broker is there; `broker_away` says why."""
    broker_away: str
    topic: str
    prefix: str
    database: Database
    cipher: Cipher
    audit: AuditLog
    clock: Clock
    metrics: Metrics
    silence_s: float | None
    _topics: dict[str, bool] = field(default_factory=dict)

    async def find(self, wanted: LetterFilter, limit: int) -> LetterPage:
        reading, total = _Reading(), 0
        newest: list[tuple[int, int, Letter, int]] = []
        async with aclosing(self._letters(reading, tolerant=True)) as batches:
            async for letters in batches:
                for letter in letters:
                    if wanted.fits(letter, self.prefix):
                        total += 1
                        one = (letter.at_ms, total, replace(letter, value=None), len(letter.value or b""))
                        (heapq.heappush if len(newest) < limit else heapq.heappushpop)(newest, one)
        newest.sort()
        found = [letter for _, _, letter, _ in newest]
        sizes = {letter.stamp: size for _, _, letter, size in newest}
        sent = {stamp: at_ms for stamp, at_ms in await self._replays(sizes) if at_ms is not None}
        return LetterPage(found, sizes, sent, total, reading.foreign, reading.away)

    async def get(self, name: str) -> Letter:
        found = await self._newest(LetterFilter(name=name))
        return self._unsealed(found)

    async def choose(self, wanted: LetterFilter) -> Mapping[str, str]:
        if wanted.name is not None:
            found = await self._newest(wanted)
            return {found.stamp: found.id}
        chosen: dict[str, str] = {}
        async with aclosing(self._letters(_Reading())) as batches:
            async for letters in batches:
                chosen |= {letter.stamp: letter.id for letter in letters if wanted.fits(letter, self.prefix)}
                if len(chosen) > CHOSEN_MAX:
                    raise Refused(f"more than {CHOSEN_MAX} letters are like that; choose some with --topic or --reason")
        return chosen

    async def replay(
        self, stamps: Collection[str], operator: str, *, again: bool
    ) -> AsyncGenerator[Sequence[Replayed], None]:
        left = set(stamps)
        async with (
            _sending(self._broker(), self.metrics) as sender,
            aclosing(self._letters(_Reading())) as batches,
        ):
            async for letters in batches:
                ours = [letter for letter in letters if letter.stamp in left]
                left -= {letter.stamp for letter in ours}
                for start in range(0, len(ours), REPLAY_AT_ONCE):
                    yield await self._replay(sender, ours[start : start + REPLAY_AT_ONCE], operator, again)
                if not left:
                    break
        if left:
            yield [Replayed(stamp, "", Sent.FAILED, "it is gone from the topic") for stamp in sorted(left)]

    # --- reading ---------------------------------------------------------------------------------------------

    async def _newest(self, wanted: LetterFilter) -> Letter:
        found: Letter | None = None
        async with aclosing(self._letters(_Reading(), only_rows=(wanted.name or "").startswith(ROW))) as batches:
            async for letters in batches:
                for letter in letters:
                    if wanted.fits(letter, self.prefix) and (found is None or letter.at_ms >= found.at_ms):
                        found = letter
        if found is None:
            raise Refused(f"there is no dead letter {wanted.name}", code="NOT_FOUND")
        return found

    async def _letters(
        self, reading: _Reading, *, tolerant: bool = False, only_rows: bool = False
    ) -> AsyncGenerator[Sequence[Letter], None]:
        """`tolerant`: without those of the topic when the broker is away, which `reading` then tells."""
        if not only_rows:
            try:
                async with aclosing(read_topic(self._broker(), self.topic, silence_s=self.silence_s)) as batches:
                    async for records in batches:
                        yield _letters_of(records, reading)
            except Refused:
                pass  # there is no such topic yet
            except Unavailable as error:
                if not tolerant:
                    raise
                reading.away = error.message
        after = 0
        while rows := await self._fetch("page_of_dead_letters", (after, ROWS_PAGE)):
            yield [_letter_of_row(*row) for row in rows]
            after = rows[-1][0]

    def _broker(self) -> KafkaClient:
        if self.client is None:
            raise Unavailable(self.broker_away)
        return self.client

    def _unsealed(self, letter: Letter) -> Letter:
        if not letter.sealed or letter.value is None:
            return letter
        place = sealing_place(letter.topic, letter.partition, letter.offset)
        return replace(letter, value=self.cipher.unseal(letter.value, place), sealed=False)

    # --- sending again ---------------------------------------------------------------------------------------

    async def _replay(
        self, sender: KafkaSender, letters: Sequence[Letter], operator: str, again: bool
    ) -> Sequence[Replayed]:
        """Claim, send, tell the audit log, keep as sent: a crash anywhere between sends the letter once more."""
        done: list[Replayed] = []
        ready: list[Letter] = []
        for letter in letters:
            try:
                await self._require_topic(letter.topic)
                ready.append(self._unsealed(letter))
            except (Malformed, Refused) as error:
                done.append(Replayed(letter.id, letter.source, Sent.FAILED, error.message))
        claimed = await self._claim(ready, operator, again)
        done += await self._unclaimed([letter for letter in ready if letter.stamp not in claimed])
        mine = [letter for letter in ready if letter.stamp in claimed]
        answers = await asyncio.gather(*(self._send(sender, letter) for letter in mine))
        done += answers
        for answer in done:
            result = OK if answer.outcome is Sent.SENT else answer.outcome.value
            detail = f"letter {answer.letter} of {answer.source} {answer.why}".rstrip()
            entry = AuditEntry(self.clock.now_ms(), "dead_letter.replay", result, operator, detail=detail)
            self.audit.record(entry)
        await self.audit.flush()
        outcomes = [(letter.stamp, answer.outcome is Sent.SENT) for letter, answer in zip(mine, answers, strict=True)]
        for name, wanted in (("replays_sent", True), ("replays_given_up", False)):
            stamps = [stamp for stamp, sent in outcomes if sent is wanted]
            if stamps:
                await self._fetch(name, (stamps,))
        return done

    async def _send(self, sender: KafkaSender, letter: Letter) -> Replayed:
        headers = [
            *((name, text) for name, text in letter.headers if name != REPLAY_OF),
            (REPLAY_OF, letter.id.encode()),
        ]
        try:
            await sender.send(letter.topic, letter.key, letter.value, headers, SEND_S)
        except (Unavailable, NeverTaken) as error:
            why = error.message if isinstance(error, PaymentError) else f"the broker never takes it: {error}"
            return Replayed(letter.id, letter.source, Sent.FAILED, why)
        return Replayed(letter.id, letter.source, Sent.SENT)

    async def _require_topic(self, topic: str) -> None:
        """Sending to one that does not exist would wait for it."""
        if topic not in self._topics:
            self._topics[topic] = topic in await partitions_of(self._broker(), [topic])
        if not self._topics[topic]:
            raise Refused(f"there is no topic {topic}", code="NOT_FOUND")

    async def _claim(self, letters: Sequence[Letter], operator: str, again: bool) -> set[str]:
        if not letters:
            return set()
        columns = ([letter.stamp for letter in letters], [letter.source for letter in letters])
        return {stamp for (stamp,) in await self._fetch("claim_replays", (operator, *columns, CLAIM_S, again))}

    async def _unclaimed(self, letters: Sequence[Letter]) -> list[Replayed]:
        sent = dict(await self._replays([letter.stamp for letter in letters]))
        return [
            Replayed(letter.id, letter.source, Sent.CLAIMED if sent.get(letter.stamp) is None else Sent.ALREADY)
            for letter in letters
        ]

    async def _replays(self, stamps: Collection[str]) -> list[tuple[str, int | None]]:
        """Those that were ever claimed, with when they were sent."""
        return [(stamp, at_ms) for stamp, at_ms in await self._fetch("replays", (list(stamps),))] if stamps else []

    async def _fetch(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        """Each of our statements may simply be repeated when its connection breaks, but for the claim: then what it
        claimed is free again after CLAIM_S."""
        return await self.database.fetch_again(QUERIES[name], parameters, tries=TRIES_MAX)


def _letters_of(records: Sequence[Any], reading: _Reading) -> list[Letter]:
    letters = []
    for it in records:
        try:
            headers = tuple((name, text or b"") for name, text in it.headers)
            letters.append(letter_of(it.partition, it.offset, it.timestamp, it.key, it.value, headers))
        except Malformed:
            reading.foreign += 1
    return letters


def _letter_of_row(
    number: int, topic: str, partition: int, offset: int, key: Any, value: Any, headers: Any, reason: str, error: str,
    sealed: bool, at_ms: int,
) -> Letter:  # fmt: skip
    kept = tuple((name, base64.b64decode(text)) for name, text in headers)
    name = f"{ROW}{number}"
    return Letter(
        name, name, topic, partition, offset, reason, error, at_ms, None if key is None else bytes(key),
        None if value is None else bytes(value), sealed, kept,
    )  # fmt: skip


@asynccontextmanager
async def _sending(client: KafkaClient, metrics: Metrics) -> AsyncIterator[KafkaSender]:
    """A sender that is connected, for a block. Raises Unavailable when it does not get there in CONNECT_S."""
    sender = KafkaSender(client, metrics)
    running = asyncio.create_task(sender.run())
    try:
        deadline = asyncio.get_running_loop().time() + CONNECT_S
        while not sender.connected:
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("the broker is away")
            await asyncio.sleep(POLL_S)
        yield sender
    finally:
        running.cancel()
        await asyncio.wait({running})
