"""What people are shown of a dead letter: its value with most fields hidden, and never a card number or a token.

Room: codecs.
"""

import json
from typing import Any

from payment_service.core.card_data import without_card_data

SHOWN = frozenset({
    *("id", "type", "eventType", "topic", "detail-type", "specversion", "source", "subject", "time", "timestamp"),
    *("orderId", "orderNumber", "paymentId", "refundId", "currency", "totalAmount", "amount", "amountMinor"),
    *("status", "sequence", "paymentProvider", "reason"),
})  # fmt: skip
"""Fields of a value that say nothing about a person; of any other only its kind is told."""
BYTES_SHOWN_MAX = 100_000
DEPTH_MAX = 20


def plain_text(data: bytes | None) -> str | None:
    """As text, bytes that are none escaped, without card data."""
    if data is None:
        return None
    more = f"… {len(data)} bytes" if len(data) > BYTES_SHOWN_MAX else ""
    return without_card_data(data[:BYTES_SHOWN_MAX].decode(errors="backslashreplace")) + more


def outline(value: bytes | None) -> Any:
    """JSON without what could be personal; of anything else only how long it is."""
    if value is None:
        return None
    try:
        return _hidden(json.loads(value), 0)
    except (ValueError, RecursionError):
        return f"({len(value)} bytes that are not JSON)"


def _hidden(value: Any, depth: int, name: str = "") -> Any:
    """Names stay, except those that could be anything; of values what SHOWN allows."""
    if depth > DEPTH_MAX:
        return "(…)"
    if isinstance(value, dict):
        return {without_card_data(key): _hidden(it, depth + 1, key) for key, it in value.items()}
    if isinstance(value, list):
        return [_hidden(it, depth + 1, name) for it in value]
    if value is None or isinstance(value, bool):
        return value
    if name in SHOWN:
        return without_card_data(value) if isinstance(value, str) else value
    return f"(text of {len(value)})" if isinstance(value, str) else "(number)"
