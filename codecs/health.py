"""A window of a provider's health <-> the JSON of the topic payment-provider-stats and of the table's row.

Room: codecs. Counts alone: nothing of a payment, nothing of a person.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from payment_service.codecs.times import rfc3339
from payment_service.core.errors import Malformed
from payment_service.core.health import HealthWindow
from payment_service.core.ports import Cipher

TOPIC = "payment-provider-stats"


def message_key(window: HealthWindow) -> bytes:
    return f"{window.provider}:{window.currency}".encode()


def encode_window(window: HealthWindow, cipher: Cipher) -> bytes:
    return cipher.seal(orjson.dumps(row_of(window)), _place(message_key(window)))


def decode_window(key: bytes | None, value: bytes, cipher: Cipher) -> HealthWindow:
    """Raises Malformed for what none of our workers wrote."""
    try:
        window = window_of(orjson.loads(cipher.unseal(value, _place(key or b""))))
    except ValueError:
        raise Malformed("not a window of a provider's health") from None
    if message_key(window) != key:
        raise Malformed("a window under another key than its own")
    return window


def row_of(window: HealthWindow) -> dict[str, Any]:
    return {
        "provider": window.provider,
        "currency": window.currency,
        "worker": window.worker,
        "timestamp": rfc3339(window.start_ms),
        "startMs": window.start_ms,
        "verdicts": _counts(window.verdicts),
        "outcomes": _counts(window.outcomes),
        "latency": window.latency,
        "boundsS": list(window.bounds_s),
    }


def window_of(row: Mapping[str, Any]) -> HealthWindow:
    """Raises Malformed."""
    try:
        window = HealthWindow(
            str(row["provider"]), str(row["currency"]), str(row["worker"]), int(row["startMs"]),
            tuple(float(bound) for bound in row["boundsS"]), [int(count) for count in row["latency"]],
            _counts(row["verdicts"]), _counts(row["outcomes"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Malformed("not a window of a provider's health") from None
    if len(window.latency) != len(window.bounds_s) + 1:
        raise Malformed("a window whose buckets do not fit")
    return window


def _counts(counts: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in counts.items()}


def _place(key: bytes) -> str:
    return f"{TOPIC}:{key.decode(errors='replace')}"
