"""Several workers on Apache Kafka and one PostgreSQL: joining, leaving, dying, standing still. A provider simulator
judges what money moved."""

import asyncio
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from rigs.books import audit, read_all
from rigs.charging_site import USER, all_charged, installation, order, simulator
from rigs.judge import freeze, judge, thaw, unsettled
from rigs.retrying_client import RetryingClient
from rigs.worker import PARTITIONS, Installation, Worker

from payment_service.core.ids import payment_id_of

pytestmark = pytest.mark.kafka

SESSION_S = 10.0
FROZEN_S = 14.0
"""Longer than the broker's session, the database's idle session and a call's lease."""
CHARGES = 400
CLIENTS = 8


async def test_workers_join_and_leave_while_charges_are_in_flight(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    with simulator(tmp_path / "sim") as sim:
        async with installation(tmp_path, kafka_broker, database_url, sim, PROVIDER_CONCURRENCY="10") as site:
            one, other, third = site.worker(), site.worker(), site.worker()
            one.start()
            await site.until_members(1)
            await site.produce(*(order(number) for number in range(CHARGES)))
            await site.until(lambda: len(sim.movements()) >= CHARGES // 8, "charges are under way")
            other.start()
            third.start()
            await site.until_members(3)
            assert unsettled(site) > 0, "it was over before the partitions moved"
            code, took_s = await one.stop()
            assert (code, took_s < 30) == (0, True)
            await site.until_members(2)
            await site.produce(*(order(number) for number in range(CHARGES, CHARGES + 40)))
            await all_charged(site, sim, CHARGES + 40)


async def test_a_zombie_with_calls_in_flight_does_no_harm(kafka_broker: str, database_url: str, tmp_path: Path) -> None:
    """What it had under way is settled by the other one; what it believes when it wakes changes nothing."""
    with simulator(tmp_path / "sim") as sim:
        async with installation(tmp_path, kafka_broker, database_url, sim, PROVIDER_CONCURRENCY="40") as site:
            zombie, other = site.worker(), site.worker()
            zombie.start()
            other.start()
            await site.until_members(2)
            await site.produce(*(order(number) for number in range(CHARGES)))
            await site.until(lambda: len(sim.movements()) >= CHARGES // 8, "charges are under way")
            zombie.freeze()
            assert unsettled(site) > 0
            await asyncio.sleep(FROZEN_S)
            zombie.thaw()
            await all_charged(site, sim, CHARGES)
            await site.until_members(2)
            await site.produce(*(order(number) for number in range(CHARGES, CHARGES + 40)))
            await all_charged(site, sim, CHARGES + 40)
            assert [(await worker.stop())[0] for worker in (zombie, other)] == [0, 0]


async def members_seen(site: Installation, until: asyncio.Event) -> set[int]:
    """How many members the group had, at every look."""
    client = AIOKafkaAdminClient(bootstrap_servers=site.broker)
    await client.start()
    seen = set()
    try:
        while not until.is_set():
            (answer,) = await client.describe_consumer_groups([site.group])
            seen.add(len(answer.groups[0][5]))
            await asyncio.sleep(0.02)
    finally:
        await client.close()
    return seen


async def test_a_named_worker_gets_its_partitions_back_at_once(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    """Static membership: killed and started again, it is the same member, and does not wait for its old session."""
    with simulator(tmp_path / "sim", latency_ms=0) as sim:
        async with installation(tmp_path, kafka_broker, database_url, sim) as site:
            one, other = site.worker(POD_NAME="pod-0"), site.worker(POD_NAME="pod-1")
            one.start()
            other.start()
            await site.until_members(2)
            await site.produce(*(order(number) for number in range(40)))
            await site.until(lambda: site.count("payments") == 40, "the first payments")
            one.kill()
            killed_at, over = time.monotonic(), asyncio.Event()
            looking = asyncio.ensure_future(members_seen(site, over))
            one.start()
            await site.produce(*(order(number) for number in range(40, 80)))
            await site.until(lambda: site.count("payments") == 80, "the payments of all partitions")
            took_s = time.monotonic() - killed_at
            print(f"killed, started again and reading after {took_s:.1f} s")  # noqa: T201
            over.set()
            assert await looking == {2}, "it came as another member"
            await all_charged(site, sim, 80)


async def test_the_other_worker_takes_over_in_time(kafka_broker: str, database_url: str, tmp_path: Path) -> None:
    """From kill -9 to the next payment.created of the dead one's partitions: session time-out and 3 s at most."""
    with simulator(tmp_path / "sim", latency_ms=0) as sim:
        async with installation(tmp_path, kafka_broker, database_url, sim, AUTO_PROCESS_ORDERS="false") as site:
            victim, other = site.worker(), site.worker()
            victim.start()
            other.start()
            await site.until_members(2)
            await site.produce(*(order(number) for number in range(40)))
            await site.until_told(40)
            victim.kill()
            killed_ms = time.time() * 1000
            sent = 40
            while (time.time() * 1000 - killed_ms) / 1000 < SESSION_S + 5:
                await site.produce(*(order(number) for number in range(sent, sent + PARTITIONS)))
                sent += PARTITIONS
                await asyncio.sleep(0.1)
            await site.until_told(sent)
            first: dict[int, float] = defaultdict(lambda: float("inf"))
            for message in await read_all(site, ["payment.created"], sent):
                assert message.value is not None
                number = int(json.loads(message.value)["data"]["orderId"].removeprefix("order-"))
                if number >= 40:
                    first[number % PARTITIONS] = min(first[number % PARTITIONS], (message.at_ms - killed_ms) / 1000)
            gaps = sorted(round(gap, 1) for gap in first.values())
            print(f"seconds from SIGKILL to the next payment.created, by partition: {gaps}")  # noqa: T201
            assert len(gaps) == PARTITIONS
            assert gaps[-1] > 2, "nobody had to take over"
            assert gaps[-1] <= SESSION_S + 3


async def shop(client: RetryingClient, name: str, until: asyncio.Event) -> list[str]:
    """Creates and pays, one after another, until told to stop. Every answer must be the right one."""
    done: list[str] = []
    while not until.is_set():
        order_id = f"{name}-{len(done)}"
        body = {"orderId": order_id, "amount": 20, "currency": "USD"}
        made = await client.call("POST", "/api/v1/payments", body, user=USER)
        assert made.status in (200, 201), made
        path = f"/api/v1/payments/{payment_id_of(order_id)}"
        paid = await client.call("POST", f"{path}/process", {"paymentMethodId": "tok_visa"}, user=USER)
        assert paid.status in (200, 202), paid
        read = await client.call("GET", path, user=USER)
        assert read.status == 200, read
        done.append(order_id)
    return done


async def test_a_rolling_restart_fails_no_call_of_a_client_that_retries(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    with simulator(tmp_path / "sim", latency_ms=100) as sim:
        async with installation(tmp_path, kafka_broker, database_url, sim) as site:
            workers = [await site.started(POD_NAME="pod-0"), await site.started(POD_NAME="pod-1")]
            client, until = RetryingClient(workers), asyncio.Event()
            shops = [asyncio.ensure_future(shop(client, f"shop-{number}", until)) for number in range(CLIENTS)]
            stops = []
            for _ in range(2):
                for worker in workers:
                    await asyncio.sleep(1.0)
                    code, took_s = await worker.stop()
                    stops.append(round(took_s, 1))
                    assert (code, took_s < 30) == (0, True)
                    worker.start()
                    await worker.ready()
            until.set()
            done = [order_id for orders in await asyncio.gather(*shops) for order_id in orders]
            print(  # noqa: T201
                f"4 restarts, drained in {stops} s; {client.calls} calls, none failed,"
                f" slowest {client.slowest_s:.1f} s, met on the way: {dict(client.met)}"
            )
            await all_charged(site, sim, len(done))


async def test_of_fifty_refunds_of_most_of_it_exactly_one_succeeds(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    with simulator(tmp_path / "sim") as sim:
        async with installation(tmp_path, kafka_broker, database_url, sim) as site:
            workers = [await site.started(), await site.started()]
            await workers[0].call("POST", "/api/v1/payments", {"orderId": "o", "amount": 10}, user=USER)
            path = f"/api/v1/payments/{payment_id_of('o')}"
            paid = await workers[0].call("POST", f"{path}/process", {"paymentMethodId": "tok_visa"}, user=USER)
            assert paid.data["status"] == "SUCCEEDED"

            async def refund(worker: Worker) -> Any:
                return await worker.call("POST", f"{path}/refund", {"amount": 6}, user=USER)

            answers = await asyncio.gather(*(refund(workers[number % 2]) for number in range(50)))
            assert sorted(it.status for it in answers) == [200] + [422] * 49
            assert {it.code for it in answers if it.status == 422} == {"REFUND_EXCEEDS"}
            (won,) = [it.data for it in answers if it.status == 200]
            assert (won["refund"]["status"], won["refund"]["amountMinor"]) == ("COMPLETED", 600)
            await site.until_told(1)
            assert judge(site, sim) == {"charge": 1, "refund": 1}
            assert (await audit(site)).payments["o"]["refunded"] == 600


async def test_sigterm_ends_in_time_also_while_the_provider_answers_nothing(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    """What hangs is left with its lease; another worker settles it when the provider is back."""
    with simulator(tmp_path / "sim") as sim:
        patient = {"LEASE_S": "30", "PROVIDER_DEADLINE_S": "29"}
        async with installation(tmp_path, kafka_broker, database_url, sim, **patient) as site:
            worker = await site.started()
            await site.produce(*(order(number) for number in range(100)))
            await site.until(lambda: len(sim.movements()) >= 10, "the first charges")
            freeze(sim)
            await site.until(lambda: site.count("transactions") == 100, "all orders are there")
            hanging = unsettled(site)
            assert hanging > 0
            code, took_s = await worker.stop()
            print(f"{hanging} calls hung, and SIGTERM ended the worker in {took_s:.1f} s")  # noqa: T201
            assert (code, took_s < 30) == (0, True)
            thaw(sim)
            worker.start()
            await all_charged(site, sim, 100)
