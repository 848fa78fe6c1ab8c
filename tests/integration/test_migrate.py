"""Migrations: from nothing to the newest, once, whoever starts at the same time; and what is refused."""

import asyncio

import pytest
from servers.postgres import execute

from payment_service.adapters.postgres.migrate import checked_files, migrate, migration_files, pending
from payment_service.core.errors import Refused, Unavailable

NAMES = [name for name, _ in migration_files()]
MORE = ("9998_more.sql", "create table payment_service.more (x int);\ninsert into payment_service.more values (1)")
BROKEN = ("9999_broken.sql", "create table payment_service.half (x int);\nselect 1 / 0")


def applied(url: str) -> list[object]:
    return [name for (name,) in execute(url, "select name from payment_service.schema_migrations order by name")]


async def test_everything_is_applied_once(empty_database_url: str) -> None:
    assert NAMES
    assert await pending(empty_database_url) == NAMES
    assert await migrate(empty_database_url) == NAMES
    assert await pending(empty_database_url) == []
    assert await migrate(empty_database_url) == []
    assert applied(empty_database_url) == NAMES


async def test_two_starts_at_once_migrate_once(empty_database_url: str) -> None:
    done = await asyncio.gather(*[migrate(empty_database_url) for _ in range(4)])
    assert sorted(name for names in done for name in names) == NAMES


async def test_a_new_file_is_applied_after_the_old_ones(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    assert await migrate(empty_database_url, [*migration_files(), MORE]) == [MORE[0]]
    assert execute(empty_database_url, "select x from payment_service.more") == [(1,)]


async def test_a_file_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    with pytest.raises(Refused, match="division by zero"):
        await migrate(empty_database_url, [*migration_files(), MORE, BROKEN])
    assert applied(empty_database_url) == [*NAMES, MORE[0]]
    assert execute(empty_database_url, "select to_regclass('payment_service.half')") == [(None,)]


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(empty_database_url: str) -> None:
    await migrate(empty_database_url, [*migration_files(), MORE])
    with pytest.raises(Refused, match=r"9998_more\.sql was changed"):
        await migrate(empty_database_url, [*migration_files(), (MORE[0], MORE[1] + " ")])


async def test_a_database_that_is_away_is_unavailable() -> None:
    for ask in (migrate, pending):
        with pytest.raises(Unavailable):
            await ask("postgresql://nobody@127.0.0.1:1/nothing")


@pytest.mark.parametrize("name", ["1_short.sql", "0001-dash.sql", "0001_Upper.sql", "0001_.txt.sql"])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        checked_files([(name, "")])


def test_a_number_is_used_once() -> None:
    with pytest.raises(ValueError, match="same number"):
        checked_files([("0001_a.sql", ""), ("0001_b.sql", "")])


@pytest.mark.parametrize(("name", "text"), migration_files())
def test_every_file_says_when_it_runs(name: str, text: str) -> None:
    assert text.startswith(("-- pre-deploy", "-- post-deploy")), name
