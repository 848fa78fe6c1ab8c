"""Tokens as the service before this one had encrypted them.

Room: adapters. `base64(iv):base64(tag):base64(ciphertext)`, AES-256-GCM with an iv of 16 bytes.
"""

import base64
import binascii
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from payment_service.adapters.settings_values import ENCRYPTION_KEY_BYTES, legacy_encryption_key
from payment_service.core.errors import Malformed

IV_BYTES = 16
TAG_BYTES = 16


class LegacyTokens:
    """`secrets`: what may have been its ENCRYPTION_KEY, or the JWT_SECRET that it took without one. Making a key of
    one takes 50 ms."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [AESGCM(_key_of(secret)) for secret in dict.fromkeys(secrets)]

    def __repr__(self) -> str:
        return f"LegacyTokens({len(self._keys)} keys)"

    def open(self, text: str) -> str:
        """Raises Malformed: it is no such text, or none of the keys opens it."""
        try:
            iv, tag, sealed = (base64.b64decode(part, validate=True) for part in text.split(":"))
        except (ValueError, binascii.Error):
            raise Malformed("it is not as the old service kept tokens", code="INTERNAL_ERROR") from None
        if len(iv) != IV_BYTES or len(tag) != TAG_BYTES:
            raise Malformed("it is not as the old service kept tokens", code="INTERNAL_ERROR")
        for key in self._keys:
            try:
                return key.decrypt(iv, sealed + tag, None).decode()
            except (InvalidTag, UnicodeDecodeError):
                continue
        raise Malformed("none of the keys opens it", code="INTERNAL_ERROR")


def _key_of(secret: str) -> bytes:
    """64 hexadecimal digits are the key itself; any other text was stretched."""
    if len(secret) == ENCRYPTION_KEY_BYTES * 2:
        try:
            return bytes.fromhex(secret)
        except ValueError:
            pass
    return legacy_encryption_key(secret)
