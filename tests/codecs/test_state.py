"""The stored state, secrets and requests: what is written is read back equal, and nothing else is read at all."""

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs.histories import given as payment_after

from payment_service.codecs.state import (
    decode_call,
    decode_secrets,
    decode_state,
    decode_traced_call,
    encode_call,
    encode_secrets,
    encode_state,
)
from payment_service.core.errors import Malformed
from payment_service.core.payment import Payment, status_of
from payment_service.core.ports import NO_SECRETS, NextAction, ProviderCall, Secrets
from payment_service.core.terms import CaptureMethod, Kind, Status

LIVES = [
    "order-cancel",
    "created",
    "order charge",
    "created manual, charge, object, action, charge, unknown, pending, approved, capture 1000, approved amount=1000",
    "created, charge, object, approved, refund 1000, approved r#1, declined r#1, approved r#1, external 500 re_9, "
    "dispute open 700, dispute won, dispute open 900 dp_2, flag ODD, declined #1",
    "created, charge, object, action, expire-action, cancel, approved, created",
]
FIRST_VERSION = (
    b'{"payment_id":"pay_1","order_id":"o","user_id":"u","amount_minor":9999,"currency":"EUR","provider":"stripe",'
    b'"payment_method_id":null,"capture_method":"automatic","description":null,"metadata":{},"created_at_ms":1,'
    b'"updated_at_ms":2,"attempts":[{"number":1,"kind":"CHARGE","amount_minor":9999,"state":"OPEN",'
    b'"provider":"stripe","scheduled":true,"started_at_ms":2,"updated_at_ms":2}],"refunds":[],"disputes":[],"review":[]}'
)
"""A row that an older version wrote: fields that came later take their defaults."""

CALL = ProviderCall(
    "pay_1:charge:1", Kind.CHARGE, 1, "pay_1", "order-1", "stripe", 9999, "EUR", CaptureMethod.MANUAL, "pi_1",
    "pay_1:object:1", "tok_visa", "https://shop.example/back", "Two books", None,
)  # fmt: skip


@pytest.mark.parametrize("history", LIVES)
def test_a_state_is_read_back_equal_and_written_as_the_same_bytes(history: str) -> None:
    payment = payment_after(history)
    data = encode_state(payment)
    assert decode_state(data) == payment
    assert decode_state(data.decode()) == payment
    assert encode_state(decode_state(data)) == data


def test_words_come_back_as_words_of_core() -> None:
    payment = decode_state(encode_state(payment_after(LIVES[4])))
    words: list[object] = [payment.capture_method, payment.told, payment.attempts[0].kind, payment.attempts[0].state]
    words += [payment.refunds[0].status, payment.disputes[0].state]
    assert all(type(word) is not str and isinstance(word, str) for word in words)
    assert isinstance(payment.attempts, tuple)
    assert isinstance(payment.review, tuple)


def test_a_row_of_an_older_version_is_read() -> None:
    payment = decode_state(FIRST_VERSION)
    assert isinstance(payment, Payment)
    assert status_of(payment) is Status.PROCESSING
    assert (payment.told, payment.attempts[0].object_number) == (None, 0)


def test_secrets_and_requests_come_back_equal() -> None:
    secrets = Secrets("tok_visa", NextAction("redirect", "https://provider.example/3ds", None))
    for kept in (NO_SECRETS, Secrets("tok_visa"), secrets):
        assert decode_secrets(encode_secrets(kept)) == kept
    assert decode_call(encode_call(CALL)) == CALL
    assert decode_traced_call(encode_call(CALL)) == (CALL, None)
    assert decode_traced_call(encode_call(CALL, '00-a"b-01')) == (CALL, '00-a"b-01')
    assert decode_call(encode_call(CALL, "00-a")) == CALL
    assert "tok_visa" not in repr(CALL) + repr(secrets)
    assert "provider.example" not in repr(secrets)


@given(st.binary(max_size=100), st.integers(0, 2000), st.integers(0, 3))
def test_damage_is_malformed_or_a_payment(junk: bytes, at: int, cut: int) -> None:
    data = encode_state(payment_after(LIVES[3]))
    for damaged in (junk, data[: at % len(data)] + junk[:3] + data[at % len(data) + cut :]):
        for decode in (decode_state, decode_secrets, decode_call):
            with contextlib.suppress(Malformed):
                decode(damaged)


@pytest.mark.parametrize("broken", [b"", b"null", b"[]", b"{}", b'"x"', b"7"])
def test_what_we_never_wrote_is_malformed(broken: bytes) -> None:
    for decode in (decode_state, decode_secrets, decode_call):
        with pytest.raises(Malformed):
            decode(broken)


def test_an_unknown_field_is_malformed() -> None:
    fields = orjson.loads(encode_state(payment_after("created")))
    with pytest.raises(Malformed):
        decode_state(orjson.dumps({**fields, "colour": "blue"}))
