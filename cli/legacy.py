"""`payment-service import-legacy`: what the service before this one has stored, taken over.

Room: cli.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import click

from payment_service.cli import service
from payment_service.cli.operators import operator_option
from payment_service.cli.outcome import NOTHING, OK, end, explaining
from payment_service.cli.output import console, json_option, print_json, print_table
from payment_service.core.audit import ACCEPTED, AuditEntry
from payment_service.core.audit import OK as DONE
from payment_service.core.importing import ImportStep, LegacyImport, Part

REFUSED_MAX = 1_000
"""Kept to be shown; more are counted."""
ASK_DAYS = 7
ASK_DAYS_MAX = 3650
ACTION = "legacy.import"
INCOMPLETE = "INCOMPLETE"
REASONS: Mapping[str, str] = {
    "LEGACY_CHARGED_TWICE": "several charges of one payment succeeded",
    "LEGACY_CHARGED_OTHER_AMOUNT": "the charge is of another amount than the payment",
    "LEGACY_PENDING_BUT_CHARGED": "it stood as pending, a charge succeeded",
    "LEGACY_PROCESSING_BUT_CHARGED": "it stood as processing, a charge succeeded",
    "LEGACY_FAILED_BUT_CHARGED": "it stood as failed, a charge succeeded",
    "LEGACY_CANCELLED_BUT_CHARGED": "it stood as cancelled, a charge succeeded",
    "LEGACY_PAID_WITHOUT_CHARGE": "it stood as paid, and its charges had failed",
    "LEGACY_WITHOUT_PROVIDER_ID": "it was being charged, and nobody knows by which id",
    "LEGACY_VOID_OPEN": "a void was not finished",
    "LEGACY_REFUND_OPEN": "a refund was not finished",
    "LEGACY_REFUNDED_MORE": "more was refunded than charged",
    "LEGACY_REFUNDED_OTHER_AMOUNT": "it stood as refunded, and the refunds do not add up to it",
    "LEGACY_REFUNDED_WITHOUT_ROWS": "it stood as refunded, without a refund",
    "LEGACY_FULLY_REFUNDED": "it stood as paid, and all of it was refunded",
    "LEGACY_REFUND_ROWS_DIFFER": "the calls and the refunds tell of different sums",
    "LEGACY_CURRENCY_DIFFERS": "a call is of another currency than the payment",
    "LEGACY_OTHER_PAID": "another payment of the order took money too",
    "LEGACY_OTHER_OPEN": "another payment of the order may still take money",
}


@dataclass(slots=True)
class Total:
    """Of one part."""

    read: int = 0
    imported: int = 0
    history: int = 0
    before: int = 0
    asked: int = 0
    review: Counter[str] = field(default_factory=Counter)
    refused_count: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)

    def add(self, step: ImportStep) -> None:
        self.read += step.read
        self.imported += step.imported
        self.history += step.history
        self.before += step.before
        self.asked += step.asked
        self.review.update(step.review)
        self.refused_count += len(step.refused)
        self.refused += step.refused[: REFUSED_MAX - len(self.refused)]


@click.command("import-legacy", short_help="Take over the old service's rows.")
@click.option("--from", "source", envvar="LEGACY_DATABASE_URL", help="The old database's URL; default: our own.")
@click.option("--schema", help="Where its tables are; default: as DATABASE_URL's ?schema= says, else public.")
@click.option(
    "--old-key",
    envvar="LEGACY_ENCRYPTION_KEY",
    help="The old service's ENCRYPTION_KEY (or JWT_SECRET, without one); - asks for it. Ours are tried too.",
)
@click.option(
    "--ask-days",
    type=click.IntRange(0, ASK_DAYS_MAX),
    default=ASK_DAYS,
    show_default=True,
    help="Payments that failed or were cancelled in so many days are asked for at their provider.",
)
@click.option(
    "--only", "parts", multiple=True, type=click.Choice([part.value for part in Part]), help="Only this part."
)
@click.option("--dry-run", is_flag=True, help="Only tell what it would do.")
@operator_option
@json_option
@explaining
def import_legacy(
    source: str | None, schema: str | None, old_key: str | None, ask_days: int, parts: Sequence[str], dry_run: bool,
    operator: str, as_json: bool,
) -> None:  # fmt: skip
    """Take over payments with their calls and refunds, saved methods, and lately received webhooks of the old service.

    \b
    - Old tables are only read. It may be stopped, and run again: what is there is left as it is.
    - Nothing is published and nothing is sent; what may have happened and nobody knows is UNKNOWN, and the workers ask
      its provider.
    - Old ids go on working. Of several payments of one order the one that took money is the order's; the others can be
      read by their ids.
    - Where sums and status disagree the payment is flagged for review.

    Run it with no worker of the old service running, before workers of this one take orders. Idempotency keys and audit
    logs stay where they are. Exit 1 when a row could not be taken over.
    """
    if old_key == "-":
        old_key = click.prompt("The old service's ENCRYPTION_KEY", hide_input=True, err=True)
    chosen = [Part(part) for part in parts] or list(Part)
    given = service.LegacySource(source, schema, old_key, ask_days)
    totals = asyncio.run(_import(given, chosen, operator, dry_run=dry_run, quiet=as_json))
    if as_json:
        print_json({"dryRun": dry_run, **{part.value: _view(total) for part, total in totals.items()}})
    else:
        _show(totals, dry_run=dry_run)
    end(NOTHING if any(total.refused_count for total in totals.values()) else OK)


async def _import(
    given: "service.LegacySource", parts: Sequence[Part], operator: str, *, dry_run: bool, quiet: bool
) -> dict[Part, Total]:
    settings = service.load_settings()
    totals = {part: Total() for part in parts}
    async with service.open_legacy(settings, given, operator) as legacy, service.open_audit(settings) as audit:
        sizes = await legacy.sizes()
        if not dry_run:
            audit.record(AuditEntry(_now_ms(), ACTION, ACCEPTED, operator))
            await audit.flush()
        await _each(legacy, totals, sizes, dry_run=dry_run, quiet=quiet)
        if not dry_run:
            told = ", ".join(f"{part.value} {total.imported + total.history}" for part, total in totals.items())
            whole = not any(total.refused_count for total in totals.values())
            audit.record(AuditEntry(_now_ms(), ACTION, DONE if whole else INCOMPLETE, operator, detail=told))
            await audit.flush()
    return totals


async def _each(
    legacy: LegacyImport, totals: Mapping[Part, Total], sizes: Mapping[Part, int], *, dry_run: bool, quiet: bool
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), disable=quiet) as progress:
        bars = {part: progress.add_task(part.value, total=sizes[part]) for part in totals}
        for part, total in totals.items():
            async with aclosing(legacy.run(part, dry_run=dry_run)) as steps:
                async for step in steps:
                    total.add(step)
                    progress.update(bars[part], completed=total.read)


def _view(total: Total) -> dict[str, Any]:
    return {
        "read": total.read, "imported": total.imported, "history": total.history, "before": total.before,
        "asked": total.asked, "review": dict(total.review), "refused": total.refused_count,
        "refusedRows": [{"id": name, "why": why} for name, why in total.refused],
    }  # fmt: skip


def _show(totals: Mapping[Part, Total], *, dry_run: bool) -> None:
    columns = ("part", "read", "would be taken over" if dry_run else "taken over", "as history", "were there", "asked",
               "refused")  # fmt: skip
    rows = [
        (part.value, it.read, it.imported, it.history, it.before, it.asked, it.refused_count)
        for part, it in totals.items()
    ]
    print_table("From the old service", columns, rows, right=columns[1:])
    review = totals[Part.PAYMENTS].review if Part.PAYMENTS in totals else Counter[str]()
    if review:
        lines = [(reason, count, REASONS.get(reason, "")) for reason, count in review.most_common()]
        print_table("For a person to look at", ("reason", "payments", "what the rows say"), lines, right=["payments"])
    for part, total in totals.items():
        for name, why in total.refused:
            click.echo(f"{part.value} {name}: {why}", err=True)
        if total.refused_count > len(total.refused):
            click.echo(f"and {total.refused_count - len(total.refused)} more of {part.value}", err=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
