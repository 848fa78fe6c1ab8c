"""Composition root: settings -> services -> the Faust App. The one place that picks implementations.

Room: root. Imported by worker.py and the CLI alone. `app` is what `faust -A payment_service.app` finds: it is made
from the settings when it is first asked for, and opens nothing.
"""

import asyncio
import contextlib
import os
import random
import secrets
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from payment_service.adapters import audit_chain
from payment_service.adapters.audit_anchors import AuditAnchors
from payment_service.adapters.beside import with_broker
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.configured_providers import guarded_providers, method_keepers, webhook_readers
from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.guarded import Asked, GuardedProvider
from payment_service.adapters.jwks import JwksKeys
from payment_service.adapters.kafka_topics import WEBHOOKS
from payment_service.adapters.measuring import Measuring
from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.orders_api import OrdersApi
from payment_service.adapters.outbound import Outbound
from payment_service.adapters.payment_facts import PaymentFacts
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.idempotency import PostgresKeys
from payment_service.adapters.postgres.order_updates import PostgresOrderWords
from payment_service.adapters.postgres.outbox import OutboxConnection
from payment_service.adapters.postgres.payment_methods import PostgresMethods
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.published import PostgresPublished
from payment_service.adapters.postgres.webhooks import PostgresWebhooks
from payment_service.adapters.provider_stats import ProviderStats
from payment_service.adapters.providers.registration import UNANSWERED
from payment_service.adapters.publisher import OutboxPublisher
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.adapters.settings import Settings
from payment_service.adapters.webhook_log import KafkaThenPostgres
from payment_service.agents.batch_delivery import BatchDelivery
from payment_service.agents.delivery import Delivery, DeliveryLimits, Record
from payment_service.agents.faust_app import PaymentApp, stream_app
from payment_service.agents.order_events import OrderEvents
from payment_service.agents.payment_events import PaymentEvents
from payment_service.agents.payment_facts import FactEvents
from payment_service.agents.provider_stats import StatsEvents
from payment_service.agents.records import BatchHandler, StreamHandler
from payment_service.agents.traced import TracedBatches, TracedHandler
from payment_service.agents.webhook_events import WebhookEvents
from payment_service.codecs.order_events import OrderRules
from payment_service.core.audit import AuditEntry
from payment_service.core.errors import Unavailable
from payment_service.core.ports import Answer, AuditLog, Clock, Provider
from payment_service.core.use_cases.check_order import CheckOrder
from payment_service.core.use_cases.choose_method import ChooseMethod
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.order_charges import OrderCharges
from payment_service.core.use_cases.payment_desk import DeskRules, PaymentDesk
from payment_service.core.use_cases.payment_methods import PaymentMethods
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.core.use_cases.read_payments import CachedReads
from payment_service.core.use_cases.receive_webhook import ApplyWebhook, WebhookInbox
from payment_service.core.use_cases.sweep_methods import MethodSweep
from payment_service.core.use_cases.sweep_webhooks import WebhookSweep
from payment_service.core.use_cases.tell_orders import TellOrders
from payment_service.services import (
    APP_NAME,
    Services,
    cache_of,
    cipher_of,
    counts_of,
    default_provider,
    kafka_client,
    tracing_of,
)
from payment_service.tables.payments import TOPICS as PUBLISHED_TOPICS
from payment_service.tables.payments import PaymentsTable
from payment_service.tables.provider_health import TOPICS as HEALTH_TOPICS
from payment_service.tables.provider_health import ProviderHealthTable
from payment_service.tables.reconciliation import TOPICS as RECONCILIATION_TOPICS
from payment_service.tables.reconciliation import ReconciliationTable
from payment_service.tables.refill import Refill

__all__ = ["Services", "Settings", "build_services", "create_app"]

if TYPE_CHECKING:
    from payment_service.adapters.cache import RedisCache
    from payment_service.adapters.tracing import Tracing

