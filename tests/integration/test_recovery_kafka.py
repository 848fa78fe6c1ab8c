"""What a single worker does after a bad end, and through long outages, with the figures that the README states.

OUTAGE_S (10) is the length of the outages; STORED (200000) the payments that a worker finds at its start.
"""

import asyncio
import os
import time
from pathlib import Path

import pytest
from rigs.books import audit, until_table_agrees
from rigs.charging_site import USER, all_charged, installation, order, simulator
from rigs.judge import freeze, judge, thaw, unsettled
from rigs.restartable_postgres import RestartablePostgres
from rigs.worker import Answer, Worker
from servers import KafkaServer
from servers.postgres import migrate

from payment_service.core.ids import payment_id_of

pytestmark = pytest.mark.kafka

OUTAGE_S = float(os.environ.get("OUTAGE_S", "10"))
STORED = int(os.environ.get("STORED", "200000"))
READY_S = 10.0
IN_FLIGHT = 2000
CALLERS = 4
BODY = {"amount": 10, "currency": "USD"}
COPIES = f"""insert into payment_service.payments
select 'pay_' || md5(n::text), 'copy-' || n, user_id, status, provider, amount_minor, currency, authorized, captured,
  refund_pending, refunded, disputed, needs_review, version, sequence, state, null, chain_head, created_at, updated_at
from payment_service.payments, generate_series(1, {STORED}) n where order_id = 'order-0'"""
EVENTS = """insert into payment_service.payment_events
select p.id, e.version, e.sequence, e.type, e.at, e.data, e.hash
from payment_service.payment_events e join payment_service.payments o on o.id = e.payment_id and o.order_id = 'order-0'
cross join payment_service.payments p where p.order_id like 'copy-%'"""


