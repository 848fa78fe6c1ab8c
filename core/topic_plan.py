"""Which topics the service needs and how, and what is wrong with those that are there.

Room: core. A broker may tell less than everything: what is not known is never judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

HOUR_MS = 3_600_000
FOR_EVER_MS = -1
COMPACT, DELETE = "compact", "delete"
OCI_RETENTION_H_MAX = 168
"""A stream on OCI keeps its messages for a week at most."""
MESSAGE_BYTES_MIN = 1_000_000
"""What we send may be so large; OCI Streaming takes no more either."""


@dataclass(frozen=True, slots=True)
class NeededTopic:
    """`name` without the prefix. `shared`: how many partitions it has must be the same for all such topics, since a
    table row is written to the partition its event came from. `keep_h`: less loses something. `wish_h`: more than that
    is good to have; None: for ever."""

    name: str
    compacted: bool = False
    shared: bool = False
    keep_h: int = 24
    wish_h: int | None = 24

    def oci_retention_h(self) -> int:
        wished = OCI_RETENTION_H_MAX if self.wish_h is None else self.wish_h
        return min(OCI_RETENTION_H_MAX, max(self.keep_h, wished))


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """As the broker tells it; None: it does not."""

    partitions: int
    replicas: int
    cleanup: str | None = None
    retention_ms: int | None = None
    message_bytes: int | None = None


class Verdict(StrEnum):
    OK = "OK"
    WARNING = "WARNING"
    """It works, but not as somebody may believe."""
    WRONG = "WRONG"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True)
class TopicReport:
    """`name`: with the prefix. `notes`: what is wrong, what follows, and how to mend it."""

    name: str
    needed: NeededTopic
    found: FoundTopic | None
    verdict: Verdict
    notes: Sequence[str]


def judged(
    needed: Sequence[NeededTopic], found: Mapping[str, FoundTopic], prefix: str, partitions: int, brokers: int
) -> list[TopicReport]:
    """`partitions`: of TOPIC_PARTITIONS."""
    return [_judged(it, found.get(prefix + it.name), prefix + it.name, partitions, brokers) for it in needed]


def _judged(needed: NeededTopic, found: FoundTopic | None, name: str, partitions: int, brokers: int) -> TopicReport:
    if found is None:
        return TopicReport(name, needed, None, Verdict.MISSING, ["it is not there, or may not be seen by us"])
    wrong, warnings = _wrong(needed, found, partitions), _warnings(needed, found, brokers)
    verdict = Verdict.WRONG if wrong else Verdict.WARNING if warnings else Verdict.OK
    return TopicReport(name, needed, found, verdict, [*wrong, *warnings])


def _wrong(needed: NeededTopic, found: FoundTopic, partitions: int) -> list[str]:
    wrong = []
    if needed.shared and found.partitions != partitions:
        wrong.append(
            f"has {found.partitions} partitions, TOPIC_PARTITIONS says {partitions}: tables need the same everywhere;"
            " make it anew, or change the setting if all have as many"
        )
    if found.cleanup is not None and COMPACT in found.cleanup and not needed.compacted:
        wrong.append("is compacted, which takes events away: set cleanup.policy=delete")
    kept_h = _kept_h(found)
    if kept_h is not None and kept_h < needed.keep_h:
        wrong.append(
            f"keeps messages for {kept_h:g} h, needed are {needed.keep_h}: a worker away for longer loses some"
        )
    return wrong


def _warnings(needed: NeededTopic, found: FoundTopic, brokers: int) -> list[str]:
    warnings = []
    kept_h = _kept_h(found)
    wished = needed.wish_h
    if kept_h is not None and kept_h >= needed.keep_h and (wished is None or kept_h < wished):
        until = "for ever" if wished is None else f"{wished} h"
        rest = "; rows are refilled from PostgreSQL" if needed.compacted else ""
        warnings.append(f"keeps messages for {kept_h:g} h, good would be {until}{rest}")
    if found.message_bytes is not None and found.message_bytes < MESSAGE_BYTES_MIN:
        warnings.append(f"takes messages up to {found.message_bytes} bytes; larger ones become dead letters")
    if found.replicas == 1 and brokers > 1:
        warnings.append("has one replica: the loss of one broker loses it")
    return warnings


def _kept_h(found: FoundTopic) -> float | None:
    """None: for ever, or not known."""
    if found.retention_ms is None or found.retention_ms == FOR_EVER_MS or found.cleanup == COMPACT:
        return None
    return found.retention_ms / HOUR_MS


def as_terraform(missing: Sequence[TopicReport], partitions: int) -> str:
    """Streams for OCI's provider, in a pool that `stream_pool_id` names."""
    blocks = [
        f'resource "oci_streaming_stream" "{_identifier(it.name)}" {{\n'
        f'  name               = "{it.name}"\n'
        f"  partitions         = {partitions}\n"
        f"  retention_in_hours = {it.needed.oci_retention_h()}\n"
        f"  stream_pool_id     = var.stream_pool_id\n"
        "}\n"
        for it in missing
    ]
    note = "# For a module with a variable stream_pool_id; deploy/oci has the pool and the policies too.\n"
    return "\n".join((note, *blocks)) if blocks else ""


def as_oci_cli(missing: Sequence[TopicReport], partitions: int, pool_id: str | None) -> str:
    pool = f"'{pool_id}'" if pool_id else '"$STREAM_POOL_ID"'
    return "".join(
        f"oci streaming admin stream create --name '{it.name}' --partitions {partitions}"
        f" --retention-in-hours {it.needed.oci_retention_h()} --stream-pool-id {pool}\n"
        for it in missing
    )


def as_kafka_topics(missing: Sequence[TopicReport], partitions: int, brokers: str) -> str:
    return "".join(
        f"kafka-topics.sh --bootstrap-server {brokers} --create --topic '{it.name}' --partitions {partitions}"
        + "".join(f" --config {name}={value}" for name, value in configs_of(it.needed).items())
        + "\n"
        for it in missing
    )


def configs_of(needed: NeededTopic) -> dict[str, str]:
    """On a broker whose topics we make: what is not said is the broker's own default."""
    if needed.compacted:
        return {"cleanup.policy": COMPACT}
    if needed.wish_h is None:
        return {"retention.ms": str(FOR_EVER_MS)}
    return {}


def _identifier(name: str) -> str:
    return "".join(it if it.isalnum() else "_" for it in name)
