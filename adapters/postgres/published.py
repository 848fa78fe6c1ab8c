"""What payments published last, found by when: for a table whose topic has forgotten it, and to compare.

Room: adapters/postgres. Reads alone.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog

from payment_service.adapters.postgres.pool import ConnectionLost, Database, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.codecs.history import last_published
from payment_service.core.errors import Malformed, Unavailable

SLICE_MS = 3_600_000
SLICE_MS_MIN = 1_000
"""A time is read in slices, shorter ones where much happened: one statement returns IDS_MAX payments at most, but for
what happened in a single second."""
IDS_MAX = 5_000
PAGE = 50
"""Histories in one statement; telling what each published last holds the event loop about 0.1 ms."""

_log = structlog.get_logger(__name__)

Published = tuple[str, bytes]
"""Payment id, and the value of its last message."""


class PostgresPublished:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def between(self, from_ms: int, to_ms: int) -> AsyncIterator[Sequence[Published]]:
        """Of every payment that published something in this time, in batches of PAGE at most; one that published more
        than once may come more than once. What a batch says is as of the moment it is yielded.

        Raises: Unavailable.
        """
        start_ms, slice_ms = from_ms, SLICE_MS
        while start_ms < to_ms:
            end_ms = min(start_ms + slice_ms, to_ms)
            limit = IDS_MAX if slice_ms > SLICE_MS_MIN else None
            ids = [it for (it,) in await self._fetch("published_between", (start_ms, end_ms, limit))]
            if limit is not None and len(ids) == limit:
                slice_ms = max(SLICE_MS_MIN, slice_ms // 4)
                continue
            async for batch in self._pages(ids):
                yield batch
            start_ms = end_ms
            if len(ids) * 4 < IDS_MAX:
                slice_ms = min(SLICE_MS, slice_ms * 2)

    async def unsettled(self) -> AsyncIterator[Sequence[Published]]:
        """Of every payment with a provider call that is not settled. Raises Unavailable."""
        after = ""
        while ids := [it for (it,) in await self._fetch("unsettled_payments", (after, IDS_MAX))]:
            async for batch in self._pages(ids):
                yield batch
            after = ids[-1]

    async def _pages(self, ids: Sequence[str]) -> AsyncIterator[Sequence[Published]]:
        for first in range(0, len(ids), PAGE):
            yield await self.last_of(ids[first : first + PAGE])

    async def changed(self, since_s: float | None, limit: int) -> list[tuple[str, float]]:
        """(payment id, seconds since 1970) of provider calls that changed since then (None: since a minute ago), in the
        order of their time; not those of the last seconds. Raises: Unavailable."""
        return [(payment_id, at_s) for payment_id, at_s in await self._fetch("changed_calls", (since_s, limit))]

    async def last_of(self, ids: Sequence[str]) -> list[Published]:
        """Of these payments, PAGE at most, those that have published something. Raises: Unavailable."""
        found: list[Published] = []
        for payment_id, versions, sequences, types, data in await self._fetch("histories_of", (list(ids),)):
            rows = zip(versions, sequences, types, map(bytes, data), strict=True)
            try:
                value = last_published(payment_id, rows)
            except Malformed as error:  # of a newer version of ours: the others must not wait for it
                _log.error("a history cannot be read", payment_id=payment_id, error=error.message)
                continue
            if value is not None:
                found.append((payment_id, value))
        return found

    async def _fetch(self, name: str, parameters: Sequence[object]) -> list[Any]:
        try:
            return await self._database.fetch(QUERIES[name], parameters)
        except (ConnectionLost, TryAgain):
            raise Unavailable("the database is away") from None
