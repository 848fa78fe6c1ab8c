"""Composition root: settings -> services -> the Faust App. The one place that picks implementations.

Room: root. Imported by worker.py and the CLI alone. `app` is what `faust -A payment_service.app` finds: it is made
from the settings when it is first asked for, and opens nothing.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from payment_service.adapters import audit_chain
from payment_service.adapters.beside import with_broker
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.guarded import GuardedProvider, limits_for
from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.outbound import Outbound
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.outbox import OutboxConnection
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.providers import find_providers
from payment_service.adapters.publisher import OutboxPublisher
from payment_service.adapters.settings import Settings
from payment_service.agents.delivery import Delivery, DeliveryLimits, Record
from payment_service.agents.faust_app import PaymentApp, stream_app
from payment_service.agents.order_events import OrderEvents
from payment_service.agents.payment_events import PaymentEvents
from payment_service.codecs.order_events import OrderRules
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Provider
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.payment_desk import DeskRules, PaymentDesk
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.services import APP_NAME, Services, cipher_of, default_provider, kafka_client
from payment_service.tables.payments import TOPICS as PUBLISHED_TOPICS
from payment_service.tables.payments import PaymentsTable

__all__ = ["Services", "Settings", "build_services", "create_app"]

SESSION_TIMEOUT_S = 10.0
EMBEDDED_SESSION_TIMEOUT_S = 6.0
"""The embedded broker holds a join back for half the session time-out."""
TABLE_IN_FLIGHT_MAX = 4000
STORE_CLOSE_S = 3.0
"""For writes that still wait when the worker ends: with the drains of worker.py less than the 30 s of the contract."""


@contextlib.asynccontextmanager
async def build_services(settings: Settings) -> AsyncIterator[Services]:
    """The services, opened lazily: nothing here waits for a database or a broker."""
    clock, metrics = SystemClock(), PrometheusMetrics()
    cipher = cipher_of(settings)
    database = Database(settings.database_dsn)
    kafka = kafka_client(settings)
    outbox = OutboxConnection(settings.database_dsn, settings.outbox_shards)
    publisher = OutboxPublisher(
        kafka, outbox, metrics, topic_prefix=settings.topic_prefix, aliases=settings.event_aliases
    )
    store = PostgresPaymentStore(
        database, cipher, audit_chain.chain_key(settings.encryption_key_bytes), settings.outbox_shards,
        publisher.offer, publisher.foreign,
    )  # fmt: skip
    worker_id = f"{settings.pod_name or socket.gethostname()}:{os.getpid()}"
    execute = Execute(store, clock, worker_id, settings.lease_s)
    outbound = Outbound()
    providers = _providers(settings, clock, metrics, outbound)
    effects = Effects(
        execute, PostgresCallQueue(database, cipher), providers, clock, metrics, worker_id, settings.lease_s,
        settings.provider_deadline_s, settings.action_ttl_s * 1000, settings.provider_concurrency,
    )  # fmt: skip
    execute.on_scheduled = effects.wake
    rules = DeskRules(
        default_provider(settings), settings.process_wait_s, settings.is_production, settings.refund_roles
    )
    desk = PaymentDesk(execute, effects, store, providers, clock, rules)
    dead_letters = DeadLetterBox(publisher, database, None if settings.dead_letters_plain else cipher)
    publisher.dead_letters = dead_letters
    try:
        yield Services(
            settings, clock, metrics, cipher, database, store, execute, effects, publisher, dead_letters, desk,
            kafka, providers,
        )  # fmt: skip
    finally:
        await store.close(STORE_CLOSE_S)
        await database.close()
        await outbound.close()


def _providers(
    settings: Settings, clock: SystemClock, metrics: PrometheusMetrics, outbound: Outbound
) -> dict[str, Provider]:
    """Those that are configured, each behind its guard."""
    return {
        name: GuardedProvider(
            found.build(settings, clock, outbound.session), limits_for(found, settings), clock, metrics
        )
        for name, found in find_providers().items()
        if found.configured(settings)
    }


def bare_app(settings: Settings) -> PaymentApp:
    """The App without its agents and tables: nothing is opened."""
    embedded, kafka = settings.embedded_broker, kafka_client(settings)
    return stream_app(
        APP_NAME,
        kafka.brokers,
        topic_prefix=settings.topic_prefix,
        partitions=settings.topic_partitions,
        create_topics=False,  # ours are made by ensure_topics, with what Faust would not know
        instance_id=f"{settings.consumer_group}-{settings.pod_name}" if settings.pod_name else None,
        datadir=str(settings.data_dir / "faust"),
        credentials=kafka.faust_credentials(),
        store=settings.table_store,
        session_timeout_s=EMBEDDED_SESSION_TIMEOUT_S if embedded else SESSION_TIMEOUT_S,
    )


@dataclass(frozen=True, slots=True)
class _Letters:
    """The DeadLetters that Delivery asks for."""

    box: DeadLetterBox

    async def __call__(self, record: Record, reason: str, error: str) -> None:
        await self.box.keep(
            record.topic, record.partition, record.offset, record.key, record.value, record.headers, reason, error
        )


def create_app(services: Services) -> PaymentApp:
    """One stream side: its App with agents and tables, started by worker.py and never started twice."""
    settings = services.settings
    app = bare_app(settings)
    rules = OrderRules(default_provider(settings), settings.auto_process_orders, settings.cancel_refunds_succeeded)
    letters = _Letters(services.dead_letters)
    Delivery(
        app, settings.order_topics, OrderEvents(services.execute, rules, services.clock.now_ms),
        dead_letters=letters, limits=DeliveryLimits.of(settings.stream_in_flight_max), metrics=services.metrics,
    ).attach()  # fmt: skip
    services.table = PaymentsTable(
        app, cipher=services.cipher, now_ms=services.clock.now_ms, ttl_s=settings.table_ttl_h * 3600
    )
    Delivery(
        app, PUBLISHED_TOPICS, PaymentEvents(services.table),
        dead_letters=letters, limits=DeliveryLimits.of(TABLE_IN_FLIGHT_MAX), metrics=services.metrics,
    ).attach()  # fmt: skip
    return app


def __getattr__(name: str) -> Any:
    """`app`, for the Faust CLI: with its agents and tables, on services that are never opened."""
    if name != "app":
        raise AttributeError(name)
    app = asyncio.run(_described_app(Settings.load()))
    globals()["app"] = app
    return app


async def _described_app(settings: Settings) -> PaymentApp:
    """With all agents and tables; the services behind them are closed before anything could use them.

    The broker is the one that runs, if one does, so that `send` works beside `dev`.
    """
    if settings.embedded_database:
        settings = settings.with_services(database_url="postgresql://127.0.0.1/never_opened")
    with contextlib.suppress(Unavailable):
        settings = with_broker(settings)
    async with build_services(settings) as services:
        return create_app(services)
