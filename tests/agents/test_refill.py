"""A table whose changelog has forgotten rows gets them back from elsewhere, and never an older one for a newer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from rigs.table_rig import CHANGELOG, HOUR_MS, NOW_MS, TTL_S, Rig, event
from servers.waiting import until

from payment_service.adapters.kafka_message import partition_hash
from payment_service.core.errors import Unavailable
from payment_service.tables import refill
from payment_service.tables.refill import SLACK_MS, Refill

PARTITIONS = 4


def in_partition(number: int, count: int) -> list[str]:
    """Payments that belong to a partition."""
    names = (f"pay_{it}" for it in range(10_000))
    return [it for it in names if partition_hash(it.encode()) % PARTITIONS == number][:count]


@dataclass
class Published:
    """What PostgreSQL would tell."""

    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    open: dict[str, dict[str, Any]] = field(default_factory=dict)
    """With a call that is not settled."""
    asked: list[tuple[int, int]] = field(default_factory=list)
    fails: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def between(self, from_ms: int, to_ms: int) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        self.asked.append((from_ms, to_ms))
        if self.fails:
            self.fails -= 1
            raise Unavailable("the database is away")
        await self.gate.wait()
        yield [(payment_id, orjson.dumps(one)) for payment_id, one in self.events.items()]

    async def unsettled(self) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        yield [(payment_id, orjson.dumps(one)) for payment_id, one in self.open.items()]


@dataclass
class Broker:
    """`firsts`, `ends`: of each partition's changelog."""

    firsts: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    ends: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 9))
    fails: int = 0

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        if self.fails:
            self.fails -= 1
            raise KafkaConnectionError
        return {tp: self.firsts[tp.partition] for tp in tps}

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        return {tp: self.ends[tp.partition] for tp in tps}


@dataclass
class Site:
    rig: Rig
    app: Any
    broker: Broker
    published: Published
    refill: Refill

    async def settled(self) -> None:
        running = self.refill._running
        assert running is not None
        await asyncio.wait([running], timeout=5)
        assert running.done()


@pytest.fixture
def site(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(refill, "AGAIN_S_MIN", 0.01)
    broker, published = Broker(), Published()
    published.gate.set()
    app = SimpleNamespace(
        consumer=broker, consumer_generation_id=1, conf=rig.app.conf, add_future=asyncio.ensure_future
    )
    return Site(rig, app, broker, published, Refill(app, rig.table, published, now_ms=lambda: NOW_MS, ttl_s=TTL_S))


async def test_what_is_missing_is_written(site: Site) -> None:
    site.broker.firsts[2] = 5
    missing, foreign = in_partition(2, 3), in_partition(1, 2)
    site.published.events = {it: event(it, 2) for it in (*missing, *foreign)}
    site.refill.start({1, 2})
    await site.settled()
    assert {key.decode() for key, _ in site.rig.written()} == set(missing)
    assert {site.rig.table.get(it)["sequence"] for it in missing} == {2}  # type: ignore[index]


async def test_nothing_is_asked_while_the_changelog_is_whole(site: Site) -> None:
    site.refill.start({0, 1, 2, 3})
    await site.settled()
    assert site.published.asked == []


async def test_asked_is_only_for_what_may_be_gone(site: Site) -> None:
    """From the oldest finished payment that a table holds to the first record that is left."""
    site.broker.firsts[0] = 7
    site.rig.replay(in_partition(0, 1)[0], 1)
    site.refill.start({0})
    await site.settled()
    assert site.published.asked == [(NOW_MS - HOUR_MS, NOW_MS + SLACK_MS)]
    site.broker.firsts[3] = site.broker.ends[3] = 4  # all of it is gone
    site.refill.start({0, 3})
    await site.settled()
    assert site.published.asked[1:] == [(NOW_MS - HOUR_MS, NOW_MS + SLACK_MS)], "of the new partition alone"


async def test_a_newer_row_stays_also_one_that_is_on_its_way(site: Site) -> None:
    newer, on_its_way, older, gone = in_partition(0, 4)
    await site.rig.put(newer, 5)
    await site.rig.put(older, 1)
    site.rig.producer.automatic = False
    putting = site.rig.putting(on_its_way, 3)
    await asyncio.sleep(0)
    site.broker.firsts[0] = 9
    site.published.events = {
        newer: event(newer, 4), on_its_way: event(on_its_way, 2), older: event(older, 2),
        gone: event(gone, 1, at_ms=NOW_MS - 2 * HOUR_MS),
    }  # fmt: skip
    site.refill.start({0})
    await until(lambda: bool(site.published.asked), "it has asked")
    await asyncio.sleep(0.01)
    site.rig.producer.automatic = True
    while not putting.done() or not site.refill._running.done():  # type: ignore[union-attr]
        for _, _, sent in site.rig.producer.sent:
            if not sent.done():
                sent.set_result(SimpleNamespace(offset=1))
        await asyncio.sleep(0.01)
    sequences = {it: (site.rig.table.get(it) or {}).get("sequence") for it in (newer, on_its_way, older, gone)}
    assert sequences == {newer: 5, on_its_way: 3, older: 2, gone: None}


async def test_an_old_payment_that_is_not_settled_comes_back(site: Site) -> None:
    (unknown,) = in_partition(0, 1)
    site.broker.firsts[0] = 1
    site.published.open = {unknown: event(unknown, 3, "UNKNOWN", at_ms=NOW_MS - 5 * HOUR_MS)}
    site.refill.start({0})
    await site.settled()
    assert site.rig.table.get(unknown)["status"] == "UNKNOWN"  # type: ignore[index]


async def test_what_is_away_is_asked_again(site: Site) -> None:
    (missing,) = in_partition(0, 1)
    site.broker.firsts[0], site.broker.fails, site.published.fails = 1, 2, 2
    site.published.events = {missing: event(missing, 1)}
    site.refill.start({0})
    await site.settled()
    assert site.rig.table.get(missing) is not None


async def test_a_write_that_fails_is_done_again(site: Site) -> None:
    (missing,) = in_partition(0, 1)
    site.broker.firsts[0] = 1
    site.published.events = {missing: event(missing, 1)}
    site.rig.producer.error = KafkaConnectionError()
    site.refill.start({0})
    await until(lambda: len(site.published.asked) >= 2, "it has tried again")
    site.rig.producer.error = None
    await site.settled()
    assert site.rig.table.get(missing) is not None


async def test_partitions_that_went_are_left_alone(site: Site) -> None:
    site.broker.firsts[0] = 1
    (missing,) = in_partition(0, 1)
    site.published.events = {missing: event(missing, 1)}
    site.published.gate.clear()
    site.refill.start({0})
    await until(lambda: bool(site.published.asked), "it is reading")
    site.app.consumer_generation_id = 2
    site.published.gate.set()
    await site.settled()
    assert site.rig.written() == []
    site.refill.start({0})
    await site.settled()
    assert site.rig.table.get(missing) is not None, "whoever comes back to it begins anew"


def test_the_rig_is_of_the_tables_changelog(site: Site) -> None:
    assert site.rig.table.changelog == CHANGELOG
