"""Workers that die, stop, come in pairs, or lose their database: nothing is lost, nothing done twice. Apache Kafka."""

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from rigs.books import Books, audit, until_table_agrees
from rigs.tcp_proxy import TcpProxy
from rigs.worker import PARTITIONS, Installation, Message, Worker

pytestmark = pytest.mark.kafka

ORDERS = 2_000
KILLS = 5
CHARGES = 300
AWAY_S = 10.0
FROZEN_S = 14.0
SHORT_LEASES = {"LEASE_S": "4", "PROVIDER_DEADLINE_S": "2"}
"""What a dead worker was doing is looked up after its lease."""
CHARGED = [("payment.created", "PENDING"), ("payment.processed", "SUCCEEDED")]
DECLINED = [("payment.created", "PENDING"), ("payment.failed", "FAILED")]


def seeded() -> random.Random:
    """CRASH_SEED repeats a run that failed."""
    seed = int(os.environ.get("CRASH_SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"CRASH_SEED={seed}")  # noqa: T201 pytest shows it when the test fails
    return random.Random(seed)


def an_order(number: int, kind: str = "created", **more: object) -> Message:
    """The events of one order lie in one partition, in their order; the key is what the old order service sends."""
    body = {"topic": f"order.{kind}", "orderId": f"order-{number}", "userId": f"user-{number % 50}", **more}
    if kind == "created":
        body |= {"totalAmount": f"{number % 100 + 1}.50", "currency": "USD"}
    return Message(json.dumps(body).encode(), number % PARTITIONS, body["topic"].encode())


def two_thousand_orders() -> list[Message]:
    """Every third is cancelled, later."""
    created = [an_order(number) for number in range(ORDERS)]
    return created + [an_order(number, "cancelled") for number in range(0, ORDERS, 3)]


def check_two_thousand(site: Installation, books: Books) -> None:
    heard = {order_id: [word for word, _ in books.events(order_id)] for order_id in books.payments}
    for number in range(ORDERS):
        expected = ["payment.created", "payment.cancelled"] if number % 3 == 0 else ["payment.created"]
        assert heard.pop(f"order-{number}") == expected
    assert not heard
    marks = "select count(*) from payment_service.inbox where command_id like 'order.%'"
    assert site.rows(marks) == [(ORDERS + len(range(0, ORDERS, 3)),)]


async def drained(site: Installation) -> Books:
    """Everything that came in is done, told, and would not be read again."""
    await site.until(lambda: site.count("payments") == ORDERS, f"{ORDERS} payments", 120)
    await site.all_committed()
    await site.until_told(ORDERS)
    return await audit(site)


async def test_a_worker_that_is_killed_again_and_again_loses_and_doubles_nothing(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    chance = seeded()
    # A few at a time, so that the work takes longer than seeing it.
    async with Installation(tmp_path, kafka_broker, database_url, STREAM_IN_FLIGHT_MAX="5") as site:
        await site.make_order_topic()
        await site.produce(*two_thousand_orders())
        # A name of its own lets the broker give its partitions back at once instead of after the session time-out.
        worker = site.worker(POD_NAME="only-one")
        for left in range(KILLS, 0, -1):
            worker.start()
            done = site.count("payments")
            await killed_at(site, worker, done + chance.randrange(1, (ORDERS - done) // left), chance.random() * 0.02)
            assert site.count("payments") < ORDERS or left == 1, "it was too quick to be killed in the middle"
        worker.start()
        books = await drained(site)
        check_two_thousand(site, books)
        await until_table_agrees(site, books)


async def killed_at(site: Installation, worker: Worker, payments: int, later_s: float) -> None:
    await worker.ready()
    await site.until(lambda: site.count("payments") >= payments, f"{payments} payments")
    await asyncio.sleep(later_s)
    worker.kill()


async def test_two_workers_share_the_orders_and_one_of_them_is_killed(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with Installation(tmp_path, kafka_broker, database_url, STREAM_IN_FLIGHT_MAX="5") as site:
        await site.make_order_topic()
        one, other = site.worker(), site.worker()
        one.start()
        other.start()
        await site.until_members(2)
        messages = two_thousand_orders()
        await site.produce(*messages[: len(messages) // 2])
        await site.until(lambda: site.count("payments") >= ORDERS // 4, "a quarter of the payments")
        other.kill()
        assert site.count("payments") < len(messages) // 2
        await site.produce(*messages[len(messages) // 2 :])
        check_two_thousand(site, await drained(site))


async def test_a_worker_that_stood_still_does_no_harm_when_it_wakes(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    """Longer than the broker and the database wait for it: the other one has taken its partitions and its outbox."""
    async with Installation(tmp_path, kafka_broker, database_url, STREAM_IN_FLIGHT_MAX="5") as site:
        await site.make_order_topic()
        one, other = site.worker(), site.worker()
        one.start()
        other.start()
        await site.until_members(2)
        await site.produce(*two_thousand_orders())
        await site.until(lambda: site.count("payments") >= ORDERS // 4, "a quarter of the payments")
        other.freeze()
        assert site.count("payments") < ORDERS
        await asyncio.sleep(FROZEN_S)
        other.thaw()
        check_two_thousand(site, await drained(site))
        await site.until_members(2)
        assert [(await worker.stop())[0] for worker in (other, one)] == [0, 0]


async def test_an_order_is_charged_once_also_when_the_worker_is_killed_while_it_charges(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    chance = seeded()
    tokens = ["tok_visa"] * 4 + ["tok_chargeDeclined"]
    env = {"AUTO_PROCESS_ORDERS": "true", "MOCK_LATENCY_MS": "300", "PROVIDER_CONCURRENCY": "40", **SHORT_LEASES}
    async with Installation(tmp_path, kafka_broker, database_url, **env) as site:
        await site.make_order_topic()
        orders = [an_order(number, paymentMethodId=tokens[number % 5]) for number in range(CHARGES)]
        await site.produce(*orders)
        worker = site.worker(POD_NAME="only-one")
        settled = "payment_service.transactions where status in ('SUCCEEDED', 'FAILED')"
        for _ in range(2):
            ((before,),) = site.rows(f"select count(*) from {settled}")
            worker.start()
            await worker.ready()
            await site.until(
                lambda: site.rows(f"select count(*) from {settled}")[0][0] > before,  # noqa: B023 used in this round
                "calls are answered",
            )
            await asyncio.sleep(chance.random() * 0.4)
            worker.kill()
        await site.produce(*orders[:50])  # an order service that is not sure sends them again
        worker.start()
        await site.until(lambda: site.rows(f"select count(*) from {settled}")[0][0] == CHARGES, "all are settled")
        await site.all_committed()
        await site.until_told(CHARGES)
        await check_charges(site, tokens)


async def check_charges(site: Installation, tokens: list[str]) -> None:
    books = await audit(site)
    calls = site.rows("select payment_id, type, status, amount_minor, provider_key from payment_service.transactions")
    assert Counter(call[0] for call in calls) == {row["id"]: 1 for row in books.payments.values()}
    for number in range(CHARGES):
        row = books.payments[f"order-{number}"]
        paid = tokens[number % 5] == "tok_visa"
        assert [event for event in books.events(f"order-{number}") if event[0] != "payment.unknown"] == (
            CHARGED if paid else DECLINED
        )
        assert (row["captured"], row["refunded"]) == (row["amount_minor"] if paid else 0, 0)
        assert not row["needs_review"]


async def test_sigterm_ends_the_worker_in_time_and_loses_nothing_in_flight(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    env = {"MOCK_LATENCY_MS": "1500", "STREAM_IN_FLIGHT_MAX": "100", **SHORT_LEASES}
    async with Installation(tmp_path, kafka_broker, database_url, **env) as site:
        await site.make_order_topic()
        worker = await site.started()
        await worker.streaming()
        made = [
            await worker.call(
                "POST", "/api/v1/payments", {"orderId": f"rest-{number}", "amount": 10, "currency": "USD"}, user="u"
            )
            for number in range(20)
        ]
        await site.produce(*two_thousand_orders())
        process = {"paymentMethodId": "tok_visa"}
        under_way = [
            asyncio.ensure_future(worker.call("POST", f"/api/v1/payments/{one.data['id']}/process", process, user="u"))
            for one in made
        ]
        await site.until(lambda: site.count("transactions") == len(made), "the calls are under way")
        code, took_s = await worker.stop()
        assert (code, took_s < 30) == (0, True)
        answers = await asyncio.gather(*under_way)
        assert [(one.status, one.data["status"]) for one in answers] == [(200, "SUCCEEDED")] * len(made)
        worker.start()
        await site.until(lambda: site.count("payments") == ORDERS + len(made), "all payments")
        await site.all_committed()
        await site.until_told(ORDERS + len(made))
        books = await audit(site)
        for number in range(len(made)):
            assert books.events(f"rest-{number}") == CHARGED
            del books.payments[f"rest-{number}"]
        check_two_thousand(site, books)


async def test_the_database_may_go_away_for_a_while(kafka_broker: str, database_url: str, tmp_path: Path) -> None:
    address = urlsplit(database_url)
    assert address.hostname is not None and address.port is not None
    async with TcpProxy(address.hostname, address.port) as wire:
        near = f"{address.username}:{address.password}@127.0.0.1:{wire.port}"
        through = urlunsplit(("postgresql", near, address.path, address.query, ""))
        env = {"DATABASE_URL": through, "STREAM_IN_FLIGHT_MAX": "5"}
        async with Installation(tmp_path, kafka_broker, database_url, **env) as site:
            await site.make_order_topic()
            worker = await site.started()
            await worker.streaming()
            messages = two_thousand_orders()
            await site.produce(*messages[:ORDERS])
            await site.until(lambda: site.count("payments") >= ORDERS // 10, "the first payments")
            for _ in range(5):  # connections that break in the middle of commits
                wire.drop()
                await asyncio.sleep(0.05)
            await wire.cut()
            assert site.count("payments") < ORDERS
            away = asyncio.ensure_future(asyncio.sleep(AWAY_S))
            await check_rest_without_database(worker)
            await site.produce(*messages[ORDERS:])
            await away
            await wire.mend()
            await worker.ready()
            check_two_thousand(site, await drained(site))
            created = await worker.call("POST", "/api/v1/payments", {"orderId": "after", "amount": 1}, user="u")
            assert created.status == 201


async def check_rest_without_database(worker: Worker) -> None:
    health = await worker.call("GET", "/health")
    assert health.status == 200
    ready = await worker.call("GET", "/ready")
    assert ready.status == 503 and ready.code == "SERVICE_UNAVAILABLE"
    assert ready.body["data"]["reasons"] and ready.body["data"]["database"] is False
    for method, path, body in (
        ("POST", "/api/v1/payments", {"orderId": "away", "amount": 1}),
        ("GET", "/api/v1/payments/pay_of_nobody", None),
        ("GET", "/api/v1/payments", None),
    ):
        answer = await worker.call(method, path, body, user="u")
        assert (answer.status, answer.code) == (503, "SERVICE_UNAVAILABLE"), answer
        assert int(answer.headers["Retry-After"]) >= 1
