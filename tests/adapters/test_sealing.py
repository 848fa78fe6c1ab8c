"""Sealed values: only with the key, only where they were put, and whatever key they were sealed with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payment_service.adapters.audit_chain import START, chain_key, next_hash
from payment_service.adapters.sealing import NONCE_BYTES, AesGcmCipher
from payment_service.core.errors import Malformed

OLD, NEW = b"o" * 32, b"n" * 32
PLACE = "payments.secrets:pay_1"


@given(st.binary(max_size=2000), st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_what_was_sealed_comes_back(plain: bytes, place: str) -> None:
    cipher = AesGcmCipher(NEW)
    assert cipher.unseal(cipher.seal(plain, place), place) == plain


def test_the_same_value_never_looks_the_same() -> None:
    cipher = AesGcmCipher(NEW)
    assert cipher.seal(b"tok_visa", PLACE) != cipher.seal(b"tok_visa", PLACE)
    assert b"tok_visa" not in cipher.seal(b"tok_visa", PLACE)


def test_a_value_cannot_be_moved() -> None:
    cipher = AesGcmCipher(NEW)
    with pytest.raises(Malformed):
        cipher.unseal(cipher.seal(b"secret", PLACE), "payments.secrets:pay_2")


def test_every_changed_byte_is_noticed() -> None:
    cipher = AesGcmCipher(NEW)
    sealed = cipher.seal(b"secret", PLACE)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(Malformed):
            cipher.unseal(bytes(changed), PLACE)


def test_every_cut_is_noticed() -> None:
    cipher = AesGcmCipher(NEW)
    sealed = cipher.seal(b"secret", PLACE)
    for length in range(len(sealed)):
        with pytest.raises(Malformed):
            cipher.unseal(sealed[:length], PLACE)
    assert len(sealed) > NONCE_BYTES


def test_after_a_rotation_old_values_are_still_read_and_new_ones_need_the_new_key() -> None:
    before, after = AesGcmCipher(OLD), AesGcmCipher(NEW, [OLD])
    assert after.unseal(before.seal(b"secret", PLACE), PLACE) == b"secret"
    with pytest.raises(Malformed):
        before.unseal(after.seal(b"secret", PLACE), PLACE)
    with pytest.raises(Malformed):
        AesGcmCipher(NEW).unseal(before.seal(b"secret", PLACE), PLACE)


def test_the_keys_are_not_shown() -> None:
    assert "n" * 8 not in repr(AesGcmCipher(NEW, [OLD]))


# --- the audit chain -------------------------------------------------------------------------------------------


def test_the_chain_key_is_not_the_encryption_key() -> None:
    assert chain_key(NEW) not in (NEW, chain_key(OLD))
    assert chain_key(NEW) == chain_key(NEW)


def test_every_part_of_a_fact_and_of_its_place_is_in_its_hash() -> None:
    fact = (NEW, START, "pay_1", 1, 1, "PaymentCreated", b"{}")
    others = [
        (OLD, START, "pay_1", 1, 1, "PaymentCreated", b"{}"),
        (NEW, b"x" * 32, "pay_1", 1, 1, "PaymentCreated", b"{}"),
        (NEW, START, "pay_2", 1, 1, "PaymentCreated", b"{}"),
        (NEW, START, "pay_1", 2, 1, "PaymentCreated", b"{}"),
        (NEW, START, "pay_1", 1, None, "PaymentCreated", b"{}"),
        (NEW, START, "pay_1", 1, 1, "Reopened", b"{}"),
        (NEW, START, "pay_1", 1, 1, "PaymentCreated", b"{ }"),
    ]
    assert len({next_hash(*values) for values in (fact, *others)}) == len(others) + 1
    assert next_hash(NEW, b"", *fact[2:]) == next_hash(*fact)
