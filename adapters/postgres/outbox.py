"""Owning shards of the outbox: who may publish which payments' events, and the rows themselves.

Room: adapters/postgres. A shard is owned by a session advisory lock on ONE dedicated connection. LISTEN, reads and
deletes run on it too, so losing it ends ownership at once. `idle_session_timeout` frees the locks of a process that
was stopped (seen: it keeps them otherwise); the owner asks something every second.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import aiopg
import psycopg2

from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.errors import Unavailable
from payment_service.core.ports import OutboxRow

SHARD_LOCKS = 0x7061_796F
"""First key of the advisory locks of shards; the second is the shard."""
WORKER_LOCKS = 0x7061_7977
"""First key of the shared lock by which workers that are alive are counted."""
IDLE_SESSION_S = 10
CONNECT_S = 5.0
STATEMENT_S = 8.0
"""Shorter than IDLE_SESSION_S: a connection that does not answer is given up before the server frees its locks."""
PAGE_MAX = 2000
"""Rows read at once."""
_OPTIONS = f"-c idle_session_timeout={IDLE_SESSION_S}s -c statement_timeout=0 -c lock_timeout=2000 -c jit=off"


class OutboxConnection:
    """The dedicated connection. Every method raises Unavailable when it is lost; then nothing is owned any more."""

    def __init__(self, dsn: str, shards: int) -> None:
        self._dsn = dsn
        self._shards = shards
        self._connection: aiopg.Connection | None = None
        self._cursor: aiopg.Cursor | None = None
        self._busy = asyncio.Lock()
        self.owned: set[int] = set()
        self.lost = asyncio.Event()

    async def open(self) -> None:
        await self.close()
        try:
            self._connection = await aiopg.connect(
                self._dsn, timeout=CONNECT_S, enable_json=False, enable_hstore=False, enable_uuid=False,
                options=_OPTIONS, application_name="payment-service outbox", keepalives=1, keepalives_idle=5,
                keepalives_interval=2, keepalives_count=3, tcp_user_timeout=8000,
            )  # fmt: skip
            self._cursor = await self._connection.cursor(timeout=STATEMENT_S)
        except (psycopg2.Error, TimeoutError, OSError):
            raise Unavailable("the database is away") from None
        self.lost.clear()
        await self._run("select pg_advisory_lock_shared(%s, 0)", (WORKER_LOCKS,))
        await self._run("listen payment_outbox")

    async def close(self) -> None:
        connection, self._connection, self._cursor = self._connection, None, None
        self._give_up()
        if connection is not None:
            connection.close()

    async def balance(self) -> tuple[set[int], set[int]]:
        """Try free shards up to a fair share, give back what is above it. Returns (gained, given back)."""
        ((live,),) = await self._run(QUERIES["count_workers"], (WORKER_LOCKS,))
        share = math.ceil(self._shards / max(1, live))
        given: set[int] = set()
        for shard in sorted(self.owned)[share:]:
            self.owned.discard(shard)  # first stop acting as its owner, then let it go
            given.add(shard)
            await self._run("select pg_advisory_unlock(%s, %s)", (SHARD_LOCKS, shard))
        wanted = [shard for shard in range(self._shards) if shard not in self.owned]
        gained: set[int] = set()
        for shard in wanted:
            if len(self.owned) >= share:
                break
            if shard in given:
                continue
            ((got,),) = await self._run("select pg_try_advisory_lock(%s, %s)", (SHARD_LOCKS, shard))
            if got:
                self.owned.add(shard)
                gained.add(shard)
        return gained, given

    async def read(self, shards: Sequence[int], after: tuple[str, int]) -> list[OutboxRow]:
        """Rows of owned shards in (payment, sequence) order, from just behind `after`; at most PAGE_MAX."""
        rows = await self._run(QUERIES["read_outbox"], (list(shards), *after, PAGE_MAX))
        return [
            OutboxRow(shard, payment_id, sequence, topic, int(at_ms), traceparent, bytes(value))
            for shard, payment_id, sequence, topic, at_ms, traceparent, value in rows
        ]

    async def delete(self, rows: Sequence[tuple[str, int]]) -> None:
        """After the broker's ack, and only then."""
        await self._run(QUERIES["delete_outbox"], ([pid for pid, _ in rows], [sequence for _, sequence in rows]))

    async def depth(self) -> tuple[int, float]:
        """(rows, age of the oldest in seconds), of all shards."""
        ((count, age_s),) = await self._run(QUERIES["outbox_depth"])
        return int(count), float(age_s)

    async def notified(self) -> None:
        """Waits until somebody committed rows for an owner to read. Raises Unavailable when the connection is lost."""
        connection = self._connection
        if connection is None:
            raise Unavailable("the outbox connection is closed")
        try:
            await connection.notifies.get()
        except psycopg2.Error:
            self._give_up()
            raise Unavailable("the outbox connection was lost") from None

    def _give_up(self) -> None:
        self.owned.clear()
        self.lost.set()

    async def _run(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        async with self._busy:
            cursor, connection = self._cursor, self._connection
            if cursor is None or connection is None or connection.closed:
                self._give_up()
                raise Unavailable("the outbox connection was lost")
            try:
                await cursor.execute(query, parameters or None)
                return list(await cursor.fetchall()) if cursor.description is not None else []
            except (psycopg2.Error, TimeoutError, OSError):
                self._give_up()
                connection.close()
                raise Unavailable("the outbox connection was lost") from None
            except asyncio.CancelledError:
                self._give_up()  # an execute that was cancelled has closed its connection
                connection.close()
                raise
