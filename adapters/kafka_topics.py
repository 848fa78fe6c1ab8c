"""Topics that the service needs, and making them where that is allowed.

Room: adapters. With KAFKA_CREATE_TOPICS=false nothing is ever created: on OCI the streams come from Terraform.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.core.errors import Unavailable
from payment_service.core.terms import Topic
from payment_service.core.topic_plan import FoundTopic, NeededTopic, configs_of

DEAD_LETTERS = "payment-dead-letters"
WEBHOOKS = "payment-webhooks"
AUDIT_ANCHORS = "payment-audit-anchors"
PUBLISHED = tuple(topic.value for topic in Topic)
ALIAS = "payment.succeeded"
FACTS = ("payment-provider-stats", "payment-facts")
INTERNAL = (WEBHOOKS, *FACTS, AUDIT_ANCHORS)
WEEK_H = 168
INCOMING_WISH_H = 72
"""A weekend, should no worker run."""
CONFIGS = ("cleanup.policy", "retention.ms", "max.message.bytes")
REPLICATION_MAX = 3
"""Copies of a topic that we make, where there are so many brokers."""


def needed_topics(
    order_topics: Iterable[str], changelogs: Iterable[str], *, aliases: bool, table_ttl_h: int = WEEK_H,
    short_changelogs: Iterable[str] = (),
) -> list[NeededTopic]:  # fmt: skip
    """Without the prefix. A changelog that forgets a row before it leaves its table is refilled from PostgreSQL; a
    short one is of a table whose rows are of the last hours, or are written again as long as they matter."""
    return [
        *(NeededTopic(name, wish_h=INCOMING_WISH_H) for name in order_topics),
        *(NeededTopic(name, shared=True) for name in PUBLISHED),
        *([NeededTopic(ALIAS)] if aliases else []),
        NeededTopic(WEBHOOKS, wish_h=INCOMING_WISH_H),
        *(NeededTopic(name, shared=True) for name in FACTS),
        NeededTopic(AUDIT_ANCHORS, wish_h=None),
        NeededTopic(DEAD_LETTERS, wish_h=WEEK_H),
        *(NeededTopic(name, compacted=True, shared=True, wish_h=table_ttl_h) for name in changelogs),
        *(NeededTopic(name, compacted=True, shared=True) for name in short_changelogs),
    ]


async def missing_topics(client: KafkaClient, topics: Iterable[NeededTopic], prefix: str) -> list[str]:
    """Full names of those that the broker does not show us. Raises Unavailable when it does not answer."""
    async with _admin(client) as admin:
        return [prefix + topic.name for topic in await _missing(admin, topics, prefix)]


async def create_missing(client: KafkaClient, topics: Iterable[NeededTopic], prefix: str, partitions: int) -> list[str]:
    """The full names that were made. Idempotent by name: what exists is left as it is, whatever its partitions.

    Raises: Unavailable, when the broker does not answer or refuses; some may have been made by then.
    """
    async with _admin(client) as admin:
        missing = await _missing(admin, topics, prefix)
        if not missing:
            return []
        brokers = len((await admin.describe_cluster())["brokers"])
        replication = min(REPLICATION_MAX, max(1, brokers))
        answer = await admin.create_topics([_new(topic, prefix, partitions, replication) for topic in missing])
        made = []
        for name, code, *_ in answer.topic_errors:
            if code == 0:
                made.append(name)
            elif for_code(code) is not TopicAlreadyExistsError:  # another worker was faster
                raise Unavailable(f"topic {name} cannot be created: {for_code(code).__name__}")
        return made


async def found_topics(client: KafkaClient, names: Collection[str]) -> tuple[dict[str, FoundTopic], int]:
    """By full name those that exist, and how many brokers there are. A broker that tells no configuration (OCI) is no
    error. Raises Unavailable."""
    async with _admin(client) as admin:
        existing = [name for name in await admin.list_topics() if name in names]
        described = await admin.describe_topics(existing) if existing else []
        brokers = len((await admin.describe_cluster())["brokers"])
        configs = await _configs_of(admin, existing)
    found = {}
    for one in described:
        told, partitions = configs.get(one["topic"], {}), one["partitions"]
        found[one["topic"]] = FoundTopic(
            len(partitions),
            min((len(it["replicas"]) for it in partitions), default=0),
            told.get("cleanup.policy"),
            int(told["retention.ms"]) if "retention.ms" in told else None,
            int(told["max.message.bytes"]) if "max.message.bytes" in told else None,
        )
    return found, brokers


async def _configs_of(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(CONFIGS, "")) for name in names]
    try:
        answers = await admin.describe_configs(asked) if asked else []
    except KafkaError:
        return {}
    return {
        resource[3]: {name: value for name, value, *_ in resource[4] if value is not None}
        for answer in answers
        for resource in answer.resources
        if resource[0] == 0
    }


def _new(topic: NeededTopic, prefix: str, partitions: int, replication: int) -> NewTopic:
    return NewTopic(prefix + topic.name, partitions, replication, topic_configs=configs_of(topic))


async def _missing(admin: AIOKafkaAdminClient, topics: Iterable[NeededTopic], prefix: str) -> list[NeededTopic]:
    existing = set(await admin.list_topics())
    return [topic for topic in topics if prefix + topic.name not in existing]


@asynccontextmanager
async def _admin(client: KafkaClient) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**client.options())
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        raise Unavailable(f"the broker is away: {type(error).__name__}") from None
    finally:
        await admin.close()
