"""Which records of topics are still sealed with an older key, and until when the broker keeps them.

Room: adapters. Records cannot be written anew: they are read to be counted, and the topic's retention tells the rest.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.sealing import FORMAT, key_id
from payment_service.adapters.topic_reading import read_topic
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.key_rotation import Kept, SealedRecords

ROWS_MAX = 2_000_000
"""Keys of a compacted topic that are remembered, about 300 MB."""
_CONFIGS = ("retention.ms", "segment.ms")
FOR_EVER_MS = -1


class SealedTopics:
    """`old`: the keys of ENCRYPTION_KEYS_OLD in their order. `silence_s`: as for `read_topic`.

    `lifetimes`: of compacted topics, after how many milliseconds a row leaves them, at the latest. `mixed`: topics
    that also hold values which are not sealed.
    """

    def __init__(
        self, client: KafkaClient, topics: Sequence[str], key: bytes, old: Sequence[bytes], silence_s: float | None,
        *, lifetimes: Mapping[str, int], mixed: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self._client = client
        self._topics = topics
        self._present = FORMAT + key_id(key)
        self._old = {FORMAT + key_id(one): number for number, one in enumerate(old, start=1)}
        self._silence_s = silence_s
        self._lifetimes = lifetimes
        self._mixed = frozenset(mixed)

    async def in_topics(self) -> list[SealedRecords]:
        """Raises Unavailable: the broker is away, or a compacted topic has more than ROWS_MAX keys."""
        found: list[SealedRecords] = []
        for topic in self._topics:
            counts, newest = await self._count(topic)
            if counts:
                configs = await self._configs(topic)
                for key, count in sorted(counts.items()):
                    kept, gone_ms = self._gone(topic, newest[key], configs)
                    found.append(SealedRecords(topic, key, count, newest[key], kept, gone_ms))
        return found

    async def _count(self, topic: str) -> tuple[Counter[int], dict[int, int]]:
        """By older key: how many, and when the newest was written. Of a compacted topic the last value of each key."""
        counts: Counter[int] = Counter()
        newest: dict[int, int] = {}
        last: dict[bytes, int | None] | None = {} if topic in self._lifetimes else None
        try:
            async with aclosing(read_topic(self._client, topic, silence_s=self._silence_s)) as batches:
                async for records in batches:
                    for record in records:
                        key = self._key_of(topic, record.value)
                        if last is not None:
                            before = last.get(record.key)
                            if before is not None:
                                counts[before] -= 1
                            last[record.key] = key
                        if key is not None:
                            counts[key] += 1
                            newest[key] = max(newest.get(key, 0), record.timestamp)
                    if last is not None and len(last) > ROWS_MAX:
                        raise Unavailable(f"{topic} holds more than {ROWS_MAX} rows")
        except Refused:
            pass  # there is no such topic: nothing was ever written
        return +counts, newest

    def _key_of(self, topic: str, value: bytes | None) -> int | None:
        """None: sealed with the present key, or not sealed at all."""
        header = (value or b"")[: len(self._present)]
        if not value or header == self._present:
            return None
        return self._old.get(header, None if topic in self._mixed else 0)

    def _gone(self, topic: str, newest_ms: int, configs: Mapping[str, int]) -> tuple[Kept, int | None]:
        if topic in self._lifetimes:
            return Kept.UNTIL, newest_ms + self._lifetimes[topic]
        retention = configs.get("retention.ms")
        if retention is None:
            return Kept.NOT_TOLD, None
        if retention <= FOR_EVER_MS:
            return Kept.FOR_EVER, None
        # Whole segments are removed, when the newest record in them is old enough: a segment may go on for segment.ms.
        return Kept.UNTIL, newest_ms + retention + configs.get("segment.ms", 0)

    async def _configs(self, topic: str) -> dict[str, int]:
        """What the broker tells of it, in milliseconds. A broker that tells nothing is not an error."""
        admin = AIOKafkaAdminClient(**self._client.options())
        try:
            await admin.start()
            answers = await admin.describe_configs([
                ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(_CONFIGS, ""))
            ])  # fmt: skip
            return {
                name: int(value)
                for answer in answers
                for resource in answer.resources
                for name, value, *_ in resource[4]
                if value is not None and name in _CONFIGS
            }
        except (KafkaError, OSError, ValueError):
            return {}
        finally:
            await admin.close()
