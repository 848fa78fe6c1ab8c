"""Stripe: PaymentIntents, one for each payment, confirmed, captured, cancelled and refunded by calls of their own.

API version: stripe_api.API_VERSION. Amounts: Stripe's units (stripe_amounts.py). What is asked: stripe_requests.py;
what the answers mean, with the table VERDICTS: stripe_answers.py; webhooks: stripe_webhooks.py, stripe_events.py.
Retry rule: every POST carries our idempotency key. Stripe keeps the first answer under it for 24 hours, a 500 included;
what was refused as invalid, and what met the same key at work, is not kept (docs.stripe.com/api/idempotent_requests,
/error-low-level). So an error of a confirmed key is the truth, and a later doubt is settled by reading the object.
What moves no money (making a PaymentIntent, cancelling one) goes on under a next key when its key has kept a 500: else
the payment could not be paid, or let go, for as long as Stripe keeps that.

Without a means of payment a charge is the front end's: the PaymentIntent is made, its client secret is the next action,
and asking again reads how it stands. A PaymentIntent that a front end names (`adopted`) is read and checked first.
Saved methods: stripe_methods.py; one is charged on a PaymentIntent of its customer.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from pydantic import SecretStr

from payment_service.adapters.providers.registration import NOT_FOUND, Hello, Registration, Sessions
from payment_service.adapters.providers.stripe_answers import (
    NOT_DONE,
    created_answer,
    error_answer,
    find_refund,
    intent_answer,
    not_ours,
    question_error,
    refund_answer,
    wants_another_look,
)
from payment_service.adapters.providers.stripe_api import API_VERSION, Reply, StripeApi
from payment_service.adapters.providers.stripe_fields import Fields, identity
from payment_service.adapters.providers.stripe_methods import StripeMethods
from payment_service.adapters.providers.stripe_requests import (
    PAGE,
    Request,
    create_request,
    customer_request,
    intent_request,
    is_intent_id,
    lookup_request,
    refunds_request,
    send_request,
)
from payment_service.adapters.providers.stripe_webhooks import StripeWebhooks
from payment_service.core.ports import Answer, Clock, ProviderCall
from payment_service.core.terms import Kind, Verdict
from payment_service.core.webhooks import WebhookReader

log = logging.getLogger(__name__)

NAME = "STRIPE"
REFUND_PAGES_MAX = 10
"""Of 100 refunds; one payment makes at most 200 here, the rest is the dashboard's."""


class StripeSettings(Protocol):
    """What Stripe's files read of the settings."""

    @property
    def stripe_secret_key(self) -> SecretStr | None: ...

    @property
    def stripe_webhook_secret(self) -> Sequence[SecretStr]: ...

    @property
    def stripe_api_base(self) -> str: ...

    @property
    def stripe_rate_per_s(self) -> float: ...

    @property
    def provider_deadline_s(self) -> float: ...


def _api(settings: StripeSettings, sessions: Sessions) -> StripeApi:
    assert settings.stripe_secret_key is not None, "built only when it is configured"
    return StripeApi(
        settings.stripe_secret_key.get_secret_value(), settings.stripe_api_base, settings.provider_deadline_s, sessions
    )


def _live_mode(settings: StripeSettings) -> bool | None:
    """Of our key: `sk_live_…`, `rk_test_…`. None: it does not say."""
    key = settings.stripe_secret_key.get_secret_value() if settings.stripe_secret_key is not None else ""
    words = key.split("_")[1:2]
    return True if words == ["live"] else False if words == ["test"] else None


def _build(settings: StripeSettings, clock: Clock, sessions: Sessions) -> "StripeProvider":
    return StripeProvider(_api(settings, sessions), _live_mode(settings))


def _webhooks(settings: StripeSettings, clock: Clock, sessions: Sessions) -> WebhookReader | None:
    secrets = tuple(secret.get_secret_value() for secret in settings.stripe_webhook_secret)
    return StripeWebhooks(secrets, _api(settings, sessions), _live_mode(settings)) if secrets else None


def _hello(settings: StripeSettings) -> Hello:
    key = settings.stripe_secret_key.get_secret_value() if settings.stripe_secret_key is not None else ""
    headers = {"Authorization": f"Bearer {key}", "Stripe-Version": API_VERSION}
    return Hello("GET", f"{settings.stripe_api_base}/v1/payment_intents?limit=1", headers, "STRIPE_SECRET_KEY")


PROVIDER: Registration[StripeSettings] = Registration(
    name=NAME,
    configured=lambda settings: settings.stripe_secret_key is not None,
    build=_build,
    rate_per_s=lambda settings: settings.stripe_rate_per_s,
    webhooks=_webhooks,
    methods=lambda settings, clock, sessions: StripeMethods(_api(settings, sessions)),
    hello=_hello,
)


