"""What the commands ask of the service when no worker of theirs runs.

Room: root. Imported by worker.py and the CLI alone.
"""

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from payment_service.adapters import audit_chain
from payment_service.adapters.audit_anchors import Anchored, read_anchors
from payment_service.adapters.beside import with_broker, with_database
from payment_service.adapters.changelog import read_changelog
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.dead_letter_desk import StoredDeadLetters
from payment_service.adapters.kafka_topics import AUDIT_ANCHORS, DEAD_LETTERS, INTERNAL
from payment_service.adapters.logging import configure_logging
from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.postgres import migrate as migrations
from payment_service.adapters.postgres.audit_log import COMMAND, PostgresAuditLog
from payment_service.adapters.postgres.audit_verifier import AuditVerifier
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.resealing import Resealing
from payment_service.adapters.postgres.webhooks import PostgresWebhooks
from payment_service.adapters.sealed_topics import SealedTopics
from payment_service.adapters.settings import Settings
from payment_service.adapters.topic_reading import partitions_of
from payment_service.core.audit import Auditor
from payment_service.core.dead_letters import DeadLetterDesk
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.key_rotation import KeyRotation, SealedRecords
from payment_service.core.ports import AuditLog, PaymentStore
from payment_service.core.use_cases.execute import Execute
from payment_service.services import APP_NAME, cache_of, cipher_of, kafka_client, token_rules
from payment_service.tables.payments import NAME as PAYMENTS_TABLE
from payment_service.tables.payments import OPEN_TTL_FACTOR, place_of
from payment_service.web.tokens import issue_token

__all__ = ["Settings", "kafka_client", "partitions_of", "with_broker", "with_database"]

EMBEDDED_SILENCE_S = 1.0
"""The embedded broker answers latest offsets wrongly: what is read is read until it is silent."""
TABLES = (PAYMENTS_TABLE,)


def make_token(settings: Settings, user_id: str, roles: Sequence[str], ttl_s: int) -> str:
    """For development and tests. Raises Refused in production, or where a public key verifies tokens."""
    if settings.is_production:
        raise Refused("tokens are not issued in production", code="FORBIDDEN")
    try:
        return issue_token(token_rules(settings), user_id, roles, now_ms=SystemClock().now_ms(), valid_s=ttl_s)
    except ValueError as error:
        raise Refused(str(error), code="FORBIDDEN") from None


async def migrate(settings: Settings) -> list[str]:
    return await migrations.migrate(settings.migration_database_dsn, service_dsn=settings.database_dsn)


async def pending_migrations(settings: Settings) -> list[str]:
    return await migrations.pending(settings.database_dsn)


@contextlib.asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[PaymentStore]:
    """The store, for reading and for what a person decides."""
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=2)
    cipher = cipher_of(settings)
    cache = cache_of(settings, cipher, SystemClock(), PrometheusMetrics())
    try:
        store = PostgresPaymentStore(
            database, cipher, audit_chain.chain_key(settings.encryption_key_bytes), settings.outbox_shards,
            lambda rows: None, tells_orders=settings.order_service_url is not None,
            old_chain_keys=[audit_chain.chain_key(key) for key in settings.encryption_keys_old],
        )  # fmt: skip
        store.on_version = cache.changed if cache is not None else None
        yield store
    finally:
        if cache is not None:
            await cache.close()
        await database.close()


@contextlib.asynccontextmanager
async def open_execute(settings: Settings) -> AsyncIterator[Execute]:
    """For what a person decides about a payment. Published and called on by the workers that run."""
    async with open_reader(settings) as store:
        yield Execute(store, SystemClock(), f"cli:{socket.gethostname()}:{os.getpid()}", settings.lease_s)


@contextlib.asynccontextmanager
async def open_calls(settings: Settings) -> AsyncIterator[PostgresCallQueue]:
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=2)
    try:
        yield PostgresCallQueue(database, cipher_of(settings))
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def open_audit(settings: Settings) -> AsyncIterator[AuditLog]:
    """For what a command changes: `record` it, then await `flush`. A chain of its own."""
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=2)
    writer = f"{COMMAND}{socket.gethostname()}:{os.getpid()}"
    key = audit_chain.chain_key(settings.encryption_key_bytes)
    log = PostgresAuditLog(database, key, writer, SystemClock(), PrometheusMetrics())
    try:
        yield log
    finally:
        await log.close()
        await database.close()


@contextlib.asynccontextmanager
async def open_webhooks(settings: Settings) -> AsyncIterator[PostgresWebhooks]:
    """The kept events of providers, for operators."""
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=2)
    try:
        yield PostgresWebhooks(database, cipher_of(settings))
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def open_auditor(settings: Settings) -> AsyncIterator[Auditor]:
    """Reads alone. Keys that only open old values also fit old chains."""
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=2)
    keys = [audit_chain.chain_key(key) for key in (settings.encryption_key_bytes, *settings.encryption_keys_old)]

    async def anchors() -> Anchored:
        pointed, topic = with_broker(settings), settings.topic(AUDIT_ANCHORS)
        return await read_anchors(kafka_client(pointed), topic, cipher_of(settings), _silence_s(settings))

    try:
        yield AuditVerifier(database, keys, anchors)
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def open_rotation(settings: Settings) -> AsyncIterator[KeyRotation]:
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=2)
    key, old = settings.encryption_key_bytes, settings.encryption_keys_old
    row_ms = settings.table_ttl_h * 3_600_000 * OPEN_TTL_FACTOR
    changelogs = {settings.topic(f"{APP_NAME}-{table}-changelog"): row_ms for table in TABLES}
    letters = settings.topic(DEAD_LETTERS)
    topics = [*map(settings.topic, INTERNAL), letters, *changelogs]

    async def in_topics() -> list[SealedRecords]:
        client = kafka_client(with_broker(settings))
        reader = SealedTopics(
            client, topics, key, old, _silence_s(settings), lifetimes=changelogs, mixed=(letters,)
        )  # fmt: skip
        return await reader.in_topics()

    try:
        yield Resealing(database, cipher_of(settings), in_topics)
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def open_dead_letters(settings: Settings) -> AsyncIterator[DeadLetterDesk]:
    """Where no broker answers, those that are in PostgreSQL."""
    client, away = None, ""
    try:
        client = kafka_client(with_broker(settings))
    except Unavailable as error:
        away = error.message
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=2)
    async with open_audit(settings) as audit:
        try:
            yield StoredDeadLetters(
                client, away, settings.topic(DEAD_LETTERS), settings.topic_prefix, database, cipher_of(settings),
                audit, SystemClock(), PrometheusMetrics(), _silence_s(settings),
            )  # fmt: skip
        finally:
            await database.close()


def _silence_s(settings: Settings) -> float | None:
    return EMBEDDED_SILENCE_S if settings.embedded_broker else None


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
        silence_s=_silence_s(settings),
    )
    cipher = cipher_of(settings)
    return {
        (text := raw.decode()): orjson.loads(cipher.unseal(value, place_of(text, name)))
        for raw, value in values.items()
    }


def prepare_logging(settings: Settings) -> None:
    configure_logging(settings.log_level, as_json=settings.is_production)
