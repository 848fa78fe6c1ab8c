"""Two workers with one Redis: what a caller reads at one of them after something happened at the other."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from rigs.worker import Installation, Worker
from servers.redis import RedisServer

pytestmark = pytest.mark.long

SEEN_S = 2.0
"""A mark is in Redis some milliseconds after the commit; a loaded machine may take longer."""


async def until_seen(worker: Worker, path: str, status: str) -> dict[str, Any]:
    deadline = time.monotonic() + SEEN_S
    while True:
        answer = await worker.call("GET", path, user="user-1")
        if answer.data["status"] == status:
            return dict(answer.data)
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.01)


async def hits(worker: Worker) -> float:
    return sum(
        float(line.split()[-1]) for line in (await worker.numbers()).splitlines()
        if line.startswith('cache_operations_total{operation="get",result="hit"}')
    )  # fmt: skip


async def test_what_happens_at_one_worker_is_seen_at_the_other(
    tansu_broker: str, database_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    redis = Redis.from_url(redis_server.url)
    async with Installation(tmp_path, tansu_broker, database_url, REDIS_URL=redis_server.url) as site:
        one, two = await site.started(), await site.started()
        assert (await one.call("GET", "/ready")).data["cache"] == "up"
        for number in range(10):
            made = await one.call("POST", "/api/v1/payments", {"orderId": f"o{number}", "amount": 5}, user="user-1")
            path = f"/api/v1/payments/{made.data['id']}"
            for worker in (one, two, one, two):
                assert (await worker.call("GET", path, user="user-1")).data["status"] == "PENDING"
            assert (await two.call("GET", path, user="user-2")).code == "PAYMENT_NOT_FOUND", "also from the cache"
            assert (await two.call("GET", path, user="root", roles=("admin",))).status == 200
            token = "tok_threeDSecure" if number == 0 else "tok_visa"
            await one.call("POST", f"{path}/process", {"paymentMethodId": token}, user="user-1")
            status = "REQUIRES_ACTION" if number == 0 else "SUCCEEDED"
            assert (await one.call("GET", path, user="user-1")).data["status"] == status
            seen = await until_seen(two, path, status)
            assert (seen["nextAction"] is not None) == (number == 0)
        assert await hits(one) + await hits(two) > 0
        kept = [await redis.get(key) for key in await redis.keys("*")]
        assert kept
        assert not any(b"user-1" in value or b"http" in value for value in kept)
        redis_server.stop()
        answer = await two.call("GET", path, user="user-1")
        assert (answer.status, answer.data["status"]) == (200, "SUCCEEDED")
        await two.until_ready_says(lambda now: now["cache"] == "degraded", "its cache is degraded")
        assert (await one.stop())[0] == 0
    await redis.aclose()
