"""`payment-service webhooks`: what providers told us, what became of it, and once more, please.

Room: cli.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import click

from payment_service.cli import service
from payment_service.cli.operators import operator_option
from payment_service.cli.outcome import NOTHING, USAGE, Failed, end, explaining
from payment_service.cli.output import json_option, moment, print_json, print_table
from payment_service.codecs.times import rfc3339
from payment_service.core.audit import OK, AuditEntry
from payment_service.core.webhooks import ListedWebhook, WebhookStatus

LIMIT_MAX = 10_000
STATUSES = click.Choice([status.value for status in WebhookStatus], case_sensitive=False)


@click.group()
def webhooks() -> None:
    """Look at the events of providers, and apply them again."""


@webhooks.command("list")
@click.option("--status", type=STATUSES)
@click.option("--provider", help="STRIPE, PAYPAL or MOCK.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True)
@json_option
@explaining
def list_webhooks(status: str | None, provider: str | None, limit: int, as_json: bool) -> None:
    """List webhooks, newest first."""
    rows = asyncio.run(_listed(status=_upper(status), provider=_upper(provider), limit=limit))
    if as_json:
        print_json([_view(row) for row in rows])
    elif rows:
        print_table(
            "Webhooks", ("id", "provider", "type", "status", "why", "payment", "event", "tries", "received"),
            [
                (row.row_id, row.provider, row.type, row.status, row.reason, row.payment_id, row.event_id, row.tries,
                 moment(rfc3339(row.received_at_ms)))
                for row in rows
            ],
            right=["tries"],
        )  # fmt: skip
    else:
        click.echo("No webhook is like that.", err=True)
    end(0 if rows else NOTHING)


@webhooks.command()
@click.argument("webhook_id", type=int)
@json_option
@explaining
def show(webhook_id: int, as_json: bool) -> None:
    """Show one webhook, without its body."""
    rows = asyncio.run(_listed(row_id=webhook_id, limit=1))
    if not rows:
        raise _unknown(webhook_id)
    view = _view(rows[0])
    if as_json:
        print_json(view)
    else:
        print_table(f"Webhook {webhook_id}", ("field", "value"), view.items())


@webhooks.command()
@click.argument("webhook_id", type=int, required=False)
@click.option("--status", type=STATUSES, help="All with this status.")
@click.option("--all", "everything", is_flag=True, help="All that are kept.")
@operator_option
@json_option
@explaining
def replay(webhook_id: int | None, status: str | None, everything: bool, operator: str, as_json: bool) -> None:
    """Apply a webhook again, or all of a status; what one did before it does not do again.

    A running worker takes them within seconds.
    """
    if sum((webhook_id is not None, status is not None, everything)) != 1:
        raise Failed("name one webhook, or --status, or --all", USAGE)
    count = asyncio.run(_replay(webhook_id, _upper(status), operator))
    if count == 0 and webhook_id is not None:
        raise _unknown(webhook_id)
    if as_json:
        print_json({"replayed": count})
    else:
        click.echo(f"{count} webhooks are applied again.")
    end(0 if count else NOTHING)


def _upper(word: str | None) -> str | None:
    return word.upper() if word else None


def _unknown(webhook_id: int) -> Failed:
    return Failed(f"there is no webhook {webhook_id}", NOTHING, "`payment-service webhooks list` shows what there is.")


def _view(row: ListedWebhook) -> dict[str, Any]:
    return {
        "id": row.row_id,
        "provider": row.provider,
        "eventId": row.event_id,
        "type": row.type,
        "status": row.status,
        "reason": row.reason or None,
        "paymentId": row.payment_id,
        "objectId": row.object_id,
        "tries": row.tries,
        "receivedAt": rfc3339(row.received_at_ms),
        "updatedAt": rfc3339(row.updated_at_ms),
    }


async def _listed(**query: Any) -> Sequence[ListedWebhook]:
    async with service.open_webhooks(service.load_settings()) as records:
        return await records.listed(**query)


async def _replay(webhook_id: int | None, status: str | None, operator: str) -> int:
    settings = service.load_settings()
    async with service.open_webhooks(settings) as records, service.open_audit(settings) as audit:
        count = await records.replay(status=status, row_id=webhook_id)
        which = str(webhook_id) if webhook_id is not None else status or "all"
        audit.record(
            AuditEntry(time.time_ns() // 1_000_000, "webhook.replay", OK, operator, detail=f"{which}: {count}")
        )
        await audit.flush()
    return count
