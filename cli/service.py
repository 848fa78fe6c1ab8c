"""The one door from the commands to the service: imported when a command runs, so that `--help` does not wait for it.

Room: cli. Nothing else in cli/ names app.py, offline.py or worker.py.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from payment_service.core.audit import Auditor
from payment_service.core.dead_letters import DeadLetterDesk
from payment_service.core.importing import LegacyImport, OldPayment
from payment_service.core.key_rotation import KeyRotation
from payment_service.core.ports import AuditLog, OpenCalls, PaymentStore
from payment_service.core.republishing import Republisher
from payment_service.core.webhooks import WebhookRecords

if TYPE_CHECKING:
    from payment_service.core.doctor import Area, Finding
    from payment_service.core.topic_plan import TopicReport
    from payment_service.core.use_cases.execute import Execute
    from payment_service.offline import Settings


def load_settings() -> "Settings":
    from payment_service import offline

    return offline.Settings.load()


def prepare_logging(settings: "Settings") -> None:
    from payment_service import offline

    offline.prepare_logging(settings)


def run_worker(settings: "Settings") -> int:
    """With the embedded broker or PostgreSQL where the settings name none."""
    from payment_service import worker

    if settings.embedded_broker or settings.embedded_database:
        return worker.run_dev(settings)
    return worker.run(settings)


def run_dev(settings: "Settings") -> int:
    from payment_service import worker

    return worker.run_dev(settings)


async def migrate(settings: "Settings") -> Sequence[str]:
    from payment_service import offline

    async with offline.with_database(settings) as pointed:
        return await offline.migrate(pointed)


async def pending_migrations(settings: "Settings") -> Sequence[str]:
    from payment_service import offline

    async with offline.with_database(settings) as pointed:
        return await offline.pending_migrations(pointed)


def make_token(settings: "Settings", user_id: str, roles: Sequence[str], ttl_s: int) -> str:
    from payment_service import offline

    return offline.make_token(settings, user_id, roles, ttl_s)


@asynccontextmanager
async def open_reader(settings: "Settings") -> AsyncIterator[PaymentStore]:
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_reader(pointed) as store:
        yield store


@asynccontextmanager
async def open_execute(settings: "Settings") -> AsyncIterator["Execute"]:
    """For what a person decides about a payment."""
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_execute(pointed) as execute:
        yield execute


@asynccontextmanager
async def open_calls(settings: "Settings") -> AsyncIterator[OpenCalls]:
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_calls(pointed) as calls:
        yield calls


@asynccontextmanager
async def open_audit(settings: "Settings") -> AsyncIterator[AuditLog]:
    """For what a command changes: `record` it, then await `flush`."""
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_audit(pointed) as log:
        yield log


class LegacySource(NamedTuple):
    """Where the old service's rows are, and what opens its tokens. None: as our own settings say."""

    database_url: str | None
    schema: str | None
    old_key: str | None
    ask_days: int


@asynccontextmanager
async def open_legacy(settings: "Settings", source: LegacySource, operator: str) -> AsyncIterator[LegacyImport]:
    from payment_service import offline

    async with (
        offline.with_database(settings) as pointed,
        offline.open_legacy(pointed, *source, operator) as legacy,
    ):
        yield legacy


async def find_old(settings: "Settings", old_id: str) -> OldPayment | None:
    """Whom the old service knew by this id."""
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_old_ids(pointed) as old_ids:
        return await old_ids.find(old_id)


@asynccontextmanager
async def open_republisher(settings: "Settings") -> AsyncIterator[Republisher]:
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_republisher(pointed) as republisher:
        yield republisher


@asynccontextmanager
async def open_webhooks(settings: "Settings") -> AsyncIterator[WebhookRecords]:
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_webhooks(pointed) as store:
        yield store


@asynccontextmanager
async def open_auditor(settings: "Settings") -> AsyncIterator[Auditor]:
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_auditor(pointed) as auditor:
        yield auditor


@asynccontextmanager
async def open_rotation(settings: "Settings") -> AsyncIterator[KeyRotation]:
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_rotation(pointed) as rotation:
        yield rotation


@asynccontextmanager
async def open_dead_letters(settings: "Settings") -> AsyncIterator[DeadLetterDesk]:
    from payment_service import offline

    async with offline.with_database(settings) as pointed, offline.open_dead_letters(pointed) as desk:
        yield desk


async def read_table(settings: "Settings", name: str, key: str | None) -> Mapping[str, Mapping[str, Any]]:
    from payment_service import offline

    return await offline.read_table(settings, name, key)


async def partitions_of(settings: "Settings", topics: Collection[str]) -> Mapping[str, Sequence[int]]:
    """By the topics' full names; those that do not exist are left out."""
    from payment_service import offline

    return await offline.partitions_of(offline.kafka_client(offline.with_broker(settings)), topics)


async def examine(
    areas: Collection["Area"], *, as_production: bool
) -> AsyncGenerator[tuple["Area", Sequence["Finding"]], None]:
    """With the settings as they are, also where they would stop a start."""
    from payment_service import offline

    settings, problems = offline.look_at_settings()
    offline.prepare_quiet_logging()
    async with aclosing(offline.examine(settings, problems, areas, as_production=as_production)) as parts:
        async for part in parts:
            yield part


async def look_at_topics(settings: "Settings") -> Sequence["TopicReport"]:
    from payment_service import offline

    return await offline.look_at_topics(settings)


async def create_topics(settings: "Settings") -> Sequence[str]:
    from payment_service import offline

    return await offline.create_topics(settings)


def broker_options(settings: "Settings") -> dict[str, Any]:
    """Of aiokafka's clients, for the broker that the settings name or the one that runs beside us."""
    from payment_service import offline

    return offline.kafka_client(offline.with_broker(settings)).options()
