"""A worker's leases on PostgreSQL when all its calls want something at once, as they do when the database is slow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from rigs.changes import change_of, create
from rigs.store_worker import Worker, working

from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.pool import ConnectionLost
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.ports import ClaimedCall

CALLS = 300


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Worker]:
    async with working(database_url) as worker:
        yield worker


async def claimed(worker: Worker, queue: PostgresCallQueue) -> list[ClaimedCall]:
    changes = [change_of(create(f"o{number}", charge=True)) for number in range(CALLS)]
    await asyncio.gather(*[worker.store.submit(change) for change in changes])
    return await queue.claim("w", CALLS, 30.0)


async def test_many_calls_are_renewed_and_given_back_in_a_few_statements(worker: Worker) -> None:
    queue = PostgresCallQueue(worker.database, worker.cipher)
    calls = await claimed(worker, queue)
    assert len(calls) == CALLS
    statements: list[str] = []
    worker.database.on_statement = lambda text, _: statements.append(text)
    renewed = await asyncio.gather(*[queue.renew(call.call.key, "w", 30.0) for call in calls])
    await asyncio.gather(*[queue.reschedule(call.call.key, "w", 0.0, sent=False) for call in calls])
    assert all(renewed)
    assert len(statements) <= 4
    assert len(await queue.claim("w2", CALLS, 30.0)) == CALLS


async def test_a_row_that_somebody_holds_is_not_ours_and_holds_up_nobody(worker: Worker, database_url: str) -> None:
    queue = PostgresCallQueue(worker.database, worker.cipher)
    calls = await claimed(worker, queue)
    held = {calls[number].call.key for number in (5, 50, 250)}
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute(
            "select 1 from payment_service.transactions where provider_key = any(%s) for update", (list(held),)
        )
        async with asyncio.timeout(1.0):  # less than one lock time-out
            renewed = await asyncio.gather(*[queue.renew(call.call.key, "w", 30.0) for call in calls])
    assert renewed == [call.call.key not in held for call in calls]
    assert await queue.renew(calls[5].call.key, "w", 30.0)


async def test_a_call_whose_giving_back_was_not_answered_is_never_given_back_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been, and the same worker may have claimed it anew: it would lose the lease while it sends."""
    queue = PostgresCallQueue(worker.database, worker.cipher)
    call = (await claimed(worker, queue))[0].call
    fetch, cut = worker.database.fetch, [True]

    async def cut_once(query: str, *more: Any, **options: Any) -> list[Any]:
        rows = await fetch(query, *more, **options)
        if cut and query == QUERIES["reschedule_calls"]:
            cut.clear()
            raise ConnectionLost("after it was done")
        return rows

    monkeypatch.setattr(worker.database, "fetch", cut_once)
    await queue.reschedule(call.key, "w", 0.0, sent=False)
    assert not cut
    assert [it.call.key for it in await queue.claim("w", CALLS, 30.0)] == [call.key]
    assert await queue.renew(call.key, "w", 30.0)


async def test_a_renewal_whose_caller_goes_away_does_not_cut_off_the_others(worker: Worker) -> None:
    queue = PostgresCallQueue(worker.database, worker.cipher)
    calls = (await claimed(worker, queue))[:20]
    renewals = [asyncio.create_task(queue.renew(call.call.key, "w", 30.0)) for call in calls]
    await asyncio.sleep(0)
    renewals[0].cancel()
    answers = await asyncio.gather(*renewals, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [True] * 19
