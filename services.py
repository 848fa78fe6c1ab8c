"""What lives as long as a worker, and how it is doing; with what is read off the settings for more than one part.

Room: root, beside app.py, which puts it together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from payment_service.adapters.clock import SystemClock
from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.guarded import GuardedProvider
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import create_missing, needed_topics
from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.postgres import migrate as migrations
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.providers.mock import MockProvider
from payment_service.adapters.publisher import OutboxPublisher
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.adapters.settings import Settings
from payment_service.agents.faust_app import PaymentApp
from payment_service.core.errors import PaymentError
from payment_service.core.ports import Provider
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.payment_desk import PaymentDesk
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.tables.payments import NAME as PAYMENTS_TABLE
from payment_service.tables.payments import PaymentsTable
from payment_service.web.services import Readiness, WebServices
from payment_service.web.tokens import TokenRules, TokenVerifier

APP_NAME = "payment-service"

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


def default_provider(settings: Settings) -> str:
    return settings.default_provider.upper()


def cipher_of(settings: Settings) -> AesGcmCipher:
    return AesGcmCipher(settings.encryption_key_bytes, settings.encryption_keys_old)
