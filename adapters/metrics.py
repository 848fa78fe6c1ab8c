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
    "calls_sent_again": ("Provider calls without an answer that went out again, same key", ("provider", "kind")),
    "calls_given_up": ("Charges without an answer that are cancelled at the provider instead", ("provider", "kind")),
    "payment_alarms": ("Reasons for a person to look at a provider call, each time one is seen", ("reason",)),
    "effect_retries": ("Steps around a provider call, such as recording its answer, that had to be repeated", ()),
    "stream_events": ("Events of an input topic by what became of them", ("stream", "outcome")),
    "http_requests_total": ("HTTP requests answered", ("method", "route", "status")),
    "idempotency_answers_unkept": ("Answers that went out without being kept under their Idempotency-Key", ()),
    "old_rows_removed": ("Rows that left by age", ("what",)),
    "old_rows_failed": ("Times that removing rows by age did not work; it is repeated", ("what",)),
    "rate_limited": ("Requests refused for coming too often, by who was counted", ("who",)),
    "events_published": ("Events acked by the broker", ("topic",)),
    "publisher_failures": ("Sends and connections of the publisher that failed; they are repeated", ("reason",)),
    "webhooks_received": ("Webhooks at the door, by what became of them there", ("provider", "type", "outcome")),
    "webhooks_applied": ("Webhooks that were looked at", ("provider", "type", "status", "reason")),
    "webhook_refetches": ("Webhooks for which the provider was asked first", ("provider", "reason", "outcome")),
    "webhook_sweeps_failed": ("Claims of due webhooks that the database did not answer", ()),
    "cache_reads": ("Reads of a payment by what the cache did", ("outcome",)),
    "cache_failures": ("Times Redis did not answer; it is then left alone for a while", ("reason",)),
    "order_service_calls": ("Calls to the order service by HTTP status or what went wrong", ("operation", "outcome")),
    "order_words": ("Times the order service was told of an outcome", ("outcome", "word")),
    "order_sweeps_failed": ("Claims of words for the order service that the database did not answer", ()),
    "methods_saved": ("Answers of providers to the saving of a payment method", ("provider", "verdict")),
    "methods_detached": ("Answers of providers to the detaching of one", ("provider", "verdict")),
    "methods_removed": ("Payment methods that are gone, by whose doing", ("reason",)),
    "method_sweeps_failed": ("Steps of the sweep of payment methods that the database did not answer", ()),
    "stream_restarts": ("Times the stream side was started anew", ("reason",)),
    "audit_entries": ("Rows written to the audit log", ()),
    "audit_write_failures": ("Writes of the audit log that failed; they are repeated", ("reason",)),
    "audit_lost": ("Attempts that found no room in the audit log: an alarm", ()),
    "audit_anchors": ("Anchors of the audit chains acked by the broker", ()),
    "audit_anchor_skipped": ("Payments that were not anchored because too many waited for the broker", ()),
}
_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "provider_breaker_open": ("1 while the provider is not asked because it failed in a row", ("provider",)),
    "calls_open": ("Provider calls that are not settled", ("status", "age")),
    "calls_oldest_due_s": ("How long the longest overdue provider call waits for somebody", ()),
    "calls_scheduled_due": ("Scheduled provider calls that wait for room", ()),
    "orders_held": ("1 while no orders are taken because too many scheduled calls wait", ()),
    "payments_to_review": ("Payments that a person should look at", ()),
    "money_difference_minor": ("Payments' captured - refunded minus that of their calls; must be 0", ("currency",)),
    "payments_that_differ": ("Payments whose money differs from that of their calls; must be 0", ()),
    "outbox_depth": ("Events committed and not yet acked by the broker", ()),
    "outbox_age_s": ("Age of the oldest event without an ack", ()),
    "webhooks_waiting": ("Webhooks not applied: RECEIVED, PARKED or FAILED", ("status",)),
    "webhooks_oldest_age_s": ("Age of the oldest of them", ("status",)),
    "order_words_waiting": ("Orders whose newest word the order service has not heard", ("problem",)),
    "order_words_oldest_age_s": ("How long the oldest of them waits", ("problem",)),
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
