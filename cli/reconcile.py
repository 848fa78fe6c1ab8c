"""`payment-service reconcile`: the provider calls that are not settled, and looking at them now.

Room: cli. It asks no provider itself: the running workers do.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict

import click

from payment_service.cli import service
from payment_service.cli.outcome import explaining
from payment_service.cli.output import json_option, money, print_json, print_table, status_text
from payment_service.core.ports import OpenCall

LIMIT_MAX = 10_000
"""Calls shown, and calls hurried by one command: a provider must not be asked about more than that at once."""


@click.command(short_help="Show provider calls that are open.")
@click.option("--now", is_flag=True, help="Let the workers look at all of them at once, not when their time comes.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="Calls shown.")
@json_option
@explaining
def reconcile(now: bool, limit: int, as_json: bool) -> None:
    """Show the provider calls and refunds whose outcome is open, oldest first.

    The workers settle them by themselves; what they cannot find out is decided with `payments resolve`.
    """
    hurried, calls = asyncio.run(_open_calls(now, limit))
    if as_json:
        print_json({"hurried": hurried, "calls": [asdict(call) for call in calls]})
        return
    if now:
        click.echo(f"{hurried} made due now", err=True)
    if not calls:
        click.echo("No provider call is open.", err=True)
        return
    now_ms = time.time_ns() // 1_000_000
    print_table(
        "Open provider calls",
        ("call", "type", "status", "amount", "provider", "age", "tries", "sent first", "next look", "under way at"),
        [
            (call.transaction_id, call.kind, status_text(call.status), money(call.amount_minor, call.currency),
             call.provider, _span((now_ms - call.created_at_ms) / 1000), call.tries,
             f"{_span((now_ms - call.sent_at_ms) / 1000)} ago" if call.sent_at_ms is not None else "never",
             f"in {_span(call.due_in_s)}" if call.due_in_s > 0 else "due", call.owner)
            for call in calls
        ],
        right=["amount", "age", "tries"],
        note=f"the oldest {limit}; more with --limit" if len(calls) == limit else "",
    )  # fmt: skip


async def _open_calls(now: bool, limit: int) -> tuple[int, Sequence[OpenCall]]:
    async with service.open_calls(service.load_settings()) as calls:
        hurried = await calls.hurry(LIMIT_MAX) if now else 0
        return hurried, await calls.open_calls(limit)


def _span(seconds: float) -> str:
    """ "45s", "12m", "3h", "2d": what matters of a length of time."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"
