"""What lives as long as a worker, and how it is doing; with what is read off the settings for more than one part.

Room: root, beside app.py, which puts it together.
"""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from payment_service.adapters.audit_anchors import Anchored, AuditAnchors
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.dead_letter_desk import StoredDeadLetters
from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.guarded import GuardedProvider
from payment_service.adapters.health_reading import RecentHealth
from payment_service.adapters.jwks import JwksKeys
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import DEAD_LETTERS, create_missing, missing_topics, needed_topics
from payment_service.adapters.live_reading import live_reading
from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.payment_facts import PaymentFacts
from payment_service.adapters.postgres import migrate as migrations
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.audit_verifier import AuditVerifier
from payment_service.adapters.postgres.ended_sessions import PostgresEndedSessions
from payment_service.adapters.postgres.idempotency import PostgresKeys
from payment_service.adapters.postgres.legacy_ids import PostgresOldIds
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.webhooks import PostgresWebhooks
from payment_service.adapters.provider_stats import ProviderStats
from payment_service.adapters.providers.mock import MockProvider
from payment_service.adapters.publisher import OutboxPublisher
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.adapters.settings import Settings
from payment_service.agents.delivery import Delivery
from payment_service.agents.faust_app import PaymentApp
from payment_service.codecs.health import TOPIC as HEALTH_TOPIC
from payment_service.core.errors import PaymentError
from payment_service.core.ports import Metrics, Provider
from payment_service.core.topic_plan import NeededTopic
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.old_ids import WithOldIds
from payment_service.core.use_cases.operator_desk import OperatorDesk
from payment_service.core.use_cases.payment_desk import PaymentDesk
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.core.use_cases.receive_webhook import WebhookInbox
from payment_service.core.use_cases.sweep_methods import MethodSweep
from payment_service.core.use_cases.sweep_webhooks import WebhookSweep
from payment_service.core.use_cases.tell_orders import TellOrders
from payment_service.tables.payments import NAME as PAYMENTS_TABLE
from payment_service.tables.payments import PaymentsTable
from payment_service.tables.provider_health import NAME as HEALTH_TABLE
from payment_service.tables.reconciliation import NAME as RECONCILIATION_TABLE
from payment_service.web.console.live_windows import LiveWindows
from payment_service.web.console.parts import Console
from payment_service.web.rate_limits import Quota, Windows
from payment_service.web.services import Readiness, WebServices
from payment_service.web.shared_windows import SharedWindows
from payment_service.web.tokens import TokenRules, TokenVerifier
from payment_service.web.webhook_gate import QUOTA, WINDOW_S, WebhookGate

if TYPE_CHECKING:
    from payment_service.adapters.cache import RedisCache
    from payment_service.adapters.queue_orders import QueueOrders
    from payment_service.adapters.shared_counts import SharedCounts
    from payment_service.adapters.tracing import Tracing

