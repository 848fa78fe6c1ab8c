"""Audit chains, of a payment and of the audit log: each stored row is hashed together with the hash before it.

Room: adapters. HMAC-SHA256 keyed from outside the database (HKDF of the encryption key), so that somebody who can
write the database still cannot write a chain that fits.
"""

import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

START = b"\0" * 32
"""What stands before the first fact."""


def chain_key(encryption_key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"payment-service audit chain").derive(encryption_key)


def next_hash(
    key: bytes, before: bytes, payment_id: str, version: int, sequence: int | None, type_name: str, data: bytes
) -> bytes:
    """Over the stored bytes and their place; the texts contain no newline."""
    place = f"{payment_id}\n{version}\n{sequence}\n{type_name}\n".encode()
    return hmac.digest(key, (before or START) + place + data, "sha256")


def next_audit_hash(key: bytes, before: bytes, chain: str, number: int, entry: bytes) -> bytes:
    """Of a row of the audit log. No payment's row has a place that looks like this one."""
    return hmac.digest(key, (before or START) + f"audit\n{chain}\n{number}\n".encode() + entry, "sha256")
