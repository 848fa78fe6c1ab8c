"""The last net under the logs: what must never be in a line is taken out of it, wherever it came from.

Room: adapters. A structlog processor. Nothing secret should reach a log in the first place: secrets are types with a
masked repr, errors of drivers are translated. This is for the library that quotes a request in its exception.
"""

import re
from collections.abc import MutableMapping
from typing import Any

from payment_service.core.card_data import hide_card_numbers

HIDDEN = "[hidden]"
DEPTH_MAX = 6
"""Levels of a logged value that are looked through; what is deeper is left out."""
TEXT_MAX = 20_000
"""Characters of one value that are kept: a stack trace is shorter, a quoted body is not."""

_NAMES = re.compile(
    r"authorization|password|passwd|secret|api[_-]?key|private[_-]?key|access[_-]?token|auth[_-]?token|client[_-]?secret"
    r"|cookie|^token$|method[_-]?token|^cv[cv]2?$",
    re.IGNORECASE,
)
"""Fields whose value is not shown, whatever it is."""

_PATTERNS = (
    (re.compile(r"\b((?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), r"\1" + HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"\b(?:sk|rk|whsec)(?:_live|_test)?_[A-Za-z0-9_]{8,}"), HIDDEN),
    (re.compile(r"\b((?:pi|seti|cs)_[A-Za-z0-9]+_secret)_[A-Za-z0-9]+"), r"\1_" + HIDDEN),
    (re.compile(r"\b(tok|pm)_[A-Za-z0-9_]{6,}"), r"\1_" + HIDDEN),
    (re.compile(r"(://[^/\s:@]+):[^@\s/]+@"), r"\1:" + HIDDEN + "@"),
    (re.compile(r"\b(password\s*=\s*)\S+", re.IGNORECASE), r"\1" + HIDDEN),
)  # fmt: skip
_NEWLINES = re.compile(r"[\r\n]+")


def redacted(text: str) -> str:
    """The text without tokens, keys, passwords and card numbers."""
    text = text[:TEXT_MAX]
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return hide_card_numbers(text)


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return hidden if (hidden := hide_card_numbers(str(value))) != str(value) else value
    if depth >= DEPTH_MAX:
        return "..."
    if isinstance(value, dict):
        return {
            redacted(str(name)): HIDDEN if _NAMES.search(str(name)) and inner else _clean(inner, depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(inner, depth + 1) for inner in value]
    return redacted(repr(value))


def redact(logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor; after exceptions were made into text and before anything is rendered.

    The event itself is one line: an input with a line break cannot forge another (ASVS 5.0, 16.4.1).
    """
    for name, value in line.items():
        if _NAMES.search(name) and value:
            line[name] = HIDDEN
        else:
            line[name] = _clean(value, 0)
    event = line.get("event")
    if isinstance(event, str):
        line["event"] = _NEWLINES.sub(" ", event)
    return line
