"""Orders in every shape that was seen in the wild, and junk, through Apache Kafka: exactly the right payments come out,
and the stream never stops."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from rigs.books import audit, read_all, until_table_agrees
from rigs.worker import PARTITIONS, Installation, Message

from payment_service.core.ids import payment_id_of

pytestmark = pytest.mark.kafka

LARGE = "x" * 900_000
TOO_LARGE = b"{" + b"x" * 1_020_000
"""A broker takes it; together with the headers of a dead letter it would not."""
NO_VALUES: Any = (("ce_type", None), ("trace", None))
"""Headers as Kafka allows them, and some producers write them for what they do not know."""
CREATED = [("payment.created", "PENDING")]
CANCELLED = [("payment.created", "PENDING"), ("payment.cancelled", "CANCELLED")]


def fields(order_id: str, **more: Any) -> dict[str, Any]:
    return {
        "orderId": order_id,
        "orderNumber": f"N-{order_id}",
        "userId": f"user-{order_id}",
        "totalAmount": 99.99,
        "currency": "USD",
        "timestamp": "2026-01-31T12:00:00.000Z",
        "source": "order-service",
        **more,
    }


def a_message(body: Any, partition: int = 0, key: bytes | None = None, **headers: str) -> Message:
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(value, partition, key, tuple((name, text.encode()) for name, text in headers.items()))


def created(order_id: str, partition: int = 0, **more: Any) -> Message:
    return a_message({"eventType": "order.created", **fields(order_id, **more)}, partition, b"order.created")


def cancelled(order_id: str, partition: int = 0, **more: Any) -> Message:
    body = {"topic": "order.cancelled", "orderId": order_id, "userId": f"user-{order_id}", **more}
    return a_message(body, partition, b"order.cancelled")


SHAPES = {
    "topic": a_message({"topic": "order.created", **fields("topic")}, 0),
    "eventType": a_message({"eventType": "order.created", **fields("eventType")}, 1, b"order.created"),
    "type": a_message({"type": "order.created", **fields("type")}, 2, b"\xff\xfe\x00"),
    "detail-type": a_message({"detail-type": "order.created", **fields("detail-type")}, 3, b""),
    "data-topic": a_message({"topic": "order.created", "data": fields("data-topic")}, 0),
    "data-eventType": a_message({"eventType": "order.created", "data": fields("data-eventType")}, 1),
    "data-type": a_message({"type": "order.created", "data": fields("data-type")}, 2),
    "data-detail-type": a_message({"detail-type": "order.created", "data": fields("data-detail-type")}, 3),
    "ce-binary": a_message(
        fields("ce-binary"), 0, b"k", ce_type="order.created", ce_id="1", ce_source="/orders", ce_specversion="1.0"
    ),
    "ce-structured": a_message(
        {"specversion": "1.0", "id": "2", "source": "/o", "type": "order.created", "data": fields("ce-structured")},
        1,
        **{"content-type": "application/cloudevents+json; charset=UTF-8"},
    ),
    "text-amount": created("text-amount", 2, totalAmount="99.99"),
    "whole-amount": created("whole-amount", 3, totalAmount="99.990"),
    "unknown-fields": created("unknown-fields", 0, items=[{"sku": 1, "name": "Grüße 🎈"}], nested={"a": {"b": [None]}}),
    "large": created("large", 1, notes=LARGE),
    "no-header-values": created("no-header-values", 2)._replace(headers=NO_VALUES),
}
"""By order id; each is 99.99 USD of `user-<order id>`."""

JUNK = {
    b"{not json": "MALFORMED_JSON",
    b"\xff\xfe\xfd": "MALFORMED_JSON",
    b"": "MALFORMED_JSON",
    b'{"type": "order.created", "orderId": "\\ud800"}': "MALFORMED_JSON",
    b"[1, 2]": "VALIDATION_ERROR",
    b'"order.created"': "VALIDATION_ERROR",
    b"12": "VALIDATION_ERROR",
    b'{"type": "order.created"}': "VALIDATION_ERROR",
    b'{"type": "order.created", "data": "nothing"}': "VALIDATION_ERROR",
    b'{"type": "order.cancelled", "orderId": ""}': "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad-1", userId=None)}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad-2", totalAmount=None)}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad-3", totalAmount="12.345")}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad-4", totalAmount=-1)}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad-5", totalAmount=True)}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad-6", currency="XXQ")}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad-7", userId=["u"])}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad-8", orderId={"a": 1})}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad-9", paymentProvider="VISA")}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("bad\x00nul")}).encode(): "VALIDATION_ERROR",
    json.dumps({"type": "order.created", **fields("o" * 129)}).encode(): "VALIDATION_ERROR",
    b'{"large": "' + b"j" * 900_000: "MALFORMED_JSON",
}
"""Every value that nobody can make a payment of, and why."""

NOTHING_FOR_US = [
    Message(None, 0, b"tombstone"),
    a_message({"type": "order.shipped", **fields("shipped")}, 2),
    a_message(fields("without-type"), 3),
    a_message({}, 0),
    a_message({"type": ["order.created"], **fields("type-list")}, 1),
    a_message({"type": "order.created", **fields("ce-other")}, 2, ce_type="order.shipped"),
]

STORIES = [
    # The same event again, also as a retry of the producer would stamp it anew.
    *(created("twice", 0), created("twice", 0), created("twice", 0, timestamp="2026-02-01T00:00:00.000Z", source="x")),
    *(created("corrected", 1), created("corrected", 1, totalAmount=12.5, currency="EUR"), created("corrected", 1)),
    *(created("handed-over", 2), created("handed-over", 2, userId="another")),
    *(cancelled("early", 3, reason="too late"), created("early", 3)),
    *(created("cancelled", 0), cancelled("cancelled", 0), cancelled("cancelled", 0), created("cancelled", 0)),
    cancelled("never-created", 1),
    *(created("yen", 2, totalAmount=5000, currency="JPY"), created("dinar", 3, totalAmount="1.234", currency="KWD")),
    created("4711", 0, orderId=4711, userId="user-4711"),
]

HEARD: dict[str, list[tuple[str, str]]] = {
    **dict.fromkeys(SHAPES, CREATED),
    **dict.fromkeys(("twice", "yen", "dinar", "4711"), CREATED),
    **dict.fromkeys(("corrected", "handed-over"), CREATED * 2),
    "cancelled": CANCELLED,
    "early": [("payment.created", "CANCELLED"), ("payment.cancelled", "CANCELLED")],
    "never-created": [],
}

ROWS: dict[str, tuple[str, int, str]] = {
    **{order_id: (f"user-{order_id}", 9999, "USD") for order_id in HEARD},
    "corrected": ("user-corrected", 1250, "EUR"),
    "handed-over": ("another", 9999, "USD"),
    "yen": ("user-yen", 5000, "JPY"),
    "dinar": ("user-dinar", 1234, "KWD"),
    "never-created": ("user-never-created", 0, "USD"),
}


async def check_payments(site: Installation, last: Mapping[str, list[tuple[str, str]]]) -> None:
    books = await audit(site)
    heard = {**HEARD, **last}
    assert {order_id: books.events(order_id) for order_id in books.payments} == heard
    for order_id, (user_id, amount_minor, currency) in ROWS.items():
        row = books.payments[order_id]
        assert row["id"] == payment_id_of(order_id)
        assert (row["user_id"], row["amount_minor"]) == (user_id, amount_minor), order_id
        assert row["currency"] == currency or order_id == "never-created"
        assert row["status"] == (heard[order_id][-1][1] if heard[order_id] else "CANCELLED")
        assert not row["needs_review"]
    await until_table_agrees(site, books)


async def test_orders_of_every_shape_become_payments_and_junk_stops_nothing(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with Installation(tmp_path, kafka_broker, database_url) as site:
        await site.make_order_topic()
        junk = [Message(value, number % 4, b"\xc3\x28", NO_VALUES) for number, value in enumerate((*JUNK, TOO_LARGE))]
        await site.produce(*SHAPES.values(), *junk[:12], *NOTHING_FOR_US, *STORIES, *junk[12:])
        await site.produce(*(created(f"last-{number}", number) for number in range(4)))
        last = {f"last-{number}": CREATED for number in range(4)}
        worker = await site.started()
        await site.until_told(len(HEARD) + len(last))
        await site.all_committed()
        await check_payments(site, last)
        await check_letters(site, junk)
        assert await worker.stop() < (0, 30.0)

        # All of it again, as a producer that lost its answers sends it: nothing changes but for the dead letters.
        inbox = site.count("inbox")
        await site.produce(*SHAPES.values(), *junk[:2], *NOTHING_FOR_US, *STORIES)
        await site.produce(*(created(f"again-{number}", number) for number in range(4)))
        last |= {f"again-{number}": CREATED for number in range(4)}
        worker.start()
        await site.until_told(len(HEARD) + len(last))
        await site.all_committed()
        await check_payments(site, last)
        assert site.count("inbox") == inbox + 4


async def test_orders_may_come_compressed(kafka_broker: str, database_url: str, tmp_path: Path) -> None:
    """By the shop's producer, or by the broker, which may do it for a topic by itself."""
    async with Installation(tmp_path, kafka_broker, database_url) as site:
        await site.make_order_topic()
        for number, codec in enumerate(("gzip", "snappy", "lz4", "zstd")):
            await site.produce(created(codec, number), compression=codec)
        worker = await site.started()
        await site.until_told(4)
        await site.all_committed()
        assert await worker.stop() < (0, 30.0)


