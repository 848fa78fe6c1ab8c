"""The words that wait for the order service: the OrderWords port over `order_updates`.

Room: adapters/postgres. Rows come with the change that brought the word about (statement.py). A claim is a lease by
the database's clock, with a name that nobody else has. What follows a claim is one row a statement, which therefore
never waits for one lock while it holds another.
"""

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.errors import Unavailable
from payment_service.core.orders import ClaimedWord, OrderWord

TRIES_MAX = 2
"""Settling may be repeated when a connection breaks: the claim's name is then gone, and nothing happens twice."""
STATEMENT_S = 5.0

_log = logging.getLogger(__name__)


class PostgresOrderWords:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limit: int, lease_s: float) -> Sequence[ClaimedWord]:
        """Not repeated when the connection breaks: what was claimed then comes back by its lease."""
        claim = secrets.token_hex(8)
        rows = await self._run("claim_order_updates", (limit, claim, lease_s), tries=1)
        return [ClaimedWord(OrderWord(*row[:5]), claim, row[5]) for row in rows]

    async def told(self, claimed: ClaimedWord, repeat_s: float) -> None:
        word, claim = claimed.word, claimed.claim
        if not await self._run("order_told", (word.order_id, claim, word.version)):
            await self._run("order_told_and_stays", (word.version, repeat_s, word.order_id, claim))

    async def again(self, claimed: ClaimedWord, delay_s: float, problem: str, *, late: bool) -> None:
        word = claimed.word
        await self._run("order_not_told", (word.version, delay_s, problem, late, word.order_id, claimed.claim))

    async def waiting(self) -> Mapping[str, tuple[int, float]]:
        return {problem: (count, age_s) for problem, count, age_s in await self._run("order_updates_waiting", ())}

    async def _run(self, name: str, parameters: tuple[Any, ...], tries: int = TRIES_MAX) -> list[Any]:
        error: Exception | None = None
        for _ in range(tries):
            try:
                return await self._database.fetch(QUERIES[name], parameters, STATEMENT_S)
            except (ConnectionLost, TryAgain) as again:
                error = again
            except StatementRefused as refused:
                error = refused
                break
        _log.warning("order updates: %s was not done: %s", name, type(error).__name__)
        raise Unavailable("the table of order updates did not answer")
