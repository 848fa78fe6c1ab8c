"""Columns of a batch as PostgreSQL text: one parameter a column, however many rows.

Room: adapters/postgres. Pure. The driver adapting ten thousand list elements one by one would hold the event loop
several times as long (measured: 21 against 6 us a payment at 500).
Every value that is not one of our own words goes through `texts` or `docs`; none of them is put into SQL text here,
the driver quotes the whole parameter.
"""

import re
from collections.abc import Iterable, Sequence

ROW_SEPARATOR = b"\x1e"
"""Between documents. A control character never stands in JSON text as itself, so nothing has to be escaped."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def numbers(column: Iterable[int | float | bool | None]) -> str:
    return "{" + str(list(column))[1:-1].replace("None", "NULL") + "}"


def words(column: Iterable[str]) -> str:
    """Of our own words, and hexadecimal: nothing in them to escape, none of them empty."""
    return "{" + ",".join(column) + "}"


def optional_words(column: Iterable[str | None]) -> str:
    """As `words`, but None is NULL and "" is kept."""
    return "{" + ",".join(["NULL" if word is None else word or '""' for word in column]) + "}"


def texts(column: Sequence[str]) -> str:
    """Of any text."""
    joined = '","'.join(column)
    if "\\" in joined or joined.count('"') != 2 * (len(column) - 1):
        joined = '","'.join([text.replace("\\", "\\\\").replace('"', '\\"') for text in column])
    return '{"' + joined + '"}'


def optional_texts(column: Iterable[str | None]) -> str:
    return "{" + ",".join(["NULL" if text is None else texts((text,))[1:-1] for text in column]) + "}"


def docs(column: Iterable[bytes]) -> str:
    """Of JSON texts, for string_to_array(…, chr(30)); an empty one is read as NULL where the statement says so."""
    return ROW_SEPARATOR.join(column).decode()


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can keep it as text: no NUL, no lone surrogate."""
    return "\x00" not in text if text.isascii() else _UNSTORABLE.search(text) is None
