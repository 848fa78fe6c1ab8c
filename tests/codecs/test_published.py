"""What goes out on payment.*: the contract's body for every topic (contract §4), and never a secret."""

import re
from decimal import Decimal
from typing import Any

import orjson
import pytest
from rigs.histories import PAYMENT_ID, run

from payment_service.codecs.published import cloud_event_headers, decode_published, encode_published, event_id
from payment_service.codecs.times import from_rfc3339
from payment_service.core.errors import Malformed
from payment_service.core.money import EXPONENTS
from payment_service.core.ports import Step
from payment_service.core.terms import Status, Topic

REFUND_TOPICS = {Topic.REFUNDED, Topic.REFUND_FAILED}
ALWAYS = {
    "paymentId", "orderId", "userId", "status", "amount", "amountMinor", "currency", "paymentProvider", "amounts",
}  # fmt: skip
SOMETIMES = {"paymentMethodId", "providerPaymentId", "refundId", "refundAmount", "refundAmountMinor", "reason", "error"}
# topic, history whose last publication is on it, what its data says
LAST_WORDS: list[tuple[Topic, str, dict[str, Any]]] = [
    (Topic.CREATED, "created", {"status": "PENDING"}),
    (Topic.CREATED, "created, order amount=500", {"status": "PENDING", "amountMinor": 500}),
    (Topic.CREATED, "created, cancel, created", {"status": "PENDING"}),
    (Topic.PROCESSED, "created, charge, object, approved", {"status": "SUCCEEDED", "providerPaymentId": "pi_1"}),
    (Topic.PROCESSED, "created manual, charge, object, approved", {"status": "AUTHORIZED"}),
    (Topic.PROCESSED, "created manual, charge, object, approved, capture, unknown, declined", {"status": "AUTHORIZED"}),
    (Topic.FAILED, "created, charge, declined", {"status": "FAILED", "error": "DECLINED", "reason": "DECLINED"}),
    (Topic.FAILED, "created, charge, object, action, expire-action, approved", {"error": "ACTION_EXPIRED"}),
    (Topic.FAILED, "created, charge, unknown, not-sent by=operator", {"status": "PENDING", "error": "NOT_SENT"}),
    (Topic.REQUIRES_ACTION, "created, charge, object, action", {"status": "REQUIRES_ACTION"}),
    (Topic.UNKNOWN, "created, charge, object, unknown", {"status": "UNKNOWN", "error": "UNKNOWN"}),
    (Topic.CANCELLED, "created, cancel", {"status": "CANCELLED", "reason": "changed my mind"}),
    (Topic.CANCELLED, "order-cancel, order", {"status": "CANCELLED", "reason": "cancelled before creation"}),
    (
        Topic.CANCELLED,
        "created manual, charge, object, approved, expire-authorization",
        {"status": "CANCELLED", "reason": "AUTHORIZATION_EXPIRED"},
    ),
    (
        Topic.REFUNDED,
        "created, charge, object, approved, refund 1234, approved r#1",
        {"status": "PARTIALLY_REFUNDED", "refundAmount": 12.34, "refundAmountMinor": 1234},
    ),
    (Topic.REFUNDED, "created, charge, object, approved, external 3000 re_9", {"status": "REFUNDED"}),
    (
        Topic.REFUND_FAILED,
        "created, charge, object, approved, refund 1234, approved r#1, declined r#1",
        {"status": "SUCCEEDED", "refundAmountMinor": 1234, "error": "DECLINED"},
    ),
    (Topic.DISPUTED, "created, charge, object, approved, dispute open 700", {"status": "SUCCEEDED", "reason": "OPEN"}),
]


def published(history: str) -> list[tuple[Topic, bytes]]:
    _, told = run(history)
    return [
        (
            said.topic,
            encode_published(Step(said.event, said.after.version, said.after.sequence, said.topic, said.after)),
        )
        for said in told
        if said.topic is not None
    ]


