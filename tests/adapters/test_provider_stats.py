"""Windows of a worker: what is counted in which minute, told once it is over, whatever the broker does meanwhile."""

import asyncio
from dataclasses import dataclass, field

import pytest
from rigs.counted import CountedMetrics
from rigs.provider_rig import call_for
from rigs.settable_clock import SettableClock

from payment_service.adapters import provider_stats
from payment_service.adapters.guarded import CREATE, LOOKUP
from payment_service.adapters.kafka_message import NeverTaken
from payment_service.adapters.metric_list import WAIT_S
from payment_service.adapters.provider_stats import ProviderStats
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.codecs.health import decode_window, encode_window
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.health import HealthWindow, added_up
from payment_service.core.ports import Answer
from payment_service.core.terms import Kind, Status, Verdict

CIPHER = AesGcmCipher(b"k" * 32)
CALL = call_for("pay_1")
YES, NOBODY = Answer(Verdict.APPROVED), Answer(Verdict.UNKNOWN)
MINUTE_MS = 60_000


@dataclass
class Broker:
    sent: list[HealthWindow] = field(default_factory=list)
    error: Exception | None = None

    async def send(self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        assert topic == "payment-provider-stats"
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.sent.append(decode_window(key, value or b"", CIPHER))


@dataclass
class Rig:
    stats: ProviderStats
    broker: Broker
    clock: SettableClock
    metrics: CountedMetrics


@pytest.fixture
def rig() -> Rig:
    broker, clock, metrics = Broker(), SettableClock(600.0), CountedMetrics()
    return Rig(ProviderStats(broker, CIPHER, clock, metrics, "pod-1:7"), broker, clock, metrics)


async def test_a_window_is_of_its_minute_and_holds_what_was_seen(rig: Rig) -> None:
    stats = rig.stats
    stats.answered(Kind.CHARGE, CALL, YES, 0.02)
    stats.answered(CREATE, CALL, YES, 100.0)
    stats.answered(Kind.CHARGE, CALL, NOBODY, 0.02)
    stats.answered(LOOKUP, CALL, NOBODY, 0.02)
    stats.became("MOCK", "USD", Status.SUCCEEDED)
    stats.became("MOCK", "EUR", Status.FAILED)
    rig.clock.pass_s(60)
    await stats.tell()
    stats.became("MOCK", "USD", Status.SUCCEEDED)
    rig.clock.pass_s(60)
    await stats.tell()
    await stats.tell()
    dollars, euros, later = rig.broker.sent
    assert (dollars.provider, dollars.currency, dollars.worker, dollars.start_ms) == ("MOCK", "USD", "pod-1:7", 600_000)
    assert dollars.verdicts == {"APPROVED": 2, "UNKNOWN": 1}
    assert dollars.outcomes == {"SUCCEEDED": 1}
    assert (dollars.latency[2], dollars.latency[-1], sum(dollars.latency)) == (2, 1, 3)
    assert (euros.currency, euros.outcomes) == ("EUR", {"FAILED": 1})
    assert (later.start_ms, later.outcomes, later.verdicts) == (660_000, {"SUCCEEDED": 1}, {})


async def test_what_the_broker_does_not_take_now_goes_later_and_once(rig: Rig) -> None:
    rig.stats.became("MOCK", "USD", Status.SUCCEEDED)
    rig.broker.error = Unavailable("away")
    rig.clock.pass_s(60)
    await rig.stats.tell()
    rig.stats.became("MOCK", "USD", Status.FAILED)
    rig.broker.error = None
    await rig.stats.tell()
    rig.stats.became("MOCK", "USD", Status.FAILED)
    await rig.stats.last()
    assert [(it.start_ms, it.outcomes) for it in rig.broker.sent] == [
        (600_000, {"SUCCEEDED": 1}), (660_000, {"FAILED": 2}),
    ]  # fmt: skip


async def test_a_worker_that_ends_while_a_minute_is_told_tells_each_window_once(rig: Rig) -> None:
    rig.stats.became("MOCK", "USD", Status.SUCCEEDED)
    rig.clock.pass_s(60)
    await asyncio.gather(rig.stats.tell(), rig.stats.last())
    assert len(rig.broker.sent) == 1


async def test_what_waits_and_what_is_counted_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_stats, "UNTOLD_MAX", 3)
    monkeypatch.setattr(provider_stats, "COMBINATIONS_MAX", 2)
    rig.broker.error = Unavailable("away")
    for minute in range(3):
        for currency in ("USD", "EUR", "JPY"):
            rig.stats.became("MOCK", currency, f"S{minute}")
        rig.clock.pass_s(60)
        await rig.stats.tell()
    rig.broker.error = None
    await rig.stats.tell()
    assert [(it.currency, *it.outcomes) for it in rig.broker.sent] == [("EUR", "S1"), ("USD", "S2"), ("EUR", "S2")]
    assert rig.metrics.counts["provider_windows_lost",] == 3


async def test_one_that_can_never_be_sent_does_not_hold_up_the_rest(rig: Rig) -> None:
    rig.stats.became("MOCK", "USD", "A")
    rig.broker.error = NeverTaken("MessageSizeTooLargeError")
    rig.clock.pass_s(60)
    await rig.stats.tell()
    rig.broker.error = None
    rig.stats.became("MOCK", "USD", "B")
    await rig.stats.last()
    assert [it.outcomes for it in rig.broker.sent] == [{"B": 1}]


def window(worker: str = "a", provider: str = "MOCK", latency: tuple[int, ...] = (10, 0, 0)) -> HealthWindow:
    verdicts = {"APPROVED": 8, "UNKNOWN": 2}
    return HealthWindow(provider, "USD", worker, 0, (0.1, 1.0), list(latency), verdicts, {"SUCCEEDED": 8})


def test_windows_add_up_by_provider() -> None:
    both = added_up([window(), window("b", latency=(0, 10, 0)), window(provider="OTHER")])
    assert list(both) == ["MOCK", "OTHER"]
    mock = both["MOCK"]
    assert (mock.calls, mock.answered_share, mock.workers, mock.outcomes) == (20, 0.8, 2, {"SUCCEEDED": 16})
    assert (mock.p50_s, mock.p95_s) == (pytest.approx(0.1), pytest.approx(0.91))
    other_bounds = HealthWindow("MOCK", "USD", "c", 0, WAIT_S, [1] * (len(WAIT_S) + 1))
    assert added_up([other_bounds, window()])["MOCK"].p95_s == pytest.approx(0.095), "not in the same buckets"


@pytest.mark.parametrize("key", [b"MOCK:EUR", None])
def test_a_window_under_another_key_is_refused(key: bytes | None) -> None:
    with pytest.raises(Malformed):
        decode_window(key, encode_window(window(), CIPHER), CIPHER)


def test_a_window_whose_buckets_do_not_fit_is_refused() -> None:
    value = encode_window(window(latency=(1, 2)), CIPHER)
    with pytest.raises(Malformed, match="buckets"):
        decode_window(b"MOCK:USD", value, CIPHER)
