"""`payment-service payments`: what PostgreSQL says, which is the truth.

Room: cli. Reads, but for `resolve`, which lets a person decide what nobody could find out.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from payment_service.cli import service
from payment_service.cli.operators import operator_option
from payment_service.cli.outcome import NOTHING, Failed, end, explaining
from payment_service.cli.output import json_option, moment, money, print_json, print_table, status_text
from payment_service.codecs.rest import page_view, payment_with_history_view, timeline_view
from payment_service.core.audit import OK, AuditEntry
from payment_service.core.errors import PaymentError
from payment_service.core.payment import Payment, status_of
from payment_service.core.ports import PaymentFilter, PaymentPage, StoredEvent
from payment_service.core.terms import Status
from payment_service.core.use_cases.old_ids import OWN_PREFIX
from payment_service.core.use_cases.operator_desk import BY_HAND, Decision, checked_reason, decide_by_hand

LIMIT_MAX = 1000
OFFSET_MAX = 10_000
DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]


@click.group()
def payments() -> None:
    """Look at payments in the database, and decide what is open."""


@payments.command("list")
@click.option("--status", type=click.Choice([status.value for status in Status], case_sensitive=False))
@click.option("--user", help="Of this user.")
@click.option("--provider", help="STRIPE, PAYPAL or MOCK.")
@click.option("--since", type=click.DateTime(DATES), help="Created at this time or later (UTC).")
@click.option("--until", type=click.DateTime(DATES), help="Created before this time (UTC).")
@click.option("--sort", type=click.Choice(["createdAt", "amount", "status"]), default="createdAt", show_default=True)
@click.option("--ascending", is_flag=True, help="Smallest or oldest first.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0, OFFSET_MAX), default=0)
@json_option
@explaining
def list_payments(as_json: bool, **given: Any) -> None:
    """List payments, newest first."""
    query = _query(**given)
    page = asyncio.run(_find(query))
    if as_json:
        print_json(page_view(page, query))
    elif page.payments:
        print_table(
            "Payments",
            ("payment", "order", "user", "status", "amount", "provider", "created", "note"),
            [_line(payment) for payment in page_view(page, query)["payments"]],
            right=["amount"],
            note=_of_total(query, page),
        )
    else:
        click.echo("No payment is like that.", err=True)
    end(0 if page.payments else NOTHING)


def _query(
    status: str | None, user: str | None, provider: str | None, since: datetime | None, until: datetime | None,
    sort: str, ascending: bool, limit: int, offset: int,
) -> PaymentFilter:  # fmt: skip
    return PaymentFilter(
        user_id=user,
        status=status.upper() if status else None,
        provider=provider.upper() if provider else None,
        created_from_ms=_ms(since),
        created_to_ms=_ms(until),
        sort_by=sort,
        descending=not ascending,
        limit=limit,
        offset=offset,
    )


def _ms(moment_given: datetime | None) -> int | None:
    return None if moment_given is None else int(moment_given.replace(tzinfo=UTC).timestamp() * 1000)


def _line(payment: dict[str, Any]) -> Sequence[Any]:
    flags = ("needsReview", "disputed", "cancelRequested", "unconfirmed")
    return (
        payment["id"], payment["orderId"], payment["userId"], status_text(payment["status"]),
        money(payment["amountMinor"], payment["currency"]), payment["paymentProvider"], moment(payment["createdAt"]),
        " ".join(flag for flag in flags if payment[flag]),
    )  # fmt: skip


def _of_total(query: PaymentFilter, page: PaymentPage) -> str:
    first, last = query.offset + 1, query.offset + len(page.payments)
    return f"{first}-{last} of {'more than ' if page.total_capped else ''}{page.total}"


@payments.command()
@click.argument("payment_id")
@json_option
@explaining
def show(payment_id: str, as_json: bool) -> None:
    """Show one payment with its provider calls and refunds."""
    payment = asyncio.run(_load(payment_id))
    if payment is None:
        raise _unknown(payment_id)
    view = payment_with_history_view(payment)
    if as_json:
        print_json(view)
        return
    calls, refunds = view.pop("transactions"), view.pop("refunds")
    view["status"] = status_text(view["status"])
    print_table(f"Payment {payment_id}", ("field", "value"), view.items())
    if calls:
        print_table(
            "Provider calls", ("call", "type", "status", "amount", "at the provider", "failure", "updated"),
            [
                (it["id"], it["type"], it["status"], money(it["amountMinor"], it["currency"]),
                 it["providerTransactionId"], (it["failure"] or {}).get("code"), moment(it["updatedAt"]))
                for it in calls
            ],
            right=["amount"],
        )  # fmt: skip
    if any(it["status"] == Status.UNKNOWN for it in calls):
        click.echo(
            "`payment-service reconcile` shows when it is asked for again, `reconcile --now` asks at once; what the "
            f"provider cannot tell is decided with `payments resolve {payment_id} --attempt N`.",
            err=True,
        )
    if refunds:
        print_table(
            "Refunds", ("refund", "status", "amount", "reason", "created"),
            [
                (it["id"], it["status"], money(it["amountMinor"], it["currency"]), it["reason"],
                 moment(it["createdAt"]))
                for it in refunds
            ],
            right=["amount"],
        )  # fmt: skip


@payments.command()
@click.argument("payment_id")
@json_option
@explaining
def timeline(payment_id: str, as_json: bool) -> None:
    """Show everything that ever happened to a payment, in order."""
    events = [timeline_view(event) for event in asyncio.run(_events(payment_id))]
    if not events:
        raise _unknown(payment_id)
    if as_json:
        print_json(events)
        return
    print_table(
        f"Timeline of {payment_id}", ("#", "published", "at (UTC)", "what", "by", "through", "why", "details"),
        [
            (it["version"], it["sequence"], moment(it["timestamp"]), it["type"], it["by"], it["source"],
             it["reason"], it["details"] or "")
            for it in events
        ],
        right=["#", "published"],
    )  # fmt: skip


@payments.command()
@click.argument("payment_id")
@click.option("--attempt", type=click.IntRange(1), help="Its number: in the last part of the call's id.")
@click.option("--refund", type=click.IntRange(1), help="Instead of an attempt: the number of a refund.")
@click.option("--as", "verdict", required=True, type=click.Choice(list(BY_HAND)), help="What really became of it.")
@click.option("--provider-id", help="The provider's id of the charge, capture or refund, when it was approved.")
@click.option("--amount", type=click.IntRange(1), help="Minor units the provider moved, if not what was asked.")
@click.option("--reason", required=True, help="How you know; kept in the payment's timeline.")
@operator_option
@json_option
@explaining
def resolve(payment_id: str, attempt: int | None, refund: int | None, as_json: bool, **given: Any) -> None:
    """Decide by hand what became of an open provider call or refund.

    Look it up at the provider first: what is decided wrongly here is money lost, or taken twice. A worker that has
    the call under way just now may still bring another answer, which is then recorded and flagged.
    """
    if (attempt is None) == (refund is None):
        raise click.UsageError("say which: --attempt N or --refund N")
    if given["verdict"] != "approved" and (given["amount"] or given["provider_id"]):
        raise click.UsageError("--amount and --provider-id belong to --as approved")
    payment = asyncio.run(_resolve(payment_id, attempt, refund, **given))
    if as_json:
        print_json(payment_with_history_view(payment))
    else:
        click.echo(f"{payment_id} is {status_of(payment)} now")


async def _resolve(
    payment_id: str, attempt: int | None, refund: int | None, *, verdict: str, provider_id: str | None,
    amount: int | None, reason: str, operator: str,
) -> Payment:  # fmt: skip
    """Raises Refused: there is no such payment or call, or it is not open. Told in the audit log either way."""
    settings, at_ms = service.load_settings(), time.time_ns() // 1_000_000
    reason = checked_reason(reason)
    entry = AuditEntry(at_ms, "payment.resolve", OK, operator, payment_id=payment_id, detail=reason)
    decision = Decision(verdict, reason, attempt, refund, provider_id, amount)
    async with service.open_execute(settings) as execute, service.open_audit(settings) as audit:
        try:
            payment = await decide_by_hand(execute, payment_id, operator, decision)
        except PaymentError as error:
            audit.record(entry._replace(result=error.code))
            await audit.flush()
            if error.code == "PAYMENT_NOT_FOUND":
                raise _unknown(payment_id) from None
            raise
        audit.record(entry)
        await audit.flush()
    return payment


def _unknown(payment_id: str) -> Failed:
    return Failed(f"there is no payment {payment_id}", NOTHING, "`payment-service payments list` shows what there is.")


async def _find(query: PaymentFilter) -> PaymentPage:
    async with service.open_reader(service.load_settings()) as store:
        return await store.find(query)


async def _load(payment_id: str) -> Payment | None:
    """Also by an id of the service before this one."""
    settings = service.load_settings()
    old = None if payment_id.startswith(OWN_PREFIX) else await service.find_old(settings, payment_id)
    if old is not None and old.history is not None:
        return old.history
    async with service.open_reader(settings) as store:
        return (await store.load(payment_id if old is None else old.payment_id)).payment


async def _events(payment_id: str) -> list[StoredEvent]:
    settings = service.load_settings()
    old = None if payment_id.startswith(OWN_PREFIX) else await service.find_old(settings, payment_id)
    if old is not None and old.event is not None:
        return [StoredEvent(1, None, old.event.at_ms, type(old.event).__name__, old.event)]
    async with service.open_reader(settings) as store:
        return await store.events(payment_id if old is None else old.payment_id)
