"""What was written to payment_events stays readable for ever, byte for byte: it is hashed into the audit chain."""

import contextlib
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payment_service.codecs.events import decode_event, encode_event
from payment_service.core.errors import Malformed
from payment_service.core.events import EVENT_TYPES, AttemptDeclined, AttemptStarted, RefundCompleted

# One line is one stored row: the type and the bytes. Lines are added, never changed.
STORED = r"""
PaymentCreated {"at_ms":1764028800123,"by":"user:u1","order_id":"order-1","user_id":"u1","amount_minor":9999,
    "currency":"EUR","provider":"stripe","payment_method_id":"pmt_1","capture_method":"manual",
    "description":"Two books","metadata":{"basket":"b1","n":[1,2.5,null,true]},"unconfirmed":true}
OrderConfirmed {"at_ms":1764028800123,"by":"order","user_id":"u1","amount_minor":9999,"currency":"EUR",
    "provider":"stripe","payment_method_id":null,"changed":true}
Reopened {"at_ms":1764028800123,"by":"user:u1","provider":"paypal","payment_method_id":"pmt_2",
    "capture_method":"automatic","description":null,"metadata":{}}
CancelledBeforeCreation {"at_ms":1764028800123,"by":"order","order_id":"order-1","user_id":"u1","provider":"stripe",
    "reason":"out of stock"}
PaymentImported {"at_ms":1764028800123,"by":"operator:ann","legacy_id":"cjld2cjxh0000qzrmn831i7rn",
    "legacy_status":"SUCCEEDED","order_id":"order-1","user_id":"u1","amount_minor":9999,"currency":"USD",
    "provider":"STRIPE","payment_method_id":"pmt_1","description":null,"metadata":{"a":"b"},
    "created_at_ms":1700000000000,"updated_at_ms":1700000001000,"object_id":"pi_1",
    "calls":[{"kind":"CHARGE","state":"APPROVED","amount_minor":9999,"provider_id":"ch_1",
    "started_at_ms":1700000000000,"updated_at_ms":1700000000500,"of_object":true}],
    "refunds":[{"amount_minor":100,"status":"COMPLETED","reason":null,"provider_id":"re_1",
    "created_at_ms":1700000000700,"updated_at_ms":1700000000800,"metadata":{"legacyId":"cjld2"}}],
    "cancelled":false,"cancel_requested":false,"review":["LEGACY_FULLY_REFUNDED"]}
AttemptStarted {"at_ms":1764028800123,"by":"user:u1","number":1,"kind":"AUTHORIZE","amount_minor":9999,
    "provider":"stripe","payment_method_id":"pmt_1","scheduled":false,"cause":null,"object_id":"pi_1"}
ObjectCreated {"at_ms":1764028800123,"number":1,"object_id":"pi_1"}
ActionRequired {"at_ms":1764028800123,"number":1,"action_type":"redirect","expires_at_ms":1764032400123}
AttemptPending {"at_ms":1764028800123,"number":1,"source":"live","provider_id":"ch_1"}
AttemptApproved {"at_ms":1764028800123,"number":1,"source":"webhook","provider_id":"ch_1","amount_minor":9999,
    "counted":false}
AttemptDeclined {"at_ms":1764028800123,"number":1,"source":"lookup","code":"CARD_DECLINED",
    "message":"Your card was declined.","decline_code":"insufficient_funds","provider_id":"ch_1","object_closed":true}
AttemptNotSent {"at_ms":1764028800123,"number":1,"source":"live","code":"CIRCUIT_OPEN"}
AttemptUnknown {"at_ms":1764028800123,"number":1,"source":"live","code":"TIMEOUT"}
ExternalCapture {"at_ms":1764028800123,"number":2,"provider":"stripe","provider_id":"ch_1","amount_minor":7000,
    "object_number":1,"source":"webhook"}
AuthorizationExpired {"at_ms":1764028800123,"source":"webhook"}
CancelRequested {"at_ms":1764028800123,"by":"order","reason":"out of stock","final":true}
PaymentCancelled {"at_ms":1764028800123,"by":"system","reason":"cancelled as requested","final":true,"announced":false}
RefundRequested {"at_ms":1764028800123,"by":"service","number":1,"amount_minor":500,"reason":"Grüße zurück",
    "metadata":{"rma":"r-7"},"scheduled":true,"cause":"CANCEL"}
RefundPending {"at_ms":1764028800123,"number":1,"source":"live","provider_id":"re_1"}
RefundCompleted {"at_ms":1764028800123,"number":1,"source":"webhook","provider_id":"re_1","amount_minor":500,
    "counted":false}
RefundFailed {"at_ms":1764028800123,"number":1,"source":"webhook","code":"expired_or_canceled_card",
    "message":"The card is gone.","provider_id":"re_1"}
RefundNotSent {"at_ms":1764028800123,"number":1,"source":"live","code":"CIRCUIT_OPEN"}
RefundUnknown {"at_ms":1764028800123,"number":1,"source":"live","code":"TIMEOUT"}
ExternalRefund {"at_ms":1764028800123,"number":2,"provider_id":"re_9","amount_minor":500,"status":"COMPLETED",
    "source":"webhook"}
DisputeChanged {"at_ms":1764028800123,"dispute_id":"dp_1","state":"OPEN","amount_minor":9999,"reason":"fraudulent",
    "source":"webhook"}
Contradicted {"at_ms":1764028800123,"subject":"attempt:1","recorded":"DECLINED","said":"APPROVED","source":"lookup"}
DecidedByHand {"at_ms":1764028800123,"by":"operator:eve","subject":"attempt:1","said":"DECLINED",
    "reason":"asked the bank"}
ReviewFlagged {"at_ms":1764028800123,"by":"provider","reason":"AMOUNT_DIFFERS"}
ReviewCleared {"at_ms":1764028800123,"by":"operator:eve","reason":"looked at it"}
"""
# Rows of the first version, from before their last fields existed.
OLDER = r"""
AttemptStarted {"at_ms":1764028800123,"by":"order","number":1,"kind":"CHARGE","amount_minor":9999,"provider":"stripe",
    "payment_method_id":null,"scheduled":true}
AttemptDeclined {"at_ms":1764028800123,"number":1,"source":"live","code":"CARD_DECLINED","message":"No."}
RefundCompleted {"at_ms":1764028800123,"number":1,"source":"webhook","provider_id":"re_1","amount_minor":500}
"""