RedisPartT = TypeVar("RedisPartT")
APP_NAME = "payment-service"
SHORT_TABLES = (HEALTH_TABLE, RECONCILIATION_TABLE)
TABLES = (PAYMENTS_TABLE, *SHORT_TABLES)
EMBEDDED_SILENCE_S = 1.0
"""The embedded broker answers latest offsets wrongly: what is read is read until it is silent."""

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
    audit: PostgresAuditLog
    anchors: AuditAnchors
    webhook_store: PostgresWebhooks
    webhook_inbox: WebhookInbox
    webhook_sweep: WebhookSweep
    method_sweep: MethodSweep
    keys: PostgresKeys
    provider_stats: ProviderStats
    facts: PaymentFacts
    token_keys: JwksKeys | None = None
    """Where a key set verifies users' tokens."""
    tell_orders: TellOrders | None = None
    """Where there is an order service."""
    cache: "RedisCache | None" = None
    counts: "SharedCounts | None" = None
    tracing: "Tracing | None" = None
    """Where there is a collector of traces."""
    stream: PaymentApp | None = None
    table: PaymentsTable | None = None
    orders: Delivery | None = None
    draining: bool = False
    schema_ready: bool = field(default=False)
    live: LiveWindows = field(init=False)
    """What the console's live page draws."""

    ended_sessions: PostgresEndedSessions = field(init=False)

    def __post_init__(self) -> None:
        self.ended_sessions = PostgresEndedSessions(self.database, self.clock)
        self.live = LiveWindows(partial(live_reading, self.metrics, self.clock.monotonic_s))

    async def ensure_topics(self) -> None:
        """Make what is missing where that is allowed, else say it. Raises Unavailable when the broker is away."""
        settings = self.settings
        needed, partitions = topics_of(settings), settings.topic_partitions
        if not settings.creates_topics:
            missing = await missing_topics(self.kafka, needed, settings.topic_prefix)
            if missing:
                _log.error("topics are missing, see `payment-service topics check`", topics=missing)
            return
        made = await create_missing(self.kafka, needed, settings.topic_prefix, partitions)
        if made:
            _log.info("topics made", topics=made)

    def order_queue(self) -> "QueueOrders | None":
        """Where order events come from a queue of OCI's. One for a worker."""
        settings = self.settings
        if settings.event_consumer_type != "oci-queue":
            return None
        from payment_service.adapters.oci_queue import OciQueue, find_queue
        from payment_service.adapters.queue_orders import QueueOrders

        sign_on, queue_id = settings.oci_signing, settings.oci_queue_id
        assert queue_id is not None, "the settings are judged before"
        return QueueOrders(
            partial(find_queue, sign_on, queue_id, settings.oci_queue_endpoint), partial(OciQueue, sign_on, queue_id),
            settings.order_topics[0], settings.topic_prefix, self.publisher, self.dead_letters, self.metrics,
            settings.oci_queue_deliveries_max,
        )  # fmt: skip

    def hold_orders(self, hold: bool) -> None:
        """Too much work waits behind the stream of orders, or no longer; of whichever App runs now."""
        if self.orders is not None:
            self.orders.pause() if hold else self.orders.resume()

    def web(self) -> WebServices:
        token = self.settings.metrics_token
        return WebServices(
            WithOldIds(self.desk, PostgresOldIds(self.database)),
            TokenVerifier(token_rules(self.settings), self.clock, self.token_keys),
            self.readiness,
            self.metrics.text,
            self.clock,
            self.metrics,
            self._webhook_gate(),
            token.get_secret_value() if token is not None else None,
            self._approve_mock(),
            lambda payment_id: self.table.get(payment_id) if self.table is not None else None,
            audit=self.audit.record,
            keys=self.keys,
            forwards_bearer=self.tell_orders is not None,
            methods=self.method_sweep.methods,
            trusted_proxies=self.settings.trusted_proxies,
            https_only=self.settings.is_production,
            allowed_origins=frozenset(self.settings.allowed_origins),
            rate_limit_max=self.settings.rate_limit_max,
            rate_limit_window_s=self.settings.rate_limit_window_ms / 1000,
            make_windows=self._windows,
            trace=self.tracing.request if self.tracing is not None else None,
            console=self._console(),
        )

    def _console(self) -> Console:
        settings = self.settings
        desk = OperatorDesk(
            self.execute, self.effects, self.store, self.webhook_store.payments_of_provider_id, settings.process_wait_s
        )
        letters = StoredDeadLetters(
            self.kafka, "", settings.topic(DEAD_LETTERS), settings.topic_prefix, self.database, self.cipher,
            self.audit, self.clock, self.metrics, EMBEDDED_SILENCE_S if settings.embedded_broker else None,
        )  # fmt: skip
        silence_s = EMBEDDED_SILENCE_S if settings.embedded_broker else None
        health = RecentHealth(self.kafka, settings.topic(HEALTH_TOPIC), self.cipher, self.clock, silence_s)
        return Console(
            desk, self.cipher, settings.refund_roles, letters, self.webhook_store,
            AuditVerifier(self.database, (), _no_anchors).entries, self.live, health,
            self.ended_sessions, settings.environment,
        )  # fmt: skip

    def _webhook_gate(self) -> WebhookGate:
        settings = self.settings
        failures = self._windows(Quota(QUOTA, settings.webhook_rate_limit_max, WINDOW_S))
        allowed, trusted = settings.webhook_ip_allowlist, settings.trusted_proxies
        return WebhookGate(self.webhook_inbox, failures, self.clock, allowed, trusted)

    def _windows(self, quota: Quota) -> Windows:
        if self.counts is None:
            return Windows(quota)
        windows = SharedWindows(quota)
        self.counts.share(windows)
        return windows

    def _approve_mock(self) -> Callable[[str], bool] | None:
        guarded = self.providers.get("MOCK")
        inner = guarded.inner if isinstance(guarded, GuardedProvider) else None
        return inner.approve if isinstance(inner, MockProvider) else None

    @property
    def stream_running(self) -> bool:
        stream = self.stream
        return stream is not None and stream.started and not stream.should_stop

    async def readiness(self) -> Readiness:
        """About REST alone; how the stream side is doing is told beside it."""
        problem = await self.database_problem()
        reasons = tuple(reason for reason in (problem, "draining" if self.draining else None) if reason)
        stream = self.stream
        details = {
            "database": problem is None,
            "broker": self.publisher.connected,
            "stream": {
                "running": self.stream_running,
                "rebalancing": bool(stream is not None and stream.rebalancing),
                "recovering": bool(stream is not None and stream.in_recovery),
            },
            "providers": {
                name: "up" if getattr(provider, "available", True) else "degraded"
                for name, provider in self.providers.items()
            },
        }
        if self.settings.redis_url is not None:
            details["cache"] = "up" if self.cache is not None and self.cache.available else "degraded"
        if self.tell_orders is not None:
            details["orderService"] = "up" if getattr(self.tell_orders.orders, "available", True) else "degraded"
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


