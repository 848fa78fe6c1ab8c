"""The numbers as Prometheus reads them, and how they stay bounded and cheap."""

import asyncio
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from payment_service.adapters.measuring import watch_loop
from payment_service.adapters.metric_list import COUNTERS, GAUGES, HISTOGRAMS
from payment_service.adapters.metrics import CELLS_MAX, HISTOGRAM_CELLS_MAX, OTHER, PrometheusMetrics

AN_ERROR = {"method": "GET", "route": "/x", "code": "NOT_FOUND"}


def samples(metrics: PrometheusMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """As a scraper reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_every_metric_is_declared_in_a_form_that_a_scraper_reads() -> None:
    metrics = PrometheusMetrics()
    told = {family.name: family.type for family in text_string_to_metric_families(metrics.text().decode())}
    for name in COUNTERS:
        assert told[name.removesuffix("_total")] == "counter"
    for name in GAUGES:
        assert told[name] == "gauge"
    for name in HISTOGRAMS:
        assert told[name] == "histogram"
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "python_gc_collections"} <= told.keys()


def test_what_is_counted_is_told() -> None:
    metrics = PrometheusMetrics()
    metrics.count("events_published", 3, topic='a"b\\c\nd')
    metrics.count("events_published", topic='a"b\\c\nd')
    metrics.gauge("orders_held", True)
    for seconds in (0.004, 0.005, 0.2, 99.0):
        metrics.observe("http_request_duration_seconds", seconds, method="GET", route="/x")
    metrics.counting("http_request_errors_total", **AN_ERROR)()
    metrics.observing("publisher_batch_size")(7)
    told = samples(metrics)
    assert told["events_published_total", (("topic", 'a"b\\c\nd'),)] == 4
    assert told["orders_held", ()] == 1
    assert told["http_request_errors_total", tuple(sorted(AN_ERROR.items()))] == 1
    assert told["publisher_batch_size_sum", ()] == 7
    on = (("method", "GET"), ("route", "/x"))
    counts = {le: told["http_request_duration_seconds_bucket", (("le", le), *on)] for le in ("0.005", "0.25", "+Inf")}
    assert counts == {"0.005": 2, "0.25": 3, "+Inf": 4}
    assert told["http_request_duration_seconds_count", on] == 4
    assert told["http_request_duration_seconds_sum", on] == pytest.approx(99.209)


def test_the_order_of_labels_does_not_matter() -> None:
    metrics = PrometheusMetrics()
    metrics.count("http_request_errors_total", method="GET", route="/x", code="A")
    metrics.count("http_request_errors_total", code="A", route="/x", method="GET")
    assert metrics.value("http_request_errors_total", method="GET", route="/x", code="A") == 2


def test_what_nobody_declared_is_counted_as_that() -> None:
    metrics = PrometheusMetrics()
    metrics.count("no_such_metric")
    metrics.count("outbox_depth")
    metrics.gauge("stream_lag", 1, stream="orders")
    metrics.gauge("stream_lag", 1, stream="orders", partition="0")
    metrics.observing("no_such_metric")(1)
    metrics.counting("no_such_metric")()
    assert samples(metrics)["metrics_undeclared_total", ()] == 6


def test_labels_are_bounded_for_each_metric_alone() -> None:
    metrics = PrometheusMetrics()
    for number in range(CELLS_MAX + 50):
        metrics.count("dead_letters", topic="orders", reason=f"word {number}")
    for number in range(HISTOGRAM_CELLS_MAX + 50):
        metrics.observe("provider_call_seconds", 1, provider="MOCK", operation=f"word {number}")
    assert metrics.value("dead_letters", topic=OTHER, reason=OTHER) == 50
    metrics.count("events_published", topic="orders")
    assert metrics.value("events_published", topic="orders") == 1
    told = [name for name, _ in samples(metrics) if name.startswith("provider_call_seconds_count")]
    assert len(told) == HISTOGRAM_CELLS_MAX + 1


def test_a_gauge_that_nobody_set_says_nothing_and_a_watched_one_is_asked_each_time() -> None:
    metrics, values = PrometheusMetrics(), [1.0, 2.0, float("inf")]
    assert ("outbox_depth", ()) not in samples(metrics)
    metrics.watch("provider_tokens", lambda: values.pop(0), provider="MOCK")
    told = [samples(metrics)["provider_tokens", (("provider", "MOCK"),)] for _ in range(3)]
    assert told == [1, 2, float("inf")]


def test_the_text_of_many_lines_does_not_hold_the_event_loop() -> None:
    metrics = PrometheusMetrics()
    for number in range(200):
        metrics.observe("http_request_duration_seconds", 0.1, method="GET", route=f"/{number}")
        metrics.count("http_requests_total", method="GET", route=f"/{number}", status="200")
    took = []
    for _ in range(5):
        started = time.perf_counter()
        lines = metrics.text().count(b"\n")
        took.append(time.perf_counter() - started)
    assert lines > 3000
    assert min(took) < 0.05, "prometheus_client takes 100 ms and more for these"


async def test_an_event_loop_that_is_held_is_seen() -> None:
    metrics = PrometheusMetrics()
    watching = asyncio.create_task(watch_loop(metrics))
    await asyncio.sleep(0.1)
    time.sleep(0.6)  # noqa: ASYNC251 - that is the point
    await asyncio.sleep(0.1)
    watching.cancel()
    told = samples(metrics)
    late = told["event_loop_lag_seconds_count", ()] - told["event_loop_lag_seconds_bucket", (("le", "0.25"),)]
    assert late == 1
