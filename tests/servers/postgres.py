"""A PostgreSQL for tests: the embedded one in a temporary folder, and fresh databases on it."""

import asyncio
import importlib
import importlib.util
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from servers.waiting import wait_until

from payment_service.adapters.embedded_database import DATABASE, SERVER_SETTINGS, EmbeddedDatabase

LOCK_WAIT_MS = 20_000
MIGRATE = "payment_service.adapters.postgres.migrate"

TEST_SETTINGS = {
    **SERVER_SETTINGS,
    "max_connections": "300",
    "shared_buffers": "256MB",
    "checkpoint_timeout": "30min",
    "max_wal_size": "2GB",
    "autovacuum_naptime": "10min",
}
"""Less background work beside the tests; fsync, full_page_writes and synchronous_commit as in production."""


@contextmanager
def temporary_postgres(settings: Mapping[str, str] = TEST_SETTINGS) -> Iterator[str]:
    """The URL of the server's own database. It ends with this process, however that ends."""
    with tempfile.TemporaryDirectory(prefix="payment-postgres-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedDatabase(Path(folder), dies_with_us=True, server_settings=settings)
        server.prepare()
        try:
            server.spawn()
            wait_until(server.is_ready, "the embedded PostgreSQL accepts connections")
            yield server.url(DATABASE)
        finally:
            server.stop()


def at_database(server_url: str, database: str) -> str:
    """The same server and user, another database."""
    parts = urlsplit(server_url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{database}", parts.query, ""))


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    """One statement outside of a transaction; its rows, if it has any. It may hold up an event loop whose own
    statement it waits for, so it does not wait for long."""
    with closing(psycopg2.connect(url, options=f"-c lock_timeout={LOCK_WAIT_MS}")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def database_on(server_url: str, template: str = "template1") -> Iterator[str]:
    """A database that nobody else has, dropped at the end with whatever is still connected to it."""
    name = f"test_{secrets.token_hex(8)}"
    execute(server_url, f'create database {name} template "{template}"')
    try:
        yield at_database(server_url, name)
    finally:
        execute(server_url, f"drop database {name} with (force)")


def migrate(url: str) -> None:
    """Run the service's own migrations, once there are any."""
    if importlib.util.find_spec(MIGRATE) is None:
        return
    run = importlib.import_module(MIGRATE).migrate
    # In a thread: pytest-asyncio's loop belongs to this one.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lambda: asyncio.run(run(url))).result()
