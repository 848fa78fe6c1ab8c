"""The service on a broker that can no more than OCI Streaming can (servers/narrow_kafka.py)."""

import asyncio
import dataclasses
import json
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest
from rigs.tcp_proxy import TcpProxy
from rigs.worker import PARTITIONS, Installation, Message
from servers.narrow_kafka import SCRAM_PASSWORD, SCRAM_USER, NarrowKafka
from servers.topics import partitions_of, read_to_end

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import needed_topics
from payment_service.core.ids import payment_id_of
from payment_service.services import SHORT_TABLES

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(420)]

CHANGELOG = "payment-service-payments-changelog"
SHORT_CHANGELOGS = [f"payment-service-{name}-changelog" for name in SHORT_TABLES]
HOUR_MS = 3_600_000
REFUSED_THERE = {"CREATE_TOPICS", "CREATE_PARTITIONS", "DELETE_TOPICS", "INIT_PRODUCER_ID", "ADD_PARTITIONS_TO_TXN",
                 "ADD_OFFSETS_TO_TXN", "END_TXN", "ALTER_CONFIGS", "INCREMENTAL_ALTER_CONFIGS"}  # fmt: skip
FETCHES_A_SECOND = 5
A_SECOND_MAX = {"HEARTBEAT": 5, "OFFSET_COMMIT": 10, "OFFSET_FETCH": 10, "METADATA": 500, "SASL_HANDSHAKE": 500}
"""OCI's limits by kind of request; whose they are is not said there: here each worker keeps them."""
WAIT_S = 120.0


@pytest.fixture(scope="module")
def narrow() -> Iterator[NarrowKafka]:
    with NarrowKafka() as server:
        yield server


@asynccontextmanager
async def shop_on(narrow: NarrowKafka, folder: Path, database_url: str, **env: str) -> AsyncIterator[Installation]:
    """With the topics that Terraform would have made: nothing compacted."""
    async with Installation(folder, narrow.address, database_url, **narrow.env, **env) as site:
        partitions = int(env.get("TOPIC_PARTITIONS", PARTITIONS))
        topics = needed_topics(["orders"], [CHANGELOG], aliases=False, short_changelogs=SHORT_CHANGELOGS)
        day = {"cleanup.policy": "delete", "retention.ms": str(24 * HOUR_MS)}
        week = {"cleanup.policy": "delete", "retention.ms": str(168 * HOUR_MS)}
        configs = {site.prefix + it.name: week if it.name == CHANGELOG else day for it in topics}
        await narrow.make_topics(configs, partitions)
        yield site


def order(number: int, **more: Any) -> Message:
    body = {
        "topic": "order.created", "orderId": f"order-{number}", "userId": "user-1", "totalAmount": "10.00",
        "currency": "USD", **more,
    }  # fmt: skip
    return Message(json.dumps(body).encode(), partition=number % PARTITIONS)


async def told(site: Installation, topic: str = "payment.created") -> list[str]:
    messages = await read_to_end(site.broker, site.prefix + topic)
    return [orjson.loads(it.value or b"")["data"]["orderId"] for it in messages]


