"""What the live page draws: a window every few seconds, and the last minute, of whatever source knows.

Room: web. The one seam is `Source`: today it reads this worker's own metrics (adapters/live_reading.py); what adds up
all workers has the same shape, and nothing else here changes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from payment_service.core.live import Reading, window

Source = Callable[[], Reading]
"""Neither waits nor raises."""
TICK_S = 2.0
MINUTE_S = 60.0
POINTS_MAX = 150
"""Five minutes are drawn."""
STREAMS_MAX = 20
"""Browsers that watch one worker."""
STREAM_S_MAX = 600.0
"""After that the browser asks again, with the session it has then."""

Point = Mapping[str, Any]


class LiveWindows:
    """`run` takes readings as long as the worker lives; `points` is what there is to draw."""

    def __init__(self, source: Source, tick_s: float = TICK_S) -> None:
        self._source = source
        self._tick_s = tick_s
        self._readings: deque[Reading] = deque(maxlen=max(2, round(MINUTE_S / tick_s) + 1))
        self.points: deque[Point] = deque(maxlen=POINTS_MAX)
        self._ticked = asyncio.Event()
        self._streams = 0
        self.ended = False

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                self.tick()
                await asyncio.sleep(self._tick_s)
        finally:
            self.end()

    def end(self) -> None:
        """Nobody is kept waiting any more."""
        self.ended = True
        self._ticked.set()

    def tick(self) -> None:
        reading = self._source()
        before = self._readings[-1] if self._readings else reading
        self._readings.append(reading)
        self.points.append(_point(self._readings[0], before, reading))
        self._ticked.set()
        self._ticked = asyncio.Event()

    @property
    def now(self) -> Point:
        """The newest point; made on the spot before there is any."""
        if not self.points:
            reading = self._source()
            return _point(reading, reading, reading)
        return self.points[-1]

    @property
    def full(self) -> bool:
        return self._streams >= STREAMS_MAX

    async def stream(self, seconds: float) -> AsyncIterator[Point]:
        """Every new point, for at most so long. The caller looks at `full` first."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + min(seconds, STREAM_S_MAX)
        self._streams += 1
        try:
            while not self.ended and loop.time() < ends_at:
                ticked = self._ticked
                try:
                    async with asyncio.timeout_at(ends_at):
                        await ticked.wait()
                except TimeoutError:
                    return
                if not self.ended:
                    yield self.points[-1]
        finally:
            self._streams -= 1


def _point(minute_ago: Reading, before: Reading, now: Reading) -> Point:
    last, minute = window(before, now), window(minute_ago, now)
    return {
        "perSecond": round(last.per_s, 2),
        "perSecondMinute": round(minute.per_s, 2),
        "outcomes": {status: round(count) for status, count in sorted(minute.by_status().items())},
        "providers": {
            name: _provider(minute.latency.get(name), now.breaker_open.get(name, False))
            for name in sorted({*minute.latency, *now.breaker_open})
        },
        "lag": {topic: round(records) for topic, records in sorted(now.lag.items())},
        "oldestAgeS": round(now.oldest_age_s, 1),
        "outboxDepth": _whole(now.outbox_depth),
        "outboxAgeS": None if now.outbox_age_s is None else round(now.outbox_age_s, 1),
        "webhooksParked": _whole(now.webhooks_parked),
        "toReview": _whole(now.to_review),
    }


def _provider(latency: Any, breaker_open: bool) -> Mapping[str, Any]:
    if latency is None:
        return {"calls": 0, "p50Ms": None, "p95Ms": None, "breakerOpen": breaker_open}
    p50_ms, p95_ms = round(latency.p50_s * 1000), round(latency.p95_s * 1000)
    return {"calls": round(latency.calls), "p50Ms": p50_ms, "p95Ms": p95_ms, "breakerOpen": breaker_open}


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
