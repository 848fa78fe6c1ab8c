"""The intents that wait for a runner: the CallQueue port over `transactions`, and OpenCalls.

Room: adapters/postgres. A lease is `due_at` by the database's clock; rows are locked for the claim alone.
Leases are renewed, and calls given back, in batches: when the database is slow, or a provider away, that is asked for
all of a worker's calls at once, and one by one they would wait for a connection until their lease was over.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, NamedTuple

from payment_service.adapters.postgres import arrays
from payment_service.adapters.postgres.batching import Batches, Waiting, answer_all
from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.statement import request_place
from payment_service.codecs.state import decode_traced_call
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.ports import Cipher, ClaimedCall, OpenCall

UNREADABLE_DELAY_S = 30.0
"""Pause before another worker may try to read a request that this one cannot."""
BATCH_MAX = 500
BATCH_BYTES_MAX = 64 * 1024
QUEUE_MAX = 20_000
WRITERS = 1
"""Of each of the two: the other connections are for claims, and for whoever reads."""
BATCH_S = 5.0
"""Longest time such a statement may take: a connection that hears nothing must not hold up every lease of a worker."""
CALL_BYTES = 100
"""Of a key with its owner, about."""

_log = logging.getLogger(__name__)


class _Renewal(NamedTuple):
    key: str
    owner: str
    lease_s: float


class _Delay(NamedTuple):
    key: str
    owner: str
    delay_s: float
    sent: bool


class PostgresCallQueue:
    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher
        self.on_claim: Callable[[str | None], Context] = lambda traceparent: Context()
        """The context to work in, by the trace in which the call was decided: nobody's, without one."""
        self._renewals: Batches[_Renewal, bool] = Batches(
            self._renew_batch, _cut_off, workers=WRITERS, batch_max=BATCH_MAX, bytes_max=BATCH_BYTES_MAX,
            queue_max=QUEUE_MAX,
        )  # fmt: skip
        self._delays: Batches[_Delay, bool] = Batches(
            self._reschedule_batch, _cut_off, workers=WRITERS, batch_max=BATCH_MAX, bytes_max=BATCH_BYTES_MAX,
            queue_max=QUEUE_MAX,
        )  # fmt: skip

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
        return await self._renewals.put(_Renewal(key, owner, lease_s), key, CALL_BYTES)

    async def reschedule(self, key: str, owner: str, delay_s: float, *, sent: bool) -> None:
        await self._delays.put(_Delay(key, owner, delay_s, sent), key, CALL_BYTES)

    async def _renew_batch(self, batch: "list[Waiting[_Renewal, bool]]") -> None:
        await self._run_batch("renew_calls", batch, arrays.numbers([it.item.lease_s for it in batch]))

    async def _reschedule_batch(self, batch: "list[Waiting[_Delay, bool]]") -> None:
        delays = arrays.numbers([it.item.delay_s for it in batch])
        await self._run_batch("reschedule_calls", batch, delays, arrays.numbers([it.item.sent for it in batch]))

    async def _run_batch(self, name: str, batch: "Sequence[Waiting[Any, bool]]", *columns: str) -> None:
        """Each is told whether the call was its owner's. False also when the answer was lost: said once more, it could
        give back what the same worker has claimed again meanwhile, and is sending. So the lease decides."""
        keys = arrays.texts([waiting.item.key for waiting in batch])
        owners = arrays.texts([waiting.item.owner for waiting in batch])
        told: set[tuple[str, str]] = set()
        try:
            told.update(await self._database.fetch(QUERIES[name], (keys, owners, *columns), BATCH_S))
        except ConnectionLost:
            pass
        except (TryAgain, StatementRefused) as error:
            answer_all(batch, _away(error))
        except Unavailable as error:
            answer_all(batch, error)
        for waiting in batch:
            waiting.answer((waiting.item.key, waiting.item.owner) in told)

    async def open_calls(self, limit: int) -> list[OpenCall]:
        return [OpenCall(*row) for row in await self._run("open_calls", (limit,))]

    async def hurry(self, limit: int) -> int:
        return len(await self._run("hurry_calls", (limit,)))

    async def _run(self, name: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            return await self._database.fetch(QUERIES[name], parameters)
        except (ConnectionLost, TryAgain, StatementRefused) as error:
            raise _away(error) from None


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"the queue of calls did not answer: {type(error).__name__}")


def _cut_off(waiting: "Waiting[Any, bool]") -> None:
    waiting.fail(Unavailable("the worker is ending"))