async def until_in_table(site: Installation, worker: Any, orders: list[str], wait_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + wait_s
    for order_id in orders:
        path = f"/tables/payments/{payment_id_of(order_id)}"
        while (answer := await worker.call("GET", path, user="admin", roles=("admin",))).status != 200:
            assert time.monotonic() < deadline, f"{order_id} is not in the table: {answer}"
            await asyncio.sleep(0.1)
        assert answer.data["orderId"] == order_id


def fetches_at_most(narrow: NarrowKafka, prefix: str, since_ms: float) -> int:
    """The most fetches of one partition that began within one second. Each worker's consumer alone."""
    recent: dict[tuple[str, str, int], deque[float]] = defaultdict(deque)
    most = 0
    fetches = [it for it in narrow.requests(since_ms) if it.kind == "FETCH"]
    for one in sorted(fetches, key=lambda it: it.began_ms):
        for topic in one.body["topics"]:
            if not topic["topic"].startswith(prefix):
                continue
            for partition in topic["partitions"]:
                times = recent[one.client, topic["topic"], partition["partition"]]
                times.append(one.began_ms)
                while times[0] <= one.began_ms - 1000:
                    times.popleft()
                most = max(most, len(times))
    assert most, "no fetch was seen"
    return most


def most_in_a_second(narrow: NarrowKafka, kind: str, since_ms: float) -> int:
    """Of one client's requests of a kind."""
    recent: dict[str, deque[float]] = defaultdict(deque)
    most = 0
    for one in sorted((it for it in narrow.requests(since_ms) if it.kind == kind), key=lambda it: it.began_ms):
        times = recent[one.client]
        times.append(one.began_ms)
        while times[0] <= one.began_ms - 1000:
            times.popleft()
        most = max(most, len(times))
    return most


async def test_it_is_as_narrow_as_it_says(narrow: NarrowKafka) -> None:
    admin = AIOKafkaAdminClient(**narrow.client.options())
    try:
        await admin.start()
        answer = await admin._send_request(InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000))
        assert for_code(answer.error_code) is ClusterAuthorizationFailedError
        ((_, code, *_),) = (await admin.create_topics([NewTopic("mine", 1, 1)])).topic_errors
        assert for_code(code).__name__ == "TopicAuthorizationFailedError"
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("changed", "works"),
    [
        ({}, True),
        ({"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": SCRAM_USER, "sasl_password": SCRAM_PASSWORD}, True),
        ({"sasl_password": "another"}, False),
        ({"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": SCRAM_USER, "sasl_password": "another"}, False),
        ({"ssl_cafile": None}, False),
        ({"security_protocol": "PLAINTEXT"}, False),
    ],
    ids=["plain", "scram", "wrong token", "wrong scram password", "unknown authority", "without TLS"],
)
async def test_signing_on(narrow: NarrowKafka, changed: dict[str, Any], works: bool) -> None:
    client: KafkaClient = dataclasses.replace(narrow.client, **changed)
    admin = AIOKafkaAdminClient(**client.options() | {"request_timeout_ms": 5000})
    try:
        if works:
            await admin.start()
            assert isinstance(await admin.list_topics(), list)
        else:
            with pytest.raises(KafkaError):
                await admin.start()
    finally:
        await admin.close()


async def test_a_certificate_of_another_host_is_refused(narrow: NarrowKafka) -> None:
    """127.0.0.2 reaches the same machine, and is not in the certificate."""
    async with TcpProxy("127.0.0.1", narrow.narrow_port, "127.0.0.2") as wire:
        client = dataclasses.replace(narrow.client, brokers=f"127.0.0.2:{wire.port}")
        admin = AIOKafkaAdminClient(**client.options() | {"request_timeout_ms": 5000})
        try:
            with pytest.raises(KafkaError):
                await admin.start()
        finally:
            await admin.close()


async def test_an_order_is_told_and_kill_9_loses_nothing(
    narrow: NarrowKafka, database_url: str, tmp_path: Path
) -> None:
    since_ms = time.time() * 1000
    async with shop_on(narrow, tmp_path, database_url) as site:
        worker = await site.started()
        await worker.streaming(WAIT_S)
        await site.produce(*(order(number) for number in range(20)))
        await site.until_told(20, WAIT_S)
        await site.produce(*(order(number) for number in range(20, 1020)))
        await site.until(lambda: site.count("payments") > 300, "some of them are payments", WAIT_S)
        worker.kill()
        worker.start()
        await worker.ready(WAIT_S)
        await site.until_told(1020, WAIT_S)
        assert set(await told(site)) == {f"order-{number}" for number in range(1020)}
        await until_in_table(site, worker, ["order-0", "order-19", "order-500", "order-1019"])
        for number in range(2000, 2030):  # one by one: each alone would be a fetch of its own
            await site.produce(order(number))
            await asyncio.sleep(0.1)
        await site.until_told(1050, WAIT_S)
        assert (await worker.stop())[0] == 0
        kinds = {it.kind for it in narrow.requests(since_ms)}
        assert {"FETCH", "PRODUCE", "OFFSET_COMMIT"} <= kinds
        assert kinds & REFUSED_THERE == set()
        assert fetches_at_most(narrow, site.prefix, since_ms) <= FETCHES_A_SECOND
        seen = {kind: most_in_a_second(narrow, kind, since_ms) for kind in A_SECOND_MAX}
        print(f"most of a kind in a second: {seen}")  # noqa: T201
        assert not {kind: most for kind, most in seen.items() if most > A_SECOND_MAX[kind]}


