"""Money that moves at the provider while nobody here waits for it, on a real PostgreSQL."""

import pytest
from rigs.changes import change_of, create
from rigs.desk_rig import Clock
from rigs.store_worker import working
from rigs.webhook_rig import ID, PAID, webhook_rig
from servers.postgres import execute as run_sql

from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core import commands as c
from payment_service.core.payment import status_of
from payment_service.core.terms import Kind, Source, Status, Verdict


@pytest.mark.parametrize("again", [False, True], ids=["and nothing else", "and another was tried since"])
async def test_an_object_that_was_let_go_and_is_paid_in_the_browser_pays(database_url: str, again: bool) -> None:
    """The front end named it, its provider could not look whose it was; it was this payment's."""
    async with webhook_rig(database_url) as rig:
        await rig.create()
        now = Clock().now_ms()
        await rig.execute(c.StartCharge(ID, "", now, "user:u", object_id="obj_1"))
        unsent = c.RecordAnswer(ID, "", now, Kind.CHARGE, 1, Verdict.NOT_SENT, Source.LIVE)
        await rig.execute(unsent)
        if again:
            await rig.start(Verdict.DECLINED, object_id="obj_2")
        await rig.swept(rig.notice("evt_1", PAID))
        assert rig.rows() == [("evt_1", "PROCESSED", "")]
        payment = await rig.payment()
        assert (status_of(payment), payment.captured) == (Status.SUCCEEDED, 9999)


async def test_a_worker_without_the_newest_key_leaves_a_call_as_it_was(database_url: str) -> None:
    """While keys are rotated: one that looked as if somebody had sent it would be looked up in vain, a refund for
    ever."""
    async with working(database_url) as worker:
        await worker.store.commit(change_of(create("o1", charge=True)))
        old = PostgresCallQueue(worker.database, AesGcmCipher(b"o" * 32))
        for _ in range(2):
            assert await old.claim("old", 10, 30.0) == []
            run_sql(database_url, "update payment_service.transactions set due_at = now()")
        (claim,) = await PostgresCallQueue(worker.database, worker.cipher).claim("new", 10, 30.0)
        assert (claim.tries, round(claim.sent_for_s)) == (0, 0)