async def test_two_thousand_charges_in_flight_survive_kill_9(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    """All of them sent and unanswered at the moment of the kill; the provider does them after it. Then, while they
    are looked up and sent again, the worker is killed once more."""
    leases = {"LEASE_S": "30", "PROVIDER_DEADLINE_S": "25", "PROVIDER_CONCURRENCY": str(IN_FLIGHT)}
    with simulator(tmp_path / "sim", latency_ms=300) as sim:
        async with installation(tmp_path, kafka_broker, database_url, sim, **leases) as site:
            await site.produce(*(order(number) for number in range(IN_FLIGHT)))
            worker = site.worker(POD_NAME="only-one")
            worker.start()
            await site.until(lambda: len(sim.movements()) >= IN_FLIGHT // 40, "the first charges", 60)
            freeze(sim)
            sent = "select count(*) from payment_service.transactions where owner is not null"
            done = len(sim.movements())
            await site.until(lambda: site.rows(sent)[0][0] >= IN_FLIGHT - 2 * done, "the others are in flight", 20)
            in_flight = unsettled(site)
            worker.kill()
            thaw(sim)
            killed_at = time.monotonic()
            worker.start(LEASE_S="4", PROVIDER_DEADLINE_S="3")
            await site.until(lambda: unsettled(site) < in_flight * 3 // 4, "they are being settled", 90)
            again = unsettled(site)
            worker.kill()
            worker.start(LEASE_S="4", PROVIDER_DEADLINE_S="3")
            await all_charged(site, sim, IN_FLIGHT, 180)
            print(  # noqa: T201
                f"{in_flight} charges in flight at the first kill -9, {again} open at the second;"
                f" all {IN_FLIGHT} settled {time.monotonic() - killed_at:.0f} s after the first, 0 lost, 0 twice"
            )
            assert in_flight > IN_FLIGHT * 0.9


async def test_a_worker_is_ready_in_time_whatever_is_stored(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    with simulator(tmp_path / "sim", latency_ms=0) as sim:
        async with installation(tmp_path, kafka_broker, database_url, sim) as site:
            worker = await site.started()
            await site.produce(order(0))
            await all_charged(site, sim, 1)
            worker.kill()
            site.rows(COPIES)
            site.rows(EVENTS)
            assert site.count("payments") == STORED + 1
            started_at = time.monotonic()
            worker.start()
            await worker.ready()
            ready_s = time.monotonic() - started_at
            await worker.streaming()
            streaming_s = time.monotonic() - started_at
            await site.produce(order(1))
            await site.until(lambda: site.count("payments") == STORED + 2, "the next order")
            took_s = time.monotonic() - started_at
            print(  # noqa: T201
                f"{STORED} stored payments: ready after {ready_s:.1f} s, reading after {streaming_s:.1f} s,"
                f" the next order done after {took_s:.1f} s"
            )
            assert ready_s <= READY_S


async def pay(worker: Worker, order_id: str) -> list[Answer]:
    made = await worker.call("POST", "/api/v1/payments", {"orderId": order_id, **BODY}, user=USER)
    path = f"/api/v1/payments/{payment_id_of(order_id)}/process"
    return [made, await worker.call("POST", path, {"paymentMethodId": "tok_visa"}, user=USER)]


async def buy(workers: list[Worker], name: str, until: asyncio.Event) -> list[str]:
    """One payment after another, at every worker in turn. Every one must succeed, whatever is away."""
    done: list[str] = []
    while not until.is_set():
        order_id = f"{name}-{len(done)}"
        answers = await pay(workers[len(done) % len(workers)], order_id)
        assert [it.status for it in answers] == [201, 200], answers
        done.append(order_id)
        await asyncio.sleep(0.1)
    return done


async def test_kafka_is_away_and_rest_goes_on_also_in_a_worker_that_starts_then(
    database_url: str, tmp_path: Path
) -> None:
    with KafkaServer() as kafka, simulator(tmp_path / "sim", latency_ms=50) as sim:
        async with installation(tmp_path, kafka.address, database_url, sim) as site:
            worker = await site.started()
            await worker.streaming()
            await pay(worker, "before")
            await site.until_told(1)
            kafka.kill()
            away = asyncio.ensure_future(asyncio.sleep(OUTAGE_S))
            late = await site.started()
            workers, until = [worker, late], asyncio.Event()
            shops = [asyncio.ensure_future(buy(workers, f"shop-{number}", until)) for number in range(CALLERS)]
            await away
            waiting = site.count("outbox")
            kafka.start()
            back_at = time.monotonic()
            await asyncio.sleep(1.0)
            until.set()
            paid = sum(map(len, await asyncio.gather(*shops))) + 1
            await site.until_told(paid)
            told_s = time.monotonic() - back_at
            for one in workers:
                await one.streaming()
            streaming_s = time.monotonic() - back_at
            await site.produce(order(0))
            await all_charged(site, sim, paid + 1)
            await until_table_agrees(site, await audit(site))
            print(  # noqa: T201
                f"Kafka away for {OUTAGE_S:.0f} s: {paid} payments taken by REST, none refused;"
                f" {waiting} events waited, told {told_s:.1f} s after its return,"
                f" streams back after {streaming_s:.1f} s"
            )
            assert [(await one.stop())[0] for one in workers] == [0, 0]


async def refused_as_documented(worker: Worker) -> float:
    """REST without its database. Seconds of the slowest answer."""
    slowest = 0.0
    for method, path, body in (
        ("GET", "/ready", None),
        ("POST", "/api/v1/payments", {"orderId": "away", **BODY}),
        ("GET", "/api/v1/payments/pay_of_nobody", None),
    ):
        began = time.monotonic()
        answer = await worker.call(method, path, body, user=USER)
        slowest = max(slowest, time.monotonic() - began)
        assert (answer.status, answer.code) == (503, "SERVICE_UNAVAILABLE"), answer
        if path == "/ready":
            assert answer.body["data"]["database"] is False and answer.body["data"]["reasons"]
        else:
            assert int(answer.headers["Retry-After"]) >= 1
    return slowest


async def test_postgres_is_away_and_everything_waits(kafka_broker: str, tmp_path: Path) -> None:
    """Killed like a power cut in the middle of charges. Nothing is restarted but the database."""
    with RestartablePostgres() as postgres, simulator(tmp_path / "sim") as sim:
        migrate(postgres.url)
        async with installation(tmp_path, kafka_broker, postgres.url, sim, PROVIDER_CONCURRENCY="20") as site:
            worker = await site.started()
            await worker.streaming()
            await site.produce(*(order(number) for number in range(200)))
            await site.until(lambda: len(sim.movements()) >= 40, "charges are under way")
            await postgres.kill()
            away = asyncio.ensure_future(asyncio.sleep(OUTAGE_S))
            await site.produce(*(order(number) for number in range(200, 400)))
            asked, slowest = 0, 0.0
            while not away.done():
                slowest = max(slowest, await refused_as_documented(worker))
                asked += 3
                await asyncio.sleep(0.2)
            await postgres.start()
            back_at = time.monotonic()
            await worker.ready()
            ready_s = time.monotonic() - back_at
            await all_charged(site, sim, 400, 180)
            print(  # noqa: T201
                f"PostgreSQL away for {OUTAGE_S:.0f} s: {asked} answers, all 503 as documented,"
                f" slowest {slowest:.1f} s; ready {ready_s:.1f} s after its return, all 400 orders charged after"
                f" {time.monotonic() - back_at:.1f} s: {dict(judge(site, sim))}"
            )
            assert [it.status for it in await pay(worker, "after")] == [201, 200]
