"""What Stripe's events and objects tell by themselves: a verified event in, a Notice out. Pure.

Room: adapters/providers, beside stripe.py. Sources: docs.stripe.com/api/events/types, /api/disputes/object. Events come
at least once and in any order, and each carries its object as it was then. What is not in EVENTS does not concern us.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from payment_service.adapters.providers.stripe_answers import (
    ACCOUNT_DIFFERS,
    OBJECT_CANCELLED,
    mode_review,
    payment_error,
    refund_state,
    with_amount,
)
from payment_service.adapters.providers.stripe_fields import Fields, identity, text_of
from payment_service.adapters.providers.stripe_requests import BROWSER
from payment_service.core.errors import Malformed
from payment_service.core.ports import Answer
from payment_service.core.terms import DisputeState, Kind, Verdict
from payment_service.core.webhooks import (
    AttemptNews,
    AuthorizationEnded,
    DisputeNews,
    MethodNews,
    News,
    Notice,
    RefundNews,
)

NAME = "STRIPE"
PAYMENT_ID_MAX = 64
NUMBER_DIGITS_MAX = 6
DISPUTES: Mapping[str, DisputeState] = {
    # An inquiry (warning_…) withdraws nothing yet; it counts as open, so that no refund crosses a chargeback.
    "warning_needs_response": DisputeState.OPEN,
    "warning_under_review": DisputeState.OPEN,
    "warning_closed": DisputeState.WON,
    "needs_response": DisputeState.OPEN,
    "under_review": DisputeState.OPEN,
    "appeal_needs_response": DisputeState.OPEN,
    "appeal_under_review": DisputeState.OPEN,
    "won": DisputeState.WON,
    "lost": DisputeState.LOST,
}


@dataclass(frozen=True, slots=True)
class Event:
    """How events of one type are read. `refetch`: what it carries is not enough, or may be about something older."""

    news: Callable[[Fields], tuple[News, ...]]
    refetch: bool = False


def notice_of(body: bytes, live: bool | None) -> Notice:
    """Of a webhook's body. Raises Malformed when it is no event, or a thin one, which says nothing by itself."""
    try:
        event = Fields(json.loads(body))
    except (ValueError, RecursionError):
        raise Malformed("the webhook's body is no JSON") from None
    event_id, kind, created = identity(event.get("id")), text_of(event.get("type")), event.get("created")
    thing = event.inner("data").inner("object")
    if event.get("object") != "event" or event_id is None or kind is None or type(created) is not int or not thing:
        raise Malformed("the webhook's body is no event with its object; thin events are not taken")
    reader = EVENTS.get(kind, NOT_OF_INTEREST)
    review = mode_review(event.get("livemode"), live)
    if event.get("account") is not None:  # of a connected account: none of ours
        review = tuple({*review, ACCOUNT_DIFFERS})
    return Notice(
        NAME, event_id, kind, created * 1000, payment_id_of(thing), _intent_id(thing), _charge_id(thing),
        reader.news(thing), reader.refetch, review,
    )  # fmt: skip


def payment_id_of(thing: Fields) -> str | None:
    if thing.get("object") == "payment_method":  # it carries that of the payment it was first used for
        return None
    return text_of(thing.inner("metadata").get("payment_id"), PAYMENT_ID_MAX)


def intent_news(intent: Fields) -> tuple[News, ...]:
    """Of a PaymentIntent as it stands. What the shopper still has to do is no news: the live answer carries it, with
    the secret that no event may carry."""
    object_id, charge_id = identity(intent.get("id")), identity(intent.get("latest_charge"))
    manual = intent.get("capture_method") == "manual"
    pays = Kind.AUTHORIZE if manual else Kind.CHARGE
    currency = intent.get("currency")
    yes = Answer(Verdict.APPROVED, charge_id or object_id, object_id)
    match intent.get("status"):
        case "processing":
            return (AttemptNews(pays, Answer(Verdict.PENDING, charge_id, object_id)),)
        case "requires_capture":
            return (AttemptNews(Kind.AUTHORIZE, with_amount(yes, intent.get("amount_capturable"), currency)),)
        case "succeeded":
            taken = with_amount(yes, intent.get("amount_received"), currency)
            if not manual:
                return (AttemptNews(Kind.CHARGE, taken),)
            held = with_amount(yes, intent.get("amount"), currency)
            return AttemptNews(Kind.AUTHORIZE, held), AttemptNews(Kind.CAPTURE, taken)
        case "canceled":
            reason = text_of(intent.get("cancellation_reason")) or ""
            gone = Answer(Verdict.APPROVED, None, object_id, code=OBJECT_CANCELLED, message=reason, object_closed=True)
            return (AttemptNews(Kind.VOID, gone),)
        case "requires_payment_method" if error := intent.inner("last_payment_error"):
            number = _number(error.inner("payment_method"))
            if number is None and intent.inner("metadata").get("collected_by") == BROWSER:
                return ()
            code, message, decline_code = payment_error(error)
            no = Answer(
                Verdict.DECLINED, identity(error.get("charge")), object_id, code=code, message=message,
                decline_code=decline_code,
            )  # fmt: skip
            return (AttemptNews(pays, no, number),)
        case _:
            return ()