SESSION_TIMEOUT_S = 10.0
EMBEDDED_SESSION_TIMEOUT_S = 6.0
"""The embedded broker holds a join back for half the session time-out."""
WEBHOOK_IN_FLIGHT_MAX = 500
"""Each may hold 256 KB, and waits for its row alone."""
METHOD_ID_BYTES = 12
"""96 random bits: no two are alike, and nobody guesses one."""
STORE_CLOSE_S = 3.0
"""For writes that still wait when the worker ends: with the drains of worker.py less than the 30 s of the contract."""

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def build_services(settings: Settings) -> AsyncIterator[Services]:
    """The services, opened lazily: nothing here waits for a database or a broker."""
    clock, metrics, cipher = SystemClock(), PrometheusMetrics(), cipher_of(settings)
    database = Database(settings.database_dsn)
    kafka = kafka_client(settings)
    outbox = OutboxConnection(settings.database_dsn, settings.outbox_shards)
    publisher = OutboxPublisher(
        kafka, outbox, metrics, topic_prefix=settings.topic_prefix, aliases=settings.event_aliases
    )
    store = PostgresPaymentStore(
        database, cipher, audit_chain.chain_key(settings.encryption_key_bytes), settings.outbox_shards,
        publisher.offer, publisher.foreign, tells_orders=settings.order_service_url is not None,
    )  # fmt: skip
    worker_id = f"{settings.pod_name or socket.gethostname()}:{os.getpid()}"
    audit = PostgresAuditLog(database, audit_chain.chain_key(settings.encryption_key_bytes), worker_id, clock, metrics)
    anchors = AuditAnchors(publisher, audit, cipher, clock, metrics)
    store.on_head = anchors.changed
    # Two workers with one name and process number (two containers that were given one host name) must not take each
    # other's leases for their own.
    lease_owner = f"{settings.pod_name or socket.gethostname()}:{secrets.token_hex(4)}:{os.getpid()}"
    execute = Execute(store, clock, lease_owner, settings.lease_s)
    outbound = Outbound()
    providers = guarded_providers(settings, clock, metrics, outbound.session, lambda: outbox.workers)
    effects = _effects(settings, execute, PostgresCallQueue(database, cipher), providers, clock, metrics)
    rules = DeskRules(
        default_provider(settings), settings.process_wait_s, settings.is_production, settings.refund_roles
    )
    check_order, tell_orders = _order_service(settings, store, database, outbound, clock, metrics)
    method_store = PostgresMethods(database, cipher)
    keepers = method_keepers(settings, clock, outbound.session, providers)
    methods = PaymentMethods(method_store, keepers, clock, metrics, _method_id)
    cache, reads = _cache(settings, store, cipher, clock, metrics)
    choose = ChooseMethod(methods, store)
    desk = PaymentDesk(execute, effects, store, providers, clock, rules, check_order, choose, reads)
    dead_letters = DeadLetterBox(publisher, database, None if settings.dead_letters_plain else cipher)
    publisher.dead_letters = dead_letters
    measuring = _measured(metrics, database, store, dead_letters, execute, providers)
    stats = ProviderStats(publisher, cipher, clock, metrics, worker_id)
    facts = PaymentFacts(publisher, store, PostgresPublished(database), outbox, cipher, clock, metrics)
    _told_on(stats, facts, measuring, providers.values())
    keys = PostgresKeys(database, cipher)
    webhook_store = PostgresWebhooks(database, cipher)
    readers = webhook_readers(settings, clock, outbound.session, providers)
    apply = ApplyWebhook(readers, webhook_store, execute, effects, methods.changed_there, clock, metrics)
    webhook_sweep = WebhookSweep(webhook_store, apply, clock, metrics)
    webhook_log = KafkaThenPostgres(publisher, webhook_store, cipher, clock, webhook_sweep.wake)
    webhook_inbox = WebhookInbox(readers, webhook_log, clock, metrics)
    tracing = tracing_of(settings)
    _traced(tracing, store, effects, providers, publisher, webhook_log)
    try:
        yield Services(
            settings, clock, metrics, cipher, database, store, execute, effects, publisher, dead_letters, desk,
            kafka, providers, audit, anchors, webhook_store, webhook_inbox, webhook_sweep,
            MethodSweep(methods, settings.action_ttl_s * 1000), keys, stats, facts,
            JwksKeys(settings.jwt_jwks_url, outbound.session, clock) if settings.jwt_jwks_url else None,
            tell_orders, cache, counts_of(settings, clock, metrics), tracing,
        )  # fmt: skip
    finally:
        await _finish(audit, cache, store, webhook_store, keys, method_store)
        await asyncio.gather(database.close(), outbound.close(), *([tracing.close()] if tracing is not None else []))


