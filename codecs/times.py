"""Milliseconds since 1970 <-> RFC 3339 text with milliseconds, UTC.

Room: codecs.
"""

from datetime import UTC, datetime
from functools import lru_cache

TEXTS_MAX = 4_096
"""Moments whose text is kept: every millisecond of the time from a decision to its event's way out and back."""


@lru_cache(maxsize=8)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=TEXTS_MAX)
def rfc3339(at_ms: int) -> str:
    """ "2026-11-24T10:00:00.000Z". Cached: an event's moment is written four times, and its second by many."""
    second, ms = divmod(at_ms, 1000)
    return f"{_second_text(second)}.{ms:03d}Z"


@lru_cache(maxsize=TEXTS_MAX)
def from_rfc3339(text: str) -> int:
    """Raises ValueError for anything that is not a date-time with an offset (RFC 3339 §5.6)."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a date-time needs an offset")
    return round(moment.timestamp() * 1000)
