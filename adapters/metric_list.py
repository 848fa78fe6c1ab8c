"""Every metric there is: what it counts, by which labels, in which buckets.

Room: adapters. Read by metrics.py alone. Names without `_total` get it where they are counters. The dashboards and
alert rules under deploy/ use these names; a test holds them together. Labels are words of ours, of the providers, of
the settings or of the routes, never what a caller writes.
"""

from collections.abc import Mapping, Sequence

Declared = Mapping[str, tuple[str, Sequence[str]]]

COUNTERS: Declared = {
    "payment_processing_total": ("What became of payments: outcomes committed", ("provider", "status")),
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
    "dead_letters": ("Messages that could not be taken and are kept as dead letters", ("topic", "reason")),
    "http_requests_total": ("HTTP requests answered", ("method", "route", "status")),
    "http_request_errors_total": ("HTTP requests answered with an error", ("method", "route", "code")),
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
    "cache_operations_total": ("Uses of the cache: hit, miss, skipped, unreadable", ("operation", "result")),
    "cache_failures": ("Times Redis did not answer; it is then left alone for a while", ("reason",)),
    "order_service_calls": ("Calls to the order service by HTTP status or what went wrong", ("operation", "outcome")),
    "order_words": ("Times the order service was told of an outcome", ("outcome", "word")),
    "order_sweeps_failed": ("Claims of words for the order service that the database did not answer", ()),
    "methods_saved": ("Answers of providers to the saving of a payment method", ("provider", "verdict")),
    "methods_detached": ("Answers of providers to the detaching of one", ("provider", "verdict")),
    "methods_removed": ("Payment methods that are gone, by whose doing", ("reason",)),
    "method_sweeps_failed": ("Steps of the sweep of payment methods that the database did not answer", ()),
    "stream_restarts": ("Times the stream side was started anew", ("reason",)),
    "queue_messages": ("Messages of the order queue by what became of them", ("outcome",)),
    "queue_failures": ("Times the order queue could not be read; it is asked again", ("reason",)),
    "audit_entries": ("Rows written to the audit log", ()),
    "audit_write_failures": ("Writes of the audit log that failed; they are repeated", ("reason",)),
    "provider_windows_lost": ("Minutes of providers' numbers that found no room while the broker was away", ()),
    "reconciliation_compared": ("Times a payment's row was told to be compared with its other sides", ()),
    "reconciliation_left_out": ("Words of a provider or an order, or changes, that were too many to compare", ()),
    "audit_lost": ("Attempts that found no room in the audit log: an alarm", ()),
    "audit_anchors": ("Anchors of the audit chains acked by the broker", ()),
    "audit_anchor_skipped": ("Payments that were not anchored because too many waited for the broker", ()),
}

GAUGES: Declared = {
    "provider_breaker_open": ("1 while the provider is not asked because it failed in a row", ("provider",)),
    "provider_calls_inside": ("Calls to the provider under way in this worker", ("provider",)),
    "provider_calls_waiting": ("Calls that wait for a slot or a rate token", ("provider",)),
    "provider_tokens": ("Calls that could go at once by the rate limit", ("provider",)),
    "provider_rate_per_s": ("The present rate limit; less than configured after a 429", ("provider",)),
    "calls_open": ("Provider calls that are not settled", ("status", "age")),
    "calls_oldest_due_s": ("How long the longest overdue provider call waits for somebody", ()),
    "calls_scheduled_due": ("Scheduled provider calls that wait for room", ()),
    "orders_held": ("1 while no orders are taken because too many scheduled calls wait", ()),
    "payments_to_review": ("Payments that a person should look at", ()),
    "money_difference_minor": ("Payments' captured - refunded minus that of their calls; must be 0", ("currency",)),
    "payments_that_differ": ("Payments whose money differs from that of their calls; must be 0", ()),
    "reconciliation_differences": ("Payments of which two sides say different things for a minute", ("what",)),
    "outbox_depth": ("Events committed and not yet acked by the broker", ()),
    "outbox_age_s": ("Age of the oldest event without an ack", ()),
    "webhooks_waiting": ("Webhooks not applied: RECEIVED, PARKED or FAILED", ("status",)),
    "webhooks_oldest_age_s": ("Age of the oldest of them", ("status",)),
    "order_words_waiting": ("Orders whose newest word the order service has not heard", ("problem",)),
    "order_words_oldest_age_s": ("How long the oldest of them waits", ("problem",)),
    "queue_depth": ("Messages in the order queue; dead: in its own dead letters, where nothing should be", ("state",)),
    "stream_running": ("1 while this worker takes part in reading the topics", ()),
    "stream_in_flight": ("Events started and not finished", ("stream",)),
    "stream_window": ("Events finished or not behind the oldest unfinished one", ("stream",)),
    "stream_backlog": ("Records fetched and not started", ("stream",)),
    "stream_oldest_age_s": ("Age of the oldest unfinished event", ("stream",)),
    "stream_lag": ("Records of this worker's partitions that are not finished", ("stream", "topic")),
    "commands_busy": ("Payments that have a command under way in this worker", ()),
    "build_info": ("1, with the version that runs", ("version",)),
}

WAIT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
"""20 ms is what nothing may hold the event loop for."""
STATEMENT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
MAJOR_UNITS = (1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0)

HISTOGRAMS: Mapping[str, tuple[str, Sequence[str], Sequence[float]]] = {
    "http_request_duration_seconds": ("Time to answer", ("method", "route"), WAIT_S),
    "payment_amount": ("Money taken or held, in major units", ("provider", "currency"), MAJOR_UNITS),
    "provider_call_seconds": ("Time of one try at a provider", ("provider", "operation"), WAIT_S),
    "database_query_duration_seconds": ("Time of one statement, its rows included", ("operation",), STATEMENT_S),
    "database_batch_size": ("Commands or reads that shared a statement", ("operation",), SIZES),
    "publisher_batch_size": ("Events that shared a request to the broker", (), SIZES),
    "event_loop_lag_seconds": ("How late a timer of the event loop ran", (), LAG_S),
}
