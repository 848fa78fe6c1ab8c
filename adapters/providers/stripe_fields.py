"""Reading JSON that somebody else wrote: whatever is in it, nothing here raises, and no text is stored as it came.

Room: adapters/providers, beside stripe.py.
"""

import re
from collections.abc import Mapping
from typing import Any

TEXT_MAX = 300
"""Of a code or message: what a person reads, and what the row has room for."""
_ID = re.compile(r"[A-Za-z0-9_]{1,255}", re.ASCII)

_NOTHING: Mapping[str, Any] = {}


class Fields:
    """A JSON object whose fields may be missing or of any type."""

    __slots__ = ("body",)

    def __init__(self, body: object) -> None:
        self.body: Mapping[str, Any] = body if isinstance(body, Mapping) else _NOTHING

    def __bool__(self) -> bool:
        return bool(self.body)

    def get(self, name: str) -> object:
        return self.body.get(name)

    def inner(self, name: str) -> "Fields":
        return Fields(self.body.get(name))

    def entries(self, name: str) -> list[Mapping[str, Any]]:
        """The objects of a list; what is no object is left out."""
        value = self.body.get(name)
        return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def identity(value: object) -> str | None:
    """An id of Stripe's: a text, or the object it was expanded to."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def text_of(value: object, length_max: int = TEXT_MAX) -> str | None:
    """Without NUL and lone surrogates, which no database takes, and not longer than it may be."""
    if not isinstance(value, str):
        return None
    return value[:length_max].replace("\0", "").encode("utf-8", "ignore").decode() or None


def whole_text(value: object, length_max: int = TEXT_MAX) -> str | None:
    """A text that would mean nothing if anything of it were missing."""
    text = text_of(value, length_max)
    return text if text == value else None