def check(topic: Topic, value: bytes, sequence: int) -> dict[str, Any]:
    """The contract's shape, field by field. Returns the data."""
    body: dict[str, Any] = orjson.loads(value)
    assert list(body) == ["id", "eventType", "source", "timestamp", "sequence", "data"]
    assert body["eventType"] == topic
    assert body["source"] == "payment-service"
    assert body["sequence"] == sequence
    assert body["id"] == event_id(PAYMENT_ID, sequence)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", body["timestamp"])
    assert from_rfc3339(body["timestamp"]) % 10 == 0
    data: dict[str, Any] = body["data"]
    assert set(data) >= ALWAYS
    assert set(data) <= ALWAYS | SOMETIMES
    assert data["status"] in Status.__members__
    assert isinstance(data["amountMinor"], int)
    assert Decimal(str(data["amount"])).scaleb(EXPONENTS[data["currency"]]) == data["amountMinor"]
    assert list(data["amounts"]) == ["authorized", "captured", "refundPending", "refunded", "disputed"]
    assert all(type(amount) is int for amount in data["amounts"].values())
    assert {"refundId", "refundAmount", "refundAmountMinor"} <= set(data) or topic not in REFUND_TOPICS
    assert (topic in REFUND_TOPICS) == ("refundId" in data)
    if "refundId" in data:
        assert Decimal(str(data["refundAmount"])).scaleb(2) == data["refundAmountMinor"]
    assert all(isinstance(data[name], str) for name in SOMETIMES & set(data) if not name.startswith("refundAmount"))
    return data


@pytest.mark.parametrize(("topic", "history", "says"), LAST_WORDS, ids=[f"{row[0]}: {row[1]}" for row in LAST_WORDS])
def test_the_body_of_each_topic(topic: Topic, history: str, says: dict[str, Any]) -> None:
    words = published(history)
    for sequence, (said, value) in enumerate(words, start=1):
        data = check(said, value, sequence)
        assert decode_published(value)["data"] == data
    assert words[-1][0] is topic
    assert says.items() <= check(*words[-1], sequence=len(words)).items()


def test_every_topic_is_shown() -> None:
    assert {row[0] for row in LAST_WORDS} == set(Topic)


@pytest.mark.parametrize(("currency", "amount"), [("JPY", 3000), ("USD", 30), ("KWD", 3)])
def test_amounts_are_in_the_currencys_own_units(currency: str, amount: int) -> None:
    ((topic, value),) = published(f"created currency={currency}")
    data = check(topic, value, sequence=1)
    assert (data["amount"], data["amountMinor"]) == (amount, 3000)


def test_no_token_and_no_metadata_is_published() -> None:
    """A saved method's id is ours and may be told; what moves money, and what the caller noted, may not."""
    for topic, history, _ in LAST_WORDS:
        for _, value in published(history.replace("created", "created method=pmt_1", 1)):
            assert not re.search(rb"tok_|client_secret|clientSecret|metadata|nextAction", value), topic


def test_the_same_step_is_published_as_the_same_bytes_and_id() -> None:
    assert published(LAST_WORDS[-1][1]) == published(LAST_WORDS[-1][1])


def test_cloud_event_headers_are_the_binary_binding() -> None:
    headers = dict(cloud_event_headers("payment.created", PAYMENT_ID, 7, "2026-11-24T10:00:00.000Z", "00-a-b-01"))
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": event_id(PAYMENT_ID, 7).encode(),
        "ce_source": b"payment-service",
        "ce_type": b"payment.created",
        "ce_subject": PAYMENT_ID.encode(),
        "ce_time": b"2026-11-24T10:00:00.000Z",
        "content-type": b"application/json",
        "traceparent": b"00-a-b-01",
    }
    assert "traceparent" not in dict(cloud_event_headers("payment.created", PAYMENT_ID, 7, "", None))


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"7", b'{"sequence":"1","data":{"paymentId":"p"}}', b"\xff"])
def test_what_is_no_published_event_is_malformed(value: bytes) -> None:
    with pytest.raises(Malformed):
        decode_published(value)