def refund_news(refund: Fields) -> tuple[News, ...]:
    """A hold that is let go, and what a partial capture leaves, are refunds at Stripe too
    (github.com/odoo/odoo/pull/259230, github.com/woocommerce/woocommerce-gateway-stripe/issues/1073): done, by nobody,
    and without a movement on the account's balance. No money comes back with them, since none was taken."""
    answer, number = refund_state(refund.body), _number(refund)
    unmoved = "balance_transaction" in refund.body and refund.get("balance_transaction") is None
    let_go = number is None and unmoved and answer.verdict is Verdict.APPROVED
    return () if answer.provider_id is None or let_go else (RefundNews(answer, number),)


def dispute_news(dispute: Fields) -> tuple[News, ...]:
    """A status that is not known (`prevented` tells nothing of the money) keeps it out of reach of refunds, and is kept
    as text beside the reason. One of no amount of ours is in no currency of ours: a person looks."""
    dispute_id, status = identity(dispute.get("id")), text_of(dispute.get("status"), 60) or ""
    if dispute_id is None:
        return ()
    stated = with_amount(Answer(Verdict.PENDING), dispute.get("amount"), dispute.get("currency"))
    read = stated.amount_minor is not None and stated.currency is not None
    amount_minor, currency = (stated.amount_minor or 0, stated.currency or "") if read else (0, "")
    state, reason = DISPUTES.get(status), text_of(dispute.get("reason"), 60)
    if state is None:
        state, reason = DisputeState.OPEN, f"{reason or '-'} ({status or 'no status'})"
    return (DisputeNews(dispute_id, state, amount_minor, currency, reason),)


def _captured_news(charge: Fields) -> tuple[News, ...]:
    yes = Answer(Verdict.APPROVED, identity(charge.get("id")), identity(charge.get("payment_intent")))
    return (AttemptNews(Kind.CAPTURE, with_amount(yes, charge.get("amount_captured"), charge.get("currency"))),)


def _method_news(method: Fields, *, detached: bool = False) -> tuple[News, ...]:
    method_id, card = identity(method.get("id")), method.inner("card")
    if method_id is None:
        return ()
    return (
        MethodNews(
            method_id, detached, text_of(card.get("brand"), 30), text_of(card.get("last4"), 4),
            _small(card.get("exp_month")), _small(card.get("exp_year")),
        ),
    )  # fmt: skip


def _nothing(thing: Fields) -> tuple[News, ...]:
    return ()


NOT_OF_INTEREST = Event(_nothing)

EVENTS: Mapping[str, Event] = {
    "payment_intent.created": Event(_nothing),
    "payment_intent.requires_action": Event(intent_news),
    "payment_intent.processing": Event(intent_news),
    "payment_intent.amount_capturable_updated": Event(intent_news),
    "payment_intent.partially_funded": Event(intent_news),
    "payment_intent.succeeded": Event(intent_news),
    "payment_intent.payment_failed": Event(intent_news),
    "payment_intent.canceled": Event(intent_news),
    "charge.captured": Event(_captured_news),
    "charge.expired": Event(lambda charge: (AuthorizationEnded(),)),
    # Names the sum only; some refunds are told by this event alone.
    "charge.refunded": Event(_nothing, refetch=True),
    "charge.refund.updated": Event(refund_news),
    "refund.created": Event(refund_news),
    "refund.updated": Event(refund_news),
    "refund.failed": Event(refund_news),
    "charge.dispute.created": Event(dispute_news),
    "charge.dispute.updated": Event(dispute_news),
    "charge.dispute.closed": Event(dispute_news),
    "charge.dispute.funds_withdrawn": Event(dispute_news),
    "charge.dispute.funds_reinstated": Event(dispute_news),
    "payment_method.detached": Event(lambda method: _method_news(method, detached=True)),
    "payment_method.updated": Event(_method_news),
    "payment_method.automatically_updated": Event(_method_news),
}
"""charge.succeeded and charge.failed say what payment_intent.… says. Reviews, fraud warnings, mandates, customers and
setup_intent.… change no payment and no saved method."""


def _intent_id(thing: Fields) -> str | None:
    return identity(thing.get("id") if thing.get("object") == "payment_intent" else thing.get("payment_intent"))


def _charge_id(thing: Fields) -> str | None:
    match thing.get("object"):
        case "payment_intent":
            return identity(thing.get("latest_charge"))
        case "charge":
            return identity(thing.get("id"))
        case _:
            return identity(thing.get("charge"))


def _number(thing: Fields) -> int | None:
    """Of our attempt or refund: in the metadata of what we made."""
    number = thing.inner("metadata").get("number")
    fits = isinstance(number, str) and number.isascii() and number.isdigit() and len(number) <= NUMBER_DIGITS_MAX
    return int(number) if fits and isinstance(number, str) else None


def _small(value: object) -> int | None:
    return value if type(value) is int and 0 < value < 10_000 else None
