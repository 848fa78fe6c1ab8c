"""The demo's witness: it reads the payment.* topics as any other service would, and remembers what it saw.

Room: cli.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from payment_service.codecs.published import decode_published

POLL_MS = 100
EVENTS_MAX = 200_000


class Seen(NamedTuple):
    at_s: float
    """Monotonic seconds."""
    topic: str
    """Without the prefix."""
    event: dict[str, Any]


class Watch:
    """Events of this run's orders by order id. Limits: EVENTS_MAX, then it stops remembering."""

    def __init__(self, consumer: AIOKafkaConsumer, run: str, prefix: str, dead_letters_topic: str) -> None:
        self._consumer = consumer
        self._run = run
        self._prefix = prefix
        self._dead_letters_topic = dead_letters_topic
        self._news: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.events: dict[str, list[Seen]] = defaultdict(list)
        self.count = 0
        self.dead_letters = 0

    async def prepare(self, numbers: Mapping[str, Sequence[int]]) -> None:
        """From the present end of these topics' partitions on; asked for now, so that nothing later is missed."""
        partitions = [TopicPartition(name, number) for name, them in numbers.items() for number in them]
        self._consumer.assign(partitions)
        ends = await self._consumer.end_offsets(partitions)
        for partition, end in ends.items():
            self._consumer.seek(partition, end)

    async def read(self) -> None:
        """Until it is cancelled."""
        while self.count < EVENTS_MAX:
            polled = await self._consumer.getmany(timeout_ms=POLL_MS)
            now = time.monotonic()
            for partition, records in polled.items():
                if partition.topic == self._dead_letters_topic:
                    self.dead_letters += len(records)
                    continue
                topic = partition.topic.removeprefix(self._prefix)
                for record in records:
                    self._take(Seen(now, topic, decode_published(record.value)))

    def _take(self, seen: Seen) -> None:
        order_id = str(seen.event["data"].get("orderId"))
        if order_id.startswith(self._run):
            self.count += 1
            self.events[order_id].append(seen)
            self._news[order_id].set()

    async def wait(self, order_id: str, topic: str, timeout_s: float) -> Seen:
        """The first event of this order on this topic. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while True:
                news = self._news[order_id]
                for seen in self.events[order_id]:
                    if seen.topic == topic:
                        return seen
                news.clear()
                await news.wait()

    def forget(self, order_id: str) -> None:
        self.count -= len(self.events.pop(order_id, ()))


async def settled(condition: Callable[[], bool], timeout_s: float, pause: Callable[[float], Awaitable[None]]) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await pause(0.1)
    return True
