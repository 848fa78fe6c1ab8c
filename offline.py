"""What the commands ask of the service when no worker of theirs runs.

Room: root. Imported by worker.py and the CLI alone.
"""

import contextlib
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from typing import Any

import orjson

from payment_service.adapters import audit_chain
from payment_service.adapters.audit_anchors import Anchored, read_anchors
from payment_service.adapters.beside import with_broker, with_database
from payment_service.adapters.changelog import read_changelog
from payment_service.adapters.checks.examination import Examination
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.dead_letter_desk import StoredDeadLetters
from payment_service.adapters.kafka_topics import AUDIT_ANCHORS, DEAD_LETTERS, INTERNAL, create_missing, found_topics
from payment_service.adapters.legacy_tokens import LegacyTokens
from payment_service.adapters.logging import configure_logging
from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.adapters.postgres import migrate as migrations
from payment_service.adapters.postgres.audit_log import COMMAND, PostgresAuditLog
from payment_service.adapters.postgres.audit_verifier import AuditVerifier
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.legacy_ids import PostgresOldIds
from payment_service.adapters.postgres.legacy_import import ImportRules, RowsImport
from payment_service.adapters.postgres.legacy_rows import LegacyRows
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.republish import Republishing
from payment_service.adapters.postgres.resealing import Resealing
from payment_service.adapters.postgres.webhooks import PostgresWebhooks
from payment_service.adapters.sealed_topics import SealedTopics
from payment_service.adapters.settings import Settings, SettingsInvalid
from payment_service.adapters.settings_values import database_address
from payment_service.adapters.topic_reading import partitions_of
from payment_service.core.audit import Auditor
from payment_service.core.dead_letters import DeadLetterDesk, LetterFilter, LetterPage
from payment_service.core.doctor import Area, Finding
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.importing import LegacyImport, OldIds
from payment_service.core.key_rotation import KeyRotation, SealedRecords
from payment_service.core.ports import AuditLog, PaymentStore
from payment_service.core.republishing import Republisher
from payment_service.core.topic_plan import TopicReport, judged
from payment_service.core.use_cases.execute import Execute
from payment_service.services import (
    APP_NAME,
    EMBEDDED_SILENCE_S,
    TABLES,
    cache_of,
    cipher_of,
    kafka_client,
    token_rules,
    topics_of,
    trace_ids,
)
from payment_service.tables.payments import OPEN_TTL_FACTOR, place_of
from payment_service.web.tokens import issue_token

__all__ = ["Settings", "kafka_client", "partitions_of", "with_broker", "with_database"]


def make_token(settings: Settings, user_id: str, roles: Sequence[str], ttl_s: int) -> str:
    """For development and tests. Raises Refused in production, or where a public key verifies tokens."""
    if settings.is_production:
        raise Refused("tokens are not issued in production", code="FORBIDDEN")
    try:
        return issue_token(token_rules(settings), user_id, roles, now_ms=SystemClock().now_ms(), valid_s=ttl_s)
    except ValueError as error:
        raise Refused(str(error), code="FORBIDDEN") from None


@contextlib.asynccontextmanager
async def _database(settings: Settings, *, size_max: int = 2) -> AsyncIterator[Database]:
    """For one command."""
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=size_max)
    try:
        yield database
    finally:
        await database.close()


async def migrate(settings: Settings) -> list[str]:
    return await migrations.migrate(settings.migration_database_dsn, service_dsn=settings.database_dsn)


async def pending_migrations(settings: Settings) -> list[str]:
    return await migrations.pending(settings.database_dsn)


@contextlib.asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[PaymentStore]:
    """The store, for reading and for what a person decides."""
    cipher = cipher_of(settings)
    async with _database(settings) as database:
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


@contextlib.asynccontextmanager
async def open_execute(settings: Settings) -> AsyncIterator[Execute]:
    """For what a person decides about a payment. Published and called on by the workers that run."""
    async with open_reader(settings) as store:
        yield Execute(store, SystemClock(), f"cli:{socket.gethostname()}:{os.getpid()}", settings.lease_s)


@contextlib.asynccontextmanager
async def open_calls(settings: Settings) -> AsyncIterator[PostgresCallQueue]:
    async with _database(settings) as database:
        yield PostgresCallQueue(database, cipher_of(settings))


@contextlib.asynccontextmanager
async def open_audit(settings: Settings) -> AsyncIterator[AuditLog]:
    """For what a command changes: `record` it, then await `flush`. A chain of its own."""
    writer = f"{COMMAND}{socket.gethostname()}:{os.getpid()}"
    key = audit_chain.chain_key(settings.encryption_key_bytes)
    async with _database(settings) as database:
        log = PostgresAuditLog(database, key, writer, SystemClock(), PrometheusMetrics())
        try:
            yield log
        finally:
            await log.close()


