"""The outbox on a real PostgreSQL and a real broker: order, ownership, and what may be deleted when."""

import asyncio
import contextlib
import json
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.outbox_site import CREATED, SHARDS, Site, other_process, owns_all, row
from servers import KafkaServer
from servers.waiting import until

from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import ALIAS, DEAD_LETTERS, NeededTopic, missing_topics
from payment_service.adapters.postgres.outbox import IDLE_SESSION_S, OutboxConnection
from payment_service.adapters.postgres.pool import Database
from payment_service.core.errors import Unavailable

FAILED, PROCESSED, REFUNDED = "payment.failed", "payment.processed", "payment.refunded"
NOWHERE = "127.0.0.1:9"
"""Nobody listens there."""


@pytest.fixture(params=["tansu_broker", pytest.param("kafka_broker", marks=pytest.mark.kafka)])
def site(request: pytest.FixtureRequest, database_url: str) -> Iterator[Site]:
    made = Site(request.getfixturevalue(request.param), database_url, f"t{uuid.uuid4().hex[:8]}.")
    try:
        yield made
    finally:
        made.close()


# -- order


async def test_order_of_each_payment_outlives_broken_broker_connections(site: Site) -> None:
    payments, events, broken = 40, 25, 0
    await site.topics(CREATED)
    async with site.publisher() as (publisher, outbox):
        await owns_all(publisher, outbox)
        for sequence in range(1, events + 1):
            rows = [row(number, sequence) for number in range(payments)]
            site.commit(rows)
            publisher.offer([(it, sequence == 1) for it in rows])
            if sequence % 5 == 0:
                for connection in list(publisher._sender._producer.client._conns.values()):  # type: ignore[union-attr]
                    connection._writer.transport.abort()
                    broken += 1
            await asyncio.sleep(0.03)
        await until(lambda: site.left() == 0, "every row is published and gone")
    assert broken >= 5
    heard = await site.read(lambda it: sum(map(len, it.firsts().values())) == payments * events, CREATED)
    assert heard.firsts() == {row(number, 1).payment_id: list(range(1, events + 1)) for number in range(payments)}


async def test_a_topic_that_is_missing_holds_back_its_payments_alone_and_is_never_made(site: Site) -> None:
    await site.topics(CREATED, REFUNDED)
    held, free = row(1, 1), row(2, 1)
    async with site.publisher() as (publisher, outbox):
        await owns_all(publisher, outbox)
        rows = [held, row(1, 2, FAILED), row(1, 3, REFUNDED), free, row(2, 2, REFUNDED)]
        site.commit(rows)
        publisher.offer([(it, True) for it in rows])
        await until(lambda: site.left() == 2, "all but the missing topic's event and what follows it")
        left = site.rows("select payment_id, sequence from payment_service.outbox order by 2")
        assert left == [(held.payment_id, 2), (held.payment_id, 3)]
        assert await missing_topics(KafkaClient(site.broker), [NeededTopic(FAILED)], site.prefix)
        await site.topics(FAILED)
        await until(lambda: site.left() == 0, "the rest went out once the topic was there")
    heard = await site.read(lambda it: len(it.records) >= 2, REFUNDED)
    assert heard.payments() == {held.payment_id, free.payment_id}


async def test_an_event_that_no_broker_takes_goes_to_the_dead_letters_and_its_payment_goes_on(site: Site) -> None:
    await site.topics(CREATED, DEAD_LETTERS)
    database = Database(site.dsn)
    async with site.publisher() as (publisher, outbox):
        publisher.dead_letters = DeadLetterBox(publisher, database, None)
        await owns_all(publisher, outbox)
        rows = [row(1, 1), row(1, 2, pad=1_200_000), row(1, 3), row(2, 1, pad=400_000)]
        site.commit(rows)
        publisher.offer([(it, True) for it in rows])
        await until(lambda: site.left() == 0, "every row is settled")
    heard = await site.read(lambda it: len(it.records) >= 3, CREATED)
    assert heard.firsts() == {rows[0].payment_id: [1, 3], rows[3].payment_id: [1]}
    kept = site.rows('select topic, "offset", length(value) > 1000000, reason from payment_service.dead_letters')
    assert kept == [(site.prefix + CREATED, 2, True, "NEVER_TAKEN")]
    await database.close()


