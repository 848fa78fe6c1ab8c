"""Topics that the service needs, and making them where that is allowed.

Room: adapters. With KAFKA_CREATE_TOPICS=false nothing is ever created: on OCI the streams come from Terraform.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.core.errors import Unavailable
from payment_service.core.terms import Topic

DEAD_LETTERS = "payment-dead-letters"
WEBHOOKS = "payment-webhooks"
AUDIT_ANCHORS = "payment-audit-anchors"
PUBLISHED = tuple(topic.value for topic in Topic)
ALIAS = "payment.succeeded"
INTERNAL = (WEBHOOKS, "payment-provider-stats", "payment-facts", AUDIT_ANCHORS)
REPLICATION_MAX = 3
"""Copies of a topic that we make, where there are so many brokers."""


@dataclass(frozen=True, slots=True)
class NeededTopic:
    name: str
    compacted: bool = False


def needed_topics(order_topics: Iterable[str], changelogs: Iterable[str], *, aliases: bool) -> list[NeededTopic]:
    """Without the prefix."""
    plain = [*order_topics, *PUBLISHED, *([ALIAS] if aliases else []), *INTERNAL, DEAD_LETTERS]
    return [NeededTopic(name) for name in plain] + [NeededTopic(name, True) for name in changelogs]


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


def _new(topic: NeededTopic, prefix: str, partitions: int, replication: int) -> NewTopic:
    configs = {"cleanup.policy": "compact"} if topic.compacted else {}
    if topic.name == AUDIT_ANCHORS:
        configs = {"retention.ms": "-1"}  # they prove what they tell for as long as they are there
    return NewTopic(prefix + topic.name, partitions, replication, topic_configs=configs)


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
