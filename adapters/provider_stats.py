"""What this worker saw of its providers, minute by minute, to the topic payment-provider-stats.

Room: adapters. Counted beside the work, from answers and outcomes as they pass: a look at a dictionary and a few
additions for each, nothing that waits. A minute's window is told as a whole when the minute is over, the same bytes
until the broker has it. What a worker that is killed had counted since its last minute is lost; one that ends tells it.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from typing import Protocol

from payment_service.adapters.guarded import LOOKUP, Asked
from payment_service.adapters.kafka_message import NeverTaken
from payment_service.adapters.metric_list import WAIT_S
from payment_service.codecs.health import TOPIC, encode_window, message_key
from payment_service.core.errors import Unavailable
from payment_service.core.health import WINDOW_MS, HealthWindow
from payment_service.core.ports import Answer, Cipher, Clock, Metrics, ProviderCall

COMBINATIONS_MAX = 500
"""Of provider and currency in one window; what is beyond is counted nowhere."""
UNTOLD_MAX = 5_000
"""Windows kept while the broker is away; the oldest leave first."""
LAST_S = 1.0
"""For the last window of a worker that ends."""

_log = logging.getLogger(__name__)


class Sends(Protocol):
    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None: ...


class ProviderStats:
    """`answered` and `became` neither wait nor raise; `run` tells until it is cancelled."""

    def __init__(self, publisher: Sends, cipher: Cipher, clock: Clock, metrics: Metrics, worker: str) -> None:
        self._publisher = publisher
        self._cipher = cipher
        self._clock = clock
        self._metrics = metrics
        self._worker = worker
        self._start_ms = self._minute()
        self._open: dict[tuple[str, str], HealthWindow] = {}
        self._untold: deque[HealthWindow] = deque()
        self._telling = asyncio.Lock()

    def answered(self, operation: str, call: Asked, answer: Answer, seconds: float) -> None:
        """Look-ups are left out: one without news is no failure of the provider."""
        if operation == LOOKUP or not isinstance(call, ProviderCall):
            return
        window = self._window(call.provider, call.currency)
        if window is not None:
            window.latency[bisect_left(WAIT_S, seconds)] += 1
            window.verdicts[answer.verdict] = window.verdicts.get(answer.verdict, 0) + 1

    def became(self, provider: str, currency: str, status: str) -> None:
        window = self._window(provider, currency)
        if window is not None:
            window.outcomes[status] = window.outcomes.get(status, 0) + 1

    def _window(self, provider: str, currency: str) -> HealthWindow | None:
        window = self._open.get((provider, currency))
        if window is None and len(self._open) < COMBINATIONS_MAX:
            latency = [0] * (len(WAIT_S) + 1)
            window = HealthWindow(provider, currency, self._worker, self._start_ms, WAIT_S, latency)
            self._open[provider, currency] = window
        return window

    def _minute(self) -> int:
        return self._clock.now_ms() // WINDOW_MS * WINDOW_MS

    async def run(self) -> None:
        while True:
            left_ms = self._start_ms + WINDOW_MS - self._clock.now_ms()
            if left_ms <= 0:
                await self.tell()
            else:
                await asyncio.sleep(left_ms / 1000)

    async def last(self) -> None:
        """Of a worker that ends: the minute that it does not see the end of."""
        try:
            async with asyncio.timeout(LAST_S):
                await self.tell(ending=True)
        except TimeoutError:
            _log.warning("the last window of the providers was not acked in time")

    async def tell(self, *, ending: bool = False) -> None:
        """The minute, if it is over, and what waits; while the broker is away, the next time."""
        async with self._telling:  # of a worker that ends, while a minute is told
            await self._tell(ending)

    async def _tell(self, ending: bool) -> None:
        minute = self._minute()
        if ending or minute > self._start_ms:  # never a second window of one minute: it would replace the first
            opened, self._open = self._open, {}
            self._untold.extend(opened.values())
            self._start_ms = minute
        while len(self._untold) > UNTOLD_MAX:
            self._untold.popleft()
            self._metrics.count("provider_windows_lost")
        while self._untold:
            window = self._untold[0]
            try:
                await self._publisher.send(TOPIC, message_key(window), encode_window(window, self._cipher), [])
            except Unavailable as error:
                _log.info("windows of the providers wait count=%d error=%s", len(self._untold), error.message)
                return
            except NeverTaken as error:
                _log.error("a window of a provider can never be sent error=%s", error)
            self._untold.popleft()