def rows_of(text: str) -> list[tuple[str, bytes]]:
    lines = text.replace("\n    ", "").strip().splitlines()
    return [(name, stored.encode()) for name, _, stored in (line.partition(" ") for line in lines)]


ROWS = rows_of(STORED)


@pytest.mark.parametrize(("name", "stored"), ROWS, ids=[name for name, _ in ROWS])
def test_stored_events_are_read_and_written_as_the_same_bytes(name: str, stored: bytes) -> None:
    event = decode_event(name, stored)
    assert type(event) is EVENT_TYPES[name]
    assert encode_event(event) == stored


def test_every_type_of_event_has_a_stored_example_with_every_field() -> None:
    assert sorted(name for name, _ in ROWS) == sorted(EVENT_TYPES)
    for name, stored in ROWS:
        assert all(f'"{field.name}":'.encode() in stored for field in fields(EVENT_TYPES[name]))


def test_words_are_decoded_to_the_words_of_core() -> None:
    for name, stored in ROWS:
        event = decode_event(name, stored)
        for field in fields(event):
            if field.name in ("source", "kind", "status", "state", "capture_method"):
                assert type(getattr(event, field.name)) is not str, f"{name}.{field.name}"


def test_missing_fields_of_older_rows_take_their_defaults() -> None:
    started, declined, completed = (decode_event(name, stored) for name, stored in rows_of(OLDER))
    assert isinstance(started, AttemptStarted)
    assert (started.cause, started.object_id) == (None, None)
    assert isinstance(declined, AttemptDeclined)
    assert (declined.decline_code, declined.provider_id, declined.object_closed) == (None, None, False)
    assert isinstance(completed, RefundCompleted)
    assert completed.counted


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("PaymentMoved", b"{}"),
        ("ReviewFlagged", b""),
        ("ReviewFlagged", b"null"),
        ("ReviewFlagged", b"[]"),
        ("ReviewFlagged", b'"at_ms"'),
        ("ReviewFlagged", b'{"at_ms":1,"by":"a"}'),
        ("ReviewFlagged", b'{"at_ms":1,"by":"a","reason":"b","more":1}'),
        ("AuthorizationExpired", b'{"at_ms":1,"source":"rumour"}'),
        ("AuthorizationExpired", b'{"at_ms":1,"source":[]}'),
        ("AuthorizationExpired", b'{"at_ms":1,"source":{"a":1}}'),
        ("ReviewFlagged", b"\xff\xfe"),
        ("ReviewFlagged", b"[" * 5000),
    ],
)
def test_what_no_version_has_written_is_malformed(name: str, stored: bytes) -> None:
    with pytest.raises(Malformed):
        decode_event(name, stored)


@given(st.sampled_from(sorted(EVENT_TYPES)), st.binary(max_size=200))
def test_any_bytes_are_an_event_or_malformed(name: str, data: bytes) -> None:
    read_or_malformed(name, data)


@given(st.sampled_from(ROWS), st.data())
def test_damaged_rows_are_an_event_or_malformed(row: tuple[str, bytes], data: st.DataObject) -> None:
    name, stored = row
    at = data.draw(st.integers(0, len(stored) - 1))
    junk = data.draw(st.binary(max_size=3))
    read_or_malformed(name, stored[:at] + junk + stored[at + data.draw(st.integers(0, 3)) :])
    read_or_malformed(data.draw(st.sampled_from(sorted(EVENT_TYPES))), stored)


def read_or_malformed(name: str, data: bytes) -> None:
    with contextlib.suppress(Malformed):
        decode_event(name, data)


def test_the_error_repeats_nothing_of_the_content() -> None:
    with pytest.raises(Malformed) as caught:
        decode_event("ReviewFlagged", b'{"at_ms":1,"by":"a","reason":"b","4242424242424242":1}')
    assert "4242" not in str(caught.value)
