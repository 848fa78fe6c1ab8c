"""What commands print: tables for people, JSON for programs. Answers go to stdout, everything else to stderr.

Room: cli.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from payment_service.core.money import EXPONENTS, to_decimal_text
from payment_service.core.terms import Status

WIDTH_PIPED = 160
"""Columns of a table that goes into a file or a pipe: nobody scrolls there, but lines stay whole."""
WHOLE = frozenset({"status", "at (UTC)", "created", "updated", "last event"})
"""Columns whose cells are never broken over lines."""
STATUS_STYLES: Mapping[str, str] = {
    Status.PENDING: "dim",
    Status.PROCESSING: "cyan",
    Status.REQUIRES_ACTION: "yellow",
    Status.AUTHORIZED: "blue",
    Status.SUCCEEDED: "green",
    Status.FAILED: "red",
    Status.UNKNOWN: "bold magenta",
    Status.CANCELLED: "dim strike",
    Status.PARTIALLY_REFUNDED: "yellow",
    Status.REFUNDED: "yellow",
}


def _asked(context: click.Context, _: click.Parameter, value: bool) -> bool:
    """Also with Faust's own --json, before the command's name."""
    return value or bool(getattr(context.find_root().obj, "json", False))


json_option = click.option("--json", "as_json", is_flag=True, help="For programs.", callback=_asked)


def console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else WIDTH_PIPED)


def print_json(value: Any) -> None:
    """Indented for a person who looks, compact in a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent, default=str) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[str] = (), note: str = ""
) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", caption=note or None,
                  caption_justify="left")  # fmt: skip
    numbers = frozenset(right)
    for number, name in enumerate(columns):
        table.add_column(
            name, justify="right" if name in numbers else "left", no_wrap=number == 0 or name in numbers | WHOLE,
            overflow="fold",
        )  # fmt: skip
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_text(cell)) for cell in row))
    console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def status_text(status: object) -> Text:
    word = str(status)
    return Text(word, style=STATUS_STYLES.get(word, ""))


def money(amount_minor: object, currency: object) -> str:
    """With all decimals of the currency; as it is where that is not known."""
    if isinstance(amount_minor, int) and isinstance(currency, str) and currency in EXPONENTS:
        return f"{to_decimal_text(amount_minor, currency)} {currency}"
    return f"{amount_minor} {currency}"


def moment(timestamp: object) -> str:
    """ "2026-11-24T10:00:00.000Z" as people read it; UTC, as everywhere."""
    text = str(timestamp or "-")
    return text.replace("T", " ").removesuffix("Z").partition(".")[0]
