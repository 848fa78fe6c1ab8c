"""How to treat a provider that is slow, ill or tired of us: token bucket, circuit breaker, back-off.

Room: core. Pure functions of state and now: no clock, no chance, no waiting. Whoever keeps the state brings the
monotonic seconds and the jitter, so that a test can walk through a bad hour in a microsecond.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

# --- token bucket ----------------------------------------------------------------------------------------------

WHOLE_TOKEN = 1 - 1e-9
"""Adding fractions up does not give exactly 1; whoever waited the time they were told gets their token."""
SLOWDOWN_FACTOR = 0.5
SLOWDOWN_EVERY_S = 1.0
"""The many "too many requests" of one burst are one piece of news."""
SLOWEST_SHARE = 1 / 16
"""However often we are told to slow down, this share of the configured rate stays."""
RECOVERY_SHARE_PER_S = 1 / 60
"""Additive increase: the configured rate is back a minute after it was nearly gone."""


@dataclass(frozen=True, slots=True)
class RateRule:
    """What an account may do. `burst` tokens are there after a pause; at least 1, else nothing would ever pass."""

    per_s: float
    burst: float

    def __post_init__(self) -> None:
        assert self.per_s > 0, "a rate of nothing is a provider that is not configured"
        assert self.burst >= 1, "a bucket must hold a whole token"


@dataclass(frozen=True, slots=True)
class Bucket:
    tokens: float
    per_s: float
    """The present rate: the rule's, or less since the provider said "too many"."""
    at_s: float
    slowed_at_s: float | None = None


def full_bucket(rule: RateRule, now_s: float) -> Bucket:
    return Bucket(rule.burst, rule.per_s, now_s)


def take(bucket: Bucket, rule: RateRule, now_s: float) -> tuple[Bucket, float]:
    """One token. 0.0: taken. Else the seconds until there is one; nothing was taken."""
    filled = refilled(bucket, rule, now_s)
    if filled.tokens >= WHOLE_TOKEN:
        return Bucket(max(0.0, filled.tokens - 1), filled.per_s, filled.at_s, filled.slowed_at_s), 0.0
    return filled, (1 - filled.tokens) / filled.per_s


def slow_down(bucket: Bucket, rule: RateRule, now_s: float) -> Bucket:
    """The provider said "too many requests": half the rate and an empty bucket, once a burst of such answers."""
    if bucket.slowed_at_s is not None and now_s - bucket.slowed_at_s < SLOWDOWN_EVERY_S:
        return bucket
    filled = refilled(bucket, rule, now_s)
    slower = max(filled.per_s * SLOWDOWN_FACTOR, rule.per_s * SLOWEST_SHARE)
    return Bucket(0.0, slower, filled.at_s, now_s)


def refilled(bucket: Bucket, rule: RateRule, now_s: float) -> Bucket:
    elapsed_s = now_s - bucket.at_s
    if elapsed_s <= 0:
        return bucket
    tokens = min(rule.burst, bucket.tokens + elapsed_s * bucket.per_s)
    per_s = min(rule.per_s, bucket.per_s + elapsed_s * rule.per_s * RECOVERY_SHARE_PER_S)
    return Bucket(tokens, per_s, now_s, bucket.slowed_at_s)


# --- circuit breaker -------------------------------------------------------------------------------------------

DOUBLINGS_MAX = 16
"""Beyond it a pause has long met its cap; keeps the number small."""


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """Opens after `failures_max` failures in a row, for `open_s`, twice as long after each failed probe."""

    failures_max: int
    open_s: float
    open_s_max: float


@dataclass(frozen=True, slots=True)
class Breaker:
    failures: int = 0
    """In a row, while closed. A decline is an answer, not a failure."""
    openings: int = 0
    """In a row, without a success between them."""
    open_until_s: float | None = None
    """None: closed. In the past: half-open, one call may find out."""
    probing: bool = False


CLOSED = Breaker()


class Passage(StrEnum):
    """What the breaker says to a call; the call's outcome is reported together with it."""

    FREE = "FREE"
    PROBE = "PROBE"
    """The one call that finds out whether the provider is back. Its outcome must be reported, or it is abandoned."""
    BARRED = "BARRED"


def is_barred(breaker: Breaker, now_s: float) -> bool:
    """Would a call be barred now? Takes nothing: for whoever has to queue before calling."""
    return breaker.open_until_s is not None and (breaker.probing or now_s < breaker.open_until_s)


def pass_through(breaker: Breaker, now_s: float) -> tuple[Breaker, Passage]:
    if breaker.open_until_s is None:
        return breaker, Passage.FREE
    if is_barred(breaker, now_s):
        return breaker, Passage.BARRED
    return replace(breaker, probing=True), Passage.PROBE


def succeeded(breaker: Breaker, passage: Passage) -> Breaker:
    """The provider answered. While open, only the probe's answer counts: others were sent before it opened."""
    if passage is Passage.PROBE:
        return CLOSED
    if breaker.open_until_s is None and breaker.failures:
        return CLOSED
    return breaker


def failed(breaker: Breaker, passage: Passage, rule: BreakerRule, now_s: float) -> Breaker:
    if passage is Passage.PROBE:
        return _opened(breaker, rule, now_s)
    if breaker.open_until_s is not None:
        return breaker
    if breaker.failures + 1 >= rule.failures_max:
        return _opened(breaker, rule, now_s)
    return replace(breaker, failures=breaker.failures + 1)


def abandoned(breaker: Breaker, passage: Passage) -> Breaker:
    """The call ended without news of the provider (its caller went away): the next one may probe."""
    return replace(breaker, probing=False) if passage is Passage.PROBE else breaker


def _opened(breaker: Breaker, rule: BreakerRule, now_s: float) -> Breaker:
    pause_s = min(rule.open_s * (1 << min(breaker.openings, DOUBLINGS_MAX)), rule.open_s_max)
    return Breaker(openings=breaker.openings + 1, open_until_s=now_s + pause_s)


# --- back-off --------------------------------------------------------------------------------------------------


def backoff_s(tries: int, first_s: float, cap_s: float, jitter: float) -> float:
    """The pause after `tries` failed tries (1 or more): doubles from `first_s` to `cap_s`.

    `jitter` from 0 to 1 chooses between half of it and all of it, so that those who failed together do not
    come back together.
    """
    assert tries >= 1, "a first try has no pause before it"
    assert 0 <= jitter <= 1, "jitter is a share"
    return min(first_s * (1 << min(tries - 1, DOUBLINGS_MAX)), cap_s) * (0.5 + 0.5 * jitter)
