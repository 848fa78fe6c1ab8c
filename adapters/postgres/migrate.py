"""Forward-only migrations: every file of migrations/ once, in the order of its name, under an advisory lock.

Room: adapters/postgres. One transaction a file. A file that was applied may never change: its checksum is kept.
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from importlib import resources

import aiopg
import psycopg2
from psycopg2.extensions import parse_dsn

from payment_service.adapters.postgres.connecting import connect
from payment_service.core.errors import Refused, Unavailable

LOCK_KEY = 0x7061_796D_6967  # "paymig": two starts at once migrate one after another
CONNECT_S = 10.0
LOCK_WAIT_S = 120.0
"""How long another start that migrates is waited for."""
FILE_S = 600.0
"""Longest time one file may take."""
TABLE_LOCK_MS = 10_000
"""A migration that waits longer for a table would hold up everybody who comes after it in the queue of its lock."""
_OPTIONS = f"-c lock_timeout={TABLE_LOCK_MS} -c statement_timeout=0 -c idle_in_transaction_session_timeout=60000"
_NAME = re.compile(r"[0-9]{4}_[a-z0-9_]+\.sql")


def migration_files() -> list[tuple[str, str]]:
    """(name, text) in order. Raises ValueError for a file whose name does not fit or a number used twice."""
    return checked_files(
        (entry.name, entry.read_text("utf-8"))
        for entry in resources.files("payment_service.migrations").iterdir()
        if entry.name.endswith(".sql")
    )


def checked_files(files: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    found = sorted(files)
    for name, _ in found:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"migration {name}: the name must look like 0001_what_it_does.sql")
    numbers = [name[:4] for name, _ in found]
    if len(set(numbers)) != len(numbers):
        raise ValueError("two migrations have the same number")
    return found


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def _applied(cursor: aiopg.Cursor) -> dict[str, str]:
    await cursor.execute("select to_regclass('payment_service.schema_migrations')")
    (table,) = await cursor.fetchone()
    if table is None:
        return {}
    await cursor.execute("select name, checksum from payment_service.schema_migrations")
    return dict(await cursor.fetchall())


def _missing(applied: dict[str, str], files: list[tuple[str, str]]) -> list[tuple[str, str]]:
    missing = []
    for name, text in files:
        if name not in applied:
            missing.append((name, text))
        elif applied[name] != _checksum(text):
            raise Refused(f"migration {name} was changed after it had been applied", code="INTERNAL_ERROR")
    return missing


@contextlib.asynccontextmanager
async def _cursor(dsn: str) -> AsyncIterator[aiopg.Cursor]:
    """Raises Unavailable for whatever goes wrong with the connection, Refused for a statement that fails."""
    try:
        connection = await connect(dsn, CONNECT_S, options=_OPTIONS, application_name="payment-service migrate")
    except (psycopg2.Error, TimeoutError, OSError):
        raise Unavailable("the database is away") from None
    try:
        async with connection.cursor(timeout=FILE_S) as cursor:
            yield cursor
    except psycopg2.Error as error:
        if error.pgcode is None or connection.closed:
            raise Unavailable("the connection to the database broke") from None
        what = (error.diag.message_primary or "").strip()
        raise Refused(f"the database refuses: {what} (SQLSTATE {error.pgcode})", code="INTERNAL_ERROR") from None
    except TimeoutError:
        raise Unavailable("the database took too long") from None
    finally:
        connection.close()


async def pending(dsn: str) -> list[str]:
    """Names of the files that are not applied yet. Raises Unavailable, Refused (a file was changed)."""
    files = migration_files()
    async with _cursor(dsn) as cursor:
        return [name for name, _ in _missing(await _applied(cursor), files)]


async def migrate(dsn: str, files: list[tuple[str, str]] | None = None, *, service_dsn: str | None = None) -> list[str]:
    """Apply what is missing; returns the names. Raises Unavailable, Refused (a file was changed, or fails).

    `service_dsn`: how the service connects. If that is with another role, it is granted what the service does, which
    is not to change what is append-only (0004_audit_log.sql).

    Idempotent by the table schema_migrations. Two at once: the second waits, then finds nothing to do.
    """
    files = migration_files() if files is None else files
    done: list[str] = []
    async with _cursor(dsn) as cursor:
        await _lock(cursor)
        await cursor.execute("create schema if not exists payment_service")
        await cursor.execute(
            "create table if not exists payment_service.schema_migrations ("
            "name text primary key, checksum text not null, applied_at timestamptz not null default now())"
        )
        for name, text in _missing(await _applied(cursor), files):
            mark = cursor.mogrify(
                "insert into payment_service.schema_migrations (name, checksum) values (%s, %s)",
                (name, _checksum(text)),
            )
            # The file and its mark are there together or not at all.
            await cursor.execute(f"begin;\n{text}\n;{mark.decode()};\ncommit")
            done.append(name)
        if service_dsn is not None:
            await _grant(cursor, parse_dsn(service_dsn).get("user"))
    return done


async def _grant(cursor: aiopg.Cursor, role: str | None) -> None:
    await cursor.execute("select current_user")
    ((owner,),) = await cursor.fetchall()
    if role is not None and role != owner:
        await cursor.execute("select payment_service.grant_to_service(%s)", (role,))


async def _lock(cursor: aiopg.Cursor) -> None:
    """Asked for again and again, not waited for in one statement: lock_timeout would end that."""
    deadline = asyncio.get_running_loop().time() + LOCK_WAIT_S
    while True:
        await cursor.execute("select pg_try_advisory_lock(%s)", (LOCK_KEY,))
        ((got,),) = await cursor.fetchall()
        if got:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise Unavailable("somebody else is migrating")
        await asyncio.sleep(0.2)
