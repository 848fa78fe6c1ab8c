"""asyncapi.yaml is valid AsyncAPI 3.0, names every topic, and is true of every event that is published."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from rigs.histories import PAYMENT_ID, run

from payment_service.codecs.published import cloud_event_headers, encode_published
from payment_service.core.dead_letters import OURS
from payment_service.core.ports import Step
from payment_service.core.terms import Topic

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "asyncapi.yaml").read_text())
HISTORIES = [
    "created, charge, object, approved, refund 1234, approved r#1, declined r#1",
    "created, charge, declined, charge, object, approved, dispute open 700, dispute won 700",
    "created manual, charge, object, approved, capture, unknown, declined, cancel",
    "created, charge, object, action, expire-action, approved",
    "created, charge, object, unknown, not-sent by=operator, cancel, created",
    "created, charge, object, approved, external 3000 re_9",
    "order-cancel, order",
]


def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


def test_it_is_valid_asyncapi_3_0() -> None:
    """Against the specification's own schema (npm @asyncapi/specs, schemas/3.0.0-without-$id.json)."""
    schema = orjson.loads((Path(__file__).parent / "asyncapi_3.0.0.json").read_bytes())
    assert not [error.message for error in Draft7Validator(schema).iter_errors(DOCUMENT)]


def test_every_topic_that_others_see_is_in_it() -> None:
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert addresses == {topic.value for topic in Topic} | {"orders", "payment-dead-letters"}
    assert set(DOCUMENT["components"]["schemas"]["PaymentEvent"]["properties"]["eventType"]["enum"]) == set(Topic)
    letter = DOCUMENT["components"]["messages"]["deadLetter"]["headers"]
    assert set(letter["properties"]) == set(OURS)


@pytest.mark.parametrize("history", HISTORIES)
def test_events_are_as_described(history: str) -> None:
    _, told = run(history)
    steps = [Step(one.event, one.after.version, one.after.sequence, one.topic, one.after) for one in told if one.topic]
    assert steps
    for step in steps:
        event = orjson.loads(encode_published(step))
        validator("PaymentEvent").validate(event)
        assert step.topic is not None
        assert step.sequence is not None
        headers = cloud_event_headers(step.topic, PAYMENT_ID, step.sequence, event["timestamp"], None)
        validator("CloudEventHeaders").validate({name: value.decode() for name, value in headers})


def test_a_wrong_event_is_noticed() -> None:
    _, told = run("created")
    step = Step(told[0].event, 1, 1, told[0].topic, told[0].after)
    event = orjson.loads(encode_published(step))
    for wrong in ({"sequence": 0}, {"eventType": "payment.lost"}, {"more": 1}, {"timestamp": "2026-01-01"}):
        assert not validator("PaymentEvent").is_valid(event | wrong)
