"""Order events in all the shapes that were seen in the wild, and junk in as many."""

from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payment_service.codecs.order_events import OrderRules, decode_order_event
from payment_service.core.commands import Cancel, CreatePayment
from payment_service.core.errors import Malformed
from payment_service.core.ids import payment_id_of

RULES = OrderRules("MOCK", auto_process=False, cancel_refunds_succeeded=False)
FIELDS = {"orderId": "o-1", "userId": "u-1", "totalAmount": 99.99, "currency": "USD"}


def decode(body: object, headers: list[tuple[str, bytes]] | None = None, rules: OrderRules = RULES) -> object:
    value = body if isinstance(body, bytes) else orjson.dumps(body)
    decoded = decode_order_event(value, headers or [], rules, 1000)
    return None if decoded is None else decoded.command


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"topic": "order.created", **FIELDS}, []),
        ({"eventType": "order.created", **FIELDS}, []),
        ({"type": "order.created", **FIELDS}, []),
        ({"detail-type": "order.created", **FIELDS}, []),
        ({"eventType": "order.created", "data": FIELDS}, []),
        ({"detail-type": "order.created", "detail": FIELDS}, []),
        (FIELDS, [("ce_type", b"order.created"), ("ce_id", b"1"), ("ce_specversion", b"1.0")]),
        (
            {"specversion": "1.0", "id": "1", "source": "/orders", "type": "order.created", "data": FIELDS},
            [("content-type", b"application/cloudevents+json; charset=UTF-8")],
        ),
        ({"topic": "order.created", **FIELDS}, [("ce_type", b"")]),
        ({"topic": "order.created", **FIELDS, "totalAmount": "99.99"}, []),
        ({"topic": "order.created", **FIELDS, "currency": "usd", "itemCount": 2, "extra": {"deep": [1]}}, []),
    ],
)
def test_every_envelope_is_the_same_command(body: object, headers: list[tuple[str, bytes]]) -> None:
    command = decode(body, headers)
    assert isinstance(command, CreatePayment)
    assert (command.payment_id, command.user_id) == (payment_id_of("o-1"), "u-1")
    assert (command.amount_minor, command.currency, command.provider) == (9999, "USD", "MOCK")
    assert command.by_order and not command.charge
    assert command.command_id == decode({"topic": "order.created", **FIELDS}).command_id  # type: ignore[union-attr]


def test_the_id_outlives_what_does_not_count_and_changes_with_what_does() -> None:
    one = decode({"topic": "order.created", **FIELDS, "timestamp": "a"})
    same = decode({"topic": "order.created", **FIELDS, "timestamp": "b", "source": "x"})
    other = decode({"topic": "order.created", **FIELDS, "totalAmount": 99.98})
    assert one.command_id == same.command_id != other.command_id  # type: ignore[union-attr]


def test_cancelled() -> None:
    command = decode({"topic": "order.cancelled", "orderId": "o-1", "userId": "u-1", "reason": "changed my mind"})
    assert isinstance(command, Cancel)
    assert command.by_order and command.reason == "changed my mind" and command.payment_id == payment_id_of("o-1")


def test_a_one_time_token_never_reaches_the_command() -> None:
    body = orjson.dumps({"topic": "order.created", **FIELDS, "paymentMethodId": "tok_visa"})
    decoded = decode_order_event(body, [], RULES, 1)
    assert decoded is not None and decoded.token == "tok_visa"
    assert "tok_visa" not in repr(decoded.command)
    saved = decode({"topic": "order.created", **FIELDS, "paymentMethodId": "pmt_1"})
    assert saved.payment_method_id == "pmt_1"  # type: ignore[union-attr]


@pytest.mark.parametrize("body", [{}, {"topic": "order.updated"}, {"type": 7}, {"orderId": "o-1"}])
def test_nothing_for_us(body: object) -> None:
    assert decode(body) is None
    assert decode_order_event(None, [], RULES, 1) is None
    assert decode({"topic": "order.created", **FIELDS}, [("ce_type", b"order.paid")]) is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff\xfe", b"{", b"[]", b"7", b'"order.created"', b"null",
        {"topic": "order.created"},
        {"topic": "order.created", **FIELDS, "orderId": ""},
        {"topic": "order.created", **FIELDS, "orderId": "x" * 129},
        {"topic": "order.created", **FIELDS, "orderId": "a\x00b"},
        {"topic": "order.created", **FIELDS, "userId": None},
        {"topic": "order.created", **FIELDS, "userId": ["u"]},
        {"topic": "order.created", **FIELDS, "totalAmount": -1},
        {"topic": "order.created", **FIELDS, "totalAmount": 0},
        {"topic": "order.created", **FIELDS, "totalAmount": 1.001},
        {"topic": "order.created", **FIELDS, "totalAmount": True},
        {"topic": "order.created", **FIELDS, "totalAmount": None},
        {"topic": "order.created", **FIELDS, "currency": "XXX"},
        {"topic": "order.created", **FIELDS, "currency": 5},
        {"topic": "order.created", **FIELDS, "paymentProvider": "ADYEN"},
        {"topic": "order.cancelled"},
    ],
)  # fmt: skip
def test_junk_is_malformed(body: object) -> None:
    with pytest.raises(Malformed):
        decode(body)


def test_a_lone_surrogate_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode(b'{"topic":"order.created","orderId":"\\ud800","userId":"u","totalAmount":1,"currency":"USD"}')


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
json_values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from([*FIELDS]), scalars, max_size=2)


@given(
    st.sampled_from(["order.created", "order.cancelled"]),
    st.dictionaries(st.sampled_from([*FIELDS, "data", "paymentMethodId", "paymentProvider", "reason"]), json_values),
)
def test_fuzzed_objects_raise_only_malformed(kind: str, fields: dict[str, object]) -> None:
    try:
        body = orjson.dumps({**fields, "topic": kind})
    except TypeError:
        return  # a number or text that JSON cannot carry
    with suppress(Malformed):
        decode(body)


@given(st.binary(max_size=64))
def test_fuzzed_bytes_raise_only_malformed(value: bytes) -> None:
    with suppress(Malformed):
        decode_order_event(value, [], RULES, 1)


def test_a_card_number_in_a_reason_is_not_kept() -> None:
    body = {"topic": "order.cancelled", "orderId": "o-1", "userId": "u-1", "reason": "paid by 4242 4242 4242 4242"}
    command = decode(body)
    assert isinstance(command, Cancel)
    assert command.reason == "paid by [card number]"
