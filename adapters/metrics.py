"""Counting with prometheus_client, behind the Metrics port.

Room: adapters. Every metric is declared here, with its labels, so that none is made by a misspelt name.
"""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "payment_attempts": ("Provider calls answered", ("provider", "kind", "verdict")),
    "provider_calls": ("Tries that reached a provider's adapter", ("provider", "operation", "verdict")),
    "provider_retries": ("Tries of a provider call after its first", ("provider", "operation")),
    "provider_refusals": ("Provider calls held back before anything was sent", ("provider", "operation", "reason")),
    "effect_claims_failed": ("Claims of due provider calls that the database did not answer", ()),
    "effect_failed": ("Provider calls whose task ended with an error; they come back by their lease", ("reason",)),
    "effect_retries": ("Steps around a provider call, such as recording its answer, that had to be repeated", ()),
    "stream_events": ("Events of an input topic by what became of them", ("stream", "outcome")),
    "http_requests_total": ("HTTP requests answered", ("method", "route", "status")),
    "events_published": ("Events acked by the broker", ("topic",)),
    "publisher_failures": ("Sends and connections of the publisher that failed; they are repeated", ("reason",)),
    "stream_restarts": ("Times the stream side was started anew", ("reason",)),
}
_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "provider_breaker_open": ("1 while the provider is not asked because it failed in a row", ("provider",)),
    "outbox_depth": ("Events committed and not yet acked by the broker", ()),
    "outbox_age_s": ("Age of the oldest event without an ack", ()),
    "stream_in_flight": ("Events started and not finished", ("stream",)),
    "stream_window": ("Events finished or not behind the oldest unfinished one", ("stream",)),
    "stream_backlog": ("Records fetched and not started", ("stream",)),
    "stream_oldest_age_s": ("Age of the oldest unfinished event", ("stream",)),
}
_HISTOGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "provider_call_seconds": ("Time of one try at a provider", ("provider", "operation")),
    "http_request_duration_seconds": ("Time to answer", ("method", "route")),
}
LABEL_SETS_MAX = 1000
"""Label combinations kept per metric; beyond it everything is counted under "other"."""


class PrometheusMetrics:
    """The Metrics port. A name that is not declared above is our own bug and is counted as such, never raised."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: dict[str, MetricWrapperBase] = {}
        self._labels: dict[str, tuple[str, ...]] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        for declared, kind in ((_COUNTERS, Counter), (_GAUGES, Gauge), (_HISTOGRAMS, Histogram)):
            for name, (text, labels) in declared.items():
                self.declare(kind, name, text, labels)
        self._undeclared = Counter("metrics_undeclared", "Metrics that nobody declared", registry=self.registry)

    def declare(self, kind: type[Any], name: str, text: str, labels: tuple[str, ...]) -> None:
        self._known[name] = kind(name, text, labels, registry=self.registry)
        self._labels[name] = labels

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        child = self._child(name, labels)
        if child is not None:
            child.inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        child = self._child(name, labels)
        if child is not None:
            child.observe(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        child = self._child(name, labels)
        if child is not None:
            child.set(value)

    # What agents/delivery.py asks for.

    def counted(self, stream: str, outcome: str) -> None:
        self.count("stream_events", stream=stream, outcome=outcome)

    def observed(self, stream: str, in_flight: int, window: int, backlog: int, oldest_age_s: float) -> None:
        self.gauge("stream_in_flight", in_flight, stream=stream)
        self.gauge("stream_window", window, stream=stream)
        self.gauge("stream_backlog", backlog, stream=stream)
        self.gauge("stream_oldest_age_s", oldest_age_s, stream=stream)

    def text(self) -> bytes:
        """The exposition format for GET /metrics."""
        return generate_latest(self.registry)

    def _child(self, name: str, labels: dict[str, str]) -> Any:
        key = (name, tuple(labels.values()))
        child = self._children.get(key)
        if child is not None:
            return child
        metric = self._known.get(name)
        if metric is None or set(labels) != set(self._labels[name]):
            self._undeclared.inc()
            return None
        if not labels:
            self._children[key] = metric
            return metric
        if len(self._children) >= LABEL_SETS_MAX:
            return metric.labels(**dict.fromkeys(labels, "other"))
        child = self._children[key] = metric.labels(**labels)
        return child
