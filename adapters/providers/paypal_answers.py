"""Everything PayPal can say, and what it means: status and body in, an Answer out. Pure, and never raises.

Room: adapters/providers, beside paypal.py. Sources: developer.paypal.com/docs/api/orders/v2, /payments/v2 (statuses),
/api/rest/responses and the error pages of both. A word that is not in these tables is UNKNOWN. An order that is
COMPLETED is not paid by that: its capture says whether it is. PayPal's texts are not kept, only its codes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from payment_service.adapters.providers.paypal_amounts import from_paypal
from payment_service.adapters.providers.paypal_api import Reply
from payment_service.adapters.providers.paypal_requests import intent_of, paypal_id
from payment_service.adapters.providers.registration import (
    CARD_DECLINED,
    IDEMPOTENCY_MISMATCH,
    KEY_REFUSED,
    NOT_FOUND,
    NOT_UNDERSTOOD,
    OBJECT_NOT_OURS,
    PROVIDER_ERROR,
    RATE_LIMITED,
)
from payment_service.adapters.providers.stripe_fields import Fields, text_of, whole_text
from payment_service.core.ports import Answer, NextAction, ProviderCall
from payment_service.core.terms import TAKES_MONEY, Kind, Verdict

OBJECT_CANCELLED = "OBJECT_CANCELLED"
OBJECT_MISSING = "OBJECT_MISSING"
"""UNKNOWN, and for a person: PayPal does not know what we made there. Another account's credentials?"""
OBJECT_DIFFERS = "OBJECT_DIFFERS"
"""DECLINED: the order that a front end named, or changed, is ours, but not for this amount, currency or intent."""
INVALID_STATE = "INVALID_STATE"
INVALID_REQUEST = "INVALID_REQUEST"
PAYMENT_FAILED = "PAYMENT_FAILED"
REFUND_FAILED = "REFUND_FAILED"
REFUND_CANCELLED = "REFUND_CANCELLED"
KEY_IN_USE = "IDEMPOTENCY_IN_USE"
"""UNKNOWN: the same key is being worked on there right now."""
CAPTURE_METHOD_DIFFERS = "CAPTURE_METHOD_DIFFERS"
DUPLICATE_INVOICE = "DUPLICATE_INVOICE_ID"
"""DECLINED, and for a person: the account has been paid for this invoice id before."""
AMOUNT_DIFFERS, CURRENCY_DIFFERS = "AMOUNT_DIFFERS", "CURRENCY_DIFFERS"


@dataclass(frozen=True, slots=True)
class Said:
    verdict: Verdict
    code: str = ""
    message: str = ""
    closed: bool = False
    """Nothing can be paid with the order any more."""


YES = Said(Verdict.APPROVED)
LATER = Said(Verdict.PENDING)
NOT_DONE = Said(Verdict.UNKNOWN, NOT_FOUND, "PayPal has not done it, so far")
CANCELLED = Said(Verdict.DECLINED, OBJECT_CANCELLED, "it was cancelled", closed=True)
UNKNOWN_WORD = Said(Verdict.UNKNOWN, NOT_UNDERSTOOD, "PayPal answered with a word that is not known")
NOT_OURS = Said(Verdict.DECLINED, OBJECT_NOT_OURS, "the order is not of this payment", closed=True)
REFUSED_BY_STATE = Said(Verdict.DECLINED, INVALID_STATE, "PayPal refused it in the state in which the payment is")
TAKEN = Said(Verdict.DECLINED, INVALID_STATE, "the money was taken: refund it")
REFUSED = Said(Verdict.DECLINED, CARD_DECLINED, "PayPal declined it", closed=True)