async def test_an_order_that_its_shop_took_back_in_the_same_transaction_is_none(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    """What was aborted is in the log all the same."""
    async with Installation(tmp_path, kafka_broker, database_url) as site:
        await site.make_order_topic()
        producer = AIOKafkaProducer(bootstrap_servers=site.broker, transactional_id=f"{site.prefix}shop")
        async with producer:
            for order_id, end in (("aborted", producer.abort_transaction), ("kept", producer.commit_transaction)):
                await producer.begin_transaction()
                await producer.send_and_wait(site.orders, created(order_id).value, partition=0)
                await end()
        await site.produce(created("later", 0))
        worker = await site.started()
        await site.all_committed()
        await site.until_told(2)
        assert {row[0] for row in site.rows("select order_id from payment_service.payments")} == {"kept", "later"}
        assert await worker.stop() < (0, 30.0)


async def test_a_log_that_ends_before_what_was_committed_is_read_whole(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    """As after an election of a replica that was behind, or on a copy of the cluster: the group's offsets say more than
    there is, and the orders that come then have offsets that were committed before."""
    async with Installation(tmp_path, kafka_broker, database_url) as site:
        await site.make_order_topic()
        await site.produce(*(created(f"first-{number}", number % 4) for number in range(8)))
        consumer = AIOKafkaConsumer(bootstrap_servers=site.broker, group_id=site.group, enable_auto_commit=False)
        async with consumer:
            consumer.assign([TopicPartition(site.orders, number) for number in range(PARTITIONS)])
            await consumer.commit(dict.fromkeys(consumer.assignment(), 1000))
        worker = await site.started()
        await site.until_told(8)
        await site.all_committed()
        await site.produce(*(created(f"next-{number}", number % 4) for number in range(8)))
        await site.until_told(16)
        await site.all_committed()
        assert await worker.stop() < (0, 30.0)


async def check_letters(site: Installation, junk: list[Message]) -> None:
    """Each once, as it came, with its reason and its place; the one that fits no message is in PostgreSQL."""
    fitting = [message for message in junk if message.value != TOO_LARGE]
    letters = await read_all(site, ["payment-dead-letters"], len(fitting))
    assert sorted(letter.value or b"" for letter in letters) == sorted(message.value or b"" for message in fitting)
    source = {(it.topic, it.partition, it.offset): it for it in await read_all(site, ["orders"])}
    for letter in letters:
        assert letter.value is not None and letter.key == b"\xc3\x28"
        headers = {name: text.decode() for name, text in letter.headers}
        assert headers["reason"] == JUNK[letter.value]
        assert headers["error"].startswith("Malformed: ") and "user-" not in headers["error"]
        assert headers["source-topic"] == site.orders
        place = "orders", int(headers["source-partition"]), int(headers["source-offset"])
        assert source[place].value == letter.value
    kept = site.rows('select topic, key, value, reason, partition, "offset" from payment_service.dead_letters')
    assert [(row[0], bytes(row[1]), bytes(row[2]), row[3]) for row in kept] == [
        (site.orders, b"\xc3\x28", TOO_LARGE, "MALFORMED_JSON")
    ]
    assert source["orders", kept[0][4], kept[0][5]].value == TOO_LARGE
