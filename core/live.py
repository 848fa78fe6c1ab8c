"""How the service is doing right now: readings that only count up, and what happened between two of them.

Room: core. Pure. A reading is of one worker, or of several added up; whoever draws windows does not care which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OUTCOMES_MAX = 200
"""Combinations of provider and status in a window; there are about thirty."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Counts since the worker started, and gauges as they are. Times in seconds."""

    at_s: float
    """Monotonic."""
    outcomes: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(provider, status) -> how many payments became so."""
    calls: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Provider -> calls in each bucket of `bounds_s`, the last one without an upper bound."""
    bounds_s: Sequence[float] = ()
    breaker_open: Mapping[str, bool] = field(default_factory=dict)
    lag: Mapping[str, float] = field(default_factory=dict)
    """Input stream -> records that are not finished, in all its topics."""
    oldest_age_s: float = 0.0
    """Of the oldest unfinished event."""
    outbox_depth: float | None = None
    """None: nobody knows yet."""
    outbox_age_s: float | None = None
    webhooks_parked: float | None = None
    to_review: float | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    calls: float
    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two readings."""

    seconds: float
    outcomes: Mapping[tuple[str, str], float]
    latency: Mapping[str, Latency]
    """Of the providers that were called."""

    @property
    def per_s(self) -> float:
        return sum(self.outcomes.values()) / self.seconds if self.seconds > 0 else 0.0

    def by_status(self) -> dict[str, float]:
        counts: dict[str, float] = {}
        for (_, status), count in self.outcomes.items():
            counts[status] = counts.get(status, 0.0) + count
        return counts


def window(before: Reading, after: Reading) -> Window:
    """A count that is lower than before was begun anew: it counts as a whole."""
    outcomes = {
        key: grown
        for key, count in list(after.outcomes.items())[:OUTCOMES_MAX]
        if (grown := _grown(before.outcomes.get(key, 0.0), count)) > 0
    }
    latency = {}
    for provider, buckets in after.calls.items():
        earlier = before.calls.get(provider) or [0.0] * len(buckets)
        counts = [_grown(was, now) for was, now in zip(earlier, buckets, strict=True)]
        if sum(counts) > 0:
            p50_s, p95_s = (quantile(counts, after.bounds_s, share) for share in (0.5, 0.95))
            latency[provider] = Latency(sum(counts), p50_s, p95_s)
    return Window(max(0.0, after.at_s - before.at_s), outcomes, latency)


def _grown(before: float, after: float) -> float:
    return after - before if after >= before else after


def quantile(counts: Sequence[float], bounds: Sequence[float], share: float) -> float:
    """Where that share of the calls had ended, evenly spread within a bucket; the last bucket ends where it begins."""
    total = sum(counts)
    if total <= 0:
        return 0.0
    wanted, so_far, lower = total * share, 0.0, 0.0
    for count, upper in zip(counts, bounds, strict=False):
        if count > 0 and so_far + count >= wanted:
            return lower + (upper - lower) * (wanted - so_far) / count
        so_far += count
        lower = upper
    return lower
