"""Connecting to PostgreSQL as a worker does, on uvloop: an address that refuses, a server that goes and comes back."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiopg
import psycopg2
import pytest
import uvloop
from rigs.tcp_proxy import TcpProxy

from payment_service.adapters.embedded_process import free_port
from payment_service.adapters.postgres import connecting
from payment_service.adapters.postgres.connecting import connect
from payment_service.adapters.postgres.pool import ConnectionLost, Database
from payment_service.core.errors import Unavailable

Run = Callable[[Coroutine[Any, Any, None]], None]
QUICK_S = 3.0
"""Less than the time-out of a connection: nobody waited for what cannot come."""
LOOPS = [uvloop.run, asyncio.run]


def on_hosts(url: str, *hosts: str) -> str:
    parts = urlsplit(url)
    place = f"{parts.username}:{parts.password}@{','.join(hosts)}"
    return urlunsplit((parts.scheme, place, parts.path, parts.query, ""))


def place_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def ran(run: Run, work: Coroutine[Any, Any, None]) -> None:
    """In a thread: this one's event loop is the wrong one."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(run, work).result()


@pytest.mark.parametrize("run", LOOPS)
def test_a_task_that_is_cancelled_with_its_answer_ends(postgres_server: str, run: Run) -> None:
    """Python 3.11's wait_for gives the answer back and forgets the cancellation."""

    async def ask_for_ever(connection: aiopg.Connection) -> None:
        async with connection.cursor() as cursor:
            while True:
                await cursor.execute("select 1")

    async def work() -> None:
        connection = await connect(postgres_server, QUICK_S)
        asking = asyncio.create_task(ask_for_ever(connection))
        while connection._waiter is None:  # noqa: ASYNC110 - it appears by itself
            await asyncio.sleep(0)
        connection._waiter.add_done_callback(lambda _: asking.cancel())
        done, _ = await asyncio.wait([asking], timeout=QUICK_S)
        assert done and asking.cancelled()
        assert connection.closed  # what it had sent may have happened: nobody goes on with it

    ran(run, work())


class Closing(Database):
    async def aclose(self) -> None:
        await self.close()


@pytest.mark.parametrize("run", LOOPS)
def test_a_host_that_refuses_is_passed_over(postgres_server: str, run: Run) -> None:
    host, port = place_of(postgres_server)

    async def work() -> None:
        url = on_hosts(postgres_server, f"{host}:{free_port()}", "no.such.host.invalid:1", f"{host}:{port}")
        async with aclosing(Closing(url)) as database:
            started = time.monotonic()
            assert await database.fetch("select 1") == [(1,)]
            assert time.monotonic() - started < QUICK_S

    ran(run, work())


@pytest.mark.parametrize("run", LOOPS)
def test_a_database_that_was_away_is_found_again(postgres_server: str, run: Run) -> None:
    async def work() -> None:
        async with (
            TcpProxy(*place_of(postgres_server)) as wire,
            aclosing(Closing(on_hosts(postgres_server, f"127.0.0.1:{wire.port}"))) as database,
        ):
            assert await database.fetch("select 1") == [(1,)]
            await wire.cut()
            for _ in range(50):
                with pytest.raises((Unavailable, ConnectionLost)):
                    await database.fetch("select 1")
            await wire.mend()
            assert await database.fetch("select 1") == [(1,)]

    ran(run, work())


@pytest.mark.parametrize("run", LOOPS)
def test_a_connection_that_breaks_as_it_is_made_is_a_database_that_is_away(
    postgres_server: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True]

    async def breaking(*arguments: Any, **options: Any) -> aiopg.Connection:
        made = await connect(*arguments, **options)
        if broken:
            made.raw.close()
        return made

    monkeypatch.setattr(connecting, "connect", breaking)

    async def work() -> None:
        async with aclosing(Closing(postgres_server)) as database:
            with pytest.raises(Unavailable):
                await database.fetch("select 1")
            broken.clear()
            assert await database.fetch("select 1") == [(1,)]

    ran(run, work())


@pytest.mark.parametrize("run", LOOPS)
def test_one_that_was_given_back_and_broke_while_another_was_made_is_not_used(
    postgres_server: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with aclosing(Closing(postgres_server)) as database:
            assert await database.fetch("select 1") == [(1,)]
            pool = database._pools[False]
            given_back = pool._free.popleft()

            async def breaking(*arguments: Any, **options: Any) -> aiopg.Connection:
                pool._free.append(given_back)
                given_back.raw.close()
                return await connect(*arguments, **options)

            monkeypatch.setattr(connecting, "connect", breaking)
            assert await database.fetch("select 1") == [(1,)]

    ran(run, work())


@pytest.mark.parametrize("numbers_from", [0, 1100], ids=["few", "beyond what select can watch"])
def test_a_refused_connection_leaves_nothing_for_the_sockets_that_follow(numbers_from: int) -> None:
    """Of which a worker has many: each question to a provider may be one."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        address, taken = server.sockets[0].getsockname(), [os.dup(0) for _ in range(numbers_from)]
        try:
            for _ in range(20):
                with pytest.raises(psycopg2.Error):
                    await connect(f"postgresql://u:p@127.0.0.1:{free_port()}/x", QUICK_S)
                transport, _ = await loop.create_connection(asyncio.Protocol, *address)
                transport.close()
                with socket.socket() as plain:
                    plain.setblocking(False)
                    await loop.sock_connect(plain, address)
        finally:
            server.close()
            for number in taken:
                os.close(number)

    ran(uvloop.run, work())


@pytest.mark.parametrize("run", LOOPS)
def test_closing_waits_for_nobody(postgres_server: str, run: Run) -> None:
    """Neither for a statement whose connection was being made meanwhile, nor for those who wait for one."""

    async def work() -> None:
        async with TcpProxy(*place_of(postgres_server)) as wire:
            database = Database(on_hosts(postgres_server, f"127.0.0.1:{wire.port}"))
            asking = [asyncio.create_task(database.fetch("select pg_sleep(0.01)")) for _ in range(20)]
            await asyncio.sleep(0)
            async with asyncio.timeout(10):
                await database.close()
            await asyncio.wait(asking, timeout=10)
            for task in asking:
                assert task.done()
                assert isinstance(task.exception(), Unavailable | ConnectionLost | None), task
            with pytest.raises(Unavailable):
                await database.fetch("select 1")

    ran(run, work())


@pytest.mark.parametrize("run", LOOPS)
def test_one_that_is_closed_again_leaves_the_next_socket_of_its_number_alone(postgres_server: str, run: Run) -> None:
    async def work() -> None:
        old = await connect(postgres_server, QUICK_S)
        number = old._fileno
        old.close()
        new = await connect(postgres_server, QUICK_S)
        assert new._fileno == number
        old.close()
        async with asyncio.timeout(QUICK_S), new.cursor() as cursor:
            await cursor.execute("select 1")
            assert await cursor.fetchone() == (1,)
        new.close()

    ran(run, work())