_CAPTURE = {
    "COMPLETED": YES,
    "PARTIALLY_REFUNDED": YES,
    "REFUNDED": YES,
    "PENDING": LATER,  # a review, an e-check, a currency to be accepted: the reason is its `status_details`
    "DECLINED": REFUSED,
    "FAILED": Said(Verdict.DECLINED, PAYMENT_FAILED, "the capture failed", closed=True),
}
VERDICTS: Mapping[Kind, Mapping[str, Said]] = {
    Kind.CHARGE: _CAPTURE,  # the status of the order's capture
    Kind.CAPTURE: {  # the status of the authorization's capture; a no leaves the hold as it is
        **_CAPTURE,
        "DECLINED": replace(REFUSED, closed=False),
        "FAILED": Said(Verdict.DECLINED, PAYMENT_FAILED, "the capture failed"),
    },
    Kind.AUTHORIZE: {  # the status of the order's authorization
        "CREATED": YES,
        "CAPTURED": YES,
        "PARTIALLY_CAPTURED": YES,
        "PENDING": LATER,
        "DENIED": REFUSED,
        "VOIDED": CANCELLED,
    },
    Kind.VOID: {  # the same, when it was to be released
        "CREATED": NOT_DONE,
        "PENDING": NOT_DONE,
        "CAPTURED": TAKEN,
        "PARTIALLY_CAPTURED": TAKEN,
        "DENIED": YES,
        "VOIDED": YES,
    },
    Kind.REFUND: {
        "COMPLETED": YES,
        "PENDING": LATER,
        "FAILED": Said(Verdict.DECLINED, REFUND_FAILED, "the refund failed"),
        "CANCELLED": Said(Verdict.DECLINED, REFUND_CANCELLED, "the refund was cancelled"),
    },
}
UNPAID = frozenset({"CREATED", "SAVED", "PAYER_ACTION_REQUIRED"})
"""Statuses of an order that nobody has approved: PayPal lets nobody take its money."""

ERRORS_BY_STATUS: Mapping[int, Said] = {
    401: Said(Verdict.NOT_SENT, KEY_REFUSED, "PayPal does not accept our credentials"),
    403: Said(Verdict.NOT_SENT, KEY_REFUSED, "our account may not do this at PayPal"),
    409: Said(Verdict.UNKNOWN, KEY_IN_USE, "PayPal is at work on the same"),
    429: Said(Verdict.NOT_SENT, RATE_LIMITED, "too many requests"),
}
STATE_ISSUES = frozenset({
    *("ORDER_ALREADY_CAPTURED", "ORDER_ALREADY_AUTHORIZED", "ORDER_ALREADY_COMPLETED", "ORDER_NOT_APPROVED"),
    *("ACTION_DOES_NOT_MATCH_INTENT", "PAYER_ACTION_REQUIRED", "ORDER_COMPLETED_OR_VOIDED", "ORDER_EXPIRED"),
    "MAX_AUTHORIZATION_COUNT_EXCEEDED",
    *("AUTHORIZATION_ALREADY_CAPTURED", "AUTHORIZATION_VOIDED", "AUTHORIZATION_DENIED", "AUTHORIZATION_EXPIRED"),
    *("PREVIOUSLY_CAPTURED", "PREVIOUSLY_VOIDED", "CANNOT_BE_VOIDED"),
})  # fmt: skip
"""Issues that say that it is not as we thought: how it is now is the answer."""
DECLINES = frozenset({
    *("INSTRUMENT_DECLINED", "TRANSACTION_REFUSED", "PAYER_CANNOT_PAY", "PAYER_ACCOUNT_RESTRICTED"),
    *("PAYER_ACCOUNT_LOCKED_OR_CLOSED", "REDIRECT_PAYER_FOR_ALTERNATE_FUNDING", "COMPLIANCE_VIOLATION"),
    *("CARD_EXPIRED", "CARD_CLOSED", "PAYEE_BLOCKED_TRANSACTION", "MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED"),
})  # fmt: skip
IN_PROGRESS = "ORDER_COMPLETION_IN_PROGRESS"
"""PayPal takes the money by itself, of an order that a front end made so: how it is now is no answer yet."""
MISMATCHES = frozenset({"PAYPAL_REQUEST_ID_PREVIOUSLY_USED", "DUPLICATE_REQUEST_ID"})
URL_MAX = 4096


