"""Token bucket, circuit breaker, back-off: tables of (what happens, when, what is said)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payment_service.core.resilience import (
    CLOSED,
    Breaker,
    BreakerRule,
    Bucket,
    Passage,
    RateRule,
    abandoned,
    backoff_s,
    failed,
    full_bucket,
    is_barred,
    pass_through,
    slow_down,
    succeeded,
    take,
)

# --- token bucket ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "asked_at_s", "waits_s"),
    [
        # a burst, then one every 1/rate
        (RateRule(10, 2), (0, 0, 0, 0.1, 0.1), (0, 0, 0.1, 0, 0.1)),
        # no more than the burst is saved up, however long the pause
        (RateRule(10, 2), (0, 0, 100, 100, 100), (0, 0, 0, 0, 0.1)),
        # asking in vain takes nothing away
        (RateRule(1, 1), (0, 0.5, 0.6, 0.9, 1.0), (0, 0.5, 0.4, 0.1, 0)),
        # less than one a second
        (RateRule(0.25, 1), (0, 0, 4, 4), (0, 4, 0, 4)),
        # a clock that steps back gives nothing
        (RateRule(10, 1), (5, 4, 5, 5.1), (0, 0.1, 0.1, 0)),
    ],
)
def test_a_token_is_there_or_tells_when(
    rule: RateRule, asked_at_s: tuple[float, ...], waits_s: tuple[float, ...]
) -> None:
    bucket = full_bucket(rule, asked_at_s[0])
    told = []
    for now_s in asked_at_s:
        bucket, wait_s = take(bucket, rule, now_s)
        told.append(wait_s)
    assert told == pytest.approx(list(waits_s), abs=1e-9)


def drain(bucket: Bucket, rule: RateRule, from_s: float, to_s: float) -> int:
    """How many a greedy caller gets, who comes back when told."""
    taken, now_s = 0, from_s
    while now_s < to_s:
        bucket, wait_s = take(bucket, rule, now_s)
        taken += wait_s == 0
        now_s += wait_s
    return taken


@given(per_s=st.floats(0.1, 100), burst=st.floats(1, 50), steps=st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_never_more_than_the_burst_and_the_rate(per_s: float, burst: float, steps: list[float]) -> None:
    rule, now_s, taken = RateRule(per_s, burst), 0.0, 0
    bucket = full_bucket(rule, now_s)
    for step_s in steps:
        now_s += step_s
        for _ in range(5):
            bucket, wait_s = take(bucket, rule, now_s)
            taken += wait_s == 0
    assert taken <= burst + per_s * now_s + 1e-6


@given(per_s=st.floats(0.1, 100), asked_at=st.floats(0, 5))
def test_whoever_waits_as_told_gets_it(per_s: float, asked_at: float) -> None:
    rule = RateRule(per_s, 1)
    bucket, _ = take(full_bucket(rule, 0), rule, 0)
    bucket, wait_s = take(bucket, rule, asked_at)
    assert take(bucket, rule, asked_at + wait_s + 1e-9)[1] == 0 or wait_s == 0


def test_too_many_requests_halves_the_rate_and_it_comes_back() -> None:
    rule = RateRule(20, 20)
    slowed = slow_down(full_bucket(rule, 0), rule, 0)
    assert (slowed.tokens, slowed.per_s) == (0, 10)
    assert slow_down(slowed, rule, 0.5) is slowed, "one burst is one piece of news"
    assert slow_down(slowed, rule, 1.0).per_s == pytest.approx(5.0 + 20 / 60 / 2)
    assert drain(slowed, rule, 0, 1) <= 11
    later, _ = take(slowed, rule, 60)
    assert later.per_s == 20


def test_a_share_of_the_rate_always_stays() -> None:
    rule = RateRule(16, 16)
    bucket = full_bucket(rule, 0)
    for second in range(1, 40):
        bucket = slow_down(bucket, rule, second)
    assert bucket.per_s >= 1


@pytest.mark.parametrize(("per_s", "burst"), [(0, 1), (-1, 1), (1, 0.5)])
def test_a_rule_that_lets_nothing_through_is_a_bug(per_s: float, burst: float) -> None:
    with pytest.raises(AssertionError):
        RateRule(per_s, burst)


# --- circuit breaker -------------------------------------------------------------------------------------------

RULE = BreakerRule(failures_max=3, open_s=10, open_s_max=35)


def walk(*story: tuple[float, str]) -> list[str]:
    """At each moment a call asks to pass and, if it may, ends as told at once: "ok", "bad", "gone" or "…" (not yet).

    "late ok" and "late bad" are ends of calls that passed before it opened.
    """
    breaker, said = CLOSED, []
    for now_s, end in story:
        if end.startswith("late "):
            was = breaker
            breaker = (
                succeeded(breaker, Passage.FREE) if end == "late ok" else failed(breaker, Passage.FREE, RULE, now_s)
            )
            said.append("same" if breaker == was else "changed")
            continue
        barred = is_barred(breaker, now_s)
        breaker, passage = pass_through(breaker, now_s)
        assert barred == (passage is Passage.BARRED)
        said.append(str(passage))
        if passage is Passage.BARRED:
            continue
        if end == "ok":
            breaker = succeeded(breaker, passage)
        elif end == "bad":
            breaker = failed(breaker, passage, RULE, now_s)
        elif end == "gone":
            breaker = abandoned(breaker, passage)
    return said


@pytest.mark.parametrize(
    ("story", "said"),
    [
        # three failures in a row open it, and only in a row
        ([(0, "bad"), (0, "bad"), (0, "bad"), (0, "ok")], "FREE FREE FREE BARRED"),
        ([(0, "bad"), (0, "bad"), (0, "ok"), (0, "bad"), (0, "bad"), (0, "ok")], "FREE FREE FREE FREE FREE FREE"),
        # after the pause exactly one call finds out
        (
            [(0, "bad")] * 3 + [(9.9, "ok"), (10, "…"), (10, "ok"), (500, "ok")],
            "FREE FREE FREE BARRED PROBE BARRED BARRED",
        ),
        # its success closes for good
        ([(0, "bad")] * 3 + [(10, "ok"), (10, "bad"), (10, "bad"), (10, "ok")], "FREE FREE FREE PROBE FREE FREE FREE"),
        # its failure opens again at once, for twice as long, up to the cap
        (
            [(0, "bad")] * 3
            + [(10, "bad"), (29.9, "ok"), (30, "bad"), (64.9, "ok"), (65, "bad"), (99.9, "ok"), (100, "ok")],
            "FREE FREE FREE PROBE BARRED PROBE BARRED PROBE BARRED PROBE",
        ),
        # a probe whose caller went away leaves the place to the next
        ([(0, "bad")] * 3 + [(10, "gone"), (10, "ok"), (10, "ok")], "FREE FREE FREE PROBE PROBE FREE"),
        # what was sent before it opened changes nothing afterwards
        (
            [(0, "bad")] * 3 + [(1, "late ok"), (1, "late bad"), (2, "ok"), (10, "ok")],
            "FREE FREE FREE same same BARRED PROBE",
        ),
        # going away while it is closed is no news
        ([(0, "bad"), (0, "bad"), (0, "gone"), (0, "bad"), (0, "ok")], "FREE FREE FREE FREE BARRED"),
    ],
)  # fmt: skip
def test_the_breaker(story: list[tuple[float, str]], said: str) -> None:
    assert " ".join(walk(*story)) == said


def test_a_well_provider_costs_no_new_state() -> None:
    breaker, passage = pass_through(CLOSED, 1)
    assert succeeded(breaker, passage) is CLOSED


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["ok", "bad", "gone", "keep"])), max_size=60))
def test_never_two_probes_at_once(steps: list[tuple[float, str]]) -> None:
    breaker: Breaker = CLOSED
    now_s, probes = 0.0, 0
    for step_s, end in steps:
        now_s += step_s
        breaker, passage = pass_through(breaker, now_s)
        if passage is Passage.PROBE:
            probes += 1
        assert probes <= 1
        if passage is Passage.BARRED or end == "keep":
            continue
        if end == "bad":
            breaker = failed(breaker, passage, RULE, now_s)
        else:
            breaker = succeeded(breaker, passage) if end == "ok" else abandoned(breaker, passage)
        probes -= passage is Passage.PROBE


# --- back-off --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tries", "jitter", "pause_s"),
    [(1, 1, 0.1), (2, 1, 0.2), (3, 1, 0.4), (5, 1, 1.6), (6, 1, 2.0), (10_000, 1, 2.0), (1, 0, 0.05), (6, 0.5, 1.5)],
)
def test_backoff_doubles_to_its_cap(tries: int, jitter: float, pause_s: float) -> None:
    assert backoff_s(tries, 0.1, 2.0, jitter) == pytest.approx(pause_s)


@pytest.mark.parametrize(("tries", "jitter"), [(0, 0.5), (1, -0.1), (1, 1.1)])
def test_backoff_without_sense_is_a_bug(tries: int, jitter: float) -> None:
    with pytest.raises(AssertionError):
        backoff_s(tries, 0.1, 2.0, jitter)