def _effects(
    settings: Settings, execute: Execute, queue: PostgresCallQueue, providers: Mapping[str, Provider],
    clock: SystemClock, metrics: PrometheusMetrics,
) -> Effects:  # fmt: skip
    effects = Effects(
        execute, queue, providers, clock, metrics, execute.worker_id, settings.lease_s, settings.provider_deadline_s,
        settings.action_ttl_s * 1000, settings.provider_concurrency, settings.resend_window_s, UNANSWERED, _alarm,
    )  # fmt: skip
    execute.on_scheduled = effects.wake
    return effects


def _traced(
    tracing: "Tracing | None", store: PostgresPaymentStore, effects: Effects, providers: Mapping[str, Provider],
    publisher: OutboxPublisher, webhook_log: KafkaThenPostgres,
) -> None:  # fmt: skip
    if tracing is None:
        return
    store.on_submit = tracing.commit
    assert isinstance(effects.queue, PostgresCallQueue), "of this composition"
    effects.queue.on_claim = tracing.continued
    for provider in providers.values():
        assert isinstance(provider, GuardedProvider), "of this composition"
        provider.on_try = tracing.call
    publisher.on_publish = tracing.publish
    webhook_log.traceparent = tracing.traceparent


def _measured(
    metrics: PrometheusMetrics, database: Database, store: PostgresPaymentStore, dead_letters: DeadLetterBox,
    execute: Execute, providers: Mapping[str, Provider],
) -> Measuring:  # fmt: skip
    measuring = Measuring(metrics)
    database.on_statement = measuring.statement
    store.on_batch, store.on_steps = measuring.batch, measuring.steps
    dead_letters.on_kept = measuring.dead_letter
    measuring.providers(providers.values())
    metrics.watch("commands_busy", lambda: execute.busy)
    return measuring


def _told_on(stats: ProviderStats, facts: PaymentFacts, measuring: Measuring, providers: Iterable[Provider]) -> None:
    """What the tables of providers' health and of reconciliation are fed from, as it passes."""

    def answered(operation: str, call: Asked, answer: Answer, seconds: float) -> None:
        stats.answered(operation, call, answer, seconds)
        facts.answered(operation, call, answer, seconds)

    measuring.on_outcome = stats.became
    for provider in providers:
        assert isinstance(provider, GuardedProvider), "of this composition"
        provider.on_answer = answered


async def _finish(
    audit: PostgresAuditLog, cache: "RedisCache | None",
    *writers: PostgresPaymentStore | PostgresWebhooks | PostgresKeys | PostgresMethods,
) -> None:  # fmt: skip
    await asyncio.gather(audit.close(), *(writer.close(STORE_CLOSE_S) for writer in writers))
    if cache is not None:  # it hears of every commit
        await cache.close()


def _cache(
    settings: Settings, store: PostgresPaymentStore, cipher: AesGcmCipher, clock: SystemClock,
    metrics: PrometheusMetrics,
) -> "tuple[RedisCache | None, CachedReads | None]":  # fmt: skip
    """(None, None): there is none."""
    cache = cache_of(settings, cipher, clock, metrics)
    if cache is None:
        return None, None
    store.on_version = cache.changed
    return cache, CachedReads(store, cache)


def _order_service(
    settings: Settings, store: PostgresPaymentStore, database: Database, outbound: Outbound, clock: SystemClock,
    metrics: PrometheusMetrics,
) -> tuple[CheckOrder | None, TellOrders | None]:  # fmt: skip
    """What asks it before a payment is made, and what tells it of outcomes. (None, None): there is none."""
    if settings.order_service_url is None:
        return None, None
    token = settings.order_service_token
    orders = OrdersApi(
        settings.order_service_url, token.get_secret_value() if token is not None else None, outbound.session, clock,
        metrics,
    )  # fmt: skip
    tell = TellOrders(PostgresOrderWords(database), orders, clock, metrics, _order_alarm, random.random)
    store.on_word = tell.wake
    return CheckOrder(orders, store), tell


