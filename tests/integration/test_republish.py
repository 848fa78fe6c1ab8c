"""`payment-service events republish`: what a consumer lost comes again, the same to the byte, and in order."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rigs.books import Read, read_all
from rigs.commands import command
from rigs.worker import Installation, Worker
from servers.postgres import execute

from payment_service.adapters.postgres import republish as module
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.republish import Republishing
from payment_service.core.errors import Unavailable
from payment_service.core.republishing import Chosen

pytestmark = pytest.mark.long

REPUBLISH = ("events", "republish")
TOLD = ["payment.created", "payment.processed", "payment.refunded"]


async def paid(worker: Worker, order: str) -> str:
    made = await worker.call("POST", "/api/v1/payments", {"orderId": order, "amount": 20}, user="user-1")
    path = f"/api/v1/payments/{made.data['id']}"
    await worker.call("POST", f"{path}/process", {"paymentMethodId": "tok_visa"}, user="user-1")
    await worker.call("POST", f"{path}/refund", {"amount": 5}, user="user-1")
    return str(made.data["id"])


async def table_row(worker: Worker, payment_id: str) -> dict[str, Any]:
    answer = await worker.call("GET", f"/tables/payments/{payment_id}", user="root", roles=("admin",))
    return dict(answer.data) if answer.status == 200 else {}


def by_payment(
    messages: list[Read], payment_id: str
) -> Counter[tuple[str, bytes | None, tuple[tuple[str, bytes], ...]]]:
    return Counter((it.topic, it.value, it.headers) for it in messages if it.key == payment_id.encode())


async def test_events_come_again_as_they_were(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with Installation(tmp_path, tansu_broker, database_url) as site:
        worker = await site.started()
        one, two = await paid(worker, "one"), await paid(worker, "two")
        await site.until_told(2)
        first = await read_all(site, TOLD, 6)
        assert await command(site, *REPUBLISH, "--payment", one, "--dry-run") == (
            0, {"dryRun": True, "payments": 1, "events": 3, "waitingAlready": 0, "unknown": [], "unreadable": []},
        )  # fmt: skip
        assert site.count("outbox") == 0

        code, said = await command(site, *REPUBLISH, "--payment", one, "--operator", "ann")
        assert (code, said["events"]) == (0, 3)
        await site.until_told(2)
        again = await read_all(site, TOLD, 9)
        assert by_payment(again, one) == by_payment(first, one) + by_payment(first, one)
        assert by_payment(again, two) == by_payment(first, two)

        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 3600))
        code, said = await command(site, *REPUBLISH, "--since", since)
        assert (code, said["payments"], said["events"]) == (0, 2, 6)
        await site.until_told(2)
        assert by_payment(await read_all(site, TOLD, 15), two) == by_payment(first, two) + by_payment(first, two)

        async with asyncio.timeout(30):
            while (row := await table_row(worker, one)).get("sequence") != 3:  # noqa: ASYNC110 asked by HTTP
                await asyncio.sleep(0.1)
        assert row["status"] == "PARTIALLY_REFUNDED", "older events change nothing"
        logged = execute(site.database_url, "select entry->>'actor', entry->>'detail' from payment_service.audit_log "
                         "where entry->>'action' = 'events.republish' order by entry->>'at'")  # fmt: skip
        assert logged[0] == ("operator:ann", f"{one}: 3")


async def test_what_it_says_when_there_is_nothing(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with Installation(tmp_path, tansu_broker, database_url) as site:
        code, said = await command(site, *REPUBLISH, "--payment", "pay_x")
        assert (code, said["unknown"]) == (1, ["pay_x"])
        assert (await command(site, *REPUBLISH, "--since", "2020-01-01", "--until", "2020-02-01"))[0] == 1
        assert (await command(site, *REPUBLISH))[0] == 2
        assert (await command(site, *REPUBLISH, "--payment", "pay_x", "--since", "2020-01-01"))[0] == 2


async def test_an_outbox_that_nobody_empties_is_not_filled(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rigs.store_worker import working

    monkeypatch.setattr(module, "WAITING_MAX", 3)
    monkeypatch.setattr(module, "STALLED_S", 0.3)
    monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.setattr(module, "PAGE", 2)
    async with working(database_url) as worker:
        ids = await worker.create(*(f"order-{number}" for number in range(6)))
    execute(database_url, "delete from payment_service.outbox")
    database = Database(database_url)
    steps = []
    with pytest.raises(Unavailable, match="no worker publishes"):
        async for step in Republishing(database, 16).republish(Chosen(ids), dry_run=False):
            steps.append(step)  # noqa: PERF401 it ends in the middle
    assert [step.events for step in steps] == [2, 2]
    again = [step async for step in Republishing(database, 16).republish(Chosen(ids[:2]), dry_run=True)]
    assert [(step.events, step.waiting) for step in again] == [(2, 0)]
    await database.close()
