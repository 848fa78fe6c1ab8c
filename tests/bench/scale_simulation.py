"""What arithmetic on averages does not tell about capacity, simulated; the tables of docs/scale.md are its output.

1. An hour without the database or the provider: how long until all that waited is done, by the head-room and by when
   in the day it happens; and a day of what is sized below its peak. The peak comes whatever waits.
2. An account's rate divided among workers: each has a bucket of its own (the service's own code), and chance does not
   divide as evenly as the rate.
3. A provider that becomes slow: calls in flight are rate times latency, up to PROVIDER_CONCURRENCY.

Deterministic: chance is seeded. Run: `python tests/bench/scale_simulation.py`. No servers, about two seconds.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from payment_service.core.resilience import RateRule, full_bucket, take

DAY_S = 86_400
STEP_S = 10
DAYS_MAX = 14
"""Longest a recovery is followed."""
SEED = 1
HEAD_ROOMS = (1.05, 1.1, 1.25, 1.5, 2.0, 3.0)
BELOW_THE_PEAK = (0.5, 0.6, 0.8, 0.9)
PEAK_FACTOR = 3.0
OUTAGE_S = 3600
BUCKET_WORKERS = (1, 2, 4, 8, 16)
UTILIZATIONS = (0.5, 0.8, 0.9, 0.95)
ENDPOINT_PER_S = 25.0
"""STRIPE_RATE_PER_S."""
CHARGES_PER_S = 170.0
"""Of one worker of sixty at 10,000 a second."""
SLOTS = 1000
"""PROVIDER_CONCURRENCY, of one worker."""
USUAL_LATENCY_S = 0.3
SLOW_LATENCIES_S = (1.0, 5.0, 10.0, 20.0)
SLOW_FOR_S = 600


# --- an hour's outage ------------------------------------------------------------------------------------------------


@cache
def day_shape(peak_factor: float) -> float:
    """k of exp(k cos x), whose highest value is `peak_factor` times its mean over a day."""
    low, high = 0.0, 200.0
    for _ in range(80):
        middle = (low + high) / 2
        mean = sum(math.exp(middle * (math.cos(2 * math.pi * i / 2000) - 1)) for i in range(2000)) / 2000
        low, high = (middle, high) if 1 / mean < peak_factor else (low, middle)
    return low


@dataclass(frozen=True)
class Flow:
    """`waiting_max_s`: how much waits at most, in seconds of the day's mean rate. `done_after_s`: from the end of the
    outage until nothing waits."""

    waiting_max_s: float
    done_after_s: float
    longest_wait_s: float


def flow(head_room: float, peak_factor: float, begins_s: float, outage_s: float, follow_s: float = 0.0) -> Flow:
    """First come, first served, from a moment when nothing waits until that is so again, and for `follow_s` at least.

    `head_room`: what can be done a second, of the day's highest rate. `begins_s`: of the outage, after that peak;
    negative: before it.
    """
    shape, capacity = day_shape(peak_factor), head_room * peak_factor
    came: list[float] = [0.0]
    done, waiting_max, longest, oldest = 0.0, 0.0, 0.0, 0
    for step in range(1, DAYS_MAX * DAY_S // STEP_S):
        since_s = step * STEP_S
        angle = 2 * math.pi * (begins_s + since_s) / DAY_S
        came.append(came[-1] + STEP_S * peak_factor * math.exp(shape * (math.cos(angle) - 1)))
        if since_s > outage_s:
            done = min(came[-1], done + STEP_S * capacity)
        waiting_max = max(waiting_max, came[-1] - done)
        while oldest < step and came[oldest + 1] <= done:
            oldest += 1
        longest = max(longest, (step - oldest) * STEP_S)
        if since_s > max(outage_s, follow_s) and done >= came[-1]:
            return Flow(waiting_max, since_s - outage_s, longest)
    return Flow(waiting_max, math.inf, longest)


# --- one rate, many buckets ------------------------------------------------------------------------------------------


def bucket_waits(
    workers: int, utilization: float, calls: int = 40_000, rate: float = ENDPOINT_PER_S
) -> tuple[float, float]:
    """(mean, 99th percentile) of the seconds that a call waits for its token, with a burst of one second."""
    chance = random.Random(SEED)
    rule = RateRule(rate / workers, max(1.0, rate / workers))
    buckets = [full_bucket(rule, 0.0)] * workers
    free_s = [0.0] * workers  # who waits stands in line
    now_s, waits = 0.0, []
    for _ in range(calls):
        now_s += chance.expovariate(rate * utilization)
        worker = chance.randrange(workers)
        asked_s = max(now_s, free_s[worker])
        buckets[worker], left_s = take(buckets[worker], rule, asked_s)
        if left_s:
            asked_s += left_s
            buckets[worker], left_s = take(buckets[worker], rule, asked_s)
            assert not left_s, "the bucket said how long"
        free_s[worker] = asked_s
        waits.append(asked_s - now_s)
    waits.sort()
    return sum(waits) / calls, waits[calls * 99 // 100]


# --- a slow provider -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slowness:
    in_flight: float
    per_s: float
    waiting_max: float
    drained_after_s: float


def slow_provider(charges_per_s: float, latency_s: float, head_room: float = 1.5) -> Slowness:
    """One worker's charges while the provider is slow for SLOW_FOR_S, and after it, at most `head_room` times as many
    a second by the worker's own processor."""
    through_per_s = min(charges_per_s, SLOTS / latency_s)
    waiting_max = (charges_per_s - through_per_s) * SLOW_FOR_S
    again_per_s = min(charges_per_s * head_room, SLOTS / USUAL_LATENCY_S)
    return Slowness(through_per_s * latency_s, through_per_s, waiting_max, waiting_max / (again_per_s - charges_per_s))