async def test_the_alias_repeats_the_event_with_the_same_id(site: Site) -> None:
    await site.topics(PROCESSED, ALIAS)
    async with site.publisher(aliases=True) as (publisher, outbox):
        await owns_all(publisher, outbox)
        one = row(1, 1, PROCESSED)
        site.commit([one])
        publisher.offer([(one, True)])
        await until(lambda: site.left() == 0, "published")
    heard = await site.read(lambda it: len(it.records) == 2, PROCESSED, ALIAS)
    first, second = sorted(heard.records, key=lambda it: it.topic)
    assert [json.loads(it.value)["eventType"] for it in (first, second)] == [PROCESSED, "payment.succeeded"]
    assert [dict(it.headers)["ce_type"] for it in (first, second)] == [PROCESSED.encode(), b"payment.succeeded"]
    assert dict(first.headers)["ce_id"] == dict(second.headers)["ce_id"]
    assert first.partition == second.partition


@pytest.mark.kafka
async def test_a_broker_that_is_killed_and_comes_back_gets_everything_in_order(database_url: str) -> None:
    payments, events = 40, 20
    with KafkaServer() as broker:
        site = Site(broker.address, database_url, "k.")
        await site.topics(CREATED)
        async with site.publisher() as (publisher, outbox):
            await owns_all(publisher, outbox)
            for sequence in range(1, events + 1):
                rows = [row(number, sequence) for number in range(payments)]
                site.commit(rows)
                publisher.offer([(it, sequence == 1) for it in rows])
                await asyncio.sleep(0.05)
                if sequence == events // 2:
                    await asyncio.to_thread(broker.kill)
            assert site.left() > 0
            await asyncio.to_thread(broker.start)
            await until(lambda: site.left() == 0, "every row is published and gone", 60)
        heard = await site.read(lambda it: sum(map(len, it.firsts().values())) == payments * events, CREATED)
        site.close()
    assert all(sequences == list(range(1, events + 1)) for sequences in heard.firsts().values())


# -- rows and memory


async def test_without_a_broker_nothing_is_deleted_and_nothing_is_blocked(site: Site) -> None:
    await site.topics(CREATED)
    rows = [row(number, 1) for number in range(20)]
    async with site.publisher(NOWHERE) as (publisher, outbox):
        await until(lambda: not outbox.lost.is_set(), "the database is there")
        site.commit(rows)
        publisher.offer([(it, True) for it in rows])
        with pytest.raises(Unavailable):
            await publisher.send(DEAD_LETTERS, b"k", b"v", [])
        await asyncio.sleep(1.5)
        assert site.left() == 20
        assert outbox.owned == frozenset(), "left to those who can publish"
        async with site.publisher() as (other, others_outbox):
            await owns_all(other, others_outbox)
            await until(lambda: site.left() == 0, "another worker publishes them")


async def test_what_does_not_fit_into_memory_is_read_from_the_table(site: Site) -> None:
    await site.topics(CREATED)
    rows = [row(number, sequence) for number in range(60) for sequence in range(1, 6)]
    async with site.publisher(rows_max=12) as (publisher, outbox):
        await owns_all(publisher, outbox)
        site.commit(rows)
        publisher.offer([(it, True) for it in rows])
        assert publisher._order.in_memory == 12
        await until(lambda: site.left() == 0, "every row is published")
    heard = await site.read(lambda it: sum(map(len, it.firsts().values())) == len(rows), CREATED)
    assert all(sequences == [1, 2, 3, 4, 5] for sequences in heard.firsts().values())
    assert len(heard.records) == len(rows), "nobody else publishes: nothing goes out twice"


async def test_rows_of_another_process_come_at_once_when_it_notifies(site: Site) -> None:
    await site.topics(CREATED)
    async with site.publisher() as (publisher, outbox):
        await owns_all(publisher, outbox)
        slowest = 0.0
        for number in range(10):
            one = row(number, 1)
            site.commit([one])
            started = time.monotonic()
            site.rows("select pg_notify('payment_outbox', %s)", (str(one.shard),))
            await until(lambda: site.left() == 0, "published and gone")
            slowest += time.monotonic() - started
        assert slowest < 10 * 0.3, "far less than the second after which it is read anyway"


