"""The auditor: what PostgreSQL keeps against what was published, by the contract and not by the service's own code."""

import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from rigs.worker import ENCRYPTION_KEY, PARTITIONS, Installation

from payment_service.adapters.sealing import AesGcmCipher
from payment_service.tables.payments import place_of

PUBLISHED = (
    "payment.created",
    "payment.processed",
    "payment.failed",
    "payment.refunded",
    "payment.requires_action",
    "payment.cancelled",
    "payment.unknown",
    "payment.disputed",
    "payment.refund_failed",
)
READ_WAIT_S = 30.0
SILENCE_S = 0.4
"""No broker of the tests is asked for its end: the embedded one answers that wrongly."""
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Read(NamedTuple):
    """A message of a topic, named without the prefix."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


async def read_all(site: Installation, topics: Sequence[str], at_least: int = 0) -> list[Read]:
    """Everything in the topics, until there are at least so many and no more come."""
    tps = [TopicPartition(site.prefix + topic, number) for topic in topics for number in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=site.broker, auto_offset_reset="earliest", enable_auto_commit=False)
    found: list[Read] = []
    await consumer.start()
    try:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        deadline = time.monotonic() + READ_WAIT_S
        heard_at = time.monotonic()
        while len(found) < at_least or time.monotonic() < heard_at + SILENCE_S:
            assert time.monotonic() < deadline, f"{len(found)} messages in {topics}, expected {at_least}"
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                heard_at = time.monotonic()
                topic = tp.topic.removeprefix(site.prefix)
                found += [
                    Read(topic, tp.partition, it.offset, it.timestamp, it.key, it.value, tuple(it.headers))
                    for it in records
                ]
    finally:
        await consumer.stop()
    return found


@dataclass(frozen=True, slots=True)
class Books:
    """What was found to agree. `published`: payment -> the values of its events, by sequence."""

    payments: dict[str, dict[str, Any]]
    """By order id: the columns of the row."""
    published: dict[str, list[dict[str, Any]]]
    deliveries: int
    """Messages in the payment.* topics, repetitions included."""

    def events(self, order_id: str) -> list[tuple[str, str]]:
        """(event type, status) of what the world heard of an order, in order."""
        events = self.published.get(self.payments[order_id]["id"], [])
        return [(event["eventType"], event["data"]["status"]) for event in events]


async def audit(site: Installation) -> Books:
    """For a service at rest: nothing waits, nothing is missing, nothing is there twice."""
    assert site.count("outbox") == 0, site.rows("select * from payment_service.outbox limit 5")
    rows = site.rows(
        "select id, order_id, user_id, status, provider, amount_minor, currency, authorized, captured, refund_pending,"
        " refunded, disputed, needs_review, version, sequence from payment_service.payments"
    )
    names = (
        "id", "order_id", "user_id", "status", "provider", "amount_minor", "currency", "authorized", "captured",
        "refund_pending", "refunded", "disputed", "needs_review", "version", "sequence",
    )  # fmt: skip
    payments = {row[1]: dict(zip(names, row, strict=True)) for row in rows}
    by_id = {payment["id"]: payment for payment in payments.values()}
    told = _check_stored(site, by_id)
    found = await read_all(site, PUBLISHED, sum(map(len, told.values())))
    published = _check_published(found, by_id, told)
    _check_order(found)
    return Books(payments, published, len(found))


def _check_stored(site: Installation, by_id: dict[str, dict[str, Any]]) -> dict[str, set[int]]:
    """Versions 1..n and sequences 1..m without holes, as the row says. Returns the sequences of each payment."""
    versions: dict[str, list[int]] = defaultdict(list)
    sequences: dict[str, list[int]] = defaultdict(list)
    for payment_id, version, sequence in site.rows(
        "select payment_id, version, sequence from payment_service.payment_events order by payment_id, version"
    ):
        versions[payment_id].append(version)
        if sequence is not None:
            sequences[payment_id].append(sequence)
    assert set(versions) == set(by_id)
    for payment_id, payment in by_id.items():
        assert versions[payment_id] == list(range(1, payment["version"] + 1)), payment
        assert sequences[payment_id] == list(range(1, payment["sequence"] + 1)), payment
    return {payment_id: set(numbers) for payment_id, numbers in sequences.items()}


def _check_published(
    found: list[Read], by_id: dict[str, dict[str, Any]], told: dict[str, set[int]]
) -> dict[str, list[dict[str, Any]]]:
    """Every event at least once and always the same; the last one says what the row says."""
    events: dict[tuple[str, int], dict[str, Any]] = {}
    first: dict[tuple[str, int], Read] = {}
    ids: dict[str, tuple[str, int]] = {}
    for message in found:
        event = _check_message(message)
        place = event["data"]["paymentId"], event["sequence"]
        assert first.setdefault(place, message)[4:] == message[4:], f"{place} differs from its first delivery"
        assert ids.setdefault(event["id"], place) == place, f"{event['id']} is two events"
        events[place] = event
    heard: dict[str, set[int]] = defaultdict(set)
    for payment_id, sequence in events:
        heard[payment_id].add(sequence)
    for payment_id in told | heard:
        stored, said = told.get(payment_id, set()), heard.get(payment_id, set())
        assert stored == said, f"{payment_id}: stored are {stored}, published {said}"
    for payment_id, payment in by_id.items():
        if payment["sequence"]:
            data = events[payment_id, payment["sequence"]]["data"]
            shown = (data["orderId"], data["userId"], data["amountMinor"], data["currency"], data["paymentProvider"])
            row = tuple(payment[name] for name in ("order_id", "user_id", "amount_minor", "currency", "provider"))
            assert shown == row
    return {
        payment_id: [events[payment_id, number] for number in sorted(numbers)] for payment_id, numbers in heard.items()
    }


def _check_message(message: Read) -> dict[str, Any]:
    """The envelope of contract §4."""
    assert message.value is not None
    event: dict[str, Any] = json.loads(message.value)
    headers = dict(message.headers)
    payment_id = event["data"]["paymentId"]
    assert len(headers) == len(message.headers), "a header twice"
    assert message.key == payment_id.encode() == headers["ce_subject"]
    assert event["eventType"] == message.topic == headers["ce_type"].decode()
    assert event["id"] == headers["ce_id"].decode()
    assert event["source"] == "payment-service" == headers["ce_source"].decode()
    assert headers["ce_specversion"] == b"1.0"
    assert event["timestamp"] == headers["ce_time"].decode()
    assert TIMESTAMP.fullmatch(event["timestamp"])
    return event


def _check_order(found: list[Read]) -> None:
    """First deliveries of a payment: in order within a partition, and none sent before the one that precedes it."""
    sent_ms: dict[tuple[str, int], int] = {}
    seen: dict[tuple[str, int, str], int] = defaultdict(int)
    for message in sorted(found, key=lambda it: (it.topic, it.partition, it.offset)):
        assert message.value is not None
        event = json.loads(message.value)
        payment_id, sequence = event["data"]["paymentId"], event["sequence"]
        here = message.topic, message.partition, payment_id
        if (payment_id, sequence) not in sent_ms:
            assert sequence > seen[here], f"{event['id']} comes after a later one"
            sent_ms[payment_id, sequence] = message.at_ms
        seen[here] = max(seen[here], sequence)
    for (payment_id, sequence), at_ms in sent_ms.items():
        if sequence > 1:
            assert sent_ms[payment_id, sequence - 1] <= at_ms, f"{payment_id}/{sequence} was sent too early"


async def table_rows(site: Installation) -> dict[str, dict[str, Any]]:
    """The table `payments`, read from its changelog as a worker would on a start: the last row of each key."""
    cipher = AesGcmCipher(ENCRYPTION_KEY.encode())
    rows: dict[str, dict[str, Any]] = {}
    for message in await read_all(site, ["payment-service-payments-changelog"]):
        assert message.key is not None
        payment_id = message.key.decode()
        if message.value is None:
            rows.pop(payment_id, None)
        else:
            rows[payment_id] = json.loads(cipher.unseal(message.value, place_of(payment_id)))
    return rows


async def until_table_agrees(site: Installation, books: Books, wait_s: float = READ_WAIT_S) -> None:
    """Until the table's changelog holds the last snapshot of every payment that was told of."""
    expected = {
        payment_id: {**events[-1]["data"], "sequence": events[-1]["sequence"], "eventType": events[-1]["eventType"]}
        for payment_id, events in books.published.items()
    }
    deadline = time.monotonic() + wait_s
    while True:
        rows = await table_rows(site)
        found = {key: {name: row[name] for name in row if name != "timestamp"} for key, row in rows.items()}
        if found == expected:
            return
        wrong = [payment_id for payment_id in expected if found.get(payment_id) != expected[payment_id]]
        assert time.monotonic() < deadline, f"{len(wrong)} rows are not there or old, such as {wrong[:3]}"
        await asyncio.sleep(0.5)
