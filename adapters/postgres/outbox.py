"""Owning shards of the outbox: who may publish which payments' events, and the rows themselves.

Room: adapters/postgres. A shard is owned by a session advisory lock on ONE dedicated connection. LISTEN, reads and
deletes run on it too, so losing it ends ownership at once. `idle_session_timeout` frees the locks of a process that
was stopped (seen: it keeps them otherwise); `tick` each second keeps the session alive, and a process that slept
longer than the time-out knows by its clock that it owns nothing, before the broken connection tells it.
Other work that only one worker may do holds a lock here as well: `want`, then `holds`.
"""

import asyncio
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import aiopg
import psycopg2

from payment_service.adapters.clock import SystemClock
from payment_service.adapters.postgres.connecting import connect
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Clock, OutboxRow

SHARD_LOCKS = 0x7061_796F
"""First key of the advisory locks of shards; the second is the shard."""
WORKER_LOCKS = 0x7061_7977
"""First key of the shared locks by which workers are counted; the second says which: PUBLISHING or ALIVE."""
PUBLISHING, ALIVE = 0, 1
ROLE_LOCKS = 0x7061_7972
"""First key of the locks of work that one worker does for all; the second is made from its name."""
IDLE_SESSION_S = 10
CONNECT_S = 5.0
STATEMENT_S = 8.0
"""Shorter than IDLE_SESSION_S: a connection that does not answer is given up before the server frees its locks."""
READ_ROWS_MAX = 2_000
"""Rows in one read, over all shards."""
READ_SHARD_ROWS_MIN = 50
DELETE_ROWS_MAX = 2_000
"""Keys in one delete; its arguments are formatted on the event loop."""
HAND_OVER_S = 5.0
"""A shard that is given to another worker is let go when nothing of it is under way, or after this time."""
CHANNEL = "payment_outbox"

_SESSION = (
    # A lost delete means that an event is sent twice, which is allowed: not worth a disk write for each batch.
    "-c synchronous_commit=off "
    # The server's side of a stopped peer: it may hang in a write to us, where no idle time-out counts.
    f"-c tcp_user_timeout={IDLE_SESSION_S * 1000} -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 "
    f"-c tcp_keepalives_count=3 -c idle_session_timeout={IDLE_SESSION_S}s -c statement_timeout=0 -c lock_timeout=2000 "
    "-c jit=off -c timezone=UTC"
)


