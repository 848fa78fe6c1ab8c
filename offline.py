"""What the commands ask of the service when no worker of theirs runs.

Room: root. Imported by worker.py and the CLI alone.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from payment_service.adapters import audit_chain
from payment_service.adapters.beside import with_broker, with_database
from payment_service.adapters.changelog import partitions_of, read_changelog
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.logging import configure_logging
from payment_service.adapters.postgres import migrate as migrations
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.settings import Settings
from payment_service.core.errors import Refused
from payment_service.core.ports import PaymentStore
from payment_service.services import APP_NAME, cipher_of, kafka_client, token_rules
from payment_service.tables.payments import NAME as PAYMENTS_TABLE
from payment_service.tables.payments import place_of
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
    return await migrations.migrate(settings.migration_database_dsn)


async def pending_migrations(settings: Settings) -> list[str]:
    return await migrations.pending(settings.database_dsn)


@contextlib.asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[PaymentStore]:
    """The store for reading alone."""
    database = Database(settings.database_dsn, application_name="payment-service cli", size_max=2)
    cipher = cipher_of(settings)
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
    cipher = cipher_of(settings)
    return {
        (text := raw.decode()): orjson.loads(cipher.unseal(value, place_of(text, name)))
        for raw, value in values.items()
    }


def prepare_logging(settings: Settings) -> None:
    configure_logging(settings.log_level, as_json=settings.is_production)