async def test_a_large_backlog_is_published_page_by_page(site: Site) -> None:
    await site.topics(CREATED)
    rows = [row(number, sequence) for number in range(4_000) for sequence in (1, 2)]
    site.commit(rows)
    async with site.publisher():
        await until(lambda: site.left() == 0, "the backlog is published", 60)
    heard = await site.read(lambda it: sum(map(len, it.firsts().values())) == len(rows), CREATED)
    assert all(sequences == [1, 2] for sequences in heard.firsts().values())
    assert len(heard.records) == len(rows)


# -- ownership


async def test_a_terminated_connection_ends_ownership_and_it_comes_back(site: Site) -> None:
    await site.topics(CREATED)
    async with site.publisher() as (publisher, outbox):
        await owns_all(publisher, outbox)
        assert site.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'payment-service outbox' and datname = current_database()"
        )
        await until(lambda: not outbox.owned, "nothing is owned at once", 1.0)
        site.commit([row(1, 1)])
        await owns_all(publisher, outbox)
        await until(lambda: site.left() == 0, "published by the new connection")


async def test_shards_are_shared_between_workers_and_taken_over(site: Site) -> None:
    await site.topics(CREATED)
    async with site.publisher() as (first, one):
        await owns_all(first, one)
        async with site.publisher() as (_, two):
            await until(lambda: len(one.owned) == len(two.owned) == SHARDS // 2, "each has its half")
            assert not one.owned & two.owned
            one.want("anchors")
            two.want("anchors")
            await until(lambda: one.holds("anchors") or two.holds("anchors"), "one of them has the role")
            await asyncio.sleep(1.5)
            assert one.holds("anchors") != two.holds("anchors")
        await owns_all(first, one)


@pytest.mark.long
async def test_a_stopped_process_loses_its_shards_to_another(site: Site, tmp_path: Path) -> None:
    await site.topics(CREATED)
    with other_process(site, tmp_path) as process:
        await until(lambda: site.shard_locks() == SHARDS, "the other process owns every shard")
        process.send_signal(signal.SIGSTOP)
        site.commit([row(number, 1) for number in range(20)])
        stopped_at = time.monotonic()
        async with site.publisher() as (_, outbox):
            await until(lambda: len(outbox.owned) == SHARDS, "we own every shard", IDLE_SESSION_S + 5)
            assert time.monotonic() - stopped_at > 5, "it was alive for the server until then"
            await until(lambda: site.left() == 0, "we publish what it would have")
            process.send_signal(signal.SIGCONT)
            await until(lambda: len(outbox.owned) == SHARDS // 2, "it is back and has its share")


async def test_two_processes_publish_everything_in_order(site: Site, tmp_path: Path) -> None:
    """One is killed and started again all the time; rows are committed meanwhile and left to the owners."""
    payments, events = 50, 30
    await site.topics(CREATED)
    with contextlib.ExitStack() as stack:
        stack.enter_context(other_process(site, tmp_path))
        for sequence in range(1, events + 1):
            if sequence % 10 == 1:
                victim = stack.enter_context(other_process(site, tmp_path))
            site.commit([row(number, sequence) for number in range(payments)], notify=True)
            await asyncio.sleep(0.15)
            if sequence % 10 == 0:
                victim.kill()
        await until(lambda: site.left() == 0, "every row is published and gone", 60)
    heard = await site.read(lambda it: sum(map(len, it.firsts().values())) == payments * events, CREATED)
    assert all(sequences == list(range(1, events + 1)) for sequences in heard.firsts().values())


async def test_workers_that_are_alive_are_counted_also_those_without_a_broker(database_url: str) -> None:
    first, second = (OutboxConnection(database_url, 8) for _ in range(2))

    async def counted(able: bool) -> int:
        await first.tick(lambda shard: False, able=able)
        return first.workers

    assert first.workers == 1, "nobody has counted yet"
    await first.open()
    assert await counted(able=True) == 1
    await second.open()
    await second.tick(lambda shard: False, able=False)
    assert (await counted(able=True), await counted(able=False)) == (2, 2)
    assert len(second.owned) == 0, "who cannot publish has no share of the shards"
    await second.close()
    deadline = asyncio.get_running_loop().time() + 5.0
    while await counted(able=True) != 1:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    await first.close()
    assert first.workers == 1
