"""Anchors: every minute each worker tells the broker and its log how far the audit chains have come.

Room: adapters. A chain alone shows a changed or missing row in its middle, not that its end was cut off or that a
payment was removed as a whole. So what each payment's and the audit log's chain had come to is kept outside the
database, in the topic payment-audit-anchors: `audit verify` then wants to find at least that.

Only what this worker committed since its last anchor is in one, from memory: no query, about 80 bytes for each payment
that changed. It proves what is older than a minute (a worker killed before it could anchor leaves out its last one),
for as long as the topic keeps it. An anchor is sealed, so that nobody without the key can write one, and numbered, so
that a missing one shows; its digest is in the log too.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import orjson

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_message import NeverTaken
from payment_service.adapters.kafka_topics import AUDIT_ANCHORS
from payment_service.adapters.topic_reading import read_topic
from payment_service.codecs.times import rfc3339
from payment_service.core.audit import Problem
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.ports import Cipher, Clock, Metrics

ANCHOR_EVERY_S = 60.0
PAYMENTS_OF_ONE_MAX = 2_000
"""In one message: 170 KB, which every broker takes."""
PAYMENTS_WAITING_MAX = 200_000
"""Changed payments kept while the broker is away, about 40 MB. One beyond it is anchored with its next change."""
HEAD_HEX = 32
"""Characters of a hash that are kept: 128 bits."""
COMMANDS_FIRST_S = 7 * 86_400
"""A worker that starts anchors what commands did while none ran, so far back."""
COMMANDS_S = 600
"""Afterwards: longer than between two anchors, since clocks differ."""
PAYMENTS_READ_MAX = 5_000_000
"""Anchored payments that are remembered while a database is checked, about 1 GB."""
LAST_S = 1.0
"""For the last anchor of a worker that ends."""

_log = logging.getLogger(__name__)


class Chain(Protocol):
    """What the audit log tells of its own chain, only what is durable, and of those of commands."""

    chain: str
    count: int
    head: bytes

    async def commands_since(self, at_ms: int) -> list[tuple[str, int, bytes]]: ...


class Sends(Protocol):
    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Anchor:
    """What had come about when it was written. Heads are hexadecimal, HEAD_HEX characters."""

    chain: str
    number: int
    chains: Sequence[tuple[str, int, str]]
    """Of the audit log: chain, count, head."""
    payments: Sequence[tuple[str, int, str]]
    """id, version, head"""


def place_of(chain: str, number: int) -> str:
    return f"audit-anchor:{chain}:{number}"


def decode_anchor(headers: Sequence[tuple[str, bytes]], value: bytes | None, cipher: Cipher) -> Anchor:
    """Raises Malformed for what none of our workers wrote."""
    found = dict(headers)
    try:
        chain, number = found["chain"].decode(), int(found["number"])
        it = orjson.loads(cipher.unseal(value or b"", place_of(chain, number)))
        chains, payments = (
            [(str(name), int(count), str(head)) for name, count, head in it[kind]] for kind in ("chains", "payments")
        )
        return Anchor(chain, number, chains, payments)
    except (KeyError, ValueError, TypeError, UnicodeDecodeError):
        raise Malformed("not an anchor") from None


class AuditAnchors:
    """`changed` is called by the store at each commit; `run` anchors until it is cancelled."""

    def __init__(self, publisher: Sends, audit: Chain, cipher: Cipher, clock: Clock, metrics: Metrics) -> None:
        self._publisher = publisher
        self._audit = audit
        self._cipher = cipher
        self._clock = clock
        self._metrics = metrics
        self._payments: dict[str, tuple[int, str]] = {}
        self._chains: dict[str, tuple[int, str]] = {}
        self._told: dict[str, int] = {}  # rows of each chain of the audit log that were anchored
        self._looked_back_s = COMMANDS_FIRST_S
        self._number = 0
        self._unsent: tuple[bytes, list[tuple[str, bytes]]] | None = None

    def changed(self, payment_id: str, version: int, head: str) -> None:
        """The chain of this payment was committed up to here. Never waits."""
        if len(self._payments) < PAYMENTS_WAITING_MAX or payment_id in self._payments:
            self._payments[payment_id] = (version, head)
        else:
            self._metrics.count("audit_anchor_skipped")

    async def run(self) -> None:
        while True:
            await asyncio.sleep(ANCHOR_EVERY_S)
            await self.anchor()

    async def last(self) -> None:
        """Of a worker that ends: what happened since its last minute."""
        try:
            async with asyncio.timeout(LAST_S):
                await self.anchor()
        except TimeoutError:
            _log.warning("the last anchor was not acked in time chain=%s", self._audit.chain)

    async def anchor(self) -> None:
        """All that changed. While the broker is away it waits for the next time."""
        await self._look_at_chains()
        try:
            while self._unsent is not None or self._payments or self._chains:
                if self._unsent is None:
                    self._unsent = self._next()
                value, headers = self._unsent
                # The same bytes until they are acked: a second copy is the same anchor.
                await self._publisher.send(AUDIT_ANCHORS, self._audit.chain.encode(), value, headers)
                self._unsent = None
                self._metrics.count("audit_anchors")
        except Unavailable as error:
            _log.warning("audit anchors wait payments=%d error=%s", len(self._payments), error.message)
        except NeverTaken as error:
            self._unsent = None  # its number is missing from now on, and `audit verify` says so
            _log.error("an audit anchor can never be sent number=%d error=%s", self._number, error)

    async def _look_at_chains(self) -> None:
        """Those of the audit log that have come further: our own, and those of commands, which end at once."""
        found = [(self._audit.chain, self._audit.count, self._audit.head)]
        try:
            found += await self._audit.commands_since(self._clock.now_ms() - self._looked_back_s * 1000)
            self._looked_back_s = COMMANDS_S
        except Unavailable:
            self._looked_back_s = COMMANDS_FIRST_S
        told = {chain: self._told.get(chain, 0) for chain, _, _ in found}
        for chain, count, head in found:
            if count > told[chain]:
                self._chains[chain] = (count, head.hex()[:HEAD_HEX])
                told[chain] = count
        self._told = told

    def _next(self) -> tuple[bytes, list[tuple[str, bytes]]]:
        audit, self._number = self._audit, self._number + 1
        taken = list(islice(self._payments.items(), PAYMENTS_OF_ONE_MAX))
        for payment_id, _ in taken:
            del self._payments[payment_id]
        chains, self._chains = self._chains, {}
        plain: dict[str, Any] = {
            "at": rfc3339(self._clock.now_ms()),
            "chains": [(chain, count, head) for chain, (count, head) in chains.items()],
            "payments": [(payment_id, version, head[:HEAD_HEX]) for payment_id, (version, head) in taken],
        }  # fmt: skip
        text = orjson.dumps(plain)
        digest = hashlib.sha256(text).hexdigest()
        _log.info(
            "audit anchor chain=%s number=%d count=%d head=%s chains=%d payments=%d digest=%s",
            audit.chain, self._number, audit.count, audit.head.hex()[:HEAD_HEX], len(chains), len(taken), digest,
        )  # fmt: skip
        sealed = self._cipher.seal(text, place_of(audit.chain, self._number))
        return sealed, [("chain", audit.chain.encode()), ("number", str(self._number).encode())]


@dataclass(slots=True)
class Anchored:
    """The furthest that anchors tell of each chain: (version or count, head)."""

    payments: dict[str, tuple[int, str]] = field(default_factory=dict)
    chains: dict[str, tuple[int, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    count: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)

    def add(self, anchor: Anchor, *, trimmed: bool) -> None:
        """In the order in which they were sent. `trimmed`: the front of the topic is gone, and older ones with it."""
        self.count += 1
        chain, number = anchor.chain, anchor.number
        before = self._numbers.get(chain, number - 1 if trimmed else 0)
        if number > before + 1:
            self.problems.append(Problem("anchor", chain, f"anchor {before + 1} is missing: {number} comes next"))
        self._numbers[chain] = max(before, number)
        for furthest, told in ((self.chains, anchor.chains), (self.payments, anchor.payments)):
            for name, count, head in told:
                if count > furthest.get(name, (0, ""))[0]:
                    furthest[name] = (count, head)


async def read_anchors(client: KafkaClient, topic: str, cipher: Cipher, silence_s: float | None) -> Anchored:
    """All that the topic holds. A record in it that is no anchor of ours is a problem. No topic: nothing is anchored.

    Raises: Unavailable. Limits: PAYMENTS_READ_MAX.
    """
    anchored, trimmed = Anchored(), dict[int, bool]()
    try:
        async with aclosing(read_topic(client, topic, silence_s=silence_s)) as batches:
            async for records in batches:
                for record in records:
                    front_gone = trimmed.setdefault(record.partition, record.offset > 0)
                    try:
                        anchored.add(decode_anchor(record.headers, record.value, cipher), trimmed=front_gone)
                    except Malformed as error:
                        where = f"{topic}/{record.partition}/{record.offset}"
                        anchored.problems.append(Problem("anchor", where, error.message))
                if len(anchored.payments) > PAYMENTS_READ_MAX:
                    raise Unavailable(f"{topic} names more than {PAYMENTS_READ_MAX} payments")
    except Refused:
        pass
    return anchored
