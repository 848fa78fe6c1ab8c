"""`payment-service events`: what was published, published once more.

Room: cli.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime

import click

from payment_service.cli import service
from payment_service.cli.operators import operator_option
from payment_service.cli.outcome import NOTHING, OK, end, explaining
from payment_service.cli.output import console, json_option, print_json
from payment_service.core.audit import OK as DONE
from payment_service.core.audit import AuditEntry
from payment_service.core.republishing import Chosen, Republished

DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
PAYMENTS_MAX = 10_000


@click.group(short_help="Publish events once more.")
def events() -> None:
    """What was published about payments."""


@events.command()
@click.option("--payment", "payments", multiple=True, help="All events of this payment; may be given more than once.")
@click.option("--since", type=click.DateTime(DATES), help="Every event of this time or later (UTC).")
@click.option("--until", type=click.DateTime(DATES), help="With --since: of before this time (UTC).")
@click.option("--dry-run", is_flag=True, help="Only tell how many it would be.")
@operator_option
@json_option
@explaining
def republish(
    payments: Sequence[str], since: datetime | None, until: datetime | None, dry_run: bool, operator: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Publish events once more, with the ids, sequences and contents they had: for a consumer that lost some.

    Consumers drop by id what they have. The running workers send them, in order per payment; what happens meanwhile is
    published as always. May be stopped and run again.

    Exit codes: 0 done, 1 there is no such event or payment, 3 no worker publishes, or the database is away.
    """
    if bool(payments) == (since is not None):
        raise click.UsageError("say which: --payment, or --since")
    if until is not None and since is None:
        raise click.UsageError("--until belongs to --since")
    if len(payments) > PAYMENTS_MAX:
        raise click.UsageError(f"at most {PAYMENTS_MAX} payments at once")
    chosen = Chosen(payments, _ms(since) or 0, _ms(until))
    done = asyncio.run(_republish(chosen, operator, dry_run=dry_run, quiet=as_json))
    if as_json:
        print_json({
            "dryRun": dry_run, "payments": done.payments, "events": done.events, "waitingAlready": done.waiting,
            "unknown": list(done.unknown), "unreadable": list(done.unreadable),
        })  # fmt: skip
    else:
        for one in done.unknown:
            click.echo(f"there is no payment {one}", err=True)
        for one in done.unreadable:
            click.echo(f"this version cannot read the history of {one}", err=True)
        verb = "would be published" if dry_run else "are published"
        click.echo(f"{done.events} events of {done.payments} payments {verb} again")
        if done.waiting:
            click.echo(f"{done.waiting} of them wait for the broker already")
    end(OK if done.events and not (done.unknown or done.unreadable) else NOTHING)


def _ms(given: datetime | None) -> int | None:
    return None if given is None else int(given.replace(tzinfo=UTC).timestamp() * 1000)


async def _republish(chosen: Chosen, operator: str, *, dry_run: bool, quiet: bool) -> Republished:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    settings, total = service.load_settings(), Republished()
    columns = (SpinnerColumn(), TextColumn("{task.completed} events into the outbox"), TimeElapsedColumn())
    async with service.open_republisher(settings) as republisher, service.open_audit(settings) as audit:
        with Progress(*columns, console=console(stderr=True), disable=quiet) as progress:
            bar = progress.add_task("", total=None)
            try:
                async with aclosing(republisher.republish(chosen, dry_run=dry_run)) as steps:
                    async for step in steps:
                        total = Republished(
                            total.payments + step.payments, total.events + step.events, total.waiting + step.waiting,
                            total.unknown + step.unknown, total.unreadable + step.unreadable,
                        )  # fmt: skip
                        progress.advance(bar, step.events)
            finally:  # told also of one that was stopped half-way
                if total.events and not dry_run:
                    which = ",".join(chosen.payments[:5]) if chosen.payments else f"since {chosen.from_ms}"
                    audit.record(
                        AuditEntry(
                            time.time_ns() // 1_000_000, "events.republish", DONE, operator,
                            detail=f"{which}: {total.events}",
                        )
                    )  # fmt: skip
                    await audit.flush()
    return total
