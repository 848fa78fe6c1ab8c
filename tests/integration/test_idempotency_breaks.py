"""Idempotency-Key when something breaks: workers that die, connections that are lost at the commit, answers that cannot
be kept; and what leaves by age. Two workers, one PostgreSQL, a provider that keeps books."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
from rigs.commit_cutter import CommitCutter
from rigs.keyed_site import LATENCY_S, VISA, WAIT_S, Shop, Told, is_the_same, shop_on, until_told
from rigs.ledger_provider import HANG_AFTER, HANG_BEFORE
from servers.postgres import execute as sql
from servers.waiting import until

from payment_service.adapters.postgres.webhooks import PostgresWebhooks
from payment_service.core.errors import Unavailable
from payment_service.core.idempotency import KEPT_S
from payment_service.core.ids import payment_id_of
from payment_service.core.use_cases import execute as execute_module
from payment_service.core.use_cases.forget_old import MARKS_KEPT_S, ForgetOld


async def test_the_wait_of_a_first_request_ends_for_everybody(shop: Shop) -> None:
    """Its worker stands still: nobody is told to come again for ever."""
    path = await shop.charged()
    shop.provider.faults["send:REFUND"] = [HANG_AFTER]
    first = asyncio.create_task(shop.a.post(f"{path}/refund", {"amount": 3}, key="k"))
    committed = "select 1 from payment_service.transactions where type = 'REFUND'"
    await until(lambda: bool(sql(shop.url, committed)), "the refund is under way")
    await asyncio.sleep(LATENCY_S + 0.1)
    assert (await shop.b.post(f"{path}/refund", {"amount": 3}, key="k")).status == 409
    await shop.a.kill()
    await asyncio.sleep(WAIT_S)
    told = await shop.b.post(f"{path}/refund", {"amount": 3}, key="k")
    assert told.status == 200 and told.replayed
    first.cancel()
    assert shop.moved() == {"CHARGE": 1, "REFUND": 1}


@pytest.mark.parametrize("fault", [HANG_BEFORE, HANG_AFTER])
async def test_a_worker_that_dies_between_commit_and_answer(shop: Shop, fault: str) -> None:
    """Whether the provider had done it or not: the key gets the outcome of that very attempt."""
    path = await shop.created()
    shop.provider.faults["send:CHARGE"] = [fault]
    first = asyncio.create_task(shop.a.post(f"{path}/process", VISA, key="k"))
    await asyncio.sleep(LATENCY_S + 0.1)
    await shop.a.kill()
    first.cancel()
    landed = await until_told(shop, f"{path}/process", VISA, "k", 200)
    assert landed.data["status"] == "SUCCEEDED" and landed.replayed
    assert (await shop.b.post(f"{path}/process", VISA, key="k")).body == landed.body
    assert shop.moved() == {"CHARGE": 1}
    assert sql(shop.url, "select count(*) from payment_service.transactions where type = 'CHARGE'") == [(1,)]


@pytest.mark.parametrize("what", ["create", "process", "refund"])
async def test_a_commit_whose_connection_is_lost(database_url: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement arrived, the worker never hears of it: 202, and the same key tells later what became of it."""
    monkeypatch.setattr(execute_module, "RESOLVE_S", 0.5)
    server = urlsplit(database_url)
    assert server.hostname is not None and server.port is not None
    async with CommitCutter(server.hostname, server.port) as wire:
        place = f"{server.username}:{server.password}@127.0.0.1:{wire.port}"
        async with shop_on(database_url, server._replace(netloc=place).geturl()) as shop:
            path, body, moved = "/payments", {"orderId": "o1", "amount": 10}, {}
            if what == "process":
                path, body, moved = f"{await shop.created()}/process", VISA, {"CHARGE": 1}
            elif what == "refund":
                path, body, moved = f"{await shop.charged()}/refund", {"amount": 3}, {"CHARGE": 1, "REFUND": 1}
            cut = wire.cut_at_commit(0.2)
            first = asyncio.create_task(shop.a.post(path, body, key="k"))
            await cut
            await wire.cut()
            lost = await first
            assert (lost.status, lost.code) == (202, "OUTCOME_UNKNOWN")
            landed = await until_told(shop, path, body, "k", 201 if what == "create" else 200)
            if what == "refund":  # its first answer may be that it is not known yet
                landed = await until_refunded(shop, path, body, "k")
            assert landed.replayed
            await wire.mend()
            assert (await shop.a.post(path, body, key="k")).body == landed.body
            assert shop.moved() == moved


