"""Stripe's saved cards: a Customer for each user, a PaymentMethod kept with it through a SetupIntent.

Room: adapters/providers, beside stripe.py. Sources: docs.stripe.com/api/setup_intents, /payments/save-and-reuse,
/api/payment_methods/detach, /api/customers. A SetupIntent rather than attaching: the bank is asked now, with the
shopper there to authenticate, so that later charges need less of it.

Every POST carries a key made of the method's id (the customer's of the user's), so that asking again after a crash or
a lost answer makes nothing twice. No money moves here.
"""

from dataclasses import replace
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from payment_service.adapters.providers.registration import (
    IDEMPOTENCY_MISMATCH,
    NOT_UNDERSTOOD,
    PROVIDER_ERROR,
    PROVIDER_TIMEOUT,
)
from payment_service.adapters.providers.stripe_answers import (
    AUTHENTICATION_FAILED,
    ERRORS_BY_STATUS,
    INVALID_METHOD,
    next_action_of,
    payment_error,
)
from payment_service.adapters.providers.stripe_api import Reply, StripeApi
from payment_service.adapters.providers.stripe_fields import Fields, identity, text_of
from payment_service.adapters.providers.stripe_requests import METADATA_LENGTH_MAX, Request
from payment_service.core.payment_method import NO_CARD, Card, MethodAnswer, MethodCall, MethodSecrets
from payment_service.core.ports import Answer
from payment_service.core.terms import Verdict

CUSTOMER_GONE = "CUSTOMER_GONE"
"""Somebody deleted our customer at Stripe: another one is made."""
_NOT_UNDERSTOOD = MethodAnswer(Verdict.UNKNOWN, code=NOT_UNDERSTOOD, message="Stripe's answer is not known")


class StripeMethods:
    """The MethodKeeper port."""

    def __init__(self, api: StripeApi) -> None:
        self._api = api

    async def keep(self, call: MethodCall) -> MethodAnswer:
        """A failure before the SetupIntent is NOT_SENT: the token is as it was."""
        customer = call.secrets.customer
        made = await self._customer(call.user_id) if customer is None else customer
        if isinstance(made, MethodAnswer):
            return made
        kept = await self._keep_for(call, made)
        if kept.code == CUSTOMER_GONE:
            other = await self._customer(call.user_id, instead_of=made)
            return other if isinstance(other, MethodAnswer) else await self._keep_for(call, other)
        return kept

    async def look(self, call: MethodCall) -> MethodAnswer:
        if call.secrets.setup_id is None:
            return _NOT_UNDERSTOOD
        reply = await self._api.ask(Request("get", _path("setup_intents", call.secrets.setup_id), dict(_EXPAND)))
        if isinstance(reply, Reply) and reply.status == 404:
            return MethodAnswer(Verdict.DECLINED, code=INVALID_METHOD, message="Stripe does not know it any more")
        return _setup_answer(call.secrets, reply)

    async def detach(self, call: MethodCall) -> MethodAnswer:
        """The SetupIntent first: the shopper could still confirm it. Whether a refused request was about one that is
        detached already is not said by a code, so it is looked at."""
        secrets = call.secrets
        if secrets.setup_id is not None:
            key = f"{call.key}:cancel"
            reply = await self._api.ask(Request("post", f"{_path('setup_intents', secrets.setup_id)}/cancel", {}, key))
            if isinstance(reply, Answer) or reply.status not in (200, 400, 404):
                return _failed(reply)
        if secrets.token is None:
            return MethodAnswer(Verdict.APPROVED)
        path = _path("payment_methods", secrets.token)
        reply = await self._api.ask(Request("post", f"{path}/detach", {}, f"{call.key}:detach"))
        if isinstance(reply, Answer) or reply.status != 200:
            reply = await self._api.ask(Request("get", path))
        if isinstance(reply, Answer) or reply.status not in (200, 404):
            return _failed(reply)
        method = Fields(reply.body)
        gone = reply.status == 404 or (method.get("object") == "payment_method" and method.get("customer") is None)
        return MethodAnswer(Verdict.APPROVED) if gone else _NOT_UNDERSTOOD

    # --- steps -----------------------------------------------------------------------------------------------

    async def _customer(self, user_id: str, instead_of: str = "") -> str | MethodAnswer:
        """Made once per user: the key is the same whoever asks, and the id is stored by us."""
        key = f"customer:{_digest(user_id, instead_of)}"
        params = {"metadata": {"user_id": user_id[:METADATA_LENGTH_MAX]}}
        reply = await self._api.ask_on(Request("post", "/v1/customers", params, key))
        made = identity(reply.body.get("id")) if isinstance(reply, Reply) and reply.status == 200 else None
        return made if made is not None else replace(_failed(reply), verdict=Verdict.NOT_SENT)

    async def _keep_for(self, call: MethodCall, customer: str) -> MethodAnswer:
        secrets = call.secrets
        method = secrets.given or ""
        if not method.startswith("pm_"):
            params = {"type": "card", "card": {"token": method}}
            reply = await self._api.ask(Request("post", "/v1/payment_methods", params, f"{call.key}:method"))
            made = identity(reply.body.get("id")) if isinstance(reply, Reply) and reply.status == 200 else None
            if made is None:
                return _failed(reply)
            method = made
        params = {
            "confirm": "true", "customer": customer, "payment_method": method, "payment_method_types": ["card"],
            "usage": "off_session", "metadata": {"method_id": call.key}, **_EXPAND,
        }  # fmt: skip
        if secrets.return_url is not None:
            params["return_url"] = secrets.return_url
        else:
            params["use_stripe_sdk"] = "true"  # what the shopper has to do is done by Stripe's own script
        key = f"{call.key}:setup:{_digest(customer)}"
        reply = await self._api.ask(Request("post", "/v1/setup_intents", params, key))
        return _setup_answer(replace(secrets, customer=customer), reply)


