"""Windows whose counts are those of all workers together (adapters/shared_counts.py carries them).

Room: web. No request waits for another worker: what was counted here is told every now and then, and what all have
counted is heard in return. Without a REDIS_URL there are none of these.
"""

from dataclasses import dataclass, field

from payment_service.web.rate_limits import Left, Windows


@dataclass(slots=True)
class SharedWindows(Windows):
    _untold: dict[str, int] = field(default_factory=dict)
    """Hits by key that nobody else knows of; not more keys than `keys_max`."""

    @property
    def name(self) -> str:
        return self.quota.name

    @property
    def window_s(self) -> float:
        return self.quota.window_s

    def hit(self, key: str, now_s: float) -> Left:
        untold = self._untold
        if key in untold or len(untold) < self.keys_max:
            untold[key] = untold.get(key, 0) + 1
        return Windows.hit(self, key, now_s)

    def take_untold(self, limit: int) -> dict[str, int]:
        """Hits by key, of at most so many keys; they are not told again."""
        return {key: self._untold.pop(key) for key in list(self._untold)[:limit]}

    def heard(self, key: str, hits: int, resets_s: float, now_s: float) -> None:
        """What all together have counted, and when that window ends. What was hit here since comes on top."""
        window = self._windows.get(key)
        if window is not None:
            window[0], window[1] = now_s + resets_s, self.quota.hits_max - hits - self._untold.get(key, 0)
