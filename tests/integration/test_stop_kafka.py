"""SIGTERM while the broker is away: the worker ends in time and well (contract: at most 30 s)."""

import asyncio
from pathlib import Path

import pytest
from rigs.worker import STOP_WAIT_S, Installation
from servers import KafkaServer

pytestmark = pytest.mark.kafka
AWAY_S = (0.3, 2.0, 8.0)
"""The client is in another of its waits each time: a fetch, a look for its coordinator, one for the topics."""


async def test_a_worker_ends_while_the_broker_is_away(database_url: str, tmp_path: Path) -> None:
    with KafkaServer() as kafka:
        async with Installation(tmp_path, kafka.address, database_url) as site:
            await site.make_order_topic()
            workers = [await site.started() for _ in AWAY_S]
            for worker in workers:
                await worker.streaming()
            kafka.kill()

            async def stopped(number: int) -> tuple[int, float]:
                await asyncio.sleep(AWAY_S[number])
                return await workers[number].stop()

            ended = await asyncio.gather(*(stopped(number) for number in range(len(workers))))
    assert [code for code, _ in ended] == [0] * len(ended), ended
    assert max(took_s for _, took_s in ended) < STOP_WAIT_S, ended
