"""How each provider did in the last minutes, for all workers together: from the topic payment-provider-stats.

Room: adapters. For somebody who looks at it: nothing is read while nobody does, and once for all who look at one time.
The table `provider_health` holds the same, each worker that of its own partitions.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.topic_reading import read_topic
from payment_service.codecs.health import decode_window
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.health import WINDOW_MS, HealthWindow, ProviderHealth, added_up
from payment_service.core.ports import Cipher, Clock

WINDOWS = 5
FRESH_S = 15.0
READ_S = 4.0
"""Whoever looks waits no longer than this."""


class RecentHealth:
    """`silence_s`: as for `read_topic`."""

    def __init__(
        self, client: KafkaClient, topic: str, cipher: Cipher, clock: Clock, silence_s: float | None = None
    ) -> None:
        """`topic`: its full name."""
        self._client = client
        self._topic = topic
        self._cipher = cipher
        self._clock = clock
        self._silence_s = silence_s
        self._reading = asyncio.Lock()
        self._known: Mapping[str, ProviderHealth] | None = None
        self._read_at_s = 0.0

    async def __call__(self) -> Mapping[str, ProviderHealth] | None:
        """By provider; None: nobody can say now. Raises nothing. Limits: READ_S."""
        try:
            async with asyncio.timeout(READ_S), self._reading:
                now_s = self._clock.monotonic_s()
                if self._known is None or now_s - self._read_at_s > FRESH_S:
                    self._known, self._read_at_s = None, now_s
                    self._known = added_up((await self._windows()).values())
        except (TimeoutError, Unavailable, Refused):
            return None
        return self._known

    async def _windows(self) -> Mapping[str, HealthWindow]:
        from_ms = self._clock.now_ms() // WINDOW_MS * WINDOW_MS - WINDOWS * WINDOW_MS
        windows: dict[str, HealthWindow] = {}
        reading = read_topic(self._client, self._topic, silence_s=self._silence_s, since_ms=from_ms)
        async with aclosing(reading) as batches:
            async for records in batches:
                for record in records:
                    try:
                        window = decode_window(record.key, record.value or b"", self._cipher)
                    except Malformed:  # the stream has made a dead letter of it
                        continue
                    if window.start_ms >= from_ms:
                        windows[window.key] = window
        return windows
