"""The database connection: one small aiopg pool, and the one edge at which the driver's errors are translated.

Room: adapters/postgres. aiopg's traps (design §9): a timed-out or cancelled execute closes its connection, which may be
in the middle of a commit, so the server has no `statement_timeout` of its own, and a role's one is switched off; one
connection runs one statement at a time.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import aiopg
import psycopg2
from psycopg2 import errorcodes

from payment_service.adapters.postgres.connecting import AddressPool
from payment_service.core.errors import Unavailable

GENERAL_SIZE = 4
HOT_SIZE = 4
"""Connections apart, for the store's writers and batched readers: a slow list never holds up a commit."""
PREPARED_MAX = 64
"""Prepared statements a hot connection keeps; what is beyond is planned each time."""
CLOSE_S = 1.0
CONNECT_S = 5.0
"""Longest wait for a free or a new connection."""
STATEMENT_S = 20.0
"""Longest time one statement may take; then its connection is closed and what it did is unknown."""
ORPHAN_CHECK_MS = 2000
"""How soon the server notices that nobody waits for a statement any more, and stops it."""
LOCK_TIMEOUT_MS = 1000
IDLE_IN_TRANSACTION_MS = 10_000
RETRY_AFTER_S = 2.0
SESSION_OPTIONS = (
    f"-c lock_timeout={LOCK_TIMEOUT_MS} -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} "
    f"-c client_connection_check_interval={ORPHAN_CHECK_MS} "
    "-c statement_timeout=0 -c jit=off -c timezone=UTC -c standard_conforming_strings=on"
)
"""jit=off: our statements are short, and compiling one takes longer than running it."""
HOT_OPTIONS = f"{SESSION_OPTIONS} -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
"""Hot statements are prepared: planning one anew costs 0.4 ms, more than running it (measured). Their plans live as
long as the connection, so one made while a table is small must still be right when it has grown: every access in them
is by key, and none may become a scan."""

COMPLETION_UNKNOWN = errorcodes.STATEMENT_COMPLETION_UNKNOWN
"""40003: the server itself does not know whether it was committed."""
_TRY_AGAIN = frozenset({errorcodes.DEADLOCK_DETECTED, errorcodes.SERIALIZATION_FAILURE, errorcodes.LOCK_NOT_AVAILABLE})
_CONTENT = frozenset({"22", "23", "54"})
"""SQLSTATE classes that are about the values of a statement: data exception, constraint, limit exceeded."""


_log = logging.getLogger(__name__)


class ConnectionLost(Exception):
    """The connection broke while a statement was under way: it may have been committed."""


class TryAgain(Exception):
    """Deadlock, serialization failure or lock time-out: nothing happened, and it may work next time."""


class StatementRefused(Exception):
    """The database says no to what the statement contains; nothing happened.

    `code` is its SQLSTATE, `constraint` the name of the constraint in the way. No value is ever in it.
    """

    def __init__(self, code: str, constraint: str | None = None) -> None:
        super().__init__(f"SQLSTATE {code} {constraint or ''}".rstrip())
        self.code = code
        self.constraint = constraint

    @property
    def is_data(self) -> bool:
        """A value cannot be stored (class 22, data exception)."""
        return self.code.startswith("22")


