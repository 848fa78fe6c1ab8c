"""What PayPal's events and objects tell by themselves: a verified event in, a Notice out; an order in, its news out.

Room: adapters/providers, beside paypal.py. Pure. Sources: developer.paypal.com/api/rest/webhooks/event-names,
/docs/api/customer-disputes/v1. An event's body is protected by a CRC alone, so that nothing of it is news: it says
which object changed, and that is asked for. What is not in EVENTS does not concern us.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from payment_service.adapters.providers.paypal_amounts import from_paypal
from payment_service.adapters.providers.paypal_answers import (
    OBJECT_CANCELLED,
    VERDICTS,
    payments_of,
    reason_of,
    unit_of,
    with_amount,
)
from payment_service.adapters.providers.paypal_requests import paypal_id, vault_id
from payment_service.adapters.providers.stripe_fields import Fields, text_of
from payment_service.core.errors import Malformed
from payment_service.core.ports import Answer
from payment_service.core.terms import DisputeState, Kind, Verdict
from payment_service.core.webhooks import Approved, AttemptNews, DisputeNews, MethodNews, News, Notice, RefundNews

NAME = "PAYPAL"
PAYMENT_ID_MAX = 64
NUMBER_DIGITS_MAX = 6


class About(StrEnum):
    """What kind of object an event carries."""

    ORDER = "order"
    AUTHORIZATION = "authorization"
    CAPTURE = "capture"
    REFUND = "refund"
    DISPUTE = "dispute"
    WALLET = "payment_token"
    """Saved at PayPal (paypal_methods.py): about no payment."""


EVENTS: Mapping[str, About] = {
    "CHECKOUT.ORDER.APPROVED": About.ORDER,
    "CHECKOUT.ORDER.COMPLETED": About.ORDER,
    "CHECKOUT.PAYMENT-APPROVAL.REVERSED": About.ORDER,
    "PAYMENT.AUTHORIZATION.CREATED": About.AUTHORIZATION,
    "PAYMENT.AUTHORIZATION.VOIDED": About.AUTHORIZATION,
    "PAYMENT.CAPTURE.COMPLETED": About.CAPTURE,
    "PAYMENT.CAPTURE.DECLINED": About.CAPTURE,
    "PAYMENT.CAPTURE.DENIED": About.CAPTURE,
    "PAYMENT.CAPTURE.PENDING": About.CAPTURE,
    # These two carry the refund.
    "PAYMENT.CAPTURE.REFUNDED": About.REFUND,
    "PAYMENT.CAPTURE.REVERSED": About.REFUND,
    "PAYMENT.REFUND.COMPLETED": About.REFUND,
    "PAYMENT.REFUND.DENIED": About.REFUND,
    "PAYMENT.REFUND.FAILED": About.REFUND,
    "PAYMENT.REFUND.PENDING": About.REFUND,
    "CUSTOMER.DISPUTE.CREATED": About.DISPUTE,
    "CUSTOMER.DISPUTE.UPDATED": About.DISPUTE,
    "CUSTOMER.DISPUTE.RESOLVED": About.DISPUTE,
    # Also by its owner, at PayPal.
    "VAULT.PAYMENT-TOKEN.DELETED": About.WALLET,
    "VAULT.PAYMENT-TOKEN.DELETION-INITIATED": About.WALLET,
}
GIVEN_BACK = frozenset({"REFUNDED", "PARTIALLY_REFUNDED"})
"""Statuses of a capture. Money that went back and is in no refund of its order (a reversal may be none) has no amount
and no id here: a person looks."""
OUTCOMES: Mapping[str, DisputeState] = {
    "RESOLVED_SELLER_FAVOUR": DisputeState.WON,
    "RESOLVED_BUYER_FAVOUR": DisputeState.LOST,
    "RESOLVED_WITH_PAYOUT": DisputeState.WON,  # PayPal paid the shopper out of its own pocket
    "CANCELED_BY_BUYER": DisputeState.WON,
    "DENIED": DisputeState.WON,
    "ACCEPTED": DisputeState.LOST,
}
"""`dispute_outcome.outcome_code` of a RESOLVED dispute. One that is not known keeps the money out of reach of refunds,
and is kept as text beside the reason."""


def notice_of(body: bytes) -> Notice:
    """Of a webhook's body. Raises Malformed when it is no event."""
    event = event_of(body)
    event_id, kind = paypal_id(event.get("id")), text_of(event.get("event_type"))
    created_at_ms, thing = moment_of(event.get("create_time")), event.inner("resource")
    if event_id is None or kind is None or created_at_ms is None or not thing:
        raise Malformed("the webhook's body is no event of PayPal with its object")
    about = EVENTS.get(kind)
    if about is None:
        return Notice(NAME, event_id, kind, created_at_ms, None, None, None, ())
    if about is About.WALLET:
        wallet = vault_id(thing.get("id"))
        gone = (MethodNews(wallet, detached=True),) if wallet is not None else ()
        return Notice(NAME, event_id, kind, created_at_ms, None, None, None, gone, refetch=wallet is not None)
    object_id = paypal_id(thing.get("id")) if about is About.ORDER else _order_of(thing)
    charge_id = capture_of(thing, about)
    news = dispute_news(thing) if about is About.DISPUTE else ()  # names the dispute
    return Notice(
        NAME, event_id, kind, created_at_ms, payment_id_of(thing, about), object_id, charge_id, news, refetch=True
    )


