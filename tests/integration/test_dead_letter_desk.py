"""Dead letters read from a real broker and PostgreSQL, and sent to where they came from: once."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest
from rigs.counted import CountedMetrics
from rigs.outbox_site import Site
from rigs.stores import KEY
from servers.waiting import until

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.dead_letter_desk import StoredDeadLetters
from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import DEAD_LETTERS
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core.dead_letters import Letter, LetterFilter, Replayed, Sent
from payment_service.core.errors import Malformed, Refused

ALL = LetterFilter()
LARGE = 998_750
"""Fits a message, but not with what a dead letter adds to it."""


@pytest.fixture(params=["tansu_broker", pytest.param("kafka_broker", marks=pytest.mark.kafka)])
def site(request: pytest.FixtureRequest, database_url: str) -> Iterator[Site]:
    made = Site(request.getfixturevalue(request.param), database_url, f"t{uuid.uuid4().hex[:8]}.")
    try:
        yield made
    finally:
        made.close()


@asynccontextmanager
async def desk_on(site: Site, key: bytes = KEY) -> AsyncIterator[StoredDeadLetters]:
    database, clock = Database(site.dsn), SystemClock()
    audit = PostgresAuditLog(database, chain_key(KEY), "cli", clock, CountedMetrics())
    yield StoredDeadLetters(
        KafkaClient(site.broker), "", site.prefix + DEAD_LETTERS, site.prefix, database, AesGcmCipher(key), audit,
        clock, CountedMetrics(), 1.0,
    )  # fmt: skip
    await audit.close()
    await database.close()


async def keep(site: Site, *letters: tuple[str, int, bytes | None, str], sealed: bool = True) -> None:
    """(topic, offset, value, reason) each."""
    database = Database(site.dsn)
    async with site.publisher() as (publisher, _):
        await until(lambda: publisher.connected, "the broker is there")
        box = DeadLetterBox(publisher, database, AesGcmCipher(KEY) if sealed else None)
        for topic, offset, value, reason in letters:
            headers = (("ce_type", b"order.created"), ("reason", b"the message's own"))
            await box.keep(site.prefix + topic, 3, offset, b"key", value, headers, reason, "why")
    await database.close()


async def replay(desk: StoredDeadLetters, wanted: LetterFilter = ALL, *, again: bool = False) -> list[Replayed]:
    chosen = await desk.choose(wanted)
    async with aclosing(desk.replay(list(chosen), "operator:ann", again=again)) as batches:
        return [one async for batch in batches for one in batch]


def outcomes(replayed: list[Replayed]) -> list[Sent]:
    return sorted(one.outcome for one in replayed)


@pytest.mark.long
async def test_letters_of_both_places_are_listed_and_shown(site: Site) -> None:
    await site.topics(DEAD_LETTERS)
    await keep(
        site, ("orders", 1, b"junk", "MALFORMED_JSON"), ("orders", 2, b"z" * LARGE, "VALIDATION_ERROR"),
        ("other", 1, None, "MALFORMED_JSON"),
    )  # fmt: skip
    async with desk_on(site) as desk:
        page = await desk.find(ALL, 10)
        assert [(it.topic, it.offset, it.reason, it.value) for it in page.letters] == [
            (site.prefix + "orders", 1, "MALFORMED_JSON", None),
            (site.prefix + "orders", 2, "VALIDATION_ERROR", None),
            (site.prefix + "other", 1, "MALFORMED_JSON", None),
        ]
        assert (page.total, page.foreign, page.away, page.sent_at_ms) == (3, 0, "", {})
        assert [it.id for it in page.letters][1] == "pg:1"
        assert len((await desk.find(ALL, 2)).letters) == 2
        assert (await desk.find(LetterFilter(topic="orders", reason="MALFORMED_JSON"), 10)).total == 1
        first: Letter = await desk.get(f"{site.prefix}orders/3/1")
        assert (first.value, first.key, first.error, first.replay_of) == (b"junk", b"key", "why", None)
        assert first.headers == (("ce_type", b"order.created"), ("reason", b"the message's own"))
        assert first == await desk.get(first.id)
        assert len((await desk.get("pg:1")).value or b"") == LARGE
        with pytest.raises(Refused, match="no dead letter 0/99"):
            await desk.get("0/99")
    async with desk_on(site, b"x" * 32) as stranger:
        with pytest.raises(Malformed, match="key"):
            await stranger.get(first.id)


@pytest.mark.long
async def test_a_letter_is_sent_again_as_it_came_and_once(site: Site) -> None:
    await site.topics(DEAD_LETTERS, "orders")
    await keep(site, ("orders", 1, b"junk", "A"), ("orders", 2, b"z" * LARGE, "B"), ("orders", 3, b"plain", "A"))
    async with desk_on(site) as desk:
        names = {letter.offset: letter.id for letter in (await desk.find(ALL, 10)).letters}
        assert outcomes(await replay(desk, LetterFilter(name=names[1]))) == [Sent.SENT]
        assert outcomes(await replay(desk, LetterFilter(reason="A"))) == [Sent.ALREADY, Sent.SENT]
        assert outcomes(await replay(desk)) == [Sent.ALREADY, Sent.ALREADY, Sent.SENT]
        assert outcomes(await replay(desk, LetterFilter(name=names[1]), again=True)) == [Sent.SENT]
        assert len((await desk.find(ALL, 10)).sent_at_ms) == 3
    heard = await site.read(lambda it: len(it.records) == 4, "orders")
    own = (("ce_type", b"order.created"), ("reason", b"the message's own"))
    assert sorted((it.value[:5], it.key, tuple(it.headers)) for it in heard.records) == sorted(
        (value, b"key", (*own, ("dl_replay_of", name.encode())))
        for value, name in ((b"junk", names[1]), (b"junk", names[1]), (b"zzzzz", names[2]), (b"plain", names[3]))
    )
    rows = site.rows("select entry ->> 'actor', entry ->> 'result' from payment_service.audit_log "
                     "where entry ->> 'action' = 'dead_letter.replay'")  # fmt: skip
    assert sorted(rows) == [("operator:ann", "ALREADY")] * 3 + [("operator:ann", "OK")] * 4


async def test_a_replay_that_died_is_taken_up_and_one_that_runs_is_left_alone(site: Site) -> None:
    await site.topics(DEAD_LETTERS, "orders")
    await keep(site, ("orders", 1, b"a", "A"), ("orders", 2, b"b", "A"))
    async with desk_on(site) as desk:
        stamps = list(await desk.choose(ALL))
        for stamp, age in zip(stamps, ("1 second", "5 minutes"), strict=True):
            site.rows(
                "insert into payment_service.dead_letter_replays values (%s, 'x', 'bob', now() - %s::interval)",
                (stamp, age),
            )
        assert outcomes(await replay(desk)) == [Sent.CLAIMED, Sent.SENT]
        # Two at once: each letter is sent by one of them.
        site.rows("delete from payment_service.dead_letter_replays")
        both = await asyncio.gather(replay(desk), replay(desk))
    assert sum(one.outcome is Sent.SENT for results in both for one in results) == 2


async def test_what_cannot_be_sent_stays_free(site: Site) -> None:
    await site.topics(DEAD_LETTERS, "orders")
    await keep(site, ("gone", 1, b"a", "A"), ("orders", 2, b"z" * 2_000_000, "A"))
    async with desk_on(site) as desk:
        replayed = {one.source: one for one in await replay(desk)}
        assert set(outcomes(list(replayed.values()))) == {Sent.FAILED}
        assert "there is no topic" in replayed[f"{site.prefix}gone/3/1"].why
        assert "never takes it" in replayed[f"{site.prefix}orders/3/2"].why
        assert site.rows("select * from payment_service.dead_letter_replays") == []
    async with desk_on(site, b"x" * 32) as stranger:
        assert [one.outcome for one in await replay(stranger)] == [Sent.FAILED] * 2


async def test_a_letter_that_fails_again_points_back_and_is_not_sent_in_a_circle(site: Site) -> None:
    """Somebody puts every message straight back into the dead letters while the replay runs."""
    await site.topics(DEAD_LETTERS, "orders")
    await keep(site, *(("orders", number, b"x", "A") for number in range(5)))
    database = Database(site.dsn)

    async def bounce(publisher: object, seen: int) -> int:
        heard = await site.read(lambda it: len(it.records) >= seen, "orders")
        box = DeadLetterBox(publisher, database, None)  # type: ignore[arg-type]
        for it in heard.records:
            await box.keep(it.topic, it.partition, it.offset, it.key, it.value, tuple(it.headers), "AGAIN", "why")
        return len(heard.records)

    async with site.publisher() as (publisher, _), desk_on(site) as desk:
        await until(lambda: publisher.connected, "the broker is there")
        bouncing = asyncio.create_task(bounce(publisher, 5))
        assert outcomes(await replay(desk)) == [Sent.SENT] * 5
        assert await bouncing == 5
        page = await desk.find(LetterFilter(reason="AGAIN"), 10)
        firsts = await desk.find(LetterFilter(reason="A"), 10)
        assert sorted(it.replay_of or "" for it in page.letters) == sorted(it.id for it in firsts.letters)
    await database.close()


async def test_other_messages_in_the_topic_are_counted(site: Site) -> None:
    await site.topics(DEAD_LETTERS)
    async with site.publisher() as (publisher, _):
        await until(lambda: publisher.connected, "the broker is there")
        await publisher.send(DEAD_LETTERS, b"k", b"v", [("reason", b"none of ours")])
    async with desk_on(site) as desk:
        page = await desk.find(ALL, 10)
    assert (page.total, page.foreign) == (0, 1)