@contextlib.asynccontextmanager
async def open_legacy(
    settings: Settings, database_url: str | None, schema: str | None, old_key: str | None, ask_days: int, operator: str
) -> AsyncIterator[LegacyImport]:
    """The old rows are read as the owner of the tables, where there is another one, since ours may not see them."""
    old = database_address(database_url) if database_url is not None else None
    rows = Database(
        settings.migration_database_dsn if old is None else old.dsn, application_name="payment-service import",
        size_max=1,
    )  # fmt: skip
    given = (settings.encryption_key, settings.jwt_secret)
    secrets = [*([old_key] if old_key else []), *(it.get_secret_value() for it in given if it is not None)]
    where = schema or (settings.legacy_schema if old is None else old.legacy_schema)
    database = Database(settings.database_dsn, application_name="payment-service import", size_max=2)
    try:
        async with open_execute(settings) as execute:
            yield RowsImport(
                LegacyRows(rows, where), database, execute, cipher_of(settings), LegacyTokens(secrets),
                ImportRules(operator, ask_days),
            )  # fmt: skip
    finally:
        await rows.close()
        await database.close()


@contextlib.asynccontextmanager
async def open_old_ids(settings: Settings) -> AsyncIterator[OldIds]:
    async with _database(settings, size_max=1) as database:
        yield PostgresOldIds(database)


@contextlib.asynccontextmanager
async def open_republisher(settings: Settings) -> AsyncIterator[Republisher]:
    async with _database(settings) as database:
        yield Republishing(database, settings.outbox_shards)


@contextlib.asynccontextmanager
async def open_webhooks(settings: Settings) -> AsyncIterator[PostgresWebhooks]:
    """The kept events of providers, for operators."""
    async with _database(settings) as database:
        yield PostgresWebhooks(database, cipher_of(settings))


@contextlib.asynccontextmanager
async def open_auditor(settings: Settings) -> AsyncIterator[Auditor]:
    """Reads alone. Keys that only open old values also fit old chains."""
    keys = [audit_chain.chain_key(key) for key in (settings.encryption_key_bytes, *settings.encryption_keys_old)]

    async def anchors() -> Anchored:
        pointed, topic = with_broker(settings), settings.topic(AUDIT_ANCHORS)
        return await read_anchors(kafka_client(pointed), topic, cipher_of(settings), _silence_s(settings))

    async with _database(settings) as database:
        yield AuditVerifier(database, keys, anchors)


@contextlib.asynccontextmanager
async def open_rotation(settings: Settings) -> AsyncIterator[KeyRotation]:
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

    async with _database(settings) as database:
        yield Resealing(database, cipher_of(settings), in_topics)


@contextlib.asynccontextmanager
async def open_dead_letters(settings: Settings) -> AsyncIterator[DeadLetterDesk]:
    """Where no broker answers, those that are in PostgreSQL."""
    client, away = None, ""
    try:
        client = kafka_client(with_broker(settings))
    except Unavailable as error:
        away = error.message
    async with _database(settings) as database, open_audit(settings) as audit:
        yield StoredDeadLetters(
            client, away, settings.topic(DEAD_LETTERS), settings.topic_prefix, database, cipher_of(settings),
            audit, SystemClock(), PrometheusMetrics(), _silence_s(settings),
        )  # fmt: skip


async def look_at_topics(settings: Settings) -> list[TopicReport]:
    """Raises Unavailable."""
    needed, prefix = topics_of(settings), settings.topic_prefix
    found, brokers = await found_topics(kafka_client(with_broker(settings)), {prefix + it.name for it in needed})
    return judged(needed, found, prefix, settings.topic_partitions, brokers)


async def create_topics(settings: Settings) -> list[str]:
    """Full names of those that were made. Raises Unavailable, also when the broker refuses."""
    client = kafka_client(with_broker(settings))
    return await create_missing(client, topics_of(settings), settings.topic_prefix, settings.topic_partitions)


def look_at_settings() -> tuple[Settings, list[str]]:
    """And what would stop a start with them."""
    try:
        return Settings.load(), []
    except SettingsInvalid as error:
        if error.given is None:
            raise
        return error.given, error.problems


def examine(
    settings: Settings, problems: Sequence[str], areas: Collection[Area], *, as_production: bool
) -> AsyncGenerator[tuple[Area, Sequence[Finding]], None]:
    """What is wrong with an installation, area by area. Changes nothing; raises nothing for what it finds."""

    async def letters(limit: int) -> LetterPage:
        async with with_database(settings) as pointed, open_dead_letters(pointed) as desk:
            return await desk.find(LetterFilter(), limit)

    looking = Examination(
        settings, problems, as_production or settings.is_production, SystemClock(), kafka_client, cipher_of,
        lambda: look_at_topics(settings), letters,
    )  # fmt: skip
    return looking.run(areas)


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


def prepare_quiet_logging() -> None:
    """For a command that tells by itself what does not answer."""
    configure_logging("CRITICAL", as_json=False)


def prepare_logging(settings: Settings) -> None:
    configure_logging(settings.log_level, as_json=settings.is_production, add_ids=trace_ids(settings))
