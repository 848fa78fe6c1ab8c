"""How often somebody may ask: fixed windows in this process.

Room: web. Ours and not the `limits` library's, whose in-memory windows cost 32 µs a request, a fifth of a create
(measured), and whose shared ones would make every request wait for Redis (shared_windows.py).
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

KEYS_MAX = 50_000
"""Callers that are counted, about 200 bytes each; beyond it the one whose window began first is forgotten."""


class Left(NamedTuple):
    """What a caller may still do. `resets_s` from now."""

    remaining: int
    resets_s: float

    @property
    def exceeded(self) -> bool:
        return self.remaining < 0


@dataclass(frozen=True, slots=True)
class Quota:
    """`hits_max` in each window of `window_s`. The names are those of the RateLimit header fields (draft 10)."""

    name: str
    hits_max: int
    window_s: float

    @property
    def policy(self) -> str:
        """The field RateLimit-Policy."""
        return f'"{self.name}";q={self.hits_max};w={math.ceil(self.window_s)}'

    def told(self, left: Left) -> str:
        """The field RateLimit."""
        remaining, resets_s = left
        return f'"{self.name}";r={remaining if remaining > 0 else 0};t={math.ceil(resets_s)}'


@dataclass(slots=True)
class Windows:
    """Counts by key. Not more keys than KEYS_MAX, whoever invents them."""

    quota: Quota
    keys_max: int = KEYS_MAX
    _windows: dict[str, list[Any]] = field(default_factory=dict)
    """Key -> [end of its window, hits left in it], the oldest first."""

    def hit(self, key: str, now_s: float) -> Left:
        """Count one and say what is left; `exceeded` when it was one too many."""
        window = self._windows.get(key)
        if window is None or window[0] <= now_s:
            if window is not None:
                del self._windows[key]
            elif len(self._windows) >= self.keys_max:
                del self._windows[next(iter(self._windows))]
            window = self._windows[key] = [now_s + self.quota.window_s, self.quota.hits_max]
        window[1] -= 1
        return Left(window[1], window[0] - now_s)

    def look(self, key: str, now_s: float) -> Left:
        """What is left, without counting."""
        window = self._windows.get(key)
        if window is None or window[0] <= now_s:
            return Left(self.quota.hits_max, 0.0)
        return Left(window[1], window[0] - now_s)
