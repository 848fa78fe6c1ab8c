"""Signed events at whole workers: early, late, twice, reordered, forged; with Kafka or PostgreSQL away, and kill -9."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from rigs.books import audit, read_all
from rigs.tcp_proxy import TcpProxy
from rigs.webhook_sender import ENV, JOINED_S, LEASE_S, event, pay, send, status, webhooks
from rigs.worker import Installation, Worker

from payment_service.adapters.embedded_process import free_port
from payment_service.core.ids import payment_id_of

pytestmark = pytest.mark.kafka


async def test_early_twice_reordered_and_forged_over_two_workers(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with Installation(tmp_path, kafka_broker, database_url, PROCESS_WAIT_S="0", **ENV) as site:
        one, two = await site.started(), await site.started()
        await asyncio.gather(one.streaming(), two.streaming())
        await one.until_ready_says(lambda now: now["broker"], "a broker")

        # Before its payment is known.
        assert await send(one, event("evt_early", "charge.succeeded", "early")) == 200
        await site.until(lambda: webhooks(site) == {"evt_early": ("PARKED", "PAYMENT_UNKNOWN")}, "it is parked")
        await pay(two, "early")
        await site.until(lambda: status(site, "early") == "SUCCEEDED", "it is joined", JOINED_S)

        # The same five times at once, over both.
        await pay(one, "twice")
        body = event("evt_twice", "charge.succeeded", "twice")
        assert set(await asyncio.gather(*(send(worker, body) for worker in (one, two, one, two, one)))) == {200}
        await site.until(lambda: status(site, "twice") == "SUCCEEDED", "it is paid")

        # The refund and the dispute before the charge.
        await pay(two, "reordered")
        refund = event("evt_refund", "refund.succeeded", "reordered", provider_id="re_1", amount_minor=4000)
        dispute = event("evt_dispute", "dispute.opened", "reordered", provider_id="dp_1", amount_minor=1000)
        for late in (refund, dispute, event("evt_charge", "charge.succeeded", "reordered")):
            assert await send(one, late) == 200
        await site.until(lambda: status(site, "reordered") == "PARTIALLY_REFUNDED", "it is paid and refunded", JOINED_S)
        done = ("PROCESSED", "")
        await site.until(lambda: set(webhooks(site).values()) == {done}, "all are applied", JOINED_S)

        # Forged, old and future ones have no effect.
        await pay(one, "forged")
        forged = event("evt_forged", "charge.succeeded", "forged")
        assert [await send(one, forged, secret="another"), await send(one, forged, age_s=301),
                await send(one, forged, age_s=-301)] == [400, 400, 400]  # fmt: skip
        await site.until_told(4)
        books = await audit(site)
        assert {order: row["captured"] for order, row in books.payments.items()} == {
            "early": 9999, "twice": 9999, "reordered": 9999, "forged": 0,
        }  # fmt: skip
        reordered = books.payments["reordered"]
        assert (reordered["refunded"], reordered["disputed"], reordered["needs_review"]) == (4000, 1000, False)
        assert [word for word, _ in books.events("twice")] == ["payment.created", "payment.processed"]
        assert "evt_forged" not in webhooks(site)
        await the_topic_is_sealed(site)


async def the_topic_is_sealed(site: Installation) -> None:
    records = await read_all(site, ["payment-webhooks"], 9)
    assert len(records) == 9  # duplicates too, and nothing forged
    assert not any(b"evt_" in (one.value or b"") or b"pay_" in (one.value or b"") for one in records)
    assert {one.key for one in records} == {payment_id_of(it).encode() for it in ("early", "twice", "reordered")}
    assert await read_all(site, ["payment-dead-letters"]) == []


async def test_a_worker_that_never_met_a_broker_takes_and_applies_webhooks(database_url: str, tmp_path: Path) -> None:
    async with Installation(tmp_path, f"127.0.0.1:{free_port()}", database_url, PROCESS_WAIT_S="0", **ENV) as site:
        worker = await site.started()
        await pay(worker, "o1")
        body = event("evt_1", "charge.succeeded", "o1")
        assert set(await asyncio.gather(*(send(worker, body) for _ in range(5)))) == {200}
        await site.until(lambda: status(site, "o1") == "SUCCEEDED", "it is applied", JOINED_S)
        await site.until(lambda: webhooks(site) == {"evt_1": ("PROCESSED", "")}, "its row says so")


@asynccontextmanager
async def behind_a_wire(
    broker: str, database_url: str, folder: Path
) -> AsyncIterator[tuple[Installation, Worker, TcpProxy]]:
    """A worker whose way to PostgreSQL can be cut."""
    address = urlsplit(database_url)
    assert address.hostname is not None and address.port is not None
    async with TcpProxy(address.hostname, address.port) as wire:
        near = f"{address.username}:{address.password}@127.0.0.1:{wire.port}"
        through = urlunsplit(("postgresql", near, address.path, address.query, ""))
        env = {**ENV, "DATABASE_URL": through, "PROCESS_WAIT_S": "0"}
        async with Installation(folder, broker, database_url, **env) as site:
            worker = await site.started()
            await worker.streaming()
            yield site, worker, wire


async def test_without_postgresql_they_are_taken_by_kafka_and_applied_after(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with behind_a_wire(kafka_broker, database_url, tmp_path) as (site, worker, wire):
        await pay(worker, "o1")
        await wire.cut()
        assert await send(worker, event("evt_1", "charge.succeeded", "o1")) == 200
        await asyncio.sleep(3)
        assert (webhooks(site), status(site, "o1")) == ({}, "PROCESSING")
        await wire.mend()
        await site.until(lambda: status(site, "o1") == "SUCCEEDED", "it is applied", LEASE_S)
        await site.until(lambda: webhooks(site) == {"evt_1": ("PROCESSED", "")}, "its row says so")


async def test_kill_9_between_200_and_the_row_loses_nothing(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with behind_a_wire(kafka_broker, database_url, tmp_path) as (site, worker, wire):
        await pay(worker, "o1", "tok_visa")
        await site.until(lambda: status(site, "o1") == "SUCCEEDED", "it is paid")
        await wire.cut()
        for number in range(20):
            refund = event(f"evt_{number}", "refund.succeeded", "o1", provider_id=f"re_{number}", amount_minor=100)
            assert await send(worker, refund) == 200
        worker.kill()
        await wire.mend()
        assert webhooks(site) == {}
        worker.start()
        await site.until(lambda: len(webhooks(site)) == 20, "all are there", LEASE_S)
        worker.kill()  # between rows and results, too
        worker.start()
        await site.until(
            lambda: {word for word, _ in webhooks(site).values()} == {"PROCESSED"}, "all are applied", 2 * LEASE_S
        )
        assert site.rows("select refunded, needs_review from payment_service.payments") == [(2000, False)]
