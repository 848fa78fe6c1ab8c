"""`payment-service audit`: whether anything in the database is not as it was written, and who tried what.

Room: cli. Reads only.
"""

import asyncio
from typing import Any

import click

from payment_service.cli import service
from payment_service.cli.outcome import NOTHING, OK, UNAVAILABLE, Failed, end, explaining
from payment_service.cli.output import console, json_option, moment, print_json, print_table
from payment_service.core.audit import Problem, StoredEntry, Verified
from payment_service.core.errors import Unavailable

LIMIT_MAX = 10_000
OTHER_KEY = (
    "Rows of a time whose key is neither ENCRYPTION_KEY nor in ENCRYPTION_KEYS_OLD look changed too, all of them: see "
    "first that every key since the beginning is there."
)
PROBLEMS_MAX = 1_000
"""Kept to be shown; more are counted."""


@click.group(short_help="Check the audit chains, see who tried what.")
def audit() -> None:
    """Check the audit chains, and see who tried what."""


@audit.command("list")
@click.option("--payment", help="Only what is about this payment.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True)
@json_option
@explaining
def list_entries(payment: str | None, limit: int, as_json: bool) -> None:
    """List who tried what, newest first."""
    entries = asyncio.run(_entries(payment, limit))
    if as_json:
        print_json([{"chain": it.chain, "number": it.number, **it.fields} for it in entries])
    elif entries:
        print_table(
            "Audit log",
            ("at (UTC)", "who", "what", "result", "payment", "from", "request", "more"),
            [_line(it.fields) for it in entries],
        )
    else:
        click.echo("Nothing is like that.", err=True)
    end(OK if entries else NOTHING)


def _line(fields: Any) -> tuple[Any, ...]:
    more = [fields[name] for name in ("orderId", "refundId", "detail") if name in fields]
    if "times" in fields:
        more.append(f"{fields['times']} times")
    return (
        moment(fields["at"]), fields["actor"], fields["action"], fields["result"], fields.get("paymentId"),
        fields.get("client"), fields.get("requestId"), ", ".join(more),
    )  # fmt: skip


@audit.command()
@click.option("--payment", help="Only this payment's chain.")
@click.option("--no-anchors", is_flag=True, help="Without what was kept outside the database (the broker is away).")
@json_option
@explaining
def verify(payment: str | None, no_anchors: bool, as_json: bool) -> None:
    """Walk every chain, of payments and of the audit log, and name each row that is not as it was written.

    Exit 1 when something is broken. A cut end and a payment removed as a whole are seen by the anchors that each
    worker sends to the topic payment-audit-anchors every minute, for as long as that topic keeps them.
    """
    seen, count, away = asyncio.run(_verify(payment, anchored=not no_anchors, quiet=as_json))
    if as_json:
        print_json({
            "ok": not count and not away, "payments": seen.payments, "entries": seen.entries, "problems": count,
            "anchored": not (no_anchors or away), "notes": seen.notes,
            "found": [{"kind": it.kind, "where": it.where, "what": it.what} for it in seen.problems],
        })  # fmt: skip
    else:
        if count:
            note = f"{len(seen.problems)} of {count}"
            print_table("Not as it was written", ("chain of", "where", "what"), map(_problem, seen.problems), note=note)
        for note in seen.notes:
            click.echo(note, err=True)
        found = f"{count} problems" if count else "all is as it was written"
        click.echo(f"{seen.payments} payments and {seen.entries} rows of the audit log: {found}")
        if count:
            click.echo(OTHER_KEY, err=True)
    if away and not count:
        raise Failed(f"checked without anchors: {away}", UNAVAILABLE, "--no-anchors leaves them out on purpose.")
    end(NOTHING if count else OK)


def _problem(problem: Problem) -> tuple[str, str, str]:
    return problem.kind, problem.where, problem.what


async def _verify(payment_id: str | None, *, anchored: bool, quiet: bool) -> tuple[Verified, int, str]:
    """What was seen in all, how many problems there are, and why there were no anchors if there should have been."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    payments = entries = count = 0
    problems: list[Problem] = []
    notes: list[str] = []
    away = ""
    async with service.open_auditor(service.load_settings()) as auditor:
        if anchored:
            try:
                await auditor.read_anchors()
            except Unavailable as error:
                away = error.message
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console(stderr=True), disable=quiet) as progress:
            about = (1, 0) if payment_id is not None else await auditor.sizes()
            bars = (
                progress.add_task("payments", total=about[0] or None),
                progress.add_task("audit log", total=about[1] or None),
            )
            async for part in auditor.verify(payment_id):
                payments += part.payments
                entries += part.entries
                count += len(part.problems)
                problems += part.problems[: PROBLEMS_MAX - len(problems)]
                notes += part.notes
                for bar, done in zip(bars, (payments, entries), strict=True):
                    progress.update(bar, completed=done)
            # The sizes were PostgreSQL's estimate.
            for bar, done in zip(bars, (payments, entries), strict=True):
                progress.update(bar, total=done)
    return Verified(payments, entries, tuple(problems), tuple(notes)), count, away


async def _entries(payment_id: str | None, limit: int) -> list[StoredEntry]:
    async with service.open_auditor(service.load_settings()) as auditor:
        return list(await auditor.entries(payment_id, limit))
