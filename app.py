"""Composition root: settings -> services -> the Faust App. The one place that picks implementations.

Room: root. Imported by worker.py and the CLI alone. `app` is what `faust -A payment_service.app` finds: it is made
from the settings when it is first asked for, and opens nothing.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from payment_service.adapters import audit_chain
from payment_service.adapters.beside import with_broker, with_database
from payment_service.adapters.changelog import partitions_of, read_changelog
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.guarded import GuardedProvider, limits_for
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import create_missing, needed_topics
from payment_service.adapters.logging import configure_logging
from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.postgres import migrate as migrations
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.outbox import OutboxConnection
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.providers import find_providers
from payment_service.adapters.providers.mock import MockProvider
from payment_service.adapters.publisher import OutboxPublisher
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.adapters.settings import Settings
from payment_service.agents.delivery import Delivery, DeliveryLimits, Record
from payment_service.agents.faust_app import PaymentApp, stream_app
from payment_service.agents.order_events import OrderEvents
from payment_service.agents.payment_events import PaymentEvents
from payment_service.codecs.order_events import OrderRules
from payment_service.core.errors import PaymentError, Refused, Unavailable
from payment_service.core.ports import PaymentStore, Provider
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.payment_desk import DeskRules, PaymentDesk
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.tables.payments import NAME as PAYMENTS_TABLE
from payment_service.tables.payments import TOPICS as PUBLISHED_TOPICS
from payment_service.tables.payments import PaymentsTable, place_of
from payment_service.web.services import Readiness, WebServices
from payment_service.web.tokens import TokenRules, TokenVerifier, issue_token

__all__ = ["Services", "Settings", "build_services", "create_app", "partitions_of", "with_broker", "with_database"]

APP_NAME = "payment-service"
SESSION_TIMEOUT_S = 10.0
EMBEDDED_SESSION_TIMEOUT_S = 6.0
"""The embedded broker holds a join back for half the session time-out."""
EMBEDDED_SILENCE_S = 1.0
"""The embedded broker answers latest offsets wrongly: what is read is read until it is silent."""
TABLE_IN_FLIGHT_MAX = 4000
STORE_CLOSE_S = 3.0
"""For writes that still wait when the worker ends: with the drains of worker.py less than the 30 s of the contract."""
TABLES = (PAYMENTS_TABLE,)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Services:
    """Everything that lives as long as the worker. The stream side is made anew after a crash; `stream` is it."""

    settings: Settings
    clock: SystemClock
    metrics: PrometheusMetrics
    cipher: AesGcmCipher
    database: Database
    store: PostgresPaymentStore
    execute: Execute
    effects: Effects
    publisher: OutboxPublisher
    dead_letters: DeadLetterBox
    desk: PaymentDesk
    kafka: KafkaClient
    providers: Mapping[str, Provider]
    stream: PaymentApp | None = None
    table: PaymentsTable | None = None
    draining: bool = False
    schema_ready: bool = field(default=False)

    async def ensure_topics(self) -> None:
        """Make what is missing where that is allowed. Raises Unavailable when the broker is away."""
        settings = self.settings
        if not settings.kafka_create_topics:
            return
        needed = needed_topics(
            settings.order_topics, [f"{APP_NAME}-{PAYMENTS_TABLE}-changelog"], aliases=settings.event_aliases
        )
        made = await create_missing(self.kafka, needed, settings.topic_prefix, settings.topic_partitions)
        if made:
            _log.info("topics made", topics=made)

    def web(self) -> WebServices:
        token = self.settings.metrics_token
        return WebServices(
            self.desk,
            TokenVerifier(token_rules(self.settings), self.clock),
            self.readiness,
            self.metrics.text,
            self.clock,
            self.metrics,
            token.get_secret_value() if token is not None else None,
            self._approve_mock(),
            lambda payment_id: self.table.get(payment_id) if self.table is not None else None,
        )

    def _approve_mock(self) -> Callable[[str], bool] | None:
        guarded = self.providers.get("MOCK")
        inner = guarded.inner if isinstance(guarded, GuardedProvider) else None
        return inner.approve if isinstance(inner, MockProvider) else None

    async def readiness(self) -> Readiness:
        """About REST alone; how the stream side is doing is told beside it."""
        problem = await self.database_problem()
        reasons = tuple(reason for reason in (problem, "draining" if self.draining else None) if reason)
        stream = self.stream
        details = {
            "database": problem is None,
            "broker": self.publisher.connected,
            "stream": {
                "running": stream is not None and stream.started and not stream.should_stop,
                "rebalancing": bool(stream is not None and stream.rebalancing),
                "recovering": bool(stream is not None and stream.in_recovery),
            },
            "providers": {
                name: "up" if getattr(provider, "available", True) else "degraded"
                for name, provider in self.providers.items()
            },
        }
        return Readiness(not reasons, self.draining, reasons, details)

    async def database_problem(self) -> str | None:
        """Why REST cannot take a payment, or None."""
        try:
            await self.database.fetch("select 1", timeout_s=2.0)
            if not self.schema_ready:
                missing = await migrations.pending(self.settings.database_dsn)
                if missing:
                    return f"the schema is old: {len(missing)} migrations are missing"
                self.schema_ready = True
        except Exception as error:  # the answer to "can you work?" is never an exception
            return error.message if isinstance(error, PaymentError) else "the database does not answer"
        return None


def kafka_client(settings: Settings) -> KafkaClient:
    security = settings.kafka_security
    return KafkaClient(
        ",".join(settings.kafka_brokers) or "127.0.0.1:9092",
        security.protocol,
        security.mechanism or "PLAIN",
        security.username,
        security.password.get_secret_value() if security.password is not None else None,
        str(security.cafile) if security.cafile is not None else None,
    )


def token_rules(settings: Settings) -> TokenRules:
    return TokenRules(
        settings.jwt_secret.get_secret_value() if settings.jwt_secret is not None else None,
        settings.jwt_public_key,
        settings.jwt_issuer,
        settings.jwt_audience,
        settings.internal_tokens,
    )


def make_token(settings: Settings, user_id: str, roles: Sequence[str], ttl_s: int) -> str:
    """For development and tests. Raises Refused in production, or where a public key verifies tokens."""
    if settings.is_production:
        raise Refused("tokens are not issued in production", code="FORBIDDEN")
    try:
        return issue_token(token_rules(settings), user_id, roles, now_ms=SystemClock().now_ms(), valid_s=ttl_s)
    except ValueError as error:
        raise Refused(str(error), code="FORBIDDEN") from None


def default_provider(settings: Settings) -> str:
    return settings.default_provider.upper()


def _cipher(settings: Settings) -> AesGcmCipher:
    return AesGcmCipher(settings.encryption_key_bytes, settings.encryption_keys_old)


@contextlib.asynccontextmanager
async def build_services(settings: Settings) -> AsyncIterator[Services]:
    """The services, opened lazily: nothing here waits for a database or a broker."""
    clock, metrics = SystemClock(), PrometheusMetrics()
    cipher = _cipher(settings)
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
    providers = _providers(settings, clock, metrics)
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


def _providers(settings: Settings, clock: SystemClock, metrics: PrometheusMetrics) -> dict[str, Provider]:
    """Those that are configured, each behind its guard."""

    def session() -> Any:
        raise RuntimeError("no provider over HTTP is part of this build")

    return {
        name: GuardedProvider(found.build(settings, clock, session), limits_for(found, settings), clock, metrics)
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


async def migrate(settings: Settings) -> list[str]:
    return await migrations.migrate(settings.migration_database_dsn)


async def pending_migrations(settings: Settings) -> list[str]:
    return await migrations.pending(settings.database_dsn)


@contextlib.asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[PaymentStore]:
    """The store for reading alone."""
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=2)
    cipher = _cipher(settings)
    try:
        yield PostgresPaymentStore(
            database, cipher, audit_chain.chain_key(settings.encryption_key_bytes), settings.outbox_shards,
            lambda rows: None,
        )  # fmt: skip
    finally:
        await database.close()


async def read_table(settings: Settings, name: str, key: str | None = None) -> dict[str, dict[str, Any]]:
    """The rows of a Faust table by key, from its changelog; no worker has to run.

    Raises: Refused NOT_FOUND, Unavailable, Malformed (sealed with a key we do not have).
    """
    if name not in TABLES:
        raise Refused(f"there is no table {name}; there is: {', '.join(TABLES)}", code="NOT_FOUND")
    values = await read_changelog(
        kafka_client(with_broker(settings)),
        settings.topic(f"{APP_NAME}-{name}-changelog"),
        key=key.encode() if key is not None else None,
        silence_s=EMBEDDED_SILENCE_S if settings.embedded_broker else None,
    )
    cipher = _cipher(settings)
    return {
        (text := raw.decode()): orjson.loads(cipher.unseal(value, place_of(text, name)))
        for raw, value in values.items()
    }


def prepare_logging(settings: Settings) -> None:
    configure_logging(settings.log_level, as_json=settings.is_production)


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