class StripeProvider:
    """The Provider port over Stripe's API. For one event loop."""

    name = NAME

    def __init__(self, api: StripeApi, live: bool | None) -> None:
        self._api = api
        self._live = live

    async def create_object(self, call: ProviderCall) -> Answer:
        request = create_request(call)
        if isinstance(request, Answer):
            return request
        reply = await self._ask(call, request, on=True)
        return reply if isinstance(reply, Answer) else created_answer(call, reply, self._live)

    async def send(self, call: ProviderCall) -> Answer:
        if call.adopted:
            standing = await self._adopt(call)
            if standing is not None:
                return standing
        before = customer_request(call)
        refusal = await self._for_customer(call, before) if before is not None else None
        if refusal is not None:
            return refusal
        request = send_request(call)
        if isinstance(request, Answer):
            return request
        reply = await self._ask(call, request, on=call.kind is Kind.VOID)
        if isinstance(reply, Answer):
            return reply
        if wants_another_look(call, reply):
            return await self._look_again(call)
        return self._read(call, request, reply)

    async def lookup(self, call: ProviderCall) -> Answer:
        request = lookup_request(call)
        if isinstance(request, Answer):
            return request
        if call.adopted and not is_intent_id(call.object_id or ""):
            return not_ours(call)
        reply = await self._ask(call, request)
        if isinstance(reply, Answer):
            return reply
        if call.kind is Kind.REFUND and reply.status == 200:
            return await self._find_refund(call, reply)
        return self._read(call, request, reply)

    async def _adopt(self, call: ProviderCall) -> Answer | None:
        """How the PaymentIntent that a front end named stands. None: it is this payment's, nothing has moved, and a
        means of payment came with it, so that it may be confirmed."""
        answer = await self.lookup(call)
        return None if answer.code == NOT_FOUND and call.method_token is not None else answer

    async def _for_customer(self, call: ProviderCall, request: Request) -> Answer | None:
        """None: the PaymentIntent is the customer's now. Until then this call has confirmed nothing."""
        reply = await self._ask(call, request)
        if isinstance(reply, Answer):
            return replace(reply, verdict=Verdict.NOT_SENT)
        if reply.status == 200:
            return None
        if wants_another_look(call, reply):
            return await self._look_again(call)
        answer = error_answer(call, reply)
        return replace(answer, verdict=Verdict.NOT_SENT) if answer.verdict is Verdict.UNKNOWN else answer

    async def _look_again(self, call: ProviderCall) -> Answer:
        """Refused by the PaymentIntent's state; whatever goes wrong now, that is not known."""
        request = intent_request(call)
        reply = request if isinstance(request, Answer) else await self._ask(call, request)
        if not isinstance(reply, Answer) and reply.status == 200:
            return intent_answer(call, reply.body, self._live, refused=True)
        answer = reply if isinstance(reply, Answer) else question_error(call, reply)
        return replace(answer, verdict=Verdict.UNKNOWN)

    async def _find_refund(self, call: ProviderCall, reply: Reply) -> Answer:
        """Page by page. What is not there may still come: never a no."""
        for _ in range(REFUND_PAGES_MAX):
            found = find_refund(call, reply.body)
            if found is not None:
                return refund_answer(call, found, self._live)
            entries = Fields(reply.body).entries("data")
            if len(entries) < PAGE or reply.body.get("has_more") is not True:
                break
            request = refunds_request(call.object_id, call.charge_id, identity(entries[-1].get("id")))
            following = request if isinstance(request, Answer) else await self._ask(call, request)
            if isinstance(following, Answer):
                return following
            if following.status != 200:
                return question_error(call, following)
            reply = following
        return Answer(Verdict.UNKNOWN, object_id=call.object_id, code=NOT_DONE.code, message=NOT_DONE.message)

    def _read(self, call: ProviderCall, request: Request, reply: Reply) -> Answer:
        if reply.status != 200:
            return (question_error if request.method == "get" else error_answer)(call, reply)
        if call.kind is Kind.REFUND:
            return refund_answer(call, reply.body, self._live)
        return intent_answer(call, reply.body, self._live)

    async def _ask(self, call: ProviderCall, request: Request, *, on: bool = False) -> Reply | Answer:
        reply = await (self._api.ask_on if on else self._api.ask)(request)
        if isinstance(reply, Answer):
            return replace(reply, object_id=call.object_id)
        if reply.status in (401, 403):
            log.error("stripe_key_refused status=%s payment_id=%s key=%s", reply.status, call.payment_id, call.key)
        return reply