# --- what the document shows -----------------------------------------------------------------------------------------


def hours(seconds: float) -> str:
    if math.isinf(seconds):
        return "never"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def evening_rows() -> Iterator[Sequence[str]]:
    """A day from its quietest moment, without an outage."""
    for head_room in BELOW_THE_PEAK:
        it = flow(head_room, PEAK_FACTOR, -DAY_S / 2, 0.0, follow_s=DAY_S)
        yield f"{head_room:g}", f"{it.waiting_max_s:,.0f}", hours(it.longest_wait_s)


def outage_rows() -> Iterator[Sequence[str]]:
    for head_room in HEAD_ROOMS:
        flat = flow(head_room, 1.0, 0.0, OUTAGE_S)
        before = flow(head_room, PEAK_FACTOR, -2 * 3600, OUTAGE_S)
        night = flow(head_room, PEAK_FACTOR, DAY_S / 2, OUTAGE_S)
        yield (
            f"{head_room:g}", hours(flat.done_after_s), hours(before.done_after_s), f"{before.waiting_max_s:,.0f}",
            hours(night.done_after_s),
        )  # fmt: skip


def bucket_rows() -> Iterator[Sequence[str]]:
    for workers in BUCKET_WORKERS:
        waits = [bucket_waits(workers, it) for it in UTILIZATIONS]
        yield (str(workers), *(f"{mean * 1000:,.0f} / {worst * 1000:,.0f}" for mean, worst in waits))


def slow_rows() -> Iterator[Sequence[str]]:
    for latency_s in SLOW_LATENCIES_S:
        it = slow_provider(CHARGES_PER_S, latency_s)
        yield (f"{latency_s:g} s", f"{it.in_flight:,.0f}", f"{it.per_s:,.0f}", f"{it.waiting_max:,.0f}",
               hours(it.drained_after_s))  # fmt: skip


TABLES: Mapping[str, Callable[[], Iterator[Sequence[str]]]] = {
    "a day, sized below its peak": evening_rows,
    "an hour's outage": outage_rows,
    "one rate, many buckets: ms, mean / 99 %": bucket_rows,
    "a slow provider": slow_rows,
}


def main() -> None:
    for title, rows in TABLES.items():
        print(f"\n{title}")
        for row in rows():
            print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
