"""Dead letters and topics on a real broker, and PostgreSQL for what does not fit a message."""

import asyncio
import uuid
from collections.abc import Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from rigs.outbox_site import CREATED, PARTITIONS, Site
from servers.waiting import until

from payment_service.adapters.dead_letters import DeadLetterBox, sealing_place
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_message import NeverTaken
from payment_service.adapters.kafka_topics import DEAD_LETTERS, create_missing, missing_topics, needed_topics
from payment_service.adapters.postgres.pool import Database


@pytest.fixture(params=["tansu_broker", pytest.param("kafka_broker", marks=pytest.mark.kafka)])
def site(request: pytest.FixtureRequest, database_url: str) -> Iterator[Site]:
    made = Site(request.getfixturevalue(request.param), database_url, f"t{uuid.uuid4().hex[:8]}.")
    try:
        yield made
    finally:
        made.close()


class Xor:
    """A Cipher that shows whether it was used, and with which place."""

    def seal(self, plain: bytes, place: str) -> bytes:
        return place.encode() + b"|" + plain[::-1]

    def unseal(self, sealed: bytes, place: str) -> bytes:
        raise NotImplementedError


async def test_a_dead_letter_is_sealed_and_says_where_it_came_from(site: Site) -> None:
    await site.topics(DEAD_LETTERS)
    database = Database(site.dsn)
    async with site.publisher() as (publisher, _):
        await until(lambda: publisher.connected, "the broker is there")
        box = DeadLetterBox(publisher, database, Xor())
        await box.keep("orders", 3, 77, b"k", b"abc", (("ce_type", b"order.created"),), "MALFORMED", "not JSON\x00")
        await box.keep("orders", 3, 78, None, None, (), "MALFORMED", "nothing")
        await box.keep("orders", 3, 79, b"k", b"z" * 2_000_000, (("h", b"\xff"),), "MALFORMED", "too \ud800 large")
    heard = await site.read(lambda it: len(it.records) == 2, DEAD_LETTERS)
    letter = next(it for it in heard.records if it.key == b"k")
    assert letter.value == sealing_place("orders", 3, 77).encode() + b"|cba"
    assert dict(letter.headers) == {
        "ce_type": b"order.created", "reason": b"MALFORMED", "error": b"not JSON?", "source-topic": b"orders",
        "source-partition": b"3", "source-offset": b"77", "sealed": b"1",
    }  # fmt: skip
    kept = site.rows('select "offset", length(value) > 2000000, headers, error from payment_service.dead_letters')
    assert kept == [(79, True, [["h", "/w=="]], "too ? large")]
    await database.close()


async def test_a_message_that_is_too_large_is_refused_and_others_are_sent(site: Site) -> None:
    await site.topics(DEAD_LETTERS)
    async with site.publisher() as (publisher, _):
        await until(lambda: publisher.connected, "the broker is there")
        too_large = publisher.send(DEAD_LETTERS, b"a", b"z" * 1_000_000, [])
        fits = publisher.send(DEAD_LETTERS, b"a", b"z" * 900_000, [])
        results = await asyncio.gather(too_large, fits, return_exceptions=True)
    assert isinstance(results[0], NeverTaken)
    assert results[1] is None


async def test_topics_are_made_once_and_changelogs_are_compacted(site: Site) -> None:
    client = KafkaClient(site.broker)
    needed = needed_topics(["orders"], ["payments-changelog"], aliases=True)
    made = await create_missing(client, needed, site.prefix, PARTITIONS)
    assert {name.removeprefix(site.prefix) for name in made} == {topic.name for topic in needed}
    assert await create_missing(client, needed, site.prefix, PARTITIONS) == []
    assert await missing_topics(client, needed, site.prefix) == []
    admin = AIOKafkaAdminClient(bootstrap_servers=site.broker)
    await admin.start()
    described = await admin.describe_topics([site.prefix + "payments-changelog", site.prefix + CREATED])
    await admin.close()
    assert {len(it["partitions"]) for it in described} == {PARTITIONS}
