"""The database connection: one small aiopg pool, and the one edge at which the driver's errors are translated.

Room: adapters/postgres. aiopg's traps (design §9): a server `statement_timeout` arrives as CancelledError, so none is
set here; a timed-out or cancelled execute closes its connection, which may be in the middle of a commit; one
connection runs one statement at a time.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import aiopg
import psycopg2
from psycopg2 import errorcodes

from payment_service.core.errors import Unavailable

POOL_SIZE_MAX = 8
CONNECT_S = 5.0
"""Longest wait for a free or a new connection."""
STATEMENT_S = 20.0
"""Longest time one statement may take; then its connection is closed and what it did is unknown."""
LOCK_TIMEOUT_MS = 1000
IDLE_IN_TRANSACTION_MS = 10_000
RETRY_AFTER_S = 2.0
SESSION_OPTIONS = (
    f"-c lock_timeout={LOCK_TIMEOUT_MS} -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} "
    "-c statement_timeout=0 -c jit=off -c timezone=UTC"
)
"""jit=off: our statements are short, and compiling one takes longer than running it."""

_TRY_AGAIN = frozenset(
    {errorcodes.DEADLOCK_DETECTED, errorcodes.SERIALIZATION_FAILURE, errorcodes.LOCK_NOT_AVAILABLE}
)


class ConnectionLost(Exception):
    """The connection broke while a statement was under way: it may have been committed."""


class TryAgain(Exception):
    """Deadlock, serialization failure or lock time-out: nothing happened, and it may work next time."""


class StatementRefused(Exception):
    """The database says no to what the statement contains; nothing happened. `code` is its SQLSTATE."""

    def __init__(self, code: str) -> None:
        super().__init__(f"SQLSTATE {code}")
        self.code = code


class Database:
    """Runs statements, each committed by itself (autocommit). Connects by itself, also after a restart."""

    def __init__(self, dsn: str, *, application_name: str = "payment-service", size_max: int = POOL_SIZE_MAX) -> None:
        self._dsn = dsn
        self._name = application_name
        self._size_max = size_max
        self._pool: aiopg.Pool | None = None

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            await self._pool.wait_closed()
            self._pool = None

    async def fetch(self, query: str, parameters: Sequence[Any] = (), timeout_s: float = STATEMENT_S) -> list[Any]:
        """All rows of one statement.

        Raises: Unavailable (no connection, nothing was sent), ConnectionLost, TryAgain, StatementRefused.
        """
        connection = await self._acquire()
        pool = self._pool
        assert pool is not None
        try:
            async with connection.cursor(timeout=timeout_s) as cursor:
                await cursor.execute(query, parameters or None)
                return list(await cursor.fetchall()) if cursor.description is not None else []
        except psycopg2.Error as error:
            raise _translated(error, connection) from None
        except (TimeoutError, OSError):
            raise ConnectionLost("no answer in time") from None
        except asyncio.CancelledError:
            connection.close()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ConnectionLost("the statement was cancelled by the server") from None
        finally:
            if pool is self._pool:
                await pool.release(connection)

    async def _acquire(self) -> aiopg.Connection:
        try:
            if self._pool is None:
                self._pool = await aiopg.create_pool(
                    self._dsn,
                    minsize=0,
                    maxsize=self._size_max,
                    timeout=CONNECT_S,
                    pool_recycle=-1,
                    enable_json=False,
                    enable_hstore=False,
                    enable_uuid=False,
                    options=SESSION_OPTIONS,
                    application_name=self._name,
                    keepalives=1,
                    keepalives_idle=10,
                    keepalives_interval=3,
                    keepalives_count=3,
                    tcp_user_timeout=15_000,
                )
            return await self._pool.acquire()
        except (psycopg2.Error, TimeoutError, OSError):
            raise Unavailable("the database is away", retry_after_s=RETRY_AFTER_S) from None


def _translated(error: psycopg2.Error, connection: aiopg.Connection) -> Exception:
    code = error.pgcode
    if code is None or connection.closed or code[:2] in ("08", "57"):
        # Class 57: the server is told to stop; whether our statement was committed before is open.
        connection.close()
        return ConnectionLost(type(error).__name__)
    if code in _TRY_AGAIN:
        return TryAgain(code)
    return StatementRefused(code)
