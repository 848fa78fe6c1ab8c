"""A client as a shop has one: it goes on to the next worker when one refuses, breaks off or says that it is busy."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from rigs.worker import Answer, Worker

GIVES_UP_S = 15.0
PAUSE_S = 0.02


@dataclass
class RetryingClient:
    """Counts what it met on the way. What it is given back is the first answer that is none of 502, 503, 504."""

    workers: list[Worker]
    met: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    calls: int = 0
    _next: int = 0

    async def call(self, method: str, path: str, body: Any = None, *, user: str) -> Answer:
        """Raises AssertionError when no worker answers in time: that is the call that failed."""
        began = time.monotonic()
        self._next += 1
        number = self._next
        last = "nothing"
        while time.monotonic() - began < GIVES_UP_S:
            worker = self.workers[number % len(self.workers)]
            number += 1
            try:
                answer = await worker.call(method, path, body, user=user)
                if answer.status not in (502, 503, 504):
                    self.calls += 1
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                    return answer
                last = f"{answer.status} {answer.code}"
            except (aiohttp.ClientError, ConnectionError) as error:
                last = type(error).__name__
            self.met[last] += 1
            await asyncio.sleep(PAUSE_S)
        raise AssertionError(f"{method} {path} failed for {GIVES_UP_S:.0f} s, at last with {last}")
