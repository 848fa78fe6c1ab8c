"""The intents that wait for a runner: the CallQueue port over `transactions`, and OpenCalls.

Room: adapters/postgres. A lease is `due_at` by the database's clock; rows are locked for the claim alone.
"""

import logging
import time
from typing import Any

from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.statement import request_place
from payment_service.codecs.state import decode_call
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.ports import Cipher, ClaimedCall, OpenCall

_log = logging.getLogger(__name__)


class PostgresCallQueue:
    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher

    async def claim(self, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        """A connection lost here may leave rows claimed: they come back when the lease ends."""
        return await self._claim("claim_calls", (limit, owner, lease_s))

    async def claim_of(self, payment_id: str, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        return await self._claim("claim_calls_of", (payment_id, limit, owner, lease_s))

    async def _claim(self, query: str, parameters: tuple[Any, ...]) -> list[ClaimedCall]:
        claimed_at = time.monotonic()
        claimed: list[ClaimedCall] = []
        for row_id, request, tries, sent_for_s, due_in_s in await self._run(query, parameters):
            try:
                call = decode_call(self._cipher.unseal(bytes(request), request_place(row_id)))
            except (Malformed, ValueError, TypeError, KeyError) as error:
                # It comes back with every lease, and is heard of each time; it must not hold up the others.
                _log.error("the request of %s cannot be read: %s", row_id, type(error).__name__)
                continue
            claimed.append(ClaimedCall(call, tries, claimed_at, sent_for_s, due_in_s))
        return claimed

    async def renew(self, key: str, owner: str, lease_s: float) -> bool:
        return bool(await self._run("renew_call", (lease_s, key, owner)))

    async def reschedule(self, key: str, owner: str, delay_s: float, *, sent: bool) -> None:
        await self._run("reschedule_call", (delay_s, sent, key, owner))

    async def open_calls(self, limit: int) -> list[OpenCall]:
        return [OpenCall(*row) for row in await self._run("open_calls", (limit,))]

    async def hurry(self, limit: int) -> int:
        return len(await self._run("hurry_calls", (limit,)))

    async def _run(self, name: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            return await self._database.fetch(QUERIES[name], parameters)
        except (ConnectionLost, TryAgain, StatementRefused) as error:
            raise Unavailable(f"the queue of calls did not answer: {type(error).__name__}") from None
