"""Everything Stripe can say, and what it means: status and body in, an Answer out. Pure, and never raises.

Room: adapters/providers, beside stripe.py. Sources: docs.stripe.com/payments/paymentintents/lifecycle, /api/refunds,
/api/errors, /error-codes, /error-low-level. A word that is not in these tables is UNKNOWN. Texts of Stripe are cut and
cleaned; the message of a refused request is not kept at all, since it quotes the token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from payment_service.adapters.providers.stripe_amounts import from_stripe
from payment_service.adapters.providers.stripe_api import Reply
from payment_service.adapters.providers.stripe_fields import Fields, identity, text_of, whole_text
from payment_service.core.money import AMOUNT_MINOR_MAX
from payment_service.core.ports import Answer, NextAction, ProviderCall
from payment_service.core.records import replace
from payment_service.core.terms import TAKES_MONEY, CaptureMethod, Kind, Verdict

OBJECT_CANCELLED = "OBJECT_CANCELLED"
OBJECT_MISSING = "OBJECT_MISSING"
"""UNKNOWN, and for a person: Stripe does not know the PaymentIntent that we made there. Another account's key?"""
OBJECT_DIFFERS = "OBJECT_DIFFERS"
"""DECLINED: the PaymentIntent that a front end named is ours, but not for this amount, currency or capture method."""
INVALID_STATE = "INVALID_STATE"
INVALID_METHOD = "INVALID_PAYMENT_METHOD"
INVALID_REQUEST = "INVALID_REQUEST"
AUTHENTICATION_FAILED = "AUTHENTICATION_FAILED"
PAYMENT_FAILED = "PAYMENT_FAILED"
REFUND_FAILED = "REFUND_FAILED"
REFUND_CANCELLED = "REFUND_CANCELLED"
KEY_IN_USE = "IDEMPOTENCY_IN_USE"
"""UNKNOWN: the same key is being worked on there right now."""
CAPTURE_METHOD_DIFFERS = "CAPTURE_METHOD_DIFFERS"
AMOUNT_DIFFERS, CURRENCY_DIFFERS, ACCOUNT_DIFFERS = "AMOUNT_DIFFERS", "CURRENCY_DIFFERS", "ACCOUNT_DIFFERS"
"""Reasons for a person to look; ACCOUNT_DIFFERS is also live mode where we expect test mode, or the reverse."""


@dataclass(frozen=True, slots=True)
class Said:
    verdict: Verdict
    code: str = ""
    message: str = ""
    closed: bool = False
    """Nothing can be paid with the PaymentIntent any more."""


YES = Said(Verdict.APPROVED)
LATER = Said(Verdict.PENDING)
NOT_DONE = Said(Verdict.UNKNOWN, NOT_FOUND, "Stripe has not done it, so far")
CANCELLED = Said(Verdict.DECLINED, OBJECT_CANCELLED, "it was cancelled at Stripe", closed=True)
UNKNOWN_WORD = Said(Verdict.UNKNOWN, NOT_UNDERSTOOD, "Stripe answered with a word that is not known")
NOT_OURS = Said(Verdict.DECLINED, OBJECT_NOT_OURS, "the PaymentIntent is not of this payment", closed=True)
REFUSED_BY_STATE = Said(Verdict.DECLINED, INVALID_STATE, "Stripe refused it in the state in which the payment is")

_UNPAID = {"requires_payment_method": NOT_DONE, "requires_confirmation": NOT_DONE}
_PAYING = {**_UNPAID, "requires_action": LATER, "processing": LATER, "succeeded": YES, "canceled": CANCELLED}

VERDICTS: Mapping[Kind, Mapping[str, Said]] = {
    # PaymentIntent.status, by what was asked of it.
    Kind.CHARGE: {
        **_PAYING,
        "requires_capture": Said(Verdict.UNKNOWN, CAPTURE_METHOD_DIFFERS, "only held; it was to be taken"),
    },
    Kind.AUTHORIZE: {**_PAYING, "requires_capture": YES},
    Kind.CAPTURE: {
        **_UNPAID,
        "requires_action": NOT_DONE,
        "requires_capture": NOT_DONE,
        "processing": LATER,
        "succeeded": YES,
        "canceled": CANCELLED,
    },
    Kind.VOID: {
        **_UNPAID,
        "requires_action": NOT_DONE,
        "requires_capture": NOT_DONE,
        "processing": NOT_DONE,
        "succeeded": Said(Verdict.DECLINED, INVALID_STATE, "the money was taken: refund it"),
        "canceled": YES,
    },
    # Refund.status
    Kind.REFUND: {
        "pending": LATER,
        "requires_action": LATER,
        "succeeded": YES,
        "failed": Said(Verdict.DECLINED, REFUND_FAILED, "the refund failed"),
        "canceled": Said(Verdict.DECLINED, REFUND_CANCELLED, "the refund was cancelled"),
    },
}

