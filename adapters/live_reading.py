"""This worker's own numbers as a Reading, out of the metrics that it keeps anyway.

Room: adapters.
"""

from collections.abc import Callable

from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.core.live import Reading


def live_reading(metrics: PrometheusMetrics, monotonic_s: Callable[[], float]) -> Reading:
    """Neither waits nor raises."""
    calls: dict[str, list[float]] = {}
    bounds, cells = metrics.buckets("provider_call_seconds")
    for (provider, _), counts in cells:
        before = calls.get(provider)
        calls[provider] = list(counts) if before is None else [a + b for a, b in zip(before, counts, strict=True)]
    lag: dict[str, float] = {}
    for (stream, _), records in metrics.values("stream_lag"):
        lag[stream] = lag.get(stream, 0.0) + records
    waiting = dict(metrics.values("webhooks_waiting"))
    return Reading(
        monotonic_s(),
        {(provider, status): count for (provider, status), count in metrics.values("payment_processing_total")},
        calls,
        bounds,
        {provider: value > 0 for (provider,), value in metrics.values("provider_breaker_open")},
        lag,
        max((age_s for _, age_s in metrics.values("stream_oldest_age_s")), default=0.0),
        metrics.value("outbox_depth"),
        metrics.value("outbox_age_s"),
        waiting.get(("PARKED",)),
        metrics.value("payments_to_review"),
    )
