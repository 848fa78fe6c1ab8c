"""A worker that joins its group while the broker does not know the topics (as right after the broker's restart, or
where somebody else makes them) reads them soon after they are there, not when the watchdog bites."""

import asyncio
import json
from pathlib import Path

import pytest
from rigs.worker import Installation, Message
from servers.waiting import until

pytestmark = pytest.mark.kafka

SOON_S = 25.0
"""METADATA_AGE_S and a rebalance. Faust's own 5 minutes, or the watchdog's 2, would not do."""


async def test_topics_that_appear_after_the_join_are_read_soon(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with Installation(tmp_path, kafka_broker, database_url, KAFKA_CREATE_TOPICS="false") as site:
        worker = await site.started()
        await until(lambda: "Ignoring missing topic" in worker.log, "it has joined and was given nothing")
        await asyncio.sleep(1)  # whatever it looks at once more by itself has been looked at
        await site.make_order_topic()
        order = {"topic": "order.created", "orderId": "o-1", "userId": "u", "totalAmount": "5.00", "currency": "USD"}
        await site.produce(Message(json.dumps(order).encode()))
        await site.until(lambda: site.count("payments") == 1, "the order is read", SOON_S)
