"""Limits over all workers on a real Redis: counted together, never waited for, by oneself when Redis is away."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from rigs.counted import CountedMetrics
from rigs.worker import Installation
from servers.redis import RedisServer
from servers.waiting import until

from payment_service.adapters import shared_counts as module
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.shared_counts import SharedCounts
from payment_service.web.rate_limits import Quota
from payment_service.web.shared_windows import SharedWindows

QUOTA = Quota("user", 100, 60.0)


class Counting:
    def __init__(self, redis_url: str, quota: Quota = QUOTA) -> None:
        self.windows, self.metrics = SharedWindows(quota), CountedMetrics()
        self.counts = SharedCounts(redis_url, "test:", SystemClock(), self.metrics)
        self.counts.share(self.windows)

    def hit(self, times: int, key: str = "user:ann") -> int:
        return [self.windows.hit(key, time.monotonic()).remaining for _ in range(times)][-1]

    def left(self, key: str = "user:ann") -> int:
        return self.windows.look(key, time.monotonic()).remaining


@asynccontextmanager
async def counting(redis_url: str, quota: Quota = QUOTA) -> AsyncIterator[Counting]:
    one = Counting(redis_url, quota)
    running = asyncio.create_task(one.counts.run())
    try:
        yield one
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXCHANGE_S", 0.05)
    monkeypatch.setattr(module, "PAUSE_S", 0.2)


async def test_two_workers_count_together(redis_server: RedisServer) -> None:
    async with counting(redis_server.url) as one, counting(redis_server.url) as two:
        assert (one.hit(60), two.hit(50)) == (40, 50), "nobody waits for the other"
        await until(lambda: min(one.left(), two.left()) == -10, "one has heard of the other")
        one.hit(1)
        two.hit(1)
        await until(lambda: min(one.left(), two.left()) == -12, "who tells last hears of both")
        assert one.left("user:bob") == 100
        redis = Redis.from_url(redis_server.url)
        (key,) = await redis.keys("*")
        assert b"ann" not in key
        assert 0 < await redis.pttl(key) <= 60_000
        await redis.aclose()


async def test_a_window_ends_for_all_at_once(redis_server: RedisServer) -> None:
    quota = Quota("user", 10, 1.0)
    async with counting(redis_server.url, quota) as one, counting(redis_server.url, quota) as two:
        started = time.monotonic()
        one.hit(10)
        await asyncio.sleep(0.5)
        two.hit(1)
        await until(lambda: two.left() == -1, "it is one too many")
        resets_s = two.windows.look("user:ann", time.monotonic()).resets_s
        assert time.monotonic() + resets_s < started + 1.3, "not a whole window from its own first hit"
        await asyncio.sleep(resets_s + 0.01)
        assert two.hit(1) == 9


async def test_without_redis_each_counts_for_itself_and_later_together_again(redis_server: RedisServer) -> None:
    async with counting(redis_server.url) as one, counting(redis_server.url) as two:
        redis_server.stop()
        assert one.hit(10) == 90
        await until(lambda: bool(one.metrics.counts), "it is noticed")
        assert one.hit(10) == 80
        redis_server.start()
        await until(lambda: not one.windows._untold, "it is told again")
        two.hit(1)
        before = one.left()
        one.hit(1)
        await until(lambda: one.left() < before, "they count together")


async def test_many_callers_are_told_of_in_pages(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_MAX", 100)
    async with counting(redis_server.url) as one, counting(redis_server.url) as two:
        for number in range(950):
            one.hit(1, f"user:{number}")
            two.hit(1, f"user:{number}")
        await until(lambda: not one.windows._untold and not two.windows._untold, "everybody is told of")
        await until(
            lambda: all(min(one.left(f"user:{n}"), two.left(f"user:{n}")) == 98 for n in range(950)),
            "each caller is counted twice",
        )


@pytest.mark.long
async def test_a_limit_holds_over_two_workers(
    tansu_broker: str, database_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    env = {"REDIS_URL": redis_server.url, "RATE_LIMIT_MAX": "30", "RATE_LIMIT_WINDOW_MS": "600000"}
    async with Installation(tmp_path, tansu_broker, database_url, **env) as site:
        workers = [await site.started(), await site.started()]
        for worker in workers:
            for _ in range(20):
                assert (await worker.call("GET", "/api/v1/payments", user="user-1")).status == 200
        deadline = time.monotonic() + 10
        for worker in workers:
            while (answer := await worker.call("GET", "/api/v1/payments", user="user-1")).status != 429:
                assert time.monotonic() < deadline, answer
                await asyncio.sleep(0.3)
        assert (await workers[0].call("GET", "/api/v1/payments", user="user-2")).status == 200
