"""The topic `payment-webhooks`: verified provider events, sealed. Bytes <-> ReceivedWebhook.

Room: codecs. The plain value is one line of JSON about the event, a line feed, and the provider's body as it came, byte
for byte. It is sealed as a whole (adapters/sealing.py: AES-256-GCM) with the topic and the record's key bound in, so
that nobody without our key can put an event there, change one, or move it to another payment's key.
"""

from typing import Any

import orjson

from payment_service.core.errors import Malformed
from payment_service.core.ports import Cipher
from payment_service.core.webhooks import ReceivedWebhook

VERSION = 1
TOPIC = "payment-webhooks"
_FIELDS = ("provider", "event_id", "type", "created_at_ms", "received_at_ms", "payment_id", "object_id")


def key_of(webhook: ReceivedWebhook) -> bytes:
    """The record's key: what keeps a payment's events in one partition as far as that is known."""
    return (webhook.payment_id or webhook.object_id or webhook.event_id).encode()


def _place(key: bytes) -> str:
    return f"{TOPIC}:{key.decode(errors='replace')}"


def encode_webhook(webhook: ReceivedWebhook, cipher: Cipher) -> tuple[bytes, bytes]:
    """(key, sealed value) of the record."""
    about: dict[str, Any] = {"v": VERSION, **{name: getattr(webhook, name) for name in _FIELDS}}
    key = key_of(webhook)
    return key, cipher.seal(orjson.dumps(about) + b"\n" + webhook.body, _place(key))


def decode_webhook(key: bytes | None, value: bytes | None, cipher: Cipher) -> ReceivedWebhook:
    """Raises Malformed for anything that encode_webhook did not make with our key; no value is in its text."""
    if key is None or value is None:
        raise Malformed("a webhook record without key or value", code="VALIDATION_ERROR")
    head, found, body = cipher.unseal(value, _place(key)).partition(b"\n")
    try:
        about = orjson.loads(head)
        if not found or about.pop("v") != VERSION:
            raise Malformed("a webhook record of another version", code="VALIDATION_ERROR")
        webhook = ReceivedWebhook(**about, body=body)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Malformed(f"a webhook record cannot be read: {type(error).__name__}", code="VALIDATION_ERROR") from None
    if not (webhook.provider and webhook.event_id and webhook.type) or key_of(webhook) != key:
        raise Malformed("a webhook record that names no event", code="VALIDATION_ERROR")
    return webhook