async def _no_anchors() -> Anchored:
    """Who only reads the log checks no chain."""
    return Anchored()


def topics_of(settings: Settings) -> list[NeededTopic]:
    return needed_topics(
        settings.order_topics, [f"{APP_NAME}-{PAYMENTS_TABLE}-changelog"], aliases=settings.event_aliases,
        table_ttl_h=settings.table_ttl_h, short_changelogs=[f"{APP_NAME}-{name}-changelog" for name in SHORT_TABLES],
    )  # fmt: skip


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


def default_provider(settings: Settings) -> str:
    return settings.default_provider.upper()


def cache_of(settings: Settings, cipher: AesGcmCipher, clock: SystemClock, metrics: Metrics) -> "RedisCache | None":
    """None: there is none. A Redis that cannot be used is a slower read, never the end of a start."""

    def make(url: str, prefix: str) -> "RedisCache":
        from payment_service.adapters.cache import RedisCache

        return RedisCache(url, prefix, cipher, clock, metrics)

    return _with_redis(settings, make)


def counts_of(settings: Settings, clock: SystemClock, metrics: Metrics) -> "SharedCounts | None":
    """None: every worker counts its callers by itself."""

    def make(url: str, prefix: str) -> "SharedCounts":
        from payment_service.adapters.shared_counts import SharedCounts

        return SharedCounts(url, prefix, clock, metrics)

    return _with_redis(settings, make)


def _with_redis(settings: Settings, make: Callable[[str, str], RedisPartT]) -> RedisPartT | None:
    """`make(url, prefix of every key)`, or None where there is no Redis, or none that can be used."""
    if settings.redis_url is None:
        return None
    try:
        return make(settings.redis_url.get_secret_value(), f"{APP_NAME}:{settings.topic_prefix}")
    except ImportError:
        _log.error("REDIS_URL is set, and the extra `redis` is not installed: it is not used")
    except ValueError:
        _log.error("REDIS_URL is no address of a Redis: it is not used")
    return None


def tracing_of(settings: Settings) -> "Tracing | None":
    """None: no traces are collected, and nothing of OpenTelemetry is imported."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    try:
        from payment_service.adapters.tracing import Tracing, otlp_exporter
    except ImportError:
        _log.error("OTEL_EXPORTER_OTLP_ENDPOINT is set, and the extra `tracing` is not installed: no traces")
        return None
    headers = settings.otel_exporter_otlp_headers
    return Tracing(
        otlp_exporter(settings.otel_exporter_otlp_endpoint, headers.get_secret_value() if headers else None),
        service=settings.otel_service_name,
        version=version(APP_NAME),
        worker=f"{settings.pod_name or socket.gethostname()}:{os.getpid()}",
        share=settings.otel_traces_sampler_arg,
    )


def trace_ids(settings: Settings) -> Any:
    """The processor that puts them into log lines; None where no traces are collected."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    try:
        from payment_service.adapters.tracing import add_trace_ids
    except ImportError:  # said when the worker starts
        return None
    return add_trace_ids


def cipher_of(settings: Settings) -> AesGcmCipher:
    return AesGcmCipher(settings.encryption_key_bytes, settings.encryption_keys_old)
