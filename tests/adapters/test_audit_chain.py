"""The chain's hash is HMAC-SHA256 as everybody computes it: what was written before stays verifiable."""

import hmac
import random

import pytest

from payment_service.adapters.audit_chain import START, mac, next_audit_hash, next_hash


@pytest.mark.parametrize("key_bytes", [0, 1, 32, 63, 64, 65, 200])
def test_it_is_the_hmac_of_the_standard_library(key_bytes: int) -> None:
    dice = random.Random(key_bytes)
    key = dice.randbytes(key_bytes)
    for length in (0, 1, 64, 500):
        message = dice.randbytes(length)
        assert mac(key, message) == hmac.digest(key, message, "sha256")


def test_a_test_case_of_rfc_4231() -> None:
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert mac(b"Jefe", b"what do ya want for nothing?").hex() == expected


def test_a_hash_covers_what_came_before_and_its_place() -> None:
    first = next_hash(b"k" * 32, b"", "pay_1", 1, None, "PaymentCreated", b"{}")
    assert first == hmac.digest(b"k" * 32, START + b"pay_1\n1\nNone\nPaymentCreated\n{}", "sha256")
    assert next_hash(b"k" * 32, first, "pay_1", 1, None, "PaymentCreated", b"{}") != first
    assert next_audit_hash(b"k" * 32, b"", "pay_1", 1, b"{}") != first
