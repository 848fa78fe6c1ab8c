"""What stands in the database: nothing secret, nothing that can be changed without being seen."""

from collections.abc import AsyncIterator

import psycopg2
import pytest
from rigs.changes import answer, change_of, charge, create
from rigs.store_worker import Worker, working
from rigs.stores import SHARDS
from servers.postgres import execute

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Committed
from payment_service.core.terms import Verdict


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Worker]:
    async with working(database_url) as worker:
        yield worker


async def test_no_secret_is_readable_in_the_database(database_url: str, worker: Worker) -> None:
    change = change_of(create("o1", charge=True), token="tok_very_secret")
    await worker.store.commit(change)
    for table in ("payments", "payment_events", "transactions", "outbox", "inbox"):
        rows = execute(database_url, f"select t::text from payment_service.{table} t")
        text = str(rows)
        assert rows
        assert "tok_very_secret" not in text
        assert b"tok_very_secret".hex() not in text


async def test_a_request_that_cannot_be_read_does_not_hold_up_the_others(
    database_url: str, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    await worker.store.commit(change_of(create("bad", charge=True)))
    await worker.store.commit(change_of(create("good", charge=True)))
    execute(
        database_url,
        f"update payment_service.transactions set request = 'x' where payment_id = '{payment_id_of('bad')}'",
    )
    claimed = await PostgresCallQueue(worker.database, worker.cipher).claim("w", 10, 30.0)
    assert [call.call.order_id for call in claimed] == ["good"]
    assert "cannot be read" in caplog.text


async def _settled(worker: Worker) -> str:
    (payment_id,) = await worker.create("o1")
    for command in (charge(payment_id), answer(payment_id, Verdict.APPROVED)):
        loaded = await worker.store.load(payment_id)
        assert await worker.store.commit(change_of(command, loaded)) is Committed.COMMITTED
    return payment_id


async def test_a_settled_call_keeps_no_request(database_url: str, worker: Worker) -> None:
    await _settled(worker)
    columns = "type, status, provider_id, request is null, owner, due_at, tries"
    (row,) = execute(database_url, f"select {columns} from payment_service.transactions")
    assert row == ("CHARGE", "SUCCEEDED", "ch_1", True, None, None, 1)


async def test_an_intact_history_verifies(worker: Worker) -> None:
    payment_id = await _settled(worker)
    assert await worker.store.verify_chain(payment_id) == []
    assert await worker.store.verify_chain(payment_id_of("nobody")) == []


@pytest.mark.parametrize(
    ("tampering", "problem"),
    [
        ("update payment_service.payment_events set data = data || ' ' where version = 1", "its hash does not fit"),
        ("update payment_service.payment_events set type = 'Reopened' where version = 1", "its hash does not fit"),
        ("delete from payment_service.payment_events where version = 2", "version 2 is missing"),
        ("delete from payment_service.payment_events where version = 3", "the history has 2 events"),
        ("delete from payment_service.payments", "the payment's row is missing"),
        ("update payment_service.payments set state = replace(state, '1000', '9000')", "does not follow"),
        ("update payment_service.payments set chain_head = 'x'", "chain head"),
    ],
)
async def test_tampering_is_found(database_url: str, worker: Worker, tampering: str, problem: str) -> None:
    payment_id = await _settled(worker)
    execute(database_url, "alter table payment_service.payment_events disable trigger all")
    execute(database_url, tampering)
    assert problem in "; ".join(await worker.store.verify_chain(payment_id))


async def test_a_chain_of_another_key_does_not_fit(worker: Worker) -> None:
    payment_id = await _settled(worker)
    store = PostgresPaymentStore(worker.database, worker.cipher, chain_key(b"x" * 32), SHARDS, lambda rows: None)
    assert len(await store.verify_chain(payment_id)) == 3


@pytest.mark.parametrize(
    "what",
    [
        "update payment_service.payment_events set type = 'x'",
        "delete from payment_service.payment_events",
        "truncate payment_service.payment_events",
    ],
)
async def test_events_are_append_only(database_url: str, worker: Worker, what: str) -> None:
    await worker.create("o1")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        execute(database_url, what)
