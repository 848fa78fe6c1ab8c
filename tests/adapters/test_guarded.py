"""The guard around a provider: what comes out whatever is inside, and that nothing it took is kept."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from rigs.counted import CountedMetrics
from rigs.provider_rig import call_for
from rigs.settable_clock import SettableClock

from payment_service.adapters.clock import SystemClock
from payment_service.adapters.guarded import BREAKER, TRIES_MAX, GuardedProvider, GuardLimits, limits_for
from payment_service.adapters.providers.mock import PROVIDER, MockProvider
from payment_service.adapters.providers.registration import Registration
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.resilience import BreakerRule, RateRule
from payment_service.core.terms import Kind, Verdict

CALL = call_for("pay_1", token="tok_secret_of_the_shopper")
YES = Answer(Verdict.APPROVED, "ch_1", "pi_1")
NO = Answer(Verdict.DECLINED, code="CARD_DECLINED")
ILL = Answer(Verdict.UNKNOWN, code="PROVIDER_ERROR")
AWAY = Answer(Verdict.NOT_SENT, code="PROVIDER_UNAVAILABLE")
TOO_MANY = Answer(Verdict.NOT_SENT, code="RATE_LIMITED")

Reply = Answer | Exception | Callable[[], Awaitable[Answer]]


class Scripted:
    """A provider that says what the test wrote, one reply a call; the last one repeats."""

    name = "SCRIPTED"

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.asked: list[str] = []

    async def _next(self, operation: str) -> Answer:
        self.asked.append(operation)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Answer) else await reply()

    async def create_object(self, call: ProviderCall) -> Answer:
        return await self._next("create")

    async def send(self, call: ProviderCall) -> Answer:
        return await self._next("send")

    async def lookup(self, call: ProviderCall) -> Answer:
        return await self._next("lookup")


@dataclass
class Guard:
    provider: GuardedProvider
    inner: Scripted
    clock: SettableClock
    metrics: CountedMetrics


def guard(*replies: Reply, **limits: Any) -> Guard:
    inner, clock, metrics = Scripted(*replies), SettableClock(), CountedMetrics()
    made = GuardLimits(**{"concurrency": 10, "deadline_s": 5.0, **limits})
    return Guard(GuardedProvider(inner, made, clock, metrics, jitter=lambda: 0.0), inner, clock, metrics)


async def never() -> Answer:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody answers")


async def soon() -> Answer:
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    return YES


# --- what comes out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [YES, NO, ILL, Answer(Verdict.PENDING), Answer(Verdict.UNKNOWN, code="NEW_WORD")])
async def test_an_answer_passes_as_it_is_and_is_counted(answer: Answer) -> None:
    g = guard(answer)
    assert await g.provider.send(CALL) is answer
    assert g.metrics.counts["provider_calls", "SCRIPTED", "CHARGE", answer.verdict] == 1
    assert len(g.metrics.observed["provider_call_seconds", "SCRIPTED", "CHARGE"]) == 1
    assert g.provider.calls_inside == 0


async def test_a_provider_that_waits_is_waited_for() -> None:
    g = guard(soon)
    assert await g.provider.send(CALL) is YES
    assert g.inner.asked == ["send"]


async def test_silence_is_unknown_at_the_deadline_and_gives_the_place_back() -> None:
    g = guard(never, deadline_s=0.02)
    answer = await g.provider.send(CALL)
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, "PROVIDER_TIMEOUT")
    assert g.provider.calls_inside == 0


async def late_error() -> Answer:
    await asyncio.sleep(0)
    raise ValueError("tok_secret_of_the_shopper")


async def late_timeout() -> Answer:
    await asyncio.sleep(0)
    raise TimeoutError


@pytest.mark.parametrize(
    "reply", [ValueError("tok_secret_of_the_shopper"), TimeoutError(), AssertionError(), late_error, late_timeout]
)
async def test_an_exception_is_unknown_and_logged_without_its_text(
    reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    g = guard(reply)
    with caplog.at_level(logging.ERROR):
        answer = await g.provider.send(CALL)
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, "ADAPTER_ERROR")
    assert "key=pay_1" in caplog.text
    assert "test_guarded.py:" in caplog.text, "where it came from"
    assert "tok_secret" not in caplog.text
    assert g.provider.calls_inside == 0


async def test_a_cancelled_caller_cancels_the_call_and_gives_the_place_back() -> None:
    g = guard(never)
    task = asyncio.create_task(g.provider.send(CALL))
    await asyncio.sleep(0)
    assert g.provider.calls_inside == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert g.provider.calls_inside == 0


async def test_the_inner_call_may_clean_up_when_it_is_given_up() -> None:
    cleaned = []

    async def careful() -> Answer:
        try:
            return await never()
        finally:
            await asyncio.sleep(0)
            cleaned.append("connection")

    g = guard(careful, deadline_s=0.01)
    assert (await g.provider.send(CALL)).code == "PROVIDER_TIMEOUT"
    assert cleaned == ["connection"]


async def test_a_timeout_of_the_adapters_own_works_inside() -> None:
    async def own() -> Answer:
        try:
            async with asyncio.timeout(0.005):
                return await never()
        except TimeoutError:
            return AWAY

    g = guard(own)
    assert (await g.provider.lookup(CALL)).verdict is Verdict.UNKNOWN
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_no_timer_for_a_provider_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "timeout", lambda *_: pytest.fail("a timer was armed"))
    mock = MockProvider(SystemClock(), public_url="http://shop.test")
    provider = GuardedProvider(mock, GuardLimits(10, 5.0), SystemClock(), CountedMetrics())
    assert (await provider.create_object(CALL)).verdict is Verdict.APPROVED
    assert (await provider.send(CALL)).verdict is Verdict.APPROVED


async def test_the_mocks_silent_token_is_unknown() -> None:
    mock = MockProvider(SystemClock(), public_url="http://shop.test")
    provider = GuardedProvider(mock, GuardLimits(10, 0.02), SystemClock(), CountedMetrics())
    answer = await provider.send(call_for("pay_1", token="tok_timeout"))
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, "PROVIDER_TIMEOUT")


# --- tries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "replies", "tries", "verdict"),
    [
        ("send", (AWAY, YES), 2, Verdict.APPROVED),
        ("send", (TOO_MANY, AWAY, YES), 3, Verdict.APPROVED),
        ("send", (AWAY,), TRIES_MAX, Verdict.NOT_SENT),
        ("send", (ILL, YES), 1, Verdict.UNKNOWN),
        ("send", (ValueError(), YES), 1, Verdict.UNKNOWN),
        ("send", (NO, YES), 1, Verdict.DECLINED),
        ("send", (Answer(Verdict.NOT_SENT, code="NOT_AUTHORIZED"), YES), 1, Verdict.NOT_SENT),
        ("create_object", (ILL, YES), 2, Verdict.APPROVED),
        ("create_object", (ILL,), TRIES_MAX, Verdict.UNKNOWN),
        ("lookup", (AWAY, YES), 2, Verdict.APPROVED),
        ("lookup", (AWAY,), TRIES_MAX, Verdict.UNKNOWN),
        ("lookup", (ILL, YES), 1, Verdict.UNKNOWN),
    ],
)
async def test_only_what_is_safe_is_tried_again(
    operation: str, replies: tuple[Reply, ...], tries: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = guard(*replies)
    pauses: list[float] = []

    async def pass_time(pause_s: float) -> None:
        pauses.append(pause_s)
        g.clock.pass_s(pause_s)

    monkeypatch.setattr(asyncio, "sleep", pass_time)
    answer = await getattr(g.provider, operation)(CALL)
    assert (len(g.inner.asked), answer.verdict) == (tries, verdict)
    assert pauses == pytest.approx([0.05, 0.1][: tries - 1])


async def test_there_is_no_try_beyond_the_deadline() -> None:
    g = guard(AWAY, YES, deadline_s=0.04)
    assert (await g.provider.send(CALL)).verdict is Verdict.NOT_SENT
    assert g.inner.asked == ["send"]


# --- breaker ---------------------------------------------------------------------------------------------------


async def test_an_ill_provider_is_not_asked_until_one_call_found_it_well() -> None:
    g = guard(ILL, breaker=BreakerRule(failures_max=3, open_s=10, open_s_max=60))
    for _ in range(3):
        assert (await g.provider.send(CALL)).verdict is Verdict.UNKNOWN
    refused = await g.provider.send(CALL)
    assert (refused.verdict, refused.code) == (Verdict.NOT_SENT, "PROVIDER_UNAVAILABLE")
    assert not g.provider.available
    assert len(g.inner.asked) == 3
    assert g.metrics.counts["provider_refusals", "SCRIPTED", "CHARGE", "breaker"] == 1
    assert g.provider.gauges()["provider_breaker_open"]() == 1

    g.clock.pass_s(10)
    gate = asyncio.Event()

    async def slowly() -> Answer:
        await gate.wait()
        return NO

    g.inner.replies = [slowly, YES]
    probe = asyncio.create_task(g.provider.send(CALL))
    await asyncio.sleep(0)
    assert (await g.provider.send(CALL)).verdict is Verdict.NOT_SENT, "one probe"
    gate.set()
    assert (await probe) is NO, "a decline shows that it is well"
    assert await g.provider.send(CALL) is YES
    assert g.provider.gauges()["provider_breaker_open"]() == 0


async def test_declines_and_not_found_never_open_it() -> None:
    unknown = Answer(Verdict.UNKNOWN, code="NOT_FOUND")
    for answer in (NO, unknown):
        g = guard(answer)
        for _ in range(BREAKER.failures_max * 2):
            assert await g.provider.send(CALL) is answer


async def test_a_look_up_that_is_held_back_is_unknown_never_not_sent() -> None:
    g = guard(ILL, breaker=BreakerRule(failures_max=1, open_s=10, open_s_max=60))
    await g.provider.send(CALL)
    answer = await g.provider.lookup(CALL)
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, "PROVIDER_UNAVAILABLE")
    assert g.inner.asked == ["send"]


async def test_a_probe_whose_caller_goes_away_leaves_its_place() -> None:
    g = guard(ILL, never, YES, breaker=BreakerRule(failures_max=1, open_s=10, open_s_max=60))
    await g.provider.send(CALL)
    g.clock.pass_s(10)
    probe = asyncio.create_task(g.provider.send(CALL))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert await g.provider.send(CALL) is YES


# --- admission -------------------------------------------------------------------------------------------------


async def test_a_slot_is_waited_for_and_no_longer_than_told() -> None:
    gate = asyncio.Event()

    async def slowly() -> Answer:
        await gate.wait()
        return YES

    g = guard(slowly, concurrency=1, wait_s=0.02)
    first = asyncio.create_task(g.provider.send(CALL))
    await asyncio.sleep(0)
    refused = await g.provider.send(CALL)
    assert (refused.verdict, refused.code) == (Verdict.NOT_SENT, "PROVIDER_UNAVAILABLE")
    assert g.metrics.counts["provider_refusals", "SCRIPTED", "CHARGE", "wait"] == 1
    second = asyncio.create_task(g.provider.send(CALL))
    await asyncio.sleep(0)
    gate.set()
    assert [await first, await second] == [YES, YES]
    assert g.provider.calls_inside == 0


async def test_too_fast_is_held_back_at_the_end_of_the_wait() -> None:
    inner, metrics = Scripted(YES), CountedMetrics()
    limits = GuardLimits(10, 5.0, wait_s=0.05, rate=RateRule(per_s=50, burst=1))
    provider = GuardedProvider(inner, limits, SystemClock(), metrics)
    verdicts = [a.verdict for a in await asyncio.gather(*(provider.send(CALL) for _ in range(10)))]
    assert 2 <= verdicts.count(Verdict.APPROVED) <= 5
    assert verdicts.count(Verdict.NOT_SENT) == 10 - verdicts.count(Verdict.APPROVED)
    assert len(inner.asked) == verdicts.count(Verdict.APPROVED)


async def test_too_many_requests_makes_it_slower() -> None:
    g = guard(replace(TOO_MANY, verdict=Verdict.UNKNOWN), YES, rate=RateRule(per_s=10, burst=10), wait_s=0.01)
    await g.provider.send(CALL)
    assert (await g.provider.send(CALL)).verdict is Verdict.NOT_SENT, "the bucket is empty now"
    g.clock.pass_s(0.2)
    assert await g.provider.send(CALL) is YES


# --- limits ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Some:
    provider_concurrency: int = 7
    provider_deadline_s: float = 3.0
    some_rate_per_s: float = 25.0
    mock_provider_url: str | None = None


def test_limits_come_from_the_settings_and_the_registration() -> None:
    networked: Registration[Some] = Registration(
        "SOME", lambda _: True, lambda *_: Scripted(YES), rate_per_s=lambda settings: settings.some_rate_per_s
    )
    assert limits_for(networked, Some()) == GuardLimits(7, 3.0, 1.5, RateRule(25.0, 25.0), BREAKER)
    assert limits_for(PROVIDER, Some()) == GuardLimits(7, 3.0, 1.5, None, None)
    remote = Some(mock_provider_url="http://127.0.0.1:12111")
    assert limits_for(PROVIDER, remote).breaker == BREAKER, "over the network it can be ill"


async def test_every_kind_and_operation_has_its_urgency() -> None:
    g = guard(YES)
    for kind in Kind:
        assert await g.provider.send(replace(CALL, kind=kind)) is YES
    assert await g.provider.create_object(CALL) is YES
    assert await g.provider.lookup(CALL) is YES


async def test_a_thousand_calls_at_once_within_the_slots() -> None:
    peak = inside = 0

    async def watch() -> Answer:
        nonlocal peak, inside
        inside += 1
        peak = max(peak, inside)
        await asyncio.sleep(0)
        inside -= 1
        return YES

    g = guard(watch, concurrency=20)
    answers = await asyncio.gather(*(g.provider.send(CALL) for _ in range(1000)))
    assert all(answer is YES for answer in answers)
    assert peak == 20
    assert g.provider.calls_inside == 0