class OutboxConnection:
    """Every method raises Unavailable when the connection is lost; then nothing is owned any more."""

    def __init__(self, dsn: str, shards: int, clock: Clock | None = None) -> None:
        self._dsn = dsn
        self.shards = shards
        self._clock = clock or SystemClock()
        self._connection: aiopg.Connection | None = None
        self._cursor: aiopg.Cursor | None = None
        self._busy = asyncio.Lock()
        self._held: set[int] = set()
        self._leaving: dict[int, float] = {}  # shard -> until when it waits for what is under way
        self._owned: frozenset[int] = frozenset()
        self._counted = False  # as one of the workers that share the shards
        self._roles: dict[str, bool] = {}
        self.workers = 1
        """Those that are alive, this one too, as they were last counted: what they share is divided by them."""
        self._answered_at = -math.inf
        self.lost = asyncio.Event()
        self.lost.set()

    @property
    def owned(self) -> frozenset[int]:
        """The shards whose events this process publishes now."""
        if not self._owned or self._clock.monotonic_s() - self._answered_at > IDLE_SESSION_S:
            return frozenset()
        return self._owned

    def want(self, role: str) -> None:
        """Try from now on to be the one worker that does this. Limits: named in code, a handful."""
        self._roles.setdefault(role, False)

    def holds(self, role: str) -> bool:
        """We are that worker. Ask again before each step: it may end at any time."""
        return self._roles.get(role, False) and self._clock.monotonic_s() - self._answered_at <= IDLE_SESSION_S

    async def open(self) -> None:
        await self.close()
        try:
            connection = await connect(
                self._dsn, CONNECT_S, options=_SESSION, application_name="payment-service outbox", keepalives=1,
                keepalives_idle=5, keepalives_interval=2, keepalives_count=3, tcp_user_timeout=IDLE_SESSION_S * 1000,
            )  # fmt: skip
            self._connection = connection
            self._cursor = await connection.cursor(timeout=STATEMENT_S)
        except (psycopg2.Error, TimeoutError, OSError):
            raise Unavailable("the database is away") from None
        self.lost.clear()
        await self._run(f"listen {CHANNEL}")
        await self._run("select pg_advisory_lock_shared(%s, %s)", (WORKER_LOCKS, ALIVE))

    async def close(self) -> None:
        connection, self._connection, self._cursor = self._connection, None, None
        self._give_up()
        if connection is not None:
            connection.close()

    # --- owning ----------------------------------------------------------------------------------------------

    async def tick(self, under_way: Callable[[int], bool], *, able: bool) -> frozenset[int]:
        """Once a second: take free shards up to a fair share, let go what is above it. Returns those let go.

        `able` False: we cannot publish now, so our share is nothing and the others' is larger.
        """
        if able is not self._counted:
            lock = "pg_advisory_lock_shared" if able else "pg_advisory_unlock_shared"
            await self._run(f"select {lock}(%s, %s)", (WORKER_LOCKS, PUBLISHING))
            self._counted = able
        locks = await self._run(QUERIES["outbox_locks"], (SHARD_LOCKS, WORKER_LOCKS))
        counted = [which for space, which, _ in locks if space == WORKER_LOCKS]
        self.workers = max(1, counted.count(ALIVE))
        workers = max(1, counted.count(PUBLISHING))
        self._held = {shard for space, shard, mine in locks if space == SHARD_LOCKS and mine}
        taken = {shard for space, shard, _ in locks if space == SHARD_LOCKS}
        share = math.ceil(self.shards / workers) if able else 0
        let_go = await self._hand_over(share, under_way)
        free = [shard for shard in range(self.shards) if shard not in taken][: max(0, share - len(self._held))]
        if free:
            rows = await self._run(
                "select s, pg_try_advisory_lock(%s, s) from unnest(%s::int[]) s", (SHARD_LOCKS, free)
            )
            self._held |= {shard for shard, got in rows if got}
        self._owned = frozenset(self._held) - self._leaving.keys()
        await self._take_roles()
        return let_go

    async def _hand_over(self, share: int, under_way: Callable[[int], bool]) -> frozenset[int]:
        """First stop acting as the owner, then wait for what is under way, then unlock: nothing is sent twice."""
        now = self._clock.monotonic_s()
        surplus = sorted(self._held)[share:]
        self._leaving = {shard: self._leaving.get(shard, now + HAND_OVER_S) for shard in surplus}
        self._owned = frozenset(self._held) - self._leaving.keys()
        gone = [shard for shard, until in self._leaving.items() if until <= now or not under_way(shard)]
        if gone:
            await self._run("select pg_advisory_unlock(%s, s) from unnest(%s::int[]) s", (SHARD_LOCKS, gone))
            self._held.difference_update(gone)
            for shard in gone:
                del self._leaving[shard]
        return frozenset(gone)

    async def _take_roles(self) -> None:
        for role, held in self._roles.items():
            if not held:
                key = zlib.crc32(role.encode()) & 0x7FFFFFFF
                ((got,),) = await self._run("select pg_try_advisory_lock(%s, %s)", (ROLE_LOCKS, key))
                self._roles[role] = got

    # --- rows ------------------------------------------------------------------------------------------------

    async def read(self, after: Mapping[int, str]) -> tuple[list[OutboxRow], int]:
        """Rows of these shards in (shard, payment, sequence) order, each shard from the first payment after the one
        named, and how many of one shard there can be at most.

        A read never starts in the middle of a payment: what comes first of a payment is its oldest row there is.
        """
        limit = max(READ_SHARD_ROWS_MIN, READ_ROWS_MAX // max(1, len(after)))
        rows = await self._run(QUERIES["read_outbox"], (list(after), list(after.values()), limit))
        return [
            OutboxRow(shard, payment_id, sequence, topic, at_ms, traceparent, bytes(value))
            for shard, payment_id, sequence, topic, at_ms, traceparent, value in rows
        ], limit

    async def delete(self, keys: Sequence[tuple[str, int]]) -> None:
        """After the broker's ack, and only then. At most DELETE_ROWS_MAX."""
        await self._run(QUERIES["delete_outbox"], ([key[0] for key in keys], [key[1] for key in keys]))

    async def depth(self) -> tuple[int, float]:
        """(rows, age of the oldest in seconds), of all shards. Counts no further than the query's limit."""
        ((count, age_s),) = await self._run(QUERIES["outbox_depth"])
        return int(count), float(age_s)

    async def notified(self) -> Iterable[int]:
        """Waits until somebody committed rows that we have to read: their shards. Raises Unavailable at once when the
        connection breaks."""
        connection = self._connection
        if connection is None:
            raise Unavailable("the outbox connection is closed")
        try:
            notice = await connection.notifies.get()
        except psycopg2.Error:
            if connection is self._connection:
                await self.close()
            raise Unavailable("the outbox connection was lost") from None
        return [int(shard) for shard in notice.payload.split(",") if shard.isdigit()]

    # --- the connection --------------------------------------------------------------------------------------

    def _give_up(self) -> None:
        self._held.clear()
        self._leaving.clear()
        self._owned = frozenset()
        self._counted = False
        self._roles = dict.fromkeys(self._roles, False)
        self.lost.set()

    async def _run(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        async with self._busy:
            cursor, connection = self._cursor, self._connection
            if cursor is None or connection is None or connection.closed:
                self._give_up()
                raise Unavailable("the outbox connection was lost")
            asked_at = self._clock.monotonic_s()
            try:
                await cursor.execute(query, parameters or None)
                rows = list(await cursor.fetchall()) if cursor.description is not None else []
            except (psycopg2.Error, TimeoutError, OSError):
                self._give_up()
                connection.close()
                raise Unavailable("the outbox connection was lost") from None
            except asyncio.CancelledError:
                self._give_up()  # an execute that was cancelled has closed its connection
                connection.close()
                raise
            self._answered_at = asked_at
            return rows
