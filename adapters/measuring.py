"""What is measured beside the work: statements, batches, outcomes, the event loop, the guards of the providers.

Room: adapters. Each is told by its part through a callable, so that none of them knows what a metric is; the handles
are found once. A create costs one look at a dictionary here.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from payment_service.adapters.guarded import GuardedProvider
from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.postgres.queries import NAMES
from payment_service.core.money import EXPONENTS
from payment_service.core.payment import status_of
from payment_service.core.ports import Provider, Step
from payment_service.core.terms import Status, Topic

LAG_EVERY_S = 0.05
"""Between two looks at how late the event loop is."""
OUTCOMES = frozenset({Topic.PROCESSED, Topic.FAILED, Topic.CANCELLED, Topic.UNKNOWN, Topic.REQUIRES_ACTION})
"""Events that say what became of a payment's processing."""
COMMIT, ELSE = "commit", "other"
"""Statements that have no name of their own: the one that is put together of parts, and a few of one line."""


class Measuring:
    """For one worker. `statement`, `batch` and `steps` neither wait nor raise."""

    def __init__(self, metrics: PrometheusMetrics) -> None:
        self._metrics = metrics
        self._statements: dict[str, Callable[[float], None]] = {}
        self._batches: dict[str, Callable[[float], None]] = {}
        self.on_outcome: Callable[[str, str, str], None] | None = None
        """Told of each outcome: provider, currency, status."""

    def statement(self, text: str, seconds: float) -> None:
        name = NAMES.get(text) or (COMMIT if text.startswith("with ") else ELSE)
        observe = self._statements.get(name)
        if observe is None:
            observe = self._metrics.observing("database_query_duration_seconds", operation=name)
            self._statements[name] = observe
        observe(seconds)

    def batch(self, operation: str, size: int) -> None:
        observe = self._batches.get(operation)
        if observe is None:
            observe = self._batches[operation] = self._metrics.observing("database_batch_size", operation=operation)
        observe(size)

    def steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.topic not in OUTCOMES:
                continue
            payment = step.after
            status = status_of(payment)
            self._metrics.count("payment_processing_total", provider=payment.provider, status=status)
            if self.on_outcome is not None:
                self.on_outcome(payment.provider, payment.currency, status)
            if step.topic is Topic.PROCESSED and status is Status.SUCCEEDED:
                currency = payment.currency
                major = payment.captured / 10 ** EXPONENTS.get(currency, 2)
                self._metrics.observe("payment_amount", major, provider=payment.provider, currency=currency)

    def dead_letter(self, topic: str, reason: str) -> None:
        self._metrics.count("dead_letters", topic=topic, reason=reason)

    def providers(self, providers: Iterable[Provider]) -> None:
        """From now on their guards are looked at whenever somebody asks."""
        for provider in providers:
            if isinstance(provider, GuardedProvider):
                for name, read in provider.gauges().items():
                    self._metrics.watch(name, read, provider=provider.name)


async def watch_loop(metrics: PrometheusMetrics) -> None:
    """How late the event loop comes back, until it is cancelled."""
    loop = asyncio.get_running_loop()
    observe = metrics.observing("event_loop_lag_seconds")
    while True:
        due_s = loop.time() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        observe(max(0.0, loop.time() - due_s))
