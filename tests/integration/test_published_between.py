"""What payments published last is told again exactly as it was sent, found by when it was."""

import pytest
from rigs.changes import AT_MS, change_of, charge, create
from rigs.store_worker import working
from servers.postgres import execute

from payment_service.adapters.postgres import published
from payment_service.adapters.postgres.published import PostgresPublished
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Committed

HOUR_MS = 3_600_000


async def told(database_url: str, from_ms: int, to_ms: int) -> dict[str, bytes]:
    async with working(database_url) as worker:
        batches = [batch async for batch in PostgresPublished(worker.database).between(from_ms, to_ms)]
    assert all(len(batch) <= published.PAGE for batch in batches)
    return {payment_id: value for batch in batches for payment_id, value in batch}


async def test_it_is_what_was_sent(database_url: str) -> None:
    """Byte for byte what the outbox holds, also after internal steps that nobody is told of."""
    async with working(database_url) as worker:
        for number in range(5):
            await worker.create(f"o-{number}")
        first = payment_id_of("o-0")
        assert (
            await worker.store.submit(change_of(charge(first), await worker.store.load(first))) is Committed.COMMITTED
        )
        cancel = await worker.cancel_of(payment_id_of("o-1"))
        assert await worker.store.submit(cancel) is Committed.COMMITTED
    last = execute(
        database_url,
        "select distinct on (payment_id) payment_id, value from payment_service.outbox"
        " order by payment_id, sequence desc",
    )
    found = await told(database_url, AT_MS - 1, AT_MS + HOUR_MS)
    assert found == {payment_id: bytes(value) for payment_id, value in last}
    assert len(found) == 5


async def test_only_of_the_time_that_was_asked_for(database_url: str) -> None:
    async with working(database_url) as worker:
        for hours in (0, 5, 50):
            made = change_of(create(f"o-{hours}", at_ms=AT_MS + hours * HOUR_MS))
            assert await worker.store.submit(made) is Committed.COMMITTED
    assert set(await told(database_url, AT_MS, AT_MS + 5 * HOUR_MS)) == {payment_id_of("o-0")}
    assert set(await told(database_url, AT_MS + 1, AT_MS + 51 * HOUR_MS)) == {
        payment_id_of("o-5"),
        payment_id_of("o-50"),
    }
    assert await told(database_url, AT_MS, AT_MS) == {}


async def test_what_is_not_settled_is_found_at_any_age(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "IDS_MAX", 2)
    async with working(database_url) as worker:
        ids = await worker.create(*(f"o-{number}" for number in range(6)))
        for payment_id in ids[:5]:
            started = change_of(charge(payment_id, f"charge:{payment_id}"), await worker.store.load(payment_id))
            assert await worker.store.submit(started) is Committed.COMMITTED
        batches = [batch async for batch in PostgresPublished(worker.database).unsettled()]
    assert sorted(payment_id for batch in batches for payment_id, _ in batch) == sorted(ids[:5])


async def test_much_at_once_is_read_in_slices(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "IDS_MAX", 10)
    monkeypatch.setattr(published, "PAGE", 4)
    async with working(database_url) as worker:
        for number in range(40):
            made = change_of(create(f"o-{number}", at_ms=AT_MS + number * 20_000))
            await worker.store.submit(made)
        for number in range(40, 70):  # more in one second than one statement should return
            await worker.store.submit(change_of(create(f"o-{number}", at_ms=AT_MS + HOUR_MS + number)))
    found = await told(database_url, AT_MS - HOUR_MS, AT_MS + 10 * HOUR_MS)
    assert set(found) == {payment_id_of(f"o-{number}") for number in range(70)}


async def test_a_history_of_the_future_keeps_nobody_else_waiting(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(database_url) as worker:
        await worker.create("o-1", "o-2")
    execute(
        database_url,
        "alter table payment_service.payment_events disable trigger all;"
        f" update payment_service.payment_events set type = 'OfTomorrow' where payment_id = '{payment_id_of('o-1')}';"
        " select 1",
    )
    assert set(await told(database_url, AT_MS - 1, AT_MS + HOUR_MS)) == {payment_id_of("o-2")}