def _order_alarm(reason: str, order_id: str) -> None:
    _log.error("the order service does not take an outcome", reason=reason, order_id=order_id)


def _method_id() -> str:
    return secrets.token_hex(METHOD_ID_BYTES)


def _alarm(reason: str, key: str) -> None:
    _log.error("a provider call needs a person", reason=reason, key=key)


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
        fetches_per_s=settings.kafka_fetches_per_s,
    )


@dataclass(frozen=True, slots=True)
class _Letters:
    """The DeadLetters that Delivery asks for."""

    box: DeadLetterBox
    audit: AuditLog
    clock: Clock

    async def __call__(self, record: Record, reason: str, error: str) -> None:
        await self.box.keep(
            record.topic, record.partition, record.offset, record.key, record.value, record.headers, reason, error
        )
        place = f"{record.topic}/{record.partition}/{record.offset}"
        self.audit.record(AuditEntry(self.clock.now_ms(), "stream.refused", reason, "system", detail=place))


def create_app(services: Services) -> PaymentApp:
    """One stream side: its App with agents and tables, started by worker.py and never started twice."""
    settings = services.settings
    app = bare_app(settings)
    app.on_lag = services.metrics.lagging
    rules = OrderRules(default_provider(settings), settings.auto_process_orders, settings.cancel_refunds_succeeded)
    letters = _Letters(services.dead_letters, services.audit, services.clock)
    charges = OrderCharges(services.execute, services.store, services.method_sweep.methods)
    order_events = OrderEvents(services.execute, rules, services.clock.now_ms, charges, services.facts.ordered)
    services.orders = Delivery(
        app, settings.order_topics, _followed(services, order_events),
        dead_letters=letters, limits=DeliveryLimits.of(settings.stream_in_flight_max), metrics=services.metrics,
    )  # fmt: skip
    services.orders.attach()
    services.table = PaymentsTable(
        app, cipher=services.cipher, now_ms=services.clock.now_ms, ttl_s=settings.table_ttl_h * 3600
    )
    refill = Refill(
        app, services.table, PostgresPublished(services.database), now_ms=services.clock.now_ms,
        ttl_s=settings.table_ttl_h * 3600,
    )  # fmt: skip
    webhook_events = WebhookEvents(services.webhook_store, services.cipher, services.webhook_sweep.wake)
    Delivery(
        app, [WEBHOOKS], _followed(services, webhook_events),
        dead_letters=letters, limits=DeliveryLimits.of(WEBHOOK_IN_FLIGHT_MAX), metrics=services.metrics,
    ).attach()  # fmt: skip
    payment_events: BatchHandler = PaymentEvents(services.table)
    if services.tracing is not None:
        payment_events = TracedBatches(payment_events, services.tracing.event)
    BatchDelivery(app, PUBLISHED_TOPICS, payment_events, dead_letters=letters, metrics=services.metrics).attach()
    _compare(app, services, services.table, refill, letters)
    return app


def _compare(app: PaymentApp, services: Services, payments: PaymentsTable, refill: Refill, letters: "_Letters") -> None:
    """The tables that are about how it goes, and what feeds them."""
    cipher, now_ms, metrics = services.cipher, services.clock.now_ms, services.metrics
    ttl_s = services.settings.table_ttl_h * 3600
    accounts = ReconciliationTable(app, payments, refill.is_whole, cipher=cipher, now_ms=now_ms, ttl_s=ttl_s)
    services.facts.accounts = accounts
    health = ProviderHealthTable(app, cipher=cipher, now_ms=now_ms)
    for topics, handler in (
        (RECONCILIATION_TOPICS, FactEvents(accounts, cipher)),
        (HEALTH_TOPICS, StatsEvents(health, cipher)),
    ):
        BatchDelivery(app, topics, handler, dead_letters=letters, metrics=metrics).attach()


def _followed(services: Services, handler: StreamHandler) -> StreamHandler:
    """The handler, in the traces of what it handles, where those are collected."""
    return handler if services.tracing is None else TracedHandler(handler, services.tracing.event)


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
