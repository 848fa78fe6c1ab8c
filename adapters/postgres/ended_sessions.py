"""Sessions of the console that were ended by signing out, known to every worker.

Room: adapters/postgres. No request waits for the database: every worker reads them each TICK_S, so that a session ends
here at once and at the others that much later. One that cannot be written now is written with a later tick; only a
worker that is killed in between loses it, and that session ends by its own time.
"""

import asyncio
import logging

from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Clock

TICK_S = 2.0
KEPT_MAX = 10_000
"""Ended and not over by their own time; the ones that end last are kept."""

_log = logging.getLogger(__name__)


class PostgresEndedSessions:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._ended: frozenset[str] = frozenset()
        self._unwritten: dict[str, float] = {}
        """By digest when it would have ended, in seconds since 1970; not yet seen in the database."""

    def is_ended(self, digest: str) -> bool:
        return digest in self._ended or digest in self._unwritten

    async def end(self, digest: str, ends_s: float) -> None:
        """Here at once. Raises nothing: where the database is away it is written later."""
        if len(self._unwritten) < KEPT_MAX:
            self._unwritten[digest] = ends_s
        await self.tick()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        try:
            for digest, ends_s in list(self._unwritten.items()):
                await self._database.fetch(QUERIES["end_session"], (digest, ends_s))
            rows = await self._database.fetch(QUERIES["ended_sessions"], (KEPT_MAX,))
        except (Unavailable, ConnectionLost, TryAgain, StatementRefused) as error:
            _log.warning("ended sessions are not shared now: %s", type(error).__name__)
        else:
            self._ended = frozenset(digest for (digest,) in rows)
            now_s = self._clock.now_ms() / 1000
            self._unwritten = {
                digest: ends_s
                for digest, ends_s in self._unwritten.items()
                if digest not in self._ended and ends_s > now_s
            }
