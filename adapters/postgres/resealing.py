"""Sealing anew what older keys sealed in PostgreSQL, beside the workers that use it.

Room: adapters/postgres. A table is walked in the order in which it is stored, block by block, so that every table is
walked alike and no index is needed. A row that a worker moves meanwhile may be passed over, as is one that it has
locked: rounds are made until one finds nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from payment_service.adapters.dead_letters import sealing_place
from payment_service.adapters.postgres import payment_methods, statement
from payment_service.adapters.postgres.idempotency import answer_place
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.webhooks import body_place
from payment_service.adapters.sealing import STAMP_BYTES, AesGcmCipher
from payment_service.core.errors import Malformed
from payment_service.core.key_rotation import Resealed, SealedRecords

BLOCKS_PAGE = 1024
"""Blocks looked through by one statement: 8 MB, some ten milliseconds."""
ROWS_MAX = 200
BYTES_MAX = 512 * 1024
"""Of one statement that seals anew; a single larger value goes alone. So long its rows are locked, a few ms."""
ROUNDS_MAX = 5
"""Whoever still finds old values then has a worker that goes on sealing with an older key."""
ROUND_PAUSE_S = 1.0
"""For what was locked: no statement of a worker holds a row longer."""
TRIES_MAX = 3
"""Each statement may be repeated: the second time it finds what the first did."""


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """`place`: SQL of what `place_of` takes; `sealed`: SQL that is true for rows that are sealed at all."""

    table: str
    column: str
    place: str
    place_of: Callable[..., str]
    sealed: str = "true"

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column}"

    def sql(self, query: str) -> str:
        names = {"table": self.table, "column": self.column, "place": self.place, "sealed": self.sealed}
        text = QUERIES[query]
        for name, instead in names.items():
            text = text.replace(f"{{{name}}}", instead)
        return text


COLUMNS = (
    SealedColumn("payments", "secrets", "id", statement.secrets_place),
    SealedColumn("transactions", "request", "id", statement.request_place),
    SealedColumn("payment_methods", "secrets", "id", payment_methods.secrets_place),
    SealedColumn("provider_customers", "customer", "user_id, provider", payment_methods.customer_place),
    SealedColumn("payment_webhooks", "body", "provider, event_id", body_place),
    SealedColumn("idempotency_keys", "answer", "command_id", answer_place),
    SealedColumn("dead_letters", "value", 'topic, partition, "offset"', sealing_place, "t.sealed"),
)
"""Everything that is sealed in PostgreSQL."""

_Found = tuple[str, int]
"""Where a row lies, and the length of its sealed value."""


class Resealing:
    """The KeyRotation port. `in_topics` looks into the topics, for which nothing can be done here."""

    def __init__(
        self, database: Database, cipher: AesGcmCipher, in_topics: Callable[[], Awaitable[Sequence[SealedRecords]]]
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._in_topics = in_topics

    async def in_topics(self) -> Sequence[SealedRecords]:
        return await self._in_topics()

    async def reseal(self, *, dry_run: bool) -> AsyncGenerator[Resealed, None]:
        for number in range(1, ROUNDS_MAX + 1):
            left = 0
            for column in COLUMNS:
                async for step in self._walk(number, column, dry_run=dry_run):
                    left += step.done + step.busy
                    yield step
            if dry_run or not left:
                return
            if number < ROUNDS_MAX:
                await asyncio.sleep(ROUND_PAUSE_S)

    async def _walk(self, number: int, column: SealedColumn, *, dry_run: bool) -> AsyncGenerator[Resealed, None]:
        ((total,),) = await self._fetch(column.sql("sealed_blocks"), ())
        yield Resealed(number, column.name, 0, total)
        for first in range(0, total, BLOCKS_PAGE):
            end = min(first + BLOCKS_PAGE, total)
            parameters = (f"({first},0)", f"({end},0)", self._cipher.header)
            found: list[_Found] = await self._fetch(column.sql("scan_sealed"), parameters)
            for part in _parts(found):
                done, busy, unreadable = await self._reseal(column, part, dry_run=dry_run)
                yield Resealed(number, column.name, 0, total, done, busy, unreadable)
            yield Resealed(number, column.name, end - first, total)

    async def _reseal(
        self, column: SealedColumn, part: Sequence[_Found], *, dry_run: bool
    ) -> tuple[int, int, tuple[str, ...]]:
        """How many were sealed anew, how many were busy, and which cannot be read."""
        rows = await self._fetch(column.sql("read_sealed"), ([at for at, _ in part],))
        anew: list[tuple[str, str, str]] = []
        unreadable: list[str] = []
        for at, value, *about in rows:
            place, old = column.place_of(*about), bytes(value)
            if old.startswith(self._cipher.header):
                continue  # another row lies there by now
            try:
                sealed = self._cipher.seal(self._cipher.unseal(old, place), place)
            except Malformed:
                unreadable.append(place)
                continue
            anew.append((at, old[:STAMP_BYTES].hex(), sealed.hex()))
        done = len(anew)
        if anew and not dry_run:
            done = len(await self._fetch(column.sql("reseal"), tuple(map(list, zip(*anew, strict=True)))))
        return done, len(part) - done - len(unreadable), tuple(unreadable)

    async def _fetch(self, query: str, parameters: Sequence[Any]) -> list[Any]:
        return await self._database.fetch_again(query, parameters, tries=TRIES_MAX)


def _parts(found: Sequence[_Found]) -> Iterator[list[_Found]]:
    """By BYTES_MAX and ROWS_MAX."""
    part: list[_Found] = []
    size = 0
    for one in found:
        if part and (len(part) >= ROWS_MAX or size + one[1] > BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(one)
        size += one[1]
    if part:
        yield part