# --- the order, as the answer to what was asked of it --------------------------------------------------------------


def created_answer(call: ProviderCall, reply: Reply) -> Answer:
    """Of the request that makes the order. Without a saved wallet the shopper has to act next."""
    if reply.status not in (200, 201):
        return error_answer(call, reply)
    order = Fields(reply.body)
    object_id = paypal_id(order.get("id"))
    if object_id is None:
        return said_answer(call, UNKNOWN_WORD)
    review = _review(call, order)
    if AMOUNT_DIFFERS in review or CURRENCY_DIFFERS in review:
        # "The latest status of the previous request that used that same header": of another one, then.
        return said_answer(call, Said(Verdict.UNKNOWN, IDEMPOTENCY_MISMATCH, "the key was used for another order"))
    action = approval_of(order) if call.method_token is None else None
    if call.method_token is None and action is None:
        return said_answer(call, UNKNOWN_WORD)
    return Answer(Verdict.APPROVED, object_id=object_id, next_action=action, review=review)


def order_answer(call: ProviderCall, body: Mapping[str, Any], *, refused: bool = False) -> Answer:
    """Of an order. `refused`: PayPal refused this call because of its state, so what is not done will not be done."""
    order = Fields(body)
    if paypal_id(order.get("id")) is None or order.get("id") != call.object_id:
        return said_answer(call, UNKNOWN_WORD)
    match call.kind:
        case Kind.REFUND:
            answer = _refund_in(call, order)
        case Kind.CAPTURE:
            answer = _capture_in(call, order)
        case Kind.VOID:
            answer = _void_in(call, order)
        case _:
            answer = _payment_in(call, order)
    if refused and answer.code == NOT_FOUND and not answer.approved:
        answer = replace(said_answer(call, REFUSED_BY_STATE), review=answer.review)
    return answer


def movement_answer(call: ProviderCall, movement: Mapping[str, Any]) -> Answer:
    """Of a capture, authorization or refund, as it is shown by itself or within its order."""
    thing = Fields(movement)
    provider_id = paypal_id(thing.get("id"))
    if provider_id is None:
        return said_answer(call, UNKNOWN_WORD)
    said = VERDICTS[call.kind].get(str(thing.get("status")), UNKNOWN_WORD)
    answer = replace(said_answer(call, said), provider_id=provider_id)
    if said.verdict is Verdict.DECLINED:
        answer = replace(answer, decline_code=reason_of(thing))
    elif said.verdict is Verdict.PENDING:
        answer = replace(answer, code=reason_of(thing) or "")
    return with_amount(answer, thing.inner("amount"))


def with_amount(answer: Answer, amount: Fields) -> Answer:
    """With an amount in our units. One that our units cannot say is for a person."""
    read = from_paypal(amount.get("currency_code"), amount.get("value"))
    if read is None:
        return replace(answer, review=(*answer.review, AMOUNT_DIFFERS)) if amount else answer
    return replace(answer, amount_minor=read[0], currency=read[1])


def reason_of(thing: Fields) -> str | None:
    """Why it is pending, or was declined."""
    code = text_of(thing.inner("processor_response").get("response_code"), 60)
    return code or text_of(thing.inner("status_details").get("reason"), 60)


def unit_of(order: Fields) -> Fields:
    """We make orders of one unit."""
    units = order.entries("purchase_units")
    return Fields(units[0]) if units else Fields(None)


def payments_of(order: Fields, name: str) -> Sequence[Mapping[str, Any]]:
    return unit_of(order).inner("payments").entries(name)


def authorization_of(order: Fields) -> str | None:
    """The last one: those before it were denied."""
    held = payments_of(order, "authorizations")
    return paypal_id(held[-1].get("id")) if held else None