async def until_refunded(shop: Shop, path: str, body: Any, key: str) -> Told:
    for _ in range(100):
        told = await shop.b.post(path, body, key=key)
        if told.status == 200 and told.data["refund"]["status"] == "COMPLETED":
            return told
        await asyncio.sleep(0.05)
    raise AssertionError(f"it stayed {told.body!r}")


async def test_an_answer_that_cannot_be_kept_goes_out_all_the_same(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await shop.charged()

    async def away(bound: Any, answer: bytes | None) -> bytes | None:
        raise Unavailable("the database is away")

    monkeypatch.setattr(shop.a.keys, "keep", away)
    first = await shop.a.post(f"{path}/refund", {"amount": 3}, key="k")
    assert first.status == 200 and shop.a.metrics.counts["idempotency_answers_unkept",] == 1
    assert is_the_same(first, await shop.b.post(f"{path}/refund", {"amount": 3}, key="k"))
    assert shop.moved() == {"CHARGE": 1, "REFUND": 1}


# --- what leaves -----------------------------------------------------------------------------------------------


async def test_only_what_is_old_leaves(shop: Shop) -> None:
    keys, table = shop.a.keys, "payment_service.idempotency_keys"
    for number in range(5):
        body = {"orderId": f"o{number}", "amount": 10}
        assert (await shop.a.post("/payments", body, key=f"k{number}")).status == 201
    age = "update {} set created_at = now() - interval '{}' where {}"
    sql(shop.url, age.format(table, "24 hours 1 second", f"payment_id <> '{payment_id_of('o4')}'"))
    sql(shop.url, age.format(table, "23 hours 59 minutes", f"payment_id = '{payment_id_of('o4')}'"))
    removed = [await keys.remove_old_keys(KEPT_S, 3) for _ in range(3)]
    assert removed == [3, 1, 0]
    assert sql(shop.url, f"select payment_id from {table}") == [(payment_id_of("o4"),)]
    assert (await shop.b.post("/payments", {"orderId": "o4", "amount": 10}, key="k4")).replayed
    assert not (await shop.b.post("/payments", {"orderId": "o0", "amount": 10}, key="k0")).replayed
    sql(
        shop.url,
        "insert into payment_service.inbox values ('old', 'p', now() - interval '31 days'), ('new', 'p', now())",
    )
    assert await keys.remove_old_marks(MARKS_KEPT_S, 10) == 1
    assert sql(shop.url, "select command_id from payment_service.inbox") == [("new",)]


async def test_the_worker_removes_what_is_old(shop: Shop) -> None:
    sql(
        shop.url,
        "insert into payment_service.idempotency_keys (command_id, payment_id, fingerprint, subject, version, answered,"
        " created_at) select 'rest:' || n, 'p', 'f', '', 1, true, now() - n * interval '1 minute'"
        " from generate_series(1, 5000) n",
    )
    sql(
        shop.url,
        "insert into payment_service.payment_webhooks (provider, event_id, type, body, created_at, received_at, due_at)"
        " select 'MOCK', n::text, 't', '', now(), now() - interval '31 days', case when n = 1 then now() end"
        " from generate_series(1, 5000) n",
    )
    webhooks = PostgresWebhooks(shop.a.base.database, shop.a.base.cipher)
    forgetting = asyncio.create_task(ForgetOld(shop.a.keys, webhooks, shop.a.metrics).run())
    for _ in range(500):
        if ("old_rows_removed", "webhooks") in shop.a.metrics.counts:
            break
        await asyncio.sleep(0.02)
    forgetting.cancel()
    left = sql(shop.url, "select count(*) from payment_service.idempotency_keys")
    assert left == [(24 * 60 - 1,)] and shop.a.metrics.counts["old_rows_removed", "keys"] == 5000 - 24 * 60 + 1
    # All in one round, though one that is not settled stays among the oldest.
    assert sql(shop.url, "select event_id from payment_service.payment_webhooks") == [("1",)]


async def test_without_a_key_no_row_is_written(shop: Shop) -> None:
    path = await shop.charged()
    assert (await shop.a.post(f"{path}/refund", {"amount": 1})).status == 200
    assert sql(shop.url, "select count(*) from payment_service.idempotency_keys") == [(0,)]
