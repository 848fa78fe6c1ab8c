"""A worker's leases on PostgreSQL when all its calls want something at once, as they do when the database is slow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import psycopg2
import pytest
from rigs.changes import change_of, create
from rigs.store_worker import Worker, working

from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.core.errors import Unavailable
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


async def test_a_row_that_is_held_for_long_costs_its_own_renewal_alone(worker: Worker, database_url: str) -> None:
    queue = PostgresCallQueue(worker.database, worker.cipher)
    calls = (await claimed(worker, queue))[:8]
    held = calls[5].call.key
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("select 1 from payment_service.transactions where provider_key = %s for update", (held,))
        renewals = [queue.renew(call.call.key, "w", 30.0) for call in calls]
        answers = await asyncio.gather(*renewals, return_exceptions=True)
    assert [answer is True for answer in answers] == [call.call.key != held for call in calls]
    assert isinstance(answers[5], Unavailable)
    assert await queue.renew(held, "w", 30.0)


async def test_a_renewal_whose_caller_goes_away_does_not_cut_off_the_others(worker: Worker) -> None:
    queue = PostgresCallQueue(worker.database, worker.cipher)
    calls = (await claimed(worker, queue))[:20]
    renewals = [asyncio.create_task(queue.renew(call.call.key, "w", 30.0)) for call in calls]
    await asyncio.sleep(0)
    renewals[0].cancel()
    answers = await asyncio.gather(*renewals, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [True] * 19