async def trim(narrow: NarrowKafka, topic: str, keep: int) -> None:
    """As retention does it: the front goes, all but the last records of each partition."""
    ends: dict[TopicPartition, int] = defaultdict(int)
    for it in await read_to_end(narrow.address, topic):
        ends[TopicPartition(it.topic, it.partition)] = it.offset + 1
    async with narrow.operator() as admin:
        await admin.delete_records({tp: RecordsToDelete(max(0, end - keep)) for tp, end in ends.items()})


@pytest.mark.parametrize("keep", [0, 1], ids=["all of it", "all but the end"])
async def test_a_trimmed_changelog_is_refilled(
    narrow: NarrowKafka, database_url: str, tmp_path: Path, keep: int
) -> None:
    async with shop_on(narrow, tmp_path, database_url) as site:
        worker = await site.started()
        await worker.streaming(WAIT_S)
        await site.produce(*(order(number) for number in range(60)))
        await site.until_told(60, WAIT_S)
        orders = [f"order-{number}" for number in range(60)]
        await until_in_table(site, worker, orders)
        before = {it: await row(worker, it) for it in orders}
        worker.kill()
        await trim(narrow, site.prefix + CHANGELOG, keep)
        left = {it.key for it in await read_to_end(narrow.address, site.prefix + CHANGELOG)}
        assert len(left) <= keep * PARTITIONS
        worker.start()
        await worker.streaming(WAIT_S)
        await until_in_table(site, worker, orders)
        assert {it: await row(worker, it) for it in orders} == before
        # They are in the changelog too: whoever has the partition next finds them there, and the CLI does.
        again = {it.key for it in await read_to_end(narrow.address, site.prefix + CHANGELOG)}
        assert again == {payment_id_of(it).encode() for it in orders}


async def row(worker: Any, order_id: str) -> Any:
    answer = await worker.call("GET", f"/tables/payments/{payment_id_of(order_id)}", user="admin", roles=("admin",))
    return answer.data


async def test_requests_stay_below_what_is_taken(narrow: NarrowKafka, database_url: str, tmp_path: Path) -> None:
    """Many partitions with a backlog each: a batch of every one of them must fit into one request of 1 MB."""
    partitions, count = 16, 6000
    async with shop_on(narrow, tmp_path, database_url, TOPIC_PARTITIONS=str(partitions)) as site:
        tps = await partitions_of(site.broker, site.orders)
        assert len(tps) == partitions
        await site.produce(*(order(number, paymentMethodId="m" * 100) for number in range(count)))
        worker = await site.started()
        await site.until_told(count, WAIT_S)
        await until_in_table(site, worker, ["order-0", f"order-{count - 1}"])
        sizes = [
            sum(part["recordsSizeInBytes"] for topic in it.body["topicData"] for part in topic["partitionData"])
            for it in narrow.requests()
            if it.kind == "PRODUCE"
        ]
        print(f"largest request {max(sizes)} bytes of {len(sizes)}")  # noqa: T201
        assert "InvalidReceiveException" not in (narrow.log), "the broker closed a connection on a request"
        assert not site.count("dead_letters")


async def test_connections_that_close_now_and_then_lose_nothing(database_url: str, tmp_path: Path) -> None:
    """OCI's front ends close connections to spread the load."""
    async with TcpProxy("127.0.0.1", 0) as wire:
        narrow = NarrowKafka(wire.port)
        wire.aim("127.0.0.1", narrow.narrow_port)
        await asyncio.to_thread(narrow.__enter__)
        try:
            async with shop_on(narrow, tmp_path, database_url) as site:
                worker = await site.started()
                await worker.streaming(WAIT_S)
                for round_ in range(12):
                    await site.produce(*(order(number) for number in range(round_ * 50, round_ * 50 + 50)))
                    await asyncio.sleep(0.5)
                    wire.drop()
                await site.until_told(600, WAIT_S)
                assert set(await told(site)) == {f"order-{number}" for number in range(600)}
                await until_in_table(site, worker, ["order-0", "order-599"])
                ready = (await worker.call("GET", "/ready")).data
                assert ready["broker"] and ready["stream"]["running"], ready
        finally:
            await asyncio.to_thread(narrow.__exit__, None, None, None)
