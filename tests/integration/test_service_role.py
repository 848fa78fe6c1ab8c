"""MIGRATION_DATABASE_URL owns the tables, DATABASE_URL only uses them: all that the service does, and no change of what
is append-only."""

import asyncio
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from rigs.changes import change_of, create
from rigs.counted import CountedMetrics
from rigs.store_worker import Worker, working
from rigs.stores import KEY
from servers.postgres import execute

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.migrate import migrate, pending
from payment_service.core.audit import AuditEntry
from payment_service.core.errors import Refused
from payment_service.core.ports import Committed

DENIED = psycopg2.errors.InsufficientPrivilege


@pytest.fixture
def service_url(empty_database_url: str) -> Iterator[str]:
    """A role of its own that owns nothing, after the owner migrated for it."""
    role, password = f"service_{secrets.token_hex(4)}", secrets.token_hex(16)
    execute(empty_database_url, f"create role {role} login password '{password}'")
    parts = urlsplit(empty_database_url)
    place = f"{role}:{password}@{parts.hostname}:{parts.port}"
    url = urlunsplit((parts.scheme, place, parts.path, parts.query, ""))
    try:
        asyncio.run(migrate(empty_database_url, service_dsn=url))
        yield url
    finally:
        execute(empty_database_url, f"drop owned by {role}")
        execute(empty_database_url, f"drop role {role}")


async def _works(url: str) -> None:
    async with working(url) as worker:
        assert isinstance(worker, Worker)
        assert await worker.store.commit(change_of(create("o1", charge=True))) is Committed.COMMITTED
        log = PostgresAuditLog(worker.database, chain_key(KEY), "w", SystemClock(), CountedMetrics())
        log.record(AuditEntry(1, "payment.create", "OK", "user:u1"))
        await log.flush()
        await log.close()
    assert await pending(url) == []


def test_the_service_works_and_changes_nothing_append_only(service_url: str) -> None:
    asyncio.run(_works(service_url))
    for table in ("audit_log", "payment_events"):
        assert execute(service_url, f"select count(*) > 0 from payment_service.{table}") == [(True,)]
        column = "hash"
        for what in (
            f"update payment_service.{table} set {column} = ''", f"delete from payment_service.{table}",
            f"truncate payment_service.{table}", f"alter table payment_service.{table} disable trigger all",
            f"drop table payment_service.{table}",
        ):  # fmt: skip
            with pytest.raises(DENIED):
                execute(service_url, what)
    for what in (
        "delete from payment_service.schema_migrations",
        "create table payment_service.mine (id int)",
        "create or replace function payment_service.refuse_change() returns trigger language plpgsql as 'begin end'",
        "select payment_service.grant_to_service('postgres')",
    ):
        with pytest.raises(DENIED):
            execute(service_url, what)


def test_the_grant_is_for_what_is_there_not_for_the_triggers_alone(service_url: str, empty_database_url: str) -> None:
    """Also with the triggers off, the role may not: the two hold apart from each other."""
    asyncio.run(_works(service_url))
    execute(empty_database_url, "alter table payment_service.audit_log disable trigger all")
    with pytest.raises(DENIED, match="permission denied"):
        execute(service_url, "delete from payment_service.audit_log")


async def test_a_role_that_does_not_exist_is_told(empty_database_url: str) -> None:
    with pytest.raises(Refused, match="does not exist"):
        await migrate(empty_database_url, service_dsn="postgresql://nobody_such@127.0.0.1/x")
