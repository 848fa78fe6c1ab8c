"""Sessions that were ended at one worker are ended at the others, on a real PostgreSQL that may be away meanwhile."""

import time
from collections.abc import AsyncIterator

import pytest
from servers.postgres import execute

from payment_service.adapters.clock import SystemClock
from payment_service.adapters.postgres.ended_sessions import PostgresEndedSessions
from payment_service.adapters.postgres.pool import Database

HERE, OTHER = "a" * 64, "b" * 64


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()


def sessions_at(database: Database) -> PostgresEndedSessions:
    return PostgresEndedSessions(database, SystemClock())


async def test_what_ends_at_one_worker_ends_at_the_others_and_after_a_restart(database: Database) -> None:
    first, second = sessions_at(database), sessions_at(database)
    await first.end(HERE, time.time() + 60)
    assert first.is_ended(HERE) and not first.is_ended(OTHER)
    assert not second.is_ended(HERE)
    await second.tick()
    assert second.is_ended(HERE) and not second.is_ended(OTHER)
    await second.end(HERE, time.time() + 60)
    restarted = sessions_at(database)
    await restarted.tick()
    assert restarted.is_ended(HERE)


async def test_rows_leave_when_the_session_would_have_ended(database: Database, database_url: str) -> None:
    sessions = sessions_at(database)
    await sessions.end(HERE, time.time() + 60)
    execute(database_url, "update payment_service.ended_sessions set ends_at = now() - interval '1 second'")
    await sessions.tick()
    assert not sessions.is_ended(HERE)
    assert execute(database_url, "select * from payment_service.ended_sessions") == []


async def test_it_ends_here_at_once_while_the_database_is_away_and_elsewhere_later(
    database: Database, unused_tcp_port: int
) -> None:
    away = Database(f"postgresql://127.0.0.1:{unused_tcp_port}/nowhere")
    sessions = sessions_at(away)
    await sessions.end(HERE, time.time() + 60)
    await sessions.end(OTHER, time.time() - 1)
    assert sessions.is_ended(HERE)
    await away.close()
    sessions._database = database  # it is there again
    await sessions.tick()
    assert sessions.is_ended(HERE) and not sessions.is_ended(OTHER), "that one is over by its own time"
    second = sessions_at(database)
    await second.tick()
    assert second.is_ended(HERE)
