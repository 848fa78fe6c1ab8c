"""How providers are doing, in windows of a minute: what a worker counts, and many windows added up.

Room: core. Pure. A window is told as a whole once its minute is over: the same window again replaces, it never adds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from payment_service.core.live import quantile

WINDOW_MS = 60_000


@dataclass(slots=True)
class HealthWindow:
    """Of one provider, one currency, one worker, and the minute that began at `start_ms`."""

    provider: str
    currency: str
    worker: str
    start_ms: int
    bounds_s: Sequence[float]
    latency: list[int] = field(default_factory=list)
    """Tries in each bucket of `bounds_s`, the last one without an upper bound."""
    verdicts: dict[str, int] = field(default_factory=dict)
    """What the provider answered to calls."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Status -> how many payments became so."""

    @property
    def key(self) -> str:
        """Of its row: what is the same however often it is told."""
        return f"{self.provider}:{self.currency}:{self.start_ms}:{self.worker}"


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """One provider over several windows, of all workers together."""

    calls: int
    answered_share: float
    """Calls that did not end UNKNOWN. 1.0 without a call."""
    p50_s: float
    p95_s: float
    outcomes: Mapping[str, int]
    workers: int
    """That told anything of it."""


def added_up(windows: Iterable[HealthWindow]) -> dict[str, ProviderHealth]:
    """By provider."""
    by_provider: dict[str, list[HealthWindow]] = {}
    for one in windows:
        by_provider.setdefault(one.provider, []).append(one)
    return {provider: _together(by_provider[provider]) for provider in sorted(by_provider)}


def _together(windows: Sequence[HealthWindow]) -> ProviderHealth:
    bounds = windows[-1].bounds_s
    latency = [0] * (len(bounds) + 1)
    outcomes: dict[str, int] = {}
    calls = unknown = 0
    for one in windows:
        calls += sum(one.verdicts.values())
        unknown += one.verdicts.get("UNKNOWN", 0)
        for status, count in one.outcomes.items():
            outcomes[status] = outcomes.get(status, 0) + count
        if tuple(one.bounds_s) == tuple(bounds):  # else of a worker with another version: its times do not add up
            latency = [mine + its for mine, its in zip(latency, one.latency, strict=True)]
    answered = 1.0 if not calls else (calls - unknown) / calls
    p50_s, p95_s = (quantile(latency, bounds, share) for share in (0.5, 0.95))
    return ProviderHealth(calls, answered, p50_s, p95_s, outcomes, len({one.worker for one in windows}))
