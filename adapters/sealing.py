"""Sealing: AES-256-GCM with the key's id in the value and the place (column and row) bound in.

Room: adapters. Layout: 1 byte format, 4 bytes key id, 12 bytes nonce, ciphertext with its tag.
Limits: a random nonce is safe for about 2^32 values a key (NIST SP 800-38D §8.3); rotate long before.
"""

import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from payment_service.core.errors import Malformed

FORMAT = b"\x01"
KEY_ID_BYTES = 4
NONCE_BYTES = 12
TAG_BYTES = 16
_HEADER = len(FORMAT) + KEY_ID_BYTES
STAMP_BYTES = _HEADER + NONCE_BYTES
"""The first bytes of a sealed value: no two values have the same, since their nonces differ."""


def key_id(key: bytes) -> bytes:
    """Tells keys apart without telling anything about them."""
    return hashlib.sha256(b"payment-service key id" + key).digest()[:KEY_ID_BYTES]


class AesGcmCipher:
    """The Cipher port. `key` seals; `old` keys still unseal what was sealed before a rotation."""

    def __init__(self, key: bytes, old: Sequence[bytes] = ()) -> None:
        present = key_id(key)
        self._keys = {key_id(k): AESGCM(k) for k in (*old, key)}
        self._encrypt = self._keys[present].encrypt
        self.header = FORMAT + present
        """What every value begins with that the present key sealed."""

    def __repr__(self) -> str:
        return f"AesGcmCipher({len(self._keys)} keys)"

    def seal(self, plain: bytes, place: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return self.header + nonce + self._encrypt(nonce, plain, place.encode())

    def unseal(self, sealed: bytes, place: str) -> bytes:
        aead = self._keys.get(bytes(sealed[len(FORMAT) : _HEADER]))
        if sealed[: len(FORMAT)] != FORMAT or aead is None or len(sealed) < _HEADER + NONCE_BYTES + TAG_BYTES:
            raise Malformed("sealed with a key or in a form we do not have", code="INTERNAL_ERROR")
        nonce = bytes(sealed[_HEADER : _HEADER + NONCE_BYTES])
        try:
            return aead.decrypt(nonce, bytes(sealed[_HEADER + NONCE_BYTES :]), place.encode())
        except InvalidTag:
            raise Malformed("a sealed value was changed or moved", code="INTERNAL_ERROR") from None
