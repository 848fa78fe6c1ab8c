"""The live page: windows out of readings, the stream of them, and what ends it."""

import asyncio
import json

import pytest
from rigs.console_site import ESCAPED, ConsoleSite, console_site
from rigs.settable_clock import SettableClock

from payment_service.adapters.live_reading import live_reading
from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.core.live import Reading, quantile, window
from payment_service.web.console import live_windows
from payment_service.web.console.live_windows import LiveWindows


def test_a_window_is_what_happened_between_two_readings() -> None:
    paid, failed = ("STRIPE", "SUCCEEDED"), ("STRIPE", "FAILED")
    before = Reading(10.0, {paid: 5, failed: 1}, {"STRIPE": [2, 0, 0]}, (0.1, 1.0))
    after = Reading(12.0, {paid: 25, failed: 1}, {"STRIPE": [2, 10, 0]}, (0.1, 1.0))
    seen = window(before, after)
    assert (seen.per_s, seen.by_status()) == (10.0, {"SUCCEEDED": 20})
    assert seen.latency["STRIPE"].calls == 10
    assert seen.latency["STRIPE"].p50_s == pytest.approx(0.55)
    assert window(after, after).latency == {}


def test_a_count_that_was_begun_anew_counts_as_a_whole() -> None:
    assert window(Reading(1.0, {("A", "B"): 50}), Reading(2.0, {("A", "B"): 3})).per_s == 3.0
    assert window(Reading(1.0), Reading(1.0, {("A", "B"): 3})).per_s == 0.0, "no time, no rate"


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [([10, 0, 0], 0.5, 0.05), ([0, 10, 0], 1.0, 1.0), ([0, 0, 10], 0.95, 1.0), ([5, 5, 0], 0.5, 0.1),
     ([0, 0, 0], 0.5, 0.0)],
)  # fmt: skip
def test_quantiles(counts: list[float], share: float, value: float) -> None:
    assert quantile(counts, (0.1, 1.0), share) == pytest.approx(value)


def test_a_reading_of_the_worker_s_own_metrics() -> None:
    metrics = PrometheusMetrics()
    metrics.count("payment_processing_total", 3, provider="STRIPE", status="SUCCEEDED")
    metrics.observe("provider_call_seconds", 0.02, provider="STRIPE", operation="send")
    metrics.observe("provider_call_seconds", 60.0, provider="STRIPE", operation="lookup")
    metrics.watch("provider_breaker_open", lambda: 1, provider="STRIPE")
    metrics.lagging("orders", "shop.orders", 7)
    metrics.lagging("orders", "other.orders", 5)
    metrics.gauge("webhooks_waiting", 4, status="PARKED")
    reading = live_reading(metrics, lambda: 5.0)
    assert (reading.at_s, reading.outcomes) == (5.0, {("STRIPE", "SUCCEEDED"): 3})
    assert sum(reading.calls["STRIPE"]) == 2
    assert (reading.calls["STRIPE"][-1], len(reading.calls["STRIPE"])) == (1, len(reading.bounds_s) + 1)
    assert (reading.breaker_open, reading.lag, reading.webhooks_parked) == ({"STRIPE": True}, {"orders": 12}, 4)
    assert reading.outbox_depth is None, "nobody has looked yet"


async def test_a_minute_is_kept_and_five_minutes_are_drawn() -> None:
    clock, paid = SettableClock(), [0.0]
    live = LiveWindows(lambda: Reading(clock.monotonic_s(), {("MOCK", "SUCCEEDED"): paid[0]}))
    for _ in range(400):
        live.tick()
        clock.pass_s(2.0)
        paid[0] += 10
    assert len(live.points) == live_windows.POINTS_MAX
    assert (live.now["perSecond"], live.now["perSecondMinute"]) == (5.0, 5.0)
    assert live.now["outcomes"] == {"SUCCEEDED": 300}


async def events_of(site: ConsoleSite, count: int) -> list[tuple[str, object]]:
    response = await site.client.get("/console/live/events")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert response.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    events: list[tuple[str, object]] = []
    name = ""
    async for line in response.content:
        field, _, text = line.decode().strip().partition(": ")
        if field == "event":
            name = text
        elif field == "data":
            events.append((name, json.loads(text)))
            if len(events) == count:
                break
            site.live.tick()
    response.close()
    return events


async def test_the_stream_begins_with_what_was_and_goes_on() -> None:
    async with console_site() as site:
        await site.sign_in("support")
        site.live.tick()
        site.live.tick()
        async with asyncio.timeout(10):
            (first, history), (second, _), (third, point) = await events_of(site, 3)
        assert (first, second, third) == ("history", "point", "point")
        assert isinstance(history, list)
        assert len(history) == 2
        assert isinstance(point, dict)
        assert point["perSecond"] == 0


async def test_a_stream_ends_with_the_session_and_with_the_worker() -> None:
    async with console_site() as site:
        site.clock.pass_s(0)
        await site.sign_in("support")
        site.clock.pass_s(30 * 60 - 0.3)
        async with asyncio.timeout(10):
            response = await site.client.get("/console/live/events")
            assert b"history" in await response.read(), "it ended by itself"
        await site.sign_in("support")
        response = await site.client.get("/console/live/events")
        site.live.end()
        async with asyncio.timeout(10):
            await response.read()


async def test_all_workers_together_are_on_the_page_itself() -> None:
    async with console_site() as site:
        await site.sign_in("support")
        text = (await site.get("/console/live")).text
        for cell in ("1200", "99.5 %", "250 ms", "1.5 s", "1100", f"STRIPE{ESCAPED}"):
            assert cell in text, cell


async def test_a_stream_ends_when_its_operator_signs_out() -> None:
    async with console_site() as site:
        await site.sign_in("support")
        page = await site.get("/console")
        response = await site.client.get("/console/live/events")
        await site.post("/console/sign-out", {"form_token": page.form_token})
        site.live.tick()
        async with asyncio.timeout(10):
            assert b"event: point" not in await response.read()


async def test_no_more_browsers_than_a_worker_can_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_windows, "STREAMS_MAX", 2)
    async with console_site() as site:
        await site.sign_in("support")
        site.live.tick()
        opened = [await site.client.get("/console/live/events") for _ in range(2)]
        for response in opened:
            await response.content.readline()
        assert (await site.client.get("/console/live/events")).status == 503
        opened[0].close()
        async with asyncio.timeout(10):
            while (again := await site.client.get("/console/live/events")).status != 200:
                site.live.tick()
                await asyncio.sleep(0.01)
        again.close()
        opened[1].close()


async def test_a_stream_is_no_slow_answer() -> None:
    """Its time would be the worst there is in every picture of latencies."""
    async with console_site() as site:
        await site.sign_in("support")
        response = await site.client.get("/console/live/events")
        await response.content.readline()
        site.clock.pass_s(300)
        site.live.end()
        await response.read()
        bounds, cells = site.metrics.buckets("http_request_duration_seconds")
        counts = dict(cells)["GET", "/console/live/events"]
        assert sum(counts[: len(bounds) // 2]) == sum(counts) == 1
