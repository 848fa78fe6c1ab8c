"""Idempotency-Keys of callers whose workers are killed under them (kill -9, real processes): each goes on at the other
worker, with the same key, until there is a final answer. The provider simulator is the judge."""

import asyncio
import itertools
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rigs.charging_site import SHORT_LEASES, simulator
from rigs.judge import judge
from rigs.worker import Answer, Installation, Worker

pytestmark = pytest.mark.long

SHOPPERS = 12
"""At the same time."""
NO_BROKER = "127.0.0.1:9"
GIVES_UP_S = 60.0
PAUSE_S = 0.05
ANN = "ann"


async def insisting(workers: list[Worker], number: int, path: str, body: Any, key: str, met: Counter[str]) -> Answer:
    """As a client does that wants to know: the other worker the next time, the same key every time."""
    deadline = time.monotonic() + GIVES_UP_S
    while time.monotonic() < deadline:
        number += 1
        try:
            told = await workers[number % 2].call("POST", path, body, user=ANN, **{"Idempotency-Key": key})
        except aiohttp.ClientError:
            met["gone"] += 1
        else:
            open_refund = told.status == 200 and told.data.get("refund", {}).get("status") in ("PENDING", "UNKNOWN")
            if told.status in (200, 201, 402) and not open_refund:
                return told
            met[f"{told.status} {told.body.get('code', '')}".strip()] += 1
            assert told.status in (200, 202, 503) or told.code == "IDEMPOTENCY_IN_PROGRESS", told
        await asyncio.sleep(PAUSE_S)
    raise AssertionError(f"no final answer for {path} in {GIVES_UP_S:.0f} s: {met}")


async def shopper(workers: list[Worker], number: int, met: Counter[str]) -> None:
    order = {"orderId": f"order-{number}", "amount": 10, "currency": "USD"}
    created = await insisting(workers, number, "/api/v1/payments", order, f"c{number}", met)
    path = f"/api/v1/payments/{created.data['id']}"
    method = {"paymentMethodId": "tok_visa"}
    processed = await insisting(workers, number, f"{path}/process", method, f"p{number}", met)
    assert processed.data["status"] == "SUCCEEDED"
    answers = [
        await insisting(workers, number, f"{path}/refund", {"amount": 3}, f"r{number}-{which}", met)
        for which in (1, 1, 2)
    ]
    first, again, other = (told.data["refund"]["id"] for told in answers)
    assert first == again != other and answers[1].headers["Idempotent-Replayed"] == "true"
    again_created = await insisting(workers, number, "/api/v1/payments", order, f"c{number}", met)
    assert (again_created.status, again_created.body) == (created.status, created.body)


async def killing(workers: list[Worker]) -> None:
    """One at a time, the other one stays."""
    for worker in (*workers, *workers):
        await asyncio.sleep(1.2)
        worker.kill()
        worker.start()
        await worker.ready()


async def test_killed_workers_double_nothing(tmp_path: Path, database_url: str) -> None:
    with simulator(tmp_path / "sim", latency_ms=250) as sim:
        env = {**SHORT_LEASES, "MOCK_PROVIDER_URL": sim.url, "PROCESS_WAIT_S": "2", "REFUND_ROLES": "owner"}
        async with Installation(tmp_path, NO_BROKER, database_url, **env) as site:
            workers = [await site.started(), await site.started()]
            met: Counter[str] = Counter()
            killer = asyncio.create_task(killing(workers))
            numbers = itertools.count()

            async def shopping() -> None:
                while not killer.done():
                    await shopper(workers, next(numbers), met)

            await asyncio.gather(*[shopping() for _ in range(SHOPPERS)])
            await killer
            count = next(numbers)
            assert met["gone"] > 20 and count > 2 * SHOPPERS, f"too little happened: {count}, {met}"
            assert judge(site, sim) == {"charge": count, "refund": 2 * count}
