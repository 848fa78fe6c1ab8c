"""What a person decides reaches the order service and the cache as what a worker commits does."""

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner
from redis import Redis
from rigs.changes import answer, change_of, charge
from rigs.store_worker import working
from servers.postgres import execute as sql
from servers.redis import RedisServer

from payment_service.cli import main as entry
from payment_service.core.ids import payment_id_of
from payment_service.core.terms import Verdict

PID = payment_id_of("o1")


async def _unknown_charge(url: str) -> None:
    async with working(url) as worker:
        await worker.create("o1")
        for command in (charge(PID), answer(PID, Verdict.UNKNOWN)):
            await worker.store.commit(change_of(command, await worker.store.load(PID)))


def test_a_word_and_a_mark_are_left(
    database_url: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asyncio.run(_unknown_charge(database_url))
    settings = {
        "DATABASE_URL": database_url, "ENVIRONMENT": "test", "ENCRYPTION_KEY": "k" * 32,
        "ORDER_SERVICE_URL": "http://127.0.0.1:1", "REDIS_URL": redis_server.url,
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)  # no .env of this checkout
    decision = ["--attempt", "1", "--as", "approved", "--provider-id", "ch_1", "--reason", "asked", "--operator", "eve"]
    done = CliRunner().invoke(entry.program(), ["payments", "resolve", PID, *decision], prog_name="payment-service")
    assert (done.exit_code, done.output) == (0, f"{PID} is SUCCEEDED now\n")
    ((word, version),) = sql(database_url, "select word, version from payment_service.order_updates")
    assert word == "paid"
    with Redis.from_url(redis_server.url) as redis:
        assert redis.get(f"payment-service:payment:{PID}") == f"{version}:".encode()
