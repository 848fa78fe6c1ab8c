"""The cache of payments on a real Redis: never in front of the truth, never in its way."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from rigs.changes import AT_MS, answer, change_of, charge, create
from rigs.counted import CountedMetrics
from rigs.stores import KEY, SHARDS
from servers.redis import RedisServer
from servers.waiting import until

from payment_service.adapters import cache as module
from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.cache import RedisCache
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import ConnectionLost, Database
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core import commands as c
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import Payment, status_of
from payment_service.core.ports import Change, Committed
from payment_service.core.terms import Verdict
from payment_service.core.use_cases.read_payments import CachedReads

ID = payment_id_of("o1")


class Side:
    """A worker's store, its cache and what it reads through both."""

    def __init__(self, database_url: str, redis_url: str, key: bytes = KEY) -> None:
        cipher = AesGcmCipher(key)
        self.metrics = CountedMetrics()
        self.database = Database(database_url)
        self.store = PostgresPaymentStore(self.database, cipher, chain_key(KEY), SHARDS, lambda rows: None)
        self.cache = RedisCache(redis_url, "test:", cipher, SystemClock(), self.metrics)
        self.store.on_version = self.cache.changed
        self.reads = CachedReads(self.store, self.cache)

    async def do(self, command: c.Command) -> Payment:
        loaded = await self.store.load(command.payment_id)
        change = change_of(command, loaded)
        assert await self.store.commit(change) is Committed.COMMITTED
        return change.steps[-1].after

    async def read(self, payment_id: str = ID) -> Payment:
        payment = (await self.reads.load(payment_id)).payment
        assert payment is not None
        return payment

    def outcomes(self) -> dict[str, int]:
        return {name[2]: n for name, n in self.metrics.counts.items() if name[:2] == ("cache_operations_total", "get")}

    async def quiet(self) -> None:
        await until(lambda: not self.cache._untold and not self.cache._being_told, "Redis has heard everything")


@asynccontextmanager
async def a_side(database_url: str, redis_url: str, key: bytes = KEY) -> AsyncIterator[Side]:
    side = Side(database_url, redis_url, key)
    try:
        yield side
    finally:
        await side.store.close()
        await side.cache.close(0.1)
        await side.database.close()


@pytest.fixture
async def side(database_url: str, redis_server: RedisServer) -> AsyncIterator[Side]:
    async with a_side(database_url, redis_server.url) as side:
        yield side


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Any]:
    client = Redis.from_url(redis_server.url)
    yield client
    await client.aclose()


def paid(payment_id: str = ID, number: int = 1) -> list[c.Command]:
    return [
        charge(payment_id, f"charge:{number}"),
        answer(payment_id, Verdict.APPROVED, f"yes:{number}", number),
    ]


async def test_the_second_read_comes_from_redis_sealed_and_for_half_a_minute(side: Side, redis: Any) -> None:
    made = await side.do(create("o1", user="ann-who-is-nobodys-business", description="shoes"))
    assert await redis.dbsize() == 0, "what nobody has read needs no mark"
    assert await side.read() == made
    await side.quiet()
    assert await side.read() == made
    assert side.outcomes() == {"miss": 1, "hit": 1}
    (key,) = await redis.keys("*")
    value = await redis.get(key)
    assert value.startswith(b"1:")
    for plain in (b"ann-who", b"shoes", b"USD"):
        assert plain not in value
    assert 0 < await redis.pttl(key) <= module.TTL_MS


async def test_whoever_changed_it_reads_the_change_and_so_does_everybody_else(
    database_url: str, redis_server: RedisServer, side: Side
) -> None:
    async with a_side(database_url, redis_server.url) as other:
        await side.do(create("o1"))
        for one in (side, other):
            await one.read()
            await one.quiet()
        for command in paid():
            after = await side.do(command)
            assert await side.read() == after
        await side.quiet()
        assert await other.read() == after
        await other.quiet()
        assert await side.read() == after
        assert status_of(after) == "SUCCEEDED"
        assert side.outcomes()["hit"] >= 1


