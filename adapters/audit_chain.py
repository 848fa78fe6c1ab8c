"""Audit chains, of a payment and of the audit log: each stored row is hashed together with the hash before it.

Room: adapters. HMAC-SHA256 keyed from outside the database (HKDF of the encryption key), so that somebody who can
write the database still cannot write a chain that fits.
"""

import hashlib
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

START = b"\0" * 32
"""What stands before the first fact."""
KEYS_MAX = 16
"""Keys made ready: the present one, and old ones while a chain is verified."""
_BLOCK_BYTES = 64


def chain_key(encryption_key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"payment-service audit chain").derive(encryption_key)


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256. hmac.digest asks OpenSSL anew for everything each time, and takes three times as long or more."""
    inner, outer = _made_ready(key)
    inner, outer = inner.copy(), outer.copy()
    inner.update(message)
    outer.update(inner.digest())
    digest: bytes = outer.digest()
    return digest


@lru_cache(maxsize=KEYS_MAX)
def _made_ready(key: bytes) -> tuple[Any, Any]:
    """The two hashes of RFC 2104 after their padded key."""
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    inner, outer = (bytes(it ^ pad for it in block) for pad in (0x36, 0x5C))
    return hashlib.sha256(inner), hashlib.sha256(outer)


def next_hash(
    key: bytes, before: bytes, payment_id: str, version: int, sequence: int | None, type_name: str, data: bytes
) -> bytes:
    """Over the stored bytes and their place; the texts contain no newline."""
    place = f"{payment_id}\n{version}\n{sequence}\n{type_name}\n".encode()
    return mac(key, (before or START) + place + data)


def next_audit_hash(key: bytes, before: bytes, chain: str, number: int, entry: bytes) -> bytes:
    """Of a row of the audit log. No payment's row has a place that looks like this one."""
    return mac(key, (before or START) + f"audit\n{chain}\n{number}\n".encode() + entry)
