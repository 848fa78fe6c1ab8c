"""Topics that the service needs, and making them where that is allowed.

Room: adapters. With KAFKA_CREATE_TOPICS=false nothing is ever created: on OCI the streams come from Terraform.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.core.errors import Unavailable
from payment_service.core.terms import Topic

DEAD_LETTERS = "payment-dead-letters"
PUBLISHED = tuple(topic.value for topic in Topic)


@dataclass(frozen=True, slots=True)
class NeededTopic:
    name: str
    compacted: bool = False


def needed_topics(order_topics: Iterable[str], changelogs: Iterable[str], *, aliases: bool) -> list[NeededTopic]:
    """Without the prefix."""
    plain = [*order_topics, *PUBLISHED, DEAD_LETTERS, *(["payment.succeeded"] if aliases else [])]
    return [NeededTopic(name) for name in plain] + [NeededTopic(name, True) for name in changelogs]


async def create_missing(
    client: KafkaClient, topics: Iterable[NeededTopic], prefix: str, partitions: int, replication: int = 1
) -> list[str]:
    """The names that were made. Raises Unavailable when the broker does not answer."""
    admin = AIOKafkaAdminClient(**client.options())
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [topic for topic in topics if prefix + topic.name not in existing]
        if not missing:
            return []
        answer = await admin.create_topics(
            [
                NewTopic(
                    prefix + topic.name, partitions, replication,
                    topic_configs={"cleanup.policy": "compact"} if topic.compacted else {},
                )  # fmt: skip
                for topic in missing
            ]
        )
        for name, code, *_ in answer.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                raise Unavailable(f"topic {name} cannot be created: {for_code(code).__name__}")
        return [prefix + topic.name for topic in missing]
    except (KafkaError, OSError) as error:
        raise Unavailable(f"the broker is away: {type(error).__name__}") from None
    finally:
        await admin.close()