_EXPAND: dict[str, Any] = {"expand": ["payment_method"]}


def _path(kind: str, name: str) -> str:
    return f"/v1/{kind}/{quote(name, safe='')}"


def _digest(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _setup_answer(known: MethodSecrets, reply: Reply | Answer) -> MethodAnswer:
    """Of a SetupIntent (docs.stripe.com/payments/paymentintents/lifecycle). A status that is not here is UNKNOWN."""
    if isinstance(reply, Answer) or reply.status != 200:
        return _failed(reply)
    setup = Fields(reply.body)
    setup_id, method = identity(setup.get("id")), setup.inner("payment_method")
    token = identity(setup.get("payment_method"))
    if setup.get("object") != "setup_intent" or setup_id is None:
        return _NOT_UNDERSTOOD
    secrets = replace(known, token=token, setup_id=setup_id)
    match setup.get("status"):
        case "succeeded" if token is not None:
            return MethodAnswer(Verdict.APPROVED, secrets=replace(secrets, given=None), card=card_of(method))
        case "requires_action":
            action = next_action_of(setup)
            return MethodAnswer(Verdict.PENDING, next_action=action, secrets=secrets, card=card_of(method))
        case "processing":
            return MethodAnswer(Verdict.PENDING, secrets=secrets, card=card_of(method))
        case "requires_payment_method":
            return _declined(setup.inner("last_setup_error"))
        case "canceled":
            return MethodAnswer(Verdict.DECLINED, code=AUTHENTICATION_FAILED, message="it was cancelled at Stripe")
        case _:
            return _NOT_UNDERSTOOD


def card_of(method: Fields) -> Card:
    card = method.inner("card")
    month, year = card.get("exp_month"), card.get("exp_year")
    return Card(
        text_of(card.get("brand"), 30), text_of(card.get("last4"), 4),
        month if type(month) is int and 1 <= month <= 12 else None,
        year if type(year) is int and 2000 <= year <= 9999 else None,
    ) if card else NO_CARD  # fmt: skip


def _declined(error: Fields) -> MethodAnswer:
    code, message, decline_code = payment_error(error)
    if error.get("code") == "setup_intent_authentication_failure":
        code, message = AUTHENTICATION_FAILED, "the shopper was not authenticated"
    return MethodAnswer(Verdict.DECLINED, code=code, message=message, decline_code=decline_code)


def _failed(reply: Reply | Answer) -> MethodAnswer:
    """What a failure means for the saving. Stripe's message of a refused request is not kept: it quotes the token."""
    if isinstance(reply, Answer):
        # Nothing else is asked once this is sent, so that a lost answer is all there is to know.
        code = reply.code or PROVIDER_TIMEOUT
        return MethodAnswer(reply.verdict, code=code, message=reply.message)
    if reply.status >= 500:
        return MethodAnswer(Verdict.UNKNOWN, code=PROVIDER_ERROR, message=f"Stripe answered {reply.status}")
    error = Fields(reply.body).inner("error")
    kind = error.get("type")
    if kind == "idempotency_error" and error.get("code") != "idempotency_key_in_use":
        return MethodAnswer(Verdict.UNKNOWN, code=IDEMPOTENCY_MISMATCH, message="the key was used differently")
    said = ERRORS_BY_STATUS.get(reply.status)
    if said is not None:
        return MethodAnswer(said.verdict, code=said.code, message=said.message)
    if kind == "card_error":
        return _declined(error)
    if kind != "invalid_request_error":
        return _NOT_UNDERSTOOD
    if error.get("param") == "customer":
        return MethodAnswer(Verdict.UNKNOWN, code=CUSTOMER_GONE, message="Stripe does not know our customer any more")
    return MethodAnswer(Verdict.DECLINED, code=INVALID_METHOD, message="Stripe cannot save this token")