ERRORS_BY_STATUS: Mapping[int, Said] = {
    401: Said(Verdict.NOT_SENT, KEY_REFUSED, "Stripe does not accept our key"),
    403: Said(Verdict.NOT_SENT, KEY_REFUSED, "our key may not do this at Stripe"),
    409: Said(Verdict.UNKNOWN, KEY_IN_USE, "Stripe is at work on the same call"),
    429: Said(Verdict.NOT_SENT, RATE_LIMITED, "too many requests, or the object is locked"),
}
STATE_ERRORS = frozenset({
    *("payment_intent_unexpected_state", "intent_invalid_state", "payment_intent_payment_attempt_expired"),
    *("charge_already_captured", "charge_already_refunded", "charge_expired_for_capture"),
    "capture_charge_authorization_expired",
})  # fmt: skip
"""Codes that say that the PaymentIntent is not as we thought: how it is now is the answer."""
URL_MAX = 4096
METHOD_PARAMS = ("payment_method", "card", "token", "source", "customer")
"""How the name of a parameter begins that is the shopper's means of payment, or whom a saved one belongs to."""


def created_answer(call: ProviderCall, reply: Reply, live: bool | None) -> Answer:
    """Of the request that makes the PaymentIntent. Without a means of payment the shopper has to act next."""
    if reply.status != 200:
        return error_answer(call, reply)
    intent = Fields(reply.body)
    object_id = identity(intent.get("id"))
    if intent.get("object") != "payment_intent" or object_id is None:
        return _answer(call, UNKNOWN_WORD)
    action = _by_client_secret(intent) if call.method_token is None else None
    return Answer(Verdict.APPROVED, object_id=object_id, next_action=action, review=_mode(intent, live))


def intent_answer(call: ProviderCall, body: Mapping[str, Any], live: bool | None, *, refused: bool = False) -> Answer:
    """Of a PaymentIntent, as the answer to what was asked of it. `refused`: Stripe refused this call because of the
    state in which the PaymentIntent is, so what is not done will not be done by it."""
    intent = Fields(body)
    if intent.get("object") != "payment_intent" or identity(intent.get("id")) != call.object_id:
        return _answer(call, UNKNOWN_WORD)
    said = VERDICTS[call.kind].get(str(intent.get("status")), UNKNOWN_WORD)
    review = _review(call, intent, live)
    answer = replace(_answer(call, said), review=review)
    if call.kind in TAKES_MONEY:
        if call.adopted and (no := _not_for_us(call, intent, said)):
            return replace(_answer(call, no), review=tuple({*review, no.code}))
        if said in (NOT_DONE, LATER):
            answer = _unpaid(call, intent, answer)
    if refused and answer.code == NOT_FOUND:
        return replace(_answer(call, REFUSED_BY_STATE), review=review)
    return _with_money(call, intent, answer)


def refund_answer(call: ProviderCall, body: Mapping[str, Any], live: bool | None) -> Answer:
    answer, refund = refund_state(body), Fields(body)
    if answer.provider_id is None:
        return replace(answer, object_id=call.object_id)
    review = (*answer.review, *_mode(refund, live))
    if call.object_id is not None and answer.object_id != call.object_id:
        review = (*review, OBJECT_NOT_OURS)
    return replace(answer, object_id=call.object_id, review=review)


def refund_state(body: Mapping[str, Any]) -> Answer:
    """Of a refund, whoever asked for it. Without a `provider_id` it was none."""
    refund = Fields(body)
    provider_id = identity(refund.get("id"))
    if refund.get("object") != "refund" or provider_id is None:
        return Answer(UNKNOWN_WORD.verdict, code=UNKNOWN_WORD.code, message=UNKNOWN_WORD.message)
    said = VERDICTS[Kind.REFUND].get(str(refund.get("status")), UNKNOWN_WORD)
    answer = Answer(
        said.verdict, provider_id, identity(refund.get("payment_intent")), code=said.code, message=said.message,
        decline_code=text_of(refund.get("failure_reason")) if said.code == REFUND_FAILED else None,
    )  # fmt: skip
    return with_amount(answer, refund.get("amount"), refund.get("currency"))