class Database:
    """Runs statements, each committed by itself (autocommit). Connects by itself, also after a restart."""

    def __init__(self, dsn: str, *, application_name: str = "payment-service", size_max: int = GENERAL_SIZE) -> None:
        self._dsn = dsn
        self._name = application_name
        self._size_max = size_max
        self.on_statement: Callable[[str, float], None] | None = None
        """Told of each statement that was answered: its text, and the seconds it took."""
        self._pools: dict[bool, aiopg.Pool] = {}
        self._closed = False
        self._prepared: WeakKeyDictionary[aiopg.Connection, dict[str, str]] = WeakKeyDictionary()

    async def close(self) -> None:
        """For good. Whoever still connects or waits for a connection is not waited for longer than CLOSE_S."""
        self._closed = True
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await pool.wait_closed()

    async def fetch(
        self, query: str, parameters: Sequence[Any] = (), timeout_s: float = STATEMENT_S, *, hot: bool = False
    ) -> list[Any]:
        """All rows of one statement. `hot`: on connections of its own, prepared there once for each text.

        Raises: Unavailable (nothing happened), ConnectionLost, TryAgain, StatementRefused.
        """
        pool, connection = await self._acquire(hot)
        try:
            async with connection.cursor(timeout=timeout_s) as cursor:
                text = self._prepared_text(connection, query, len(parameters)) if hot and parameters else query
                started_s = monotonic()
                await cursor.execute(text, parameters or None)
                rows = list(await cursor.fetchall()) if cursor.description is not None else []
                if self.on_statement is not None:
                    self.on_statement(query, monotonic() - started_s)
                return rows
        except psycopg2.Error as error:
            raise _translated(error, connection) from None
        except (TimeoutError, OSError):
            connection.close()
            raise ConnectionLost("no answer in time") from None
        except asyncio.CancelledError:
            connection.close()
            raise
        finally:
            # Also to a pool that was closed meanwhile, which waits for it. Not awaited: what it returns only wakes the
            # next one who waits, and a cancellation of ours must not be mistaken for one of the statement.
            pool.release(connection)

    async def fetch_again(
        self, query: str, parameters: Sequence[Any] = (), timeout_s: float = STATEMENT_S, *, tries: int,
        hot: bool = False, away: str = "the database is away",
    ) -> list[Any]:  # fmt: skip
        """`fetch` for a statement that may simply be repeated when its connection breaks, at most `tries` times.

        Raises: Unavailable (with the text `away` when no try had an answer), StatementRefused.
        """
        for _ in range(tries):
            try:
                return await self.fetch(query, parameters, timeout_s, hot=hot)
            except (ConnectionLost, TryAgain):
                continue
        raise Unavailable(away)

    def _prepared_text(self, connection: aiopg.Connection, query: str, count: int) -> str:
        """What executes `query`, prepared at its first use on this connection, in the same message: a statement that
        is lost was sent as a whole or not at all. The name is kept also when that first use fails on its values: the
        server keeps what it has prepared. A message that failed before it was prepared costs its connection."""
        known = self._prepared.setdefault(connection, {})
        name = known.get(query)
        call = f"({', '.join(['%s'] * count)})"
        if name is not None:
            return f"execute {name} {call}"
        if len(known) >= PREPARED_MAX:
            return query
        name = known[query] = f"hot_{len(known)}"
        first, *rest = query.split("%s")
        numbered = first + "".join(f"${number}{piece}" for number, piece in enumerate(rest, 1))
        return f"prepare {name} as {numbered}; execute {name} {call}"

    async def _acquire(self, hot: bool) -> tuple[aiopg.Pool, aiopg.Connection]:
        if self._closed:
            raise Unavailable("the worker is ending", retry_after_s=RETRY_AFTER_S)
        try:
            pool = self._pools.get(hot)
            if pool is None:
                pool = self._pools[hot] = AddressPool(
                    self._dsn,
                    minsize=0,
                    maxsize=HOT_SIZE if hot else self._size_max,
                    timeout=CONNECT_S,
                    pool_recycle=-1,
                    enable_json=False,
                    enable_hstore=False,
                    enable_uuid=False,
                    echo=False,
                    on_connect=None,
                    options=HOT_OPTIONS if hot else SESSION_OPTIONS,
                    application_name=self._name,
                    client_encoding="UTF8",
                    keepalives=1,
                    keepalives_idle=10,
                    keepalives_interval=3,
                    keepalives_count=3,
                    tcp_user_timeout=15_000,
                )
            return pool, await pool.acquire()
        except (psycopg2.Error, TimeoutError, OSError) as error:
            _log.warning("no connection to the database: %s", type(error).__name__)
            raise Unavailable("the database is away", retry_after_s=RETRY_AFTER_S) from None


def _translated(error: psycopg2.Error, connection: aiopg.Connection) -> Exception:
    code = error.pgcode
    if code is None or connection.closed or code[:2] in ("08", "57") or code == COMPLETION_UNKNOWN:
        # Class 57: the server is told to stop; whether our statement was committed before is open.
        connection.close()
        return ConnectionLost(type(error).__name__)
    if code in _TRY_AGAIN:
        return TryAgain(code)
    if code[:2] in _CONTENT:
        return StatementRefused(code, error.diag.constraint_name)
    # Disk full, read-only after a fail-over, no such table, no permission: the same for every statement, and nothing
    # happened. The connection goes too: the next one may find a server that can.
    connection.close()
    _log.error("the database cannot work: %s, SQLSTATE %s", type(error).__name__, code)
    return Unavailable("the database cannot work", retry_after_s=RETRY_AFTER_S)
