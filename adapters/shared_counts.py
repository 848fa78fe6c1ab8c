"""How often callers asked, over all workers: counts exchanged through Redis (REDIS_URL).

Room: adapters. No request waits: each worker counts by itself and tells what it counted every EXCHANGE_S, which is also
how much later it hears of the others; so much may be asked beyond a limit, at each worker. Without an answer of Redis
every worker counts for itself. Callers are written as digests.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Mapping
from typing import Protocol

from payment_service.adapters.redis_client import redis_client
from payment_service.core.ports import Clock, Metrics

EXCHANGE_S = 1.0
KEYS_MAX = 1000
"""Callers in one exchange; more wait for the next, which follows at once."""
ROUNDS_MAX = 50
"""Exchanges one after another: as many callers as are counted at all."""
TIMEOUT_S = 1.0
PAUSE_S = 5.0
"""After a failure."""
DIGEST_BYTES = 16

_COUNT = """
local told = {}
for i, key in ipairs(KEYS) do
  told[2 * i - 1] = redis.call('INCRBY', key, ARGV[i + 1])
  local left = redis.call('PTTL', key)
  if left < 0 then
    left = tonumber(ARGV[1])
    redis.call('PEXPIRE', key, left)
  end
  told[2 * i] = left
end
return told
"""

_log = logging.getLogger(__name__)


class Counted(Protocol):
    """Counts by caller in fixed windows (web/shared_windows.py)."""

    @property
    def name(self) -> str: ...

    @property
    def window_s(self) -> float: ...

    def take_untold(self, limit: int) -> Mapping[str, int]: ...

    def heard(self, key: str, hits: int, resets_s: float, now_s: float) -> None: ...


class SharedCounts:
    """For one event loop. Opens nothing before it runs. Raises ValueError for an address that is none."""

    def __init__(self, url: str, prefix: str, clock: Clock, metrics: Metrics) -> None:
        self._redis = redis_client(url, TIMEOUT_S, connections_max=1)
        self._count = self._redis.register_script(_COUNT)
        self._prefix = f"{prefix}rate:"
        self._clock = clock
        self._metrics = metrics
        self._windows: list[Counted] = []

    def share(self, windows: Counted) -> None:
        self._windows.append(windows)

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                pause_s = EXCHANGE_S
                try:
                    for windows in self._windows:
                        for _ in range(ROUNDS_MAX):
                            if await self._exchange(windows) < KEYS_MAX:
                                break
                except Exception as error:  # whatever it is, every worker goes on counting by itself
                    self._metrics.count("cache_failures", reason=type(error).__name__)
                    _log.warning("counts are not shared for %s s: %s", PAUSE_S, type(error).__name__)
                    pause_s = PAUSE_S
                await asyncio.sleep(pause_s)
        finally:
            with contextlib.suppress(Exception):  # what is broken needs no closing
                await self._redis.aclose()

    async def _exchange(self, windows: Counted) -> int:
        """How many callers it was about. What fails is not told again: rather too few are counted than one twice."""
        untold = windows.take_untold(KEYS_MAX)
        if untold:
            async with asyncio.timeout(TIMEOUT_S):
                counted = await self._count(
                    keys=[self._key(windows.name, key) for key in untold],
                    args=[max(1, round(windows.window_s * 1000)), *untold.values()],
                )
            now_s = self._clock.monotonic_s()
            for key, hits, left_ms in zip(untold, counted[::2], counted[1::2], strict=True):
                windows.heard(key, int(hits), int(left_ms) / 1000, now_s)
        return len(untold)

    def _key(self, name: str, key: str) -> str:
        digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES).hexdigest()
        return f"{self._prefix}{name}:{digest}"