def find_refund(call: ProviderCall, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Ours, in one page of a payment's refunds, by the number that it carries."""
    for refund in Fields(body).entries("data"):
        metadata = Fields(refund).inner("metadata")
        if metadata.get("payment_id") == call.payment_id and metadata.get("number") == str(call.number):
            return refund
    return None


def wants_another_look(call: ProviderCall, reply: Reply) -> bool:
    """Refused because the PaymentIntent is not in the state we thought: its state is the answer. A refund's own
    state errors are final: the charge is refunded already, or was never captured."""
    error = Fields(reply.body).inner("error")
    return call.kind is not Kind.REFUND and reply.status == 400 and str(error.get("code")) in STATE_ERRORS


def error_answer(call: ProviderCall, reply: Reply) -> Answer:
    """Of any answer that is not 200."""
    if reply.status >= 500:
        return _answer(call, Said(Verdict.UNKNOWN, PROVIDER_ERROR, f"Stripe answered {reply.status}"))
    said = ERRORS_BY_STATUS.get(reply.status)
    error = Fields(reply.body).inner("error")
    match error.get("type"):
        case "idempotency_error" if error.get("code") != "idempotency_key_in_use":
            said = Said(Verdict.UNKNOWN, IDEMPOTENCY_MISMATCH, "the key was used with other parameters")
        case _ if said is not None:
            pass
        case "card_error":
            return _card_declined(call, error)
        case "invalid_request_error" if reply.status in (400, 404):
            said = _invalid_request(call, error, reply.status)
    answer = _answer(call, said or UNKNOWN_WORD)
    if answer.code != OBJECT_MISSING:
        return answer
    return not_ours(call) if call.adopted else replace(answer, review=(OBJECT_MISSING,))


def question_error(call: ProviderCall, reply: Reply) -> Answer:
    """Of a question's answer that is not 200: that the question was refused says nothing about the call it is about."""
    answer = error_answer(call, reply)
    refused = answer.verdict is Verdict.DECLINED and answer.code != OBJECT_NOT_OURS
    return _answer(call, UNKNOWN_WORD) if refused else answer


def not_ours(call: ProviderCall) -> Answer:
    """A front end named a PaymentIntent that is not this payment's, or none at all."""
    return replace(_answer(call, NOT_OURS), review=(OBJECT_NOT_OURS,))


def payment_error(error: Fields) -> tuple[str, str, str | None]:
    """(code, message, decline code) of an error that ended a payment: live, in `last_payment_error`, in an event."""
    reason = text_of(error.get("decline_code")) or text_of(error.get("code"))
    message = text_of(error.get("message")) or "Stripe declined it"
    if error.get("type") == "card_error":
        return CARD_DECLINED, message, reason
    if error.get("code") == "payment_intent_authentication_failure":
        return AUTHENTICATION_FAILED, "the shopper was not authenticated", reason
    return PAYMENT_FAILED, "the payment failed", reason


def with_amount(answer: Answer, amount: object, currency: object) -> Answer:
    """With an amount in our units. One that our units cannot say is for a person."""
    named = isinstance(currency, str) and currency.isascii() and currency.isalpha() and len(currency) == 3
    if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
        return answer
    if not named or not isinstance(currency, str):
        return answer
    code = currency.upper()
    minor = from_stripe(amount, code) if isinstance(amount, int) else None  # as a float: more than 64 bits
    if minor is None or minor > AMOUNT_MINOR_MAX:
        return replace(answer, currency=code, review=(*answer.review, AMOUNT_DIFFERS))
    return replace(answer, amount_minor=minor, currency=code)


def mode_review(livemode: object, live: bool | None) -> tuple[str, ...]:
    """`live` None: our key does not tell which mode it is for."""
    return (ACCOUNT_DIFFERS,) if live is not None and isinstance(livemode, bool) and livemode is not live else ()


# --- what an intent says -------------------------------------------------------------------------------------------


def _answer(call: ProviderCall, said: Said) -> Answer:
    return Answer(
        said.verdict, object_id=call.object_id, code=said.code, message=said.message, object_closed=said.closed
    )


def _mode(thing: Fields, live: bool | None) -> tuple[str, ...]:
    return mode_review(thing.get("livemode"), live)


def _review(call: ProviderCall, intent: Fields, live: bool | None) -> tuple[str, ...]:
    reasons = list(_mode(intent, live))
    if intent.inner("metadata").get("payment_id") != call.payment_id:
        reasons.append(OBJECT_NOT_OURS)
    if call.kind in TAKES_MONEY and (intent.get("capture_method") == "manual") is not _manual(call):
        reasons.append(CAPTURE_METHOD_DIFFERS)
    return tuple(reasons)


def _manual(call: ProviderCall) -> bool:
    return call.capture_method is CaptureMethod.MANUAL


def _not_for_us(call: ProviderCall, intent: Fields, said: Said) -> Said | None:
    """Why a PaymentIntent that a front end named must not be used. What has moved money is the truth, whatever its
    amount; what is processing moves it by itself."""
    if intent.inner("metadata").get("payment_id") != call.payment_id:
        return NOT_OURS
    moved = said.verdict in (Verdict.APPROVED, Verdict.DECLINED)
    if moved or intent.get("status") in ("processing", "requires_capture"):
        return None
    stated = with_amount(Answer(said.verdict), intent.get("amount"), intent.get("currency"))
    same = (stated.amount_minor, stated.currency) == (call.amount_minor, call.currency)
    if same and (intent.get("capture_method") == "manual") is _manual(call):
        return None
    return Said(Verdict.DECLINED, OBJECT_DIFFERS, "the PaymentIntent is for something else", closed=True)


def _unpaid(call: ProviderCall, intent: Fields, answer: Answer) -> Answer:
    """Nothing has moved yet: does the shopper have to act, was it declined, or has it not been tried?"""
    status = intent.get("status")
    if status == "requires_action":
        return replace(answer, next_action=next_action_of(intent))
    if status == "processing":
        return answer
    if call.method_token is None:  # the front end collects the card; after a decline it may try another
        return replace(_answer(call, LATER), review=answer.review, next_action=_by_client_secret(intent))
    error = intent.inner("last_payment_error")
    if status != "requires_payment_method" or not error or not _is_about(call, error):
        return answer
    code, message, decline_code = payment_error(error)
    return replace(
        answer, verdict=Verdict.DECLINED, code=code, message=message, decline_code=decline_code,
        provider_id=identity(error.get("charge")),
    )  # fmt: skip


def _is_about(call: ProviderCall, error: Fields) -> bool:
    """Is it this attempt that ended in the PaymentIntent's last error, or an earlier one?"""
    method = error.inner("payment_method")
    number = method.inner("metadata").get("number")
    if number is not None:
        return number == str(call.number)
    return (call.number == 1 and not call.adopted) or method.get("id") == call.method_token


def next_action_of(intent: Fields) -> NextAction | None:
    """A redirect, else whatever it is through Stripe's own script in the browser."""
    action = intent.inner("next_action")
    url = whole_text(action.inner("redirect_to_url").get("url"), URL_MAX)
    if action.get("type") == "redirect_to_url" and url is not None and url.startswith(("https://", "http://")):
        return NextAction("redirect", url=url)
    return _by_client_secret(intent)


def _by_client_secret(intent: Fields) -> NextAction | None:
    secret = whole_text(intent.get("client_secret"))
    return NextAction("use_client_secret", client_secret=secret) if secret is not None else None


def _with_money(call: ProviderCall, intent: Fields, answer: Answer) -> Answer:
    """What moved. Until then: does the PaymentIntent say the amount that we would charge?"""
    currency = intent.get("currency")
    if answer.verdict is not Verdict.APPROVED:
        if call.kind not in TAKES_MONEY:
            return answer
        stated = with_amount(Answer(Verdict.UNKNOWN), intent.get("amount"), currency)
        review = answer.review
        if stated.amount_minor is not None and stated.amount_minor != call.amount_minor:
            review = (*review, AMOUNT_DIFFERS)
        if stated.currency is not None and stated.currency != call.currency:
            review = (*review, CURRENCY_DIFFERS)
        return replace(answer, review=review)
    if call.kind is Kind.VOID:
        return answer
    held = call.kind is Kind.AUTHORIZE
    amount = intent.get("amount") if held else intent.get("amount_received")
    if held and intent.get("status") == "requires_capture":
        amount = intent.get("amount_capturable")
    charge = identity(intent.get("latest_charge")) or call.object_id
    return with_amount(replace(answer, provider_id=charge), amount, currency)


# --- what an error says ----------------------------------------------------------------------------------------------


def _card_declined(call: ProviderCall, error: Fields) -> Answer:
    code, message, decline_code = payment_error(error)
    return Answer(
        Verdict.DECLINED, provider_id=identity(error.get("charge")), object_id=call.object_id, code=code,
        message=message, decline_code=decline_code,
        object_closed=error.inner("payment_intent").get("status") == "canceled",
    )  # fmt: skip


def _invalid_request(call: ProviderCall, error: Fields, status: int) -> Said:
    code, param = text_of(error.get("code")), text_of(error.get("param"))
    about_method = param is not None and param.startswith(METHOD_PARAMS) and call.kind in TAKES_MONEY
    if about_method and call.payment_method_id is not None:  # detached since, or its customer is gone
        return Said(Verdict.DECLINED, INVALID_METHOD, "Stripe does not take the saved payment method any more")
    if code == "resource_missing" or status == 404:
        if about_method:
            return Said(Verdict.DECLINED, INVALID_METHOD, "Stripe knows no such means of payment")
        return Said(Verdict.UNKNOWN, OBJECT_MISSING, "Stripe knows no such object")
    return Said(Verdict.DECLINED, INVALID_REQUEST, f"Stripe refused the request: {code or 'no code'}, {param or '-'}")
