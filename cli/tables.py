"""`payment-service table`: what is in a Faust table, read from its changelog topic; no worker has to run.

Room: cli.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import click

from payment_service.cli import service
from payment_service.cli.outcome import NOTHING, end, explaining
from payment_service.cli.output import json_option, moment, money, print_json, print_table, status_text
from payment_service.core.live import quantile
from payment_service.tables import payments, provider_health, reconciliation

LIMIT = 50
LIMIT_MAX = 1_000_000

NUMBERS = ("amount", "sequence", "calls", "unknown", "half in", "95 % in")

Rows = Sequence[tuple[str, Mapping[str, Any]]]
Shown = tuple[Sequence[str], list[Sequence[Any]]]


@click.command(short_help="Show what is in a table.")
@click.argument("name")
@click.option("--key", help="Only this row, for example a payment id.")
@click.option("--status", help="Only rows with this status.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=LIMIT, show_default=True, help="Rows shown.")
@json_option
@explaining
def table(name: str, key: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """Show the rows of the table NAME, newest first (`payment-service tables` lists the names)."""
    found = asyncio.run(service.read_table(service.load_settings(), name, key))
    rows = chosen(found, status)
    shown = rows[:limit]
    if as_json:
        print_json([{"key": it, **row} for it, row in shown])
    elif shown:
        note = f"{len(shown)} of {len(rows)} rows" + ("; more with --limit" if len(rows) > len(shown) else "")
        columns, lines = LINES.get(name, _plain_lines)(shown)
        print_table(f"Table {name}", columns, lines, right=NUMBERS, note=note)
    else:
        click.echo("No row is like that.", err=True)
    end(0 if shown else NOTHING)


def chosen(rows: Mapping[str, Mapping[str, Any]], status: str | None) -> Rows:
    wanted = status.upper() if status else None
    kept = [(key, row) for key, row in rows.items() if wanted is None or row.get("status") == wanted]
    kept.sort(key=lambda one: str(one[1].get("timestamp")), reverse=True)
    return kept


def _payment_lines(rows: Rows) -> Shown:
    columns = ("payment", "order", "user", "status", "amount", "sequence", "last event", "at (UTC)")
    return columns, [
        (key, row.get("orderId"), row.get("userId"), status_text(row.get("status")),
         money(row.get("amountMinor"), row.get("currency")), row.get("sequence"), row.get("eventType"),
         moment(row.get("timestamp")))
        for key, row in rows
    ]  # fmt: skip


def _health_lines(rows: Rows) -> Shown:
    columns = ("provider", "currency", "minute (UTC)", "worker", "calls", "unknown", "half in", "95 % in", "payments")
    return columns, [
        (row["provider"], row["currency"], moment(row["timestamp"]), row["worker"], sum(row["verdicts"].values()),
         row["verdicts"].get("UNKNOWN", 0), *(_time_of(row, share) for share in (0.5, 0.95)), _counted(row["outcomes"]))
        for _, row in rows
    ]  # fmt: skip


def _time_of(row: Mapping[str, Any], share: float) -> str:
    return f"{quantile(row['latency'], row['boundsS'], share) * 1000:.0f} ms" if any(row["latency"]) else ""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))


def _account_lines(rows: Rows) -> Shown:
    columns = ("payment", "order", "status", "what differs", "our row", "in the topics", "provider did", "at (UTC)")
    return columns, [
        (key, row["orderId"], status_text(row["status"]), ", ".join(row["differences"]),
         _our_row(row["ours"]), _told(row.get("published")), ", ".join(row["provider"]), moment(row["timestamp"]))
        for key, row in rows
    ]  # fmt: skip


def _our_row(ours: Mapping[str, Any] | None) -> str:
    if ours is None:
        return "not read yet"
    return "none" if ours["payment"] is None else f"{ours['payment']['status']} {ours['payment']['sequence']}"


def _told(published: Mapping[str, Any] | None) -> str:
    return "none" if published is None else f"{published['status']} {published['sequence']}"


def _plain_lines(rows: Rows) -> Shown:
    return ("key", "value"), [(key, row) for key, row in rows]


LINES = {
    payments.NAME: _payment_lines,
    provider_health.NAME: _health_lines,
    reconciliation.NAME: _account_lines,
}
