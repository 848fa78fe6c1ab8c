"""Which topics are wrong, and how much that matters."""

import pytest

from payment_service.core.topic_plan import (
    HOUR_MS,
    FoundTopic,
    NeededTopic,
    TopicReport,
    Verdict,
    as_kafka_topics,
    as_oci_cli,
    judged,
)

TABLE = NeededTopic("changelog", compacted=True, shared=True, wish_h=72)
EVENTS = NeededTopic("payment.created", shared=True)
ORDERS = NeededTopic("orders", wish_h=72)
ANCHORS = NeededTopic("anchors", wish_h=None)


@pytest.mark.parametrize(
    ("needed", "found", "verdict", "word"),
    [
        (EVENTS, FoundTopic(4, 3, "delete", 24 * HOUR_MS, 1_048_588), Verdict.OK, ""),
        (EVENTS, FoundTopic(4, 3), Verdict.OK, ""),
        (EVENTS, None, Verdict.MISSING, "not there"),
        (EVENTS, FoundTopic(3, 3), Verdict.WRONG, "has 3 partitions"),
        (EVENTS, FoundTopic(4, 3, "compact"), Verdict.WRONG, "compacted"),
        (EVENTS, FoundTopic(4, 3, "delete", HOUR_MS), Verdict.WRONG, "1 h"),
        (EVENTS, FoundTopic(4, 1), Verdict.WARNING, "one replica"),
        (EVENTS, FoundTopic(4, 3, "delete", -1, 500_000), Verdict.WARNING, "500000 bytes"),
        (ORDERS, FoundTopic(9, 3, "delete", 72 * HOUR_MS), Verdict.OK, ""),
        (ORDERS, FoundTopic(9, 3, "delete", 24 * HOUR_MS), Verdict.WARNING, "good would be 72 h"),
        (TABLE, FoundTopic(4, 3, "compact", 24 * HOUR_MS), Verdict.OK, ""),
        (TABLE, FoundTopic(4, 3, "delete", 168 * HOUR_MS), Verdict.OK, ""),
        (TABLE, FoundTopic(4, 3, "delete", 24 * HOUR_MS), Verdict.WARNING, "refilled from PostgreSQL"),
        (TABLE, FoundTopic(5, 3, "compact"), Verdict.WRONG, "TOPIC_PARTITIONS says 4"),
        (ANCHORS, FoundTopic(1, 3, "delete", -1), Verdict.OK, ""),
        (ANCHORS, FoundTopic(1, 3, "delete", 168 * HOUR_MS), Verdict.WARNING, "for ever"),
    ],
)
def test_verdicts(needed: NeededTopic, found: FoundTopic | None, verdict: Verdict, word: str) -> None:
    (report,) = judged([needed], {f"p-{needed.name}": found} if found else {}, "p-", 4, 3)
    assert (report.name, report.verdict) == (f"p-{needed.name}", verdict)
    assert word in " ".join(report.notes)
    assert bool(report.notes) is (verdict is not Verdict.OK)


def test_one_broker_has_one_replica_and_that_is_no_news() -> None:
    (report,) = judged([EVENTS], {EVENTS.name: FoundTopic(4, 1)}, "", 4, 1)
    assert report.verdict is Verdict.OK


@pytest.mark.parametrize(("needed", "hours"), [(EVENTS, 24), (ORDERS, 72), (TABLE, 72), (ANCHORS, 168)])
def test_oci_keeps_a_week_at_most(needed: NeededTopic, hours: int) -> None:
    assert needed.oci_retention_h() == hours


def test_what_is_printed() -> None:
    missing = [TopicReport(it.name, it, None, Verdict.MISSING, []) for it in (EVENTS, TABLE, ANCHORS)]
    kafka = as_kafka_topics(missing, 4, "broker:9092").splitlines()
    assert kafka[0].endswith("--bootstrap-server broker:9092 --create --topic 'payment.created' --partitions 4")
    assert kafka[1].endswith("--config cleanup.policy=compact")
    assert kafka[2].endswith("--config retention.ms=-1")
    assert "--retention-in-hours 24 --stream-pool-id 'ocid1.pool'" in as_oci_cli(missing, 4, "ocid1.pool")
    assert '--stream-pool-id "$STREAM_POOL_ID"' in as_oci_cli(missing, 4, None)