async def test_a_mark_set_while_the_last_ones_are_told_is_told_too(
    side: Side, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell, late = side.cache._set_newer, [payment_id_of("o2")]

    async def tell_and_hear_of_more(**given: Any) -> None:
        await tell(**given)
        if late:  # before anybody can be told that the task has ended
            asyncio.get_running_loop().call_soon(side.cache.changed, late.pop(), 2)

    monkeypatch.setattr(side.cache, "_set_newer", tell_and_hear_of_more)
    side.cache.changed(ID, 2)
    await until(lambda: not late, "the first is told")
    await side.quiet()
    assert await redis.dbsize() == 2


async def test_what_is_under_way_is_never_kept(side: Side, redis: Any) -> None:
    await side.do(create("o1"))
    await side.read()
    started = await side.do(charge(ID))
    for _ in range(3):
        assert await side.read() == started
        await side.quiet()
    (value,) = [await redis.get(key) for key in await redis.keys("*")]
    assert value == b"2:", "a mark and nothing else"


async def test_a_slow_reader_does_not_put_back_what_is_past(
    database_url: str, redis_server: RedisServer, side: Side
) -> None:
    async with a_side(database_url, redis_server.url) as slow:
        await side.do(create("o1"))
        old = (await slow.store.load(ID)).payment
        assert old is not None
        for command in paid():
            after = await side.do(command)
        await side.quiet()
        slow.cache.offer(old)
        await slow.quiet()
        assert await side.read() == after
        await side.quiet()
        slow.cache.offer(old)
        await slow.quiet()
        assert await slow.read() == after
        assert slow.outcomes()["hit"] == 1


async def test_a_commit_that_was_lost_on_the_wire_leaves_a_mark_too(side: Side) -> None:
    await side.do(create("o1"))
    await side.read()
    await side.quiet()
    run = side.store._run

    async def lost(batch: Any) -> Any:
        await run(batch)
        raise ConnectionLost("the answer was lost")

    side.store._run = lost  # type: ignore[method-assign]
    loaded = await side.store.load(ID)
    change: Change = change_of(c.Cancel(ID, "cancel", AT_MS, "user:u1"), loaded)
    assert await side.store.commit(change) is Committed.LOST
    await side.quiet()
    assert (await side.read()).cancelled


@pytest.mark.parametrize("value", [b"", b":", b"x", b"9:", b"x:y", b"1:" + b"\x01" * 60, b"99999999999999999999:abc"])
async def test_whatever_stands_there_the_truth_is_read(side: Side, redis: Any, value: bytes) -> None:
    made = await side.do(create("o1"))
    await redis.set(f"test:payment:{ID}", value)
    assert await side.read() == made
    assert await side.read() == made


async def test_an_entry_of_another_key_or_another_payment_is_not_believed(
    database_url: str, redis_server: RedisServer, side: Side, redis: Any
) -> None:
    made, other_payment = await side.do(create("o1")), await side.do(create("o2"))
    async with a_side(database_url, redis_server.url, b"x" * 32) as other:
        await other.read()
        await other.quiet()
        assert await side.read() == made
    await side.read(payment_id_of("o2"))
    await side.quiet()
    await redis.set(f"test:payment:{ID}", await redis.get(f"test:payment:{payment_id_of('o2')}"))
    assert await side.read() == made
    assert await side.read(payment_id_of("o2")) == other_payment


async def test_without_redis_reads_are_only_slower(
    redis_server: RedisServer, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.5)
    await side.do(create("o1"))
    await side.read()
    await side.quiet()
    redis_server.stop()
    first = await side.read()
    assert not side.cache.available
    assert [await side.read() for _ in range(100)] == [first] * 100
    assert sum(side.metrics.counts[name] for name in side.metrics.counts if name[0] == "cache_failures") <= 2
    changed = await side.do(c.Cancel(ID, "cancel", AT_MS, "user:u1"))
    assert await side.read() == changed
    redis_server.start()
    await until(lambda: side.cache.available, "it is tried again")
    await side.quiet()
    assert await side.read() == changed
    await side.quiet()
    assert await side.read() == changed
    assert side.outcomes()["hit"] == 1


async def test_a_redis_that_hangs_costs_one_short_wait_and_what_it_missed_it_hears(
    redis_server: RedisServer, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.5)
    await side.do(create("o1"))
    await side.read()
    await side.quiet()
    await side.read()
    redis_server.freeze()
    started = time.monotonic()
    await asyncio.gather(*(side.read() for _ in range(1000)))
    assert time.monotonic() - started < module.TIMEOUT_S + 1.0
    for command in paid():
        after = await side.do(command)
        assert await side.read() == after
    redis_server.thaw()
    await side.quiet()
    assert await side.read() == after


async def test_a_redis_that_forgot_its_scripts_is_taught_again(side: Side, redis: Any) -> None:
    await side.do(create("o1"))
    await side.read()
    await side.quiet()
    await redis.script_flush()
    for command in paid():
        after = await side.do(command)
    await side.quiet()
    assert await side.read() == after
    assert not any(name[0] == "cache_failures" for name in side.metrics.counts)


async def test_nobody_ever_reads_behind_their_own_commit(
    database_url: str, redis_server: RedisServer, side: Side
) -> None:
    """Two workers change and read the same payments at random; in quiet both read the truth."""
    chance = random.Random(7)
    orders = [f"o{number}" for number in range(8)]
    async with a_side(database_url, redis_server.url) as other:
        await asyncio.gather(*(side.do(create(order)) for order in orders))

        async def changing(one: Side, order: str) -> None:
            payment_id = payment_id_of(order)
            for number in range(1, 6):
                for command in (
                    charge(payment_id, f"{order}:{number}"),
                    answer(payment_id, Verdict.DECLINED, "", number),
                ):
                    after = await one.do(command)
                    assert (await one.read(payment_id)).version >= after.version
                    await asyncio.sleep(chance.random() * 0.005)

        async def reading(one: Side) -> None:
            while True:
                await one.read(payment_id_of(chance.choice(orders)))
                await asyncio.sleep(0)

        readers = [asyncio.create_task(reading(one)) for one in (side, other)]
        await asyncio.gather(*(changing((side, other)[index % 2], order) for index, order in enumerate(orders)))
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        for one in (side, other):
            await one.quiet()
        for one in (side, other):
            for order in orders:
                assert await one.read(payment_id_of(order)) == (await one.store.load(payment_id_of(order))).payment
    assert side.outcomes()["hit"] + other.outcomes()["hit"] > 0
