"""The intents that wait for a runner: the CallQueue port over `transactions`, and OpenCalls.

Room: adapters/postgres. A lease is `due_at` by the database's clock; rows are locked for the claim alone.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.statement import request_place
from payment_service.codecs.state import decode_traced_call
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.ports import Cipher, ClaimedCall, OpenCall

UNREADABLE_DELAY_S = 30.0
"""Pause before another worker may try to read a request that this one cannot."""

_log = logging.getLogger(__name__)


class PostgresCallQueue:
    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher
        self.on_claim: Callable[[str | None], Context] = lambda traceparent: Context()
        """The context to work in, by the trace in which the call was decided: nobody's, without one."""

    async def claim(self, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        """A connection lost here may leave rows claimed: they come back when the lease ends."""
        return await self._claim("claim_calls", owner, (limit, owner, lease_s))

    async def claim_of(self, payment_id: str, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        return await self._claim("claim_calls_of", owner, (payment_id, limit, owner, lease_s))

    async def _claim(self, query: str, owner: str, parameters: tuple[Any, ...]) -> list[ClaimedCall]:
        claimed_at = time.monotonic()
        claimed: list[ClaimedCall] = []
        unread: list[str] = []
        for row_id, request, tries, sent_for_s, due_in_s in await self._run(query, parameters):
            try:
                call, trace = decode_traced_call(self._cipher.unseal(bytes(request), request_place(row_id)))
            except (Malformed, ValueError, TypeError, KeyError) as error:
                # It comes back, and is heard of each time; it must not hold up the others.
                _log.error("the request of %s cannot be read: %s", row_id, type(error).__name__)
                unread += [row_id] if due_in_s is None else []
                continue
            where = self.on_claim(trace)
            claimed.append(ClaimedCall(call, tries, claimed_at, sent_for_s, due_in_s, where))
        await self._give_back(unread, owner)
        return claimed

    async def _give_back(self, row_ids: list[str], owner: str) -> None:
        """A worker with the newer keys or program can read them; to it they must look as they were, for what nobody
        may have sent is sent, and what somebody may have sent is not after a while."""
        if row_ids:
            with contextlib.suppress(Unavailable):  # then they come back with the lease
                await self._run("give_back_calls", (UNREADABLE_DELAY_S, row_ids, owner))

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
