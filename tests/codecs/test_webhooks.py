"""The sealed record of `payment-webhooks`: what we put in comes out, and nobody else can put anything in."""

from dataclasses import replace

import pytest

from payment_service.adapters.sealing import AesGcmCipher
from payment_service.codecs.webhooks import decode_webhook, encode_webhook
from payment_service.core.errors import Malformed
from payment_service.core.webhooks import ReceivedWebhook

CIPHER = AesGcmCipher(b"k" * 32)
WEBHOOK = ReceivedWebhook("STRIPE", "evt_1", "charge.succeeded", 1, 2, "pay_1", "pi_1", b'{"id":\n"evt_1", "x":"\xff"}')
GOLDEN = (
    b'{"v":1,"provider":"STRIPE","event_id":"evt_1","type":"charge.succeeded","created_at_ms":1,"received_at_ms":2,'
    b'"payment_id":"pay_1","object_id":"pi_1"}\n{"id":\n"evt_1", "x":"\xff"}'
)


def test_the_body_comes_out_byte_for_byte_and_nothing_is_readable() -> None:
    key, value = encode_webhook(WEBHOOK, CIPHER)
    assert key == b"pay_1"
    assert decode_webhook(key, value, CIPHER) == WEBHOOK
    assert b"evt_1" not in value and b"pay_1" not in value


def test_what_earlier_versions_wrote_stays_readable() -> None:
    assert decode_webhook(b"pay_1", CIPHER.seal(GOLDEN, "payment-webhooks:pay_1"), CIPHER) == WEBHOOK


@pytest.mark.parametrize(
    ("changes", "key"), [({"payment_id": None}, b"pi_1"), ({"payment_id": None, "object_id": None}, b"evt_1")]
)
def test_the_key_is_what_is_known(changes: dict[str, None], key: bytes) -> None:
    assert encode_webhook(replace(WEBHOOK, **changes), CIPHER)[0] == key


def test_what_was_moved_changed_or_made_by_others_is_malformed() -> None:
    key, value = encode_webhook(WEBHOOK, CIPHER)
    foreign = encode_webhook(WEBHOOK, AesGcmCipher(b"x" * 32))[1]
    moved = CIPHER.seal(GOLDEN, "payment-webhooks:pay_2")
    for wrong_key, wrong in (
        (b"pay_2", value), (None, value), (key, None), (key, b""), (key, value[:-1] + b"x"), (key, foreign),
        (b"pay_2", moved), (key, b"{}"), *((key, CIPHER.seal(plain, "payment-webhooks:pay_1")) for plain in (
            b"", b"\n", b"{}\n", b"[]\n", b"null\n", GOLDEN.replace(b'"v":1', b'"v":2'),
            GOLDEN.replace(b"STRIPE", b""), GOLDEN.replace(b'"type"', b'"tipe"'),
        )),
    ):  # fmt: skip
        with pytest.raises(Malformed) as malformed:
            decode_webhook(wrong_key, wrong, CIPHER)
        assert "evt_1" not in str(malformed.value)
