"""Forward-only migrations: every file of migrations/ once, in the order of its name, under an advisory lock.

Room: adapters/postgres. One transaction a file. A file that was applied may never change: its checksum is kept.
"""

import hashlib
import re
from importlib import resources

import aiopg
import psycopg2

from payment_service.core.errors import Refused, Unavailable

LOCK_KEY = 0x7061_796D_6967  # "paymig": two starts at once migrate one after another
LOCK_WAIT_S = 120.0
FILE_S = 600.0
"""Longest time one file may take."""
_NAME = re.compile(r"[0-9]{4}_[a-z0-9_]+\.sql")


def migration_files() -> list[tuple[str, str]]:
    """(name, text) in order. Raises ValueError for a file whose name does not fit or a number used twice."""
    found = sorted(
        (entry.name, entry.read_text("utf-8"))
        for entry in resources.files("payment_service.migrations").iterdir()
        if entry.name.endswith(".sql")
    )
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
    return {name: checksum for name, checksum in await cursor.fetchall()}


def _missing(applied: dict[str, str]) -> list[tuple[str, str]]:
    missing = []
    for name, text in migration_files():
        if name not in applied:
            missing.append((name, text))
        elif applied[name] != _checksum(text):
            raise Refused(f"migration {name} was changed after it had been applied", code="INTERNAL_ERROR")
    return missing


async def _connect(dsn: str) -> aiopg.Connection:
    try:
        return await aiopg.connect(dsn, timeout=FILE_S, application_name="payment-service migrate")
    except (psycopg2.Error, TimeoutError, OSError):
        raise Unavailable("the database is away") from None


async def pending(dsn: str) -> list[str]:
    """Names of the files that are not applied yet. Raises Unavailable, Refused (a file was changed)."""
    async with await _connect(dsn) as connection, connection.cursor() as cursor:
        return [name for name, _ in _missing(await _applied(cursor))]


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing; returns the names. Raises Unavailable, Refused (a file was changed).

    Idempotent by the table schema_migrations. Two at once: the second waits, then finds nothing to do.
    """
    done: list[str] = []
    async with await _connect(dsn) as connection, connection.cursor() as cursor:
        await cursor.execute("select pg_advisory_lock(%s)", (LOCK_KEY,), timeout=LOCK_WAIT_S)
        await cursor.execute("create schema if not exists payment_service")
        await cursor.execute(
            "create table if not exists payment_service.schema_migrations ("
            "name text primary key, checksum text not null, applied_at timestamptz not null default now())"
        )
        for name, text in _missing(await _applied(cursor)):
            # One simple query is one transaction: the file and its mark are there together or not at all.
            mark = cursor.mogrify(
                "insert into payment_service.schema_migrations (name, checksum) values (%s, %s)",
                (name, _checksum(text)),
            )
            await cursor.execute(f"begin;\n{text}\n;{mark.decode()};\ncommit")
            done.append(name)
    return done
