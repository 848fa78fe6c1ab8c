"""Every way in which a commit can go wrong, with a second connection, a wire that breaks and a server that stops."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiopg
import psycopg2
import pytest
from rigs.changes import change_of, create
from rigs.store_worker import Worker, working
from rigs.stores import KEY, SHARDS
from rigs.tcp_proxy import TcpProxy
from servers.postgres import TEST_SETTINGS, execute
from servers.waiting import until, wait_until

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.embedded_database import DATABASE, EmbeddedDatabase
from payment_service.adapters.postgres import payment_store as module
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.migrate import migrate
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import ConnectionLost
from payment_service.core.errors import Unavailable
from payment_service.core.ids import payment_id_of, shard_of
from payment_service.core.ports import Committed, OutboxRow


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Worker]:
    async with working(database_url) as worker:
        yield worker


@asynccontextmanager
async def transaction(url: str) -> AsyncIterator[aiopg.Cursor]:
    """Somebody else's open transaction; rolled back at the end."""
    connection = await aiopg.connect(url, enable_hstore=False)
    try:
        async with connection.cursor() as cursor:
            await cursor.execute("begin")
            yield cursor
    finally:
        connection.close()


async def lock(cursor: aiopg.Cursor, payment_id: str) -> None:
    await cursor.execute("select 1 from payment_service.payments where id = %s for update", (payment_id,))