def with_money(captures: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The capture that took the money, or is about to."""
    rest = [one for one in captures if one.get("status") not in ("DECLINED", "FAILED")] or captures
    return rest[-1] if rest else None


def approval_of(order: Fields) -> NextAction | None:
    """Where the shopper approves it: `payer-action`, or `approve` for orders made without naming the wallet."""
    for rel in ("payer-action", "approve", "redirect"):
        for link in order.entries("links"):
            url = whole_text(link.get("href"), URL_MAX)
            if link.get("rel") == rel and url is not None and url.startswith(("https://", "http://")):
                return NextAction("redirect", url=url)
    return None


def said_answer(call: ProviderCall, said: Said) -> Answer:
    return Answer(
        said.verdict, object_id=call.object_id, code=said.code, message=said.message, object_closed=said.closed
    )


def not_ours(call: ProviderCall) -> Answer:
    """A front end named an order that is not this payment's, or none at all."""
    return replace(said_answer(call, NOT_OURS), review=(OBJECT_NOT_OURS,))


def _payment_in(call: ProviderCall, order: Fields) -> Answer:
    taken, held = payments_of(order, "captures"), payments_of(order, "authorizations")
    review = _review(call, order)
    made = with_money(taken) if call.kind is Kind.CHARGE else (held[-1] if held else None)
    if made is not None:
        answer = movement_answer(call, made)
        if call.adopted and OBJECT_NOT_OURS in review:
            return not_ours(call)
        own = tuple(reason for reason in review if reason == OBJECT_NOT_OURS)
        return replace(answer, review=(*answer.review, *own))
    if taken or held:
        differs = Said(Verdict.UNKNOWN, CAPTURE_METHOD_DIFFERS, "taken or held, the other way than was asked for")
        return replace(said_answer(call, differs), review=(*review, CAPTURE_METHOD_DIFFERS))
    return replace(_unpaid(call, order, review), review=review)


def _unpaid(call: ProviderCall, order: Fields, review: tuple[str, ...]) -> Answer:
    """Nothing has moved yet: does the shopper have to act, have they approved it, or was it closed?"""
    status = str(order.get("status"))
    if call.adopted and OBJECT_NOT_OURS in review:
        return said_answer(call, NOT_OURS)
    if status == "VOIDED":
        return said_answer(call, CANCELLED)
    other_intent = order.get("intent") != intent_of(call)
    if call.adopted and (other_intent or review):
        differs = Said(Verdict.DECLINED, OBJECT_DIFFERS, "the order is for something else", closed=True)
        return said_answer(call, differs)
    if status == "APPROVED" or status in UNPAID:
        if other_intent:
            return said_answer(call, CANCELLED)
        if status == "APPROVED":
            return replace(said_answer(call, NOT_DONE), approved=True)
        action = approval_of(order)
        if action is not None and (call.method_token is None or status == "PAYER_ACTION_REQUIRED"):
            return replace(said_answer(call, LATER), next_action=action)
        return said_answer(call, NOT_DONE)
    return said_answer(call, UNKNOWN_WORD)


def _capture_in(call: ProviderCall, order: Fields) -> Answer:
    """By the invoice id that it carries; or whichever took the money, since that is done once."""
    taken = payments_of(order, "captures")
    ours = [one for one in taken if one.get("invoice_id") == call.key]
    made = ours[-1] if ours else with_money(taken)
    if made is not None and (ours or VERDICTS[Kind.CAPTURE].get(str(made.get("status"))) in (YES, LATER)):
        return movement_answer(call, made)
    held = payments_of(order, "authorizations")
    match held[-1].get("status") if held else None:
        case "CREATED" | "PENDING" | "PARTIALLY_CAPTURED":
            return said_answer(call, NOT_DONE)
        case "VOIDED" | "DENIED":
            return said_answer(call, CANCELLED)
        case _:
            return said_answer(call, UNKNOWN_WORD)


def _void_in(call: ProviderCall, order: Fields) -> Answer:
    held, taken = payments_of(order, "authorizations"), payments_of(order, "captures")
    if held:
        return said_answer(call, VERDICTS[Kind.VOID].get(str(held[-1].get("status")), UNKNOWN_WORD))
    made = with_money(taken)
    if made is not None:
        match _CAPTURE.get(str(made.get("status")), UNKNOWN_WORD).verdict:
            case Verdict.APPROVED:
                return said_answer(call, TAKEN)
            case Verdict.DECLINED:
                return said_answer(call, YES)
            case Verdict.PENDING:
                return said_answer(call, NOT_DONE)
            case _:
                return said_answer(call, UNKNOWN_WORD)
    status = str(order.get("status"))
    if status == "VOIDED":
        return said_answer(call, YES)
    if status == "APPROVED" or status in UNPAID:
        return said_answer(call, YES if order.get("intent") != intent_of(call) else NOT_DONE)
    return said_answer(call, UNKNOWN_WORD)


def _refund_in(call: ProviderCall, order: Fields) -> Answer:
    """What is not there may still come: never a no."""
    ours = [one for one in payments_of(order, "refunds") if one.get("invoice_id") == call.key]
    return movement_answer(call, ours[-1]) if ours else said_answer(call, NOT_DONE)


def _review(call: ProviderCall, order: Fields) -> tuple[str, ...]:
    unit = unit_of(order)
    reasons = [] if unit.get("custom_id") == call.payment_id else [OBJECT_NOT_OURS]
    read = from_paypal(unit.inner("amount").get("currency_code"), unit.inner("amount").get("value"))
    if call.kind in TAKES_MONEY and unit.inner("amount"):
        if read is None or read[0] != call.amount_minor:
            reasons.append(AMOUNT_DIFFERS)
        if read is None or read[1] != call.currency:
            reasons.append(CURRENCY_DIFFERS)
    return tuple(reasons)


# --- what an error says --------------------------------------------------------------------------------------------


def issue_of(reply: Reply) -> str:
    """PayPal's word for what is wrong: the first detail's issue, else the name of the error."""
    details = Fields(reply.body).entries("details")
    issue = text_of(details[0].get("issue"), 80) if details else None
    return issue or text_of(reply.body.get("name"), 80) or ""


def wants_another_look(reply: Reply) -> bool:
    return reply.status == 422 and issue_of(reply) in STATE_ISSUES


def error_answer(call: ProviderCall, reply: Reply) -> Answer:
    """Of any answer that is no yes. 400 and 422: PayPal looked, and did nothing."""
    if reply.status >= 500:
        return said_answer(call, Said(Verdict.UNKNOWN, PROVIDER_ERROR, f"PayPal answered {reply.status}"))
    said = ERRORS_BY_STATUS.get(reply.status)
    if said is not None:
        return said_answer(call, said)
    if reply.status == 404:
        missing = Said(Verdict.UNKNOWN, OBJECT_MISSING, "PayPal knows no such object")
        return not_ours(call) if call.adopted else replace(said_answer(call, missing), review=(OBJECT_MISSING,))
    issue = issue_of(reply)
    if reply.status not in (400, 422) or not issue:
        return said_answer(call, UNKNOWN_WORD)
    if issue == IN_PROGRESS:
        return said_answer(call, ERRORS_BY_STATUS[409])
    if issue in MISMATCHES:
        return said_answer(call, Said(Verdict.UNKNOWN, IDEMPOTENCY_MISMATCH, "the key was used for something else"))
    if issue == DUPLICATE_INVOICE:
        no = Said(Verdict.DECLINED, DUPLICATE_INVOICE, "the account was paid for this invoice id before")
        return replace(said_answer(call, no), review=(DUPLICATE_INVOICE,))
    if issue in DECLINES:
        no = replace(REFUSED, closed=issue == "MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED")
        return replace(said_answer(call, no), decline_code=issue)
    return said_answer(call, Said(Verdict.DECLINED, INVALID_REQUEST, f"PayPal refused the request: {issue}"))


def question_error(call: ProviderCall, reply: Reply) -> Answer:
    """Of a question's answer that is no yes: that the question was refused says nothing about the call it is about."""
    answer = error_answer(call, reply)
    refused = answer.verdict is Verdict.DECLINED and answer.code != OBJECT_NOT_OURS
    return said_answer(call, UNKNOWN_WORD) if refused else answer