def event_of(body: bytes) -> Fields:
    """Raises Malformed."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the webhook's body is no JSON") from None
    if not isinstance(event, dict):
        raise Malformed("the webhook's body is no JSON object")
    return Fields(event)


def moment_of(text: object) -> int | None:
    """Milliseconds since 1970."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) and len(text) <= 40 else None
    except ValueError:
        return None
    return int(moment.timestamp() * 1000) if moment is not None and moment.tzinfo is not None else None


def payment_id_of(thing: Fields, about: About) -> str | None:
    """Ours, from what it carries."""
    match about:
        case About.ORDER:
            return text_of(unit_of(thing).get("custom_id"), PAYMENT_ID_MAX)
        case About.DISPUTE:
            disputed = thing.entries("disputed_transactions")
            return text_of(disputed[0].get("custom"), PAYMENT_ID_MAX) if disputed else None
        case _:
            return text_of(thing.get("custom_id"), PAYMENT_ID_MAX)


def capture_of(thing: Fields, about: About) -> str | None:
    """PayPal's id of the capture or authorization that it is about."""
    match about:
        case About.CAPTURE | About.AUTHORIZATION:
            return paypal_id(thing.get("id"))
        case About.DISPUTE:
            disputed = thing.entries("disputed_transactions")
            return paypal_id(disputed[0].get("seller_transaction_id")) if disputed else None
        case About.REFUND:
            for link in thing.entries("links"):  # a refund names its capture by a link alone
                href = text_of(link.get("href"), 500)
                if link.get("rel") == "up" and href is not None and "/payments/captures/" in href:
                    return paypal_id(href.rpartition("/")[2])
            return paypal_id(thing.inner("supplementary_data").inner("related_ids").get("capture_id"))
        case _:
            return None


def order_news(order: Fields) -> tuple[News, ...]:
    """Everything that has become of an order, as it stands now."""
    object_id = paypal_id(order.get("id"))
    held, taken = payments_of(order, "authorizations"), payments_of(order, "captures")
    if not held and not taken:
        return (Approved(),) if order.get("status") == "APPROVED" else ()
    news: list[News] = []
    for one in held[-1:]:  # those before the last were denied
        if one.get("status") == "VOIDED":
            gone = Answer(
                Verdict.APPROVED, None, object_id, code=OBJECT_CANCELLED, message="voided or expired",
                object_closed=True,
            )  # fmt: skip
            news.append(AttemptNews(Kind.VOID, gone))
        else:
            news.append(AttemptNews(Kind.AUTHORIZE, _answer(Kind.AUTHORIZE, one, object_id)))
    payment_id = payment_id_of(order, About.ORDER)
    # Without a hold before it, a no closes the order; with one, the hold stays.
    kind = Kind.CAPTURE if held else Kind.CHARGE
    for one in taken:
        number = _number(one, payment_id, Kind.CAPTURE) if held else None
        news.append(AttemptNews(kind, _answer(kind, one, object_id), number))
    refunded = payments_of(order, "refunds")
    news += [RefundNews(_answer(Kind.REFUND, it, object_id), _number(it, payment_id, Kind.REFUND)) for it in refunded]
    if not refunded and any(one.get("status") in GIVEN_BACK for one in taken):
        news.append(RefundNews(Answer(Verdict.APPROVED, None, object_id)))
    return tuple(news)


def dispute_news(dispute: Fields) -> tuple[News, ...]:
    dispute_id, status = paypal_id(dispute.get("dispute_id")), text_of(dispute.get("status"), 60) or ""
    amount = dispute.inner("dispute_amount")
    read = from_paypal(amount.get("currency_code"), amount.get("value"))
    if dispute_id is None or read is None:
        return ()
    state, reason = DisputeState.OPEN, text_of(dispute.get("reason"), 60)
    if status == "RESOLVED":
        outcome = text_of(dispute.inner("dispute_outcome").get("outcome_code"), 60) or ""
        state = OUTCOMES.get(outcome, DisputeState.OPEN)
        if outcome not in OUTCOMES:
            reason = f"{reason or '-'} ({outcome or 'no outcome'})"
    return (DisputeNews(dispute_id, state, read[0], read[1], reason),)


def _answer(kind: Kind, movement: Mapping[str, Any], object_id: str | None) -> Answer:
    thing = Fields(movement)
    said = VERDICTS[kind].get(str(movement.get("status")))
    if said is None:
        return Answer(Verdict.UNKNOWN, paypal_id(thing.get("id")), object_id)
    answer = Answer(
        said.verdict, paypal_id(thing.get("id")), object_id, code=said.code, message=said.message,
        object_closed=said.closed,
    )  # fmt: skip
    if said.verdict is Verdict.DECLINED:
        answer = replace(answer, decline_code=reason_of(thing))
    return with_amount(answer, thing.inner("amount"))


def _order_of(thing: Fields) -> str | None:
    return paypal_id(thing.inner("supplementary_data").inner("related_ids").get("order_id"))


def _number(movement: Mapping[str, Any], payment_id: str | None, kind: Kind) -> int | None:
    """Of our attempt or refund: in the invoice id of what we asked for, which is its key."""
    invoice_id = movement.get("invoice_id")
    if payment_id is None or not isinstance(invoice_id, str):
        return None
    prefix, _, number = invoice_id.rpartition(":")
    fits = number.isascii() and number.isdigit() and len(number) <= NUMBER_DIGITS_MAX
    return int(number) if fits and prefix == f"{payment_id}:{kind.lower()}" else None