def waiting_backends(url: str) -> list[int]:
    """Server processes that wait for somebody's lock."""
    found = execute(
        url, "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    )
    return [int(str(pid)) for (pid,) in found]


# --- two workers -----------------------------------------------------------------------------------------------


async def test_of_two_workers_one_wins_and_the_other_is_not_marked(database_url: str, worker: Worker) -> None:
    async with working(database_url) as other:
        (payment_id,) = await worker.create("o1")
        first, second = await worker.cancel_of(payment_id, "a"), await other.cancel_of(payment_id, "b")
        results = await asyncio.gather(worker.store.commit(first), other.store.commit(second))
        assert sorted(results) == [Committed.COMMITTED, Committed.CONFLICT]
        marks = [(await worker.state(payment_id, name))[1] for name in "ab"]
        assert marks == [result is Committed.COMMITTED for result in results]
        events = await worker.store.events(payment_id)
        assert [event.version for event in events] == [1, 2]


async def test_two_workers_that_create_the_same_payments_create_each_once(database_url: str, worker: Worker) -> None:
    async with working(database_url) as other:
        orders = [f"o{n}" for n in range(200)]
        ours = [worker.store.submit(change_of(create(order, f"a:{order}"))) for order in orders]
        theirs = [other.store.submit(change_of(create(order, f"b:{order}"))) for order in reversed(orders)]
        pairs = zip(await asyncio.gather(*ours), reversed(await asyncio.gather(*theirs)), strict=True)
        assert {tuple(sorted(pair)) for pair in pairs} == {(Committed.COMMITTED, Committed.CONFLICT)}
        assert execute(database_url, "select count(*) from payment_service.payment_events") == [(200,)]
        assert execute(database_url, "select count(*) from payment_service.inbox") == [(200,)]
        assert len(worker.offered) + len(other.offered) == 200


async def test_a_command_that_another_worker_marked_meanwhile_conflicts(database_url: str, worker: Worker) -> None:
    async with working(database_url) as other:
        await other.store.commit(change_of(create("theirs", "same")))
        assert await worker.store.commit(change_of(create("ours", "same"))) is Committed.CONFLICT
        assert (await worker.store.load(payment_id_of("ours"))).payment is None


async def test_owners_elsewhere_are_notified_once_a_statement(database_url: str) -> None:
    orders = [f"o{n}" for n in range(40)]
    shards = {shard_of(payment_id_of(order), SHARDS) for order in orders}
    foreign = set(sorted(shards)[:3])
    listener = psycopg2.connect(database_url)
    listener.autocommit = True
    with listener.cursor() as cursor:
        cursor.execute("listen payment_outbox")
    async with working(database_url, foreign) as worker:
        await worker.create(*orders)

    def heard() -> bool:
        listener.poll()
        return bool(listener.notifies)

    await until(heard, "the owner is notified")
    assert [note.payload for note in listener.notifies] == [",".join(str(shard) for shard in sorted(foreign))]
    listener.close()


# --- locks -----------------------------------------------------------------------------------------------------


async def test_a_deadlock_is_tried_again(database_url: str, worker: Worker) -> None:
    first, second = sorted(await worker.create("o1", "o2"))
    changes = [await worker.cancel_of(first), await worker.cancel_of(second)]
    async with transaction(database_url) as cursor:
        await lock(cursor, second)
        submitted = [worker.store.submit(change) for change in changes]  # one statement, in the order of the ids
        await until(lambda: bool(waiting_backends(database_url)), "the statement waits for the second payment")
        try:
            await lock(cursor, first)
            await cursor.execute("commit")
        except psycopg2.errors.DeadlockDetected:
            await cursor.execute("rollback")
        assert await asyncio.gather(*submitted) == [Committed.COMMITTED, Committed.COMMITTED]


async def test_a_locked_payment_fails_alone(database_url: str, worker: Worker) -> None:
    ids = await worker.create("o1", "o2", "o3")
    changes = [await worker.cancel_of(payment_id) for payment_id in ids]
    async with transaction(database_url) as cursor:
        await lock(cursor, ids[0])
        results = await asyncio.gather(*[worker.store.submit(x) for x in changes], return_exceptions=True)
    assert isinstance(results[0], Unavailable)
    assert results[1:] == [Committed.COMMITTED, Committed.COMMITTED]
    assert await worker.state(ids[0]) == (1, False)
    assert await worker.store.commit(changes[0]) is Committed.COMMITTED  # nothing had happened


async def test_a_lock_that_goes_in_time_is_waited_for(database_url: str, worker: Worker) -> None:
    (payment_id,) = await worker.create("o1")
    change = await worker.cancel_of(payment_id)
    async with transaction(database_url) as cursor:
        await lock(cursor, payment_id)
        submitted = worker.store.submit(change)
        await until(lambda: bool(waiting_backends(database_url)), "the statement waits")
        await cursor.execute("rollback")
        assert await submitted is Committed.COMMITTED


# --- a connection that breaks ----------------------------------------------------------------------------------


async def test_a_connection_cut_before_the_commit_is_lost_and_nothing_happened(
    database_url: str, worker: Worker
) -> None:
    (payment_id,) = await worker.create("o1")
    change = await worker.cancel_of(payment_id)
    async with transaction(database_url) as cursor:
        await lock(cursor, payment_id)
        submitted = worker.store.submit(change)
        await until(lambda: bool(waiting_backends(database_url)), "the statement waits")
        execute(database_url, f"select pg_terminate_backend({waiting_backends(database_url)[0]})")
        assert await submitted is Committed.LOST
    assert await worker.state(payment_id) == (1, False)
    assert await worker.store.commit(change) is Committed.COMMITTED


async def test_a_connection_cut_after_the_commit_is_lost_and_it_happened(database_url: str) -> None:
    parts = urlsplit(database_url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with TcpProxy(parts.hostname, parts.port) as wire:
        through = database_url.replace(f":{parts.port}/", f":{wire.port}/")
        async with working(through) as worker:
            (payment_id,) = await worker.create("o1")
            change = await worker.cancel_of(payment_id)
            told = list(worker.offered)
            wire.answers.clear()
            submitted = worker.store.submit(change)
            query = f"select version from payment_service.payments where id = '{payment_id}'"
            await until(lambda: execute(database_url, query) == [(2,)], "it is committed")
            assert not submitted.done()
            wire.drop()
            assert await submitted is Committed.LOST
            assert await worker.state(payment_id) == (2, True)
            assert worker.offered == told  # the shard's owner reads the event from the outbox
            assert await worker.store.commit(change) is Committed.CONFLICT


async def test_a_cut_in_the_middle_loses_only_what_was_under_way(database_url: str, worker: Worker) -> None:
    (locked,) = await worker.create("o1")
    change = await worker.cancel_of(locked)
    async with transaction(database_url) as cursor:
        await lock(cursor, locked)
        submitted = worker.store.submit(change)
        await until(lambda: bool(waiting_backends(database_url)), "the statement waits")
        later = [worker.store.submit(change_of(create(f"later{n}"))) for n in range(5)]
        execute(database_url, f"select pg_terminate_backend({waiting_backends(database_url)[0]})")
        assert await submitted is Committed.LOST
        assert set(await asyncio.gather(*later)) == {Committed.COMMITTED}


async def test_a_cancelled_caller_does_not_stop_the_commit(database_url: str, worker: Worker) -> None:
    (payment_id,) = await worker.create("o1")
    change = await worker.cancel_of(payment_id)
    async with transaction(database_url) as cursor:
        await lock(cursor, payment_id)
        caller = asyncio.create_task(worker.store.commit(change))
        await until(lambda: bool(waiting_backends(database_url)), "the statement waits")
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await cursor.execute("rollback")
    query = f"select version from payment_service.payments where id = '{payment_id}'"
    await until(lambda: execute(database_url, query) == [(2,)], "the change is committed all the same")
    await until(lambda: len(worker.offered) == 2, "its event is offered")


async def test_a_statement_that_takes_too_long_is_lost_and_stopped(database_url: str, worker: Worker) -> None:
    with pytest.raises(ConnectionLost):
        await worker.database.fetch("select pg_sleep(60)", timeout_s=0.2)
    running = "select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep(60)%'"
    await until(lambda: execute(database_url, running) == [(0,)], "the server has given it up")
    assert await worker.database.fetch("select 1") == [(1,)]


async def test_a_statement_cancelled_by_the_server_is_no_cancelled_task(database_url: str, worker: Worker) -> None:
    # aiopg reports it to the loop and raises CancelledError
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    running = asyncio.create_task(worker.database.fetch("select pg_sleep(60) as to_be_cancelled"))
    find = "from pg_stat_activity where state = 'active' and query like '%to_be_cancelled' and pid <> pg_backend_pid()"
    await until(lambda: execute(database_url, f"select count(*) {find}") == [(1,)], "it runs")
    execute(database_url, f"select pg_cancel_backend(pid) {find}")
    with pytest.raises(ConnectionLost):
        await running
    assert await worker.database.fetch("select 1") == [(1,)]


# --- a database that is away -----------------------------------------------------------------------------------


async def test_a_database_that_cannot_be_reached_means_nothing_happened() -> None:
    async with working("postgresql://nobody@127.0.0.1:1/nothing") as worker:
        with pytest.raises(Unavailable) as away:
            await worker.store.commit(change_of(create("o1")))
        assert away.value.retry_after_s > 0
        with pytest.raises(Unavailable):
            await worker.store.load(payment_id_of("o1"))
        with pytest.raises(Unavailable):
            await PostgresCallQueue(worker.database, worker.cipher).claim("w", 1, 1.0)


async def test_a_read_only_database_means_nothing_happened(database_url: str, worker: Worker) -> None:
    """As after a fail-over to a standby: no storm of halved batches, and it works again by itself."""
    name = urlsplit(database_url).path.removeprefix("/")
    execute(database_url, f"alter database {name} set default_transaction_read_only = on")
    changes = [change_of(create(f"o{n}")) for n in range(50)]
    results = await asyncio.gather(*[worker.store.submit(x) for x in changes], return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("set transaction read write")
        cursor.execute(f"alter database {name} set default_transaction_read_only = off")
    connection.close()
    assert await worker.store.commit(changes[0]) is Committed.COMMITTED


async def test_the_store_works_again_after_the_database_was_restarted(tmp_path: Path) -> None:
    server = EmbeddedDatabase(tmp_path, dies_with_us=True, server_settings=TEST_SETTINGS)
    server.prepare()
    try:
        server.spawn()
        wait_until(server.is_ready, "the server is up")
        await migrate(server.url(DATABASE))
        async with working(server.url(DATABASE)) as worker:
            (payment_id,) = await worker.create("o1")
            port = server.port
            server.stop()
            result = await asyncio.gather(worker.store.submit(change_of(create("o2"))), return_exceptions=True)
            assert result == [Committed.LOST] or isinstance(result[0], Unavailable)
            server.prepare()
            server.spawn()
            wait_until(server.is_ready, "the server is up again")
            assert server.port == port
            assert (await worker.state(payment_id))[0] == 1
            assert await worker.store.commit(change_of(create("o3"))) is Committed.COMMITTED
    finally:
        server.stop()


# --- limits ----------------------------------------------------------------------------------------------------


async def test_what_waits_is_bounded(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX", 10)
    async with working(database_url) as worker:
        results = await asyncio.gather(
            *[worker.store.submit(change_of(create(f"o{n}"))) for n in range(15)], return_exceptions=True
        )
    assert results[:10] == [Committed.COMMITTED] * 10
    assert {type(result) for result in results[10:]} == {Unavailable}


async def test_closing_finishes_what_waits_and_takes_nothing_new(database_url: str) -> None:
    worker = Worker(database_url)
    submitted = [worker.store.submit(change_of(create(f"o{n}"))) for n in range(20)]
    await worker.close()
    assert {future.result() for future in submitted} == {Committed.COMMITTED}
    with pytest.raises(Unavailable):
        await worker.store.commit(change_of(create("late")))


async def test_a_close_that_cannot_wait_leaves_nobody_hanging(database_url: str, worker: Worker) -> None:
    (payment_id,) = await worker.create("o1")
    change = await worker.cancel_of(payment_id)
    async with transaction(database_url) as cursor:
        await lock(cursor, payment_id)
        submitted = worker.store.submit(change)
        await until(lambda: bool(waiting_backends(database_url)), "the statement waits")
        await worker.store.close(drain_s=0.0)
        assert submitted.result() is Committed.LOST


async def test_a_publisher_that_fails_does_not_fail_the_commit(
    database_url: str, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(rows: Sequence[tuple[OutboxRow, bool]]) -> None:
        raise RuntimeError("a bug of the publisher")

    store = PostgresPaymentStore(worker.database, worker.cipher, chain_key(KEY), SHARDS, broken)
    assert await store.commit(change_of(create("o1"))) is Committed.COMMITTED
    assert await store.commit(change_of(create("o2"))) is Committed.COMMITTED
    assert "publisher" in caplog.text
    assert execute(database_url, "select count(*) from payment_service.outbox") == [(2,)]
