"""PayPal: an order for each payment, approved by the shopper, then captured or authorized by us.

APIs: Orders v2, Payments v2 (api-m.paypal.com, api-m.sandbox.paypal.com). Amounts: decimal strings (paypal_amounts.py).
What is asked: paypal_requests.py; what the answers mean, with the table VERDICTS: paypal_answers.py; webhooks:
paypal_webhooks.py, paypal_events.py, paypal_signatures.py.
Retry rule: `PayPal-Request-Id` is our key; a repeat gives the latest state of what the first one made. Orders keep keys
6 hours, payments 45 days (developer.paypal.com/reference/guidelines/idempotency). Voiding and patching have none: the
order is looked at first, and what is so already is a yes.

Approving moves no money: the charge that made the order waits for the shopper (PENDING), and the next one, started by
the webhook, by a look-up or by the front end, takes it. PayPal has no call that cancels an order, so that an unpaid one
is closed by its intent (paypal_requests.close_request). A `method_token` is the id of a wallet saved at PayPal.
"""

import base64
import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from pydantic import SecretStr

from payment_service.adapters.providers.paypal_answers import (
    AMOUNT_DIFFERS,
    CURRENCY_DIFFERS,
    OBJECT_DIFFERS,
    YES,
    Said,
    authorization_of,
    created_answer,
    error_answer,
    movement_answer,
    not_ours,
    order_answer,
    payments_of,
    question_error,
    said_answer,
    wants_another_look,
    with_money,
)
from payment_service.adapters.providers.paypal_api import PaypalApi, Reply
from payment_service.adapters.providers.paypal_methods import PaypalMethods
from payment_service.adapters.providers.paypal_requests import (
    Request,
    capture_request,
    close_request,
    create_request,
    order_request,
    pay_request,
    paypal_id,
    refund_request,
    void_request,
)
from payment_service.adapters.providers.paypal_webhooks import PaypalWebhooks, build_webhooks
from payment_service.adapters.providers.registration import (
    NOT_FOUND,
    OBJECT_GONE,
    PROVIDER_ERROR,
    PROVIDER_TIMEOUT,
    PROVIDER_UNAVAILABLE,
    Hello,
    Registration,
    Sessions,
)
from payment_service.adapters.providers.stripe_fields import Fields
from payment_service.core.ports import Answer, Clock, ProviderCall
from payment_service.core.terms import TAKES_MONEY, Kind, Verdict

log = logging.getLogger(__name__)

NAME = "PAYPAL"
NO_OBJECT = "NO_OBJECT"
"""UNKNOWN: the call names no order, so there is nothing to ask about."""


class PaypalSettings(Protocol):
    """What PayPal's files read of the settings."""

    @property
    def paypal_client_id(self) -> str | None: ...

    @property
    def paypal_client_secret(self) -> SecretStr | None: ...

    @property
    def paypal_api_base(self) -> str: ...

    @property
    def paypal_rate_per_s(self) -> float: ...

    @property
    def paypal_webhook_id(self) -> str | None: ...

    @property
    def paypal_webhook_verification(self) -> Literal["offline", "postback"]: ...

    @property
    def paypal_webhook_roots(self) -> Path | None: ...

    @property
    def provider_deadline_s(self) -> float: ...


def _api(settings: PaypalSettings, clock: Clock, sessions: Sessions) -> PaypalApi:
    client_id, secret = settings.paypal_client_id, settings.paypal_client_secret
    assert client_id is not None, "built only when it is configured"
    assert secret is not None, "built only when it is configured"
    return PaypalApi(
        client_id, secret.get_secret_value(), settings.paypal_api_base, settings.provider_deadline_s, sessions, clock
    )


def _build(settings: PaypalSettings, clock: Clock, sessions: Sessions) -> "PaypalProvider":
    return PaypalProvider(_api(settings, clock, sessions))


def _webhooks(settings: PaypalSettings, clock: Clock, sessions: Sessions) -> PaypalWebhooks | None:
    """Only where the provider itself is set up: every event is asked for again."""
    configured = settings.paypal_client_id is not None and settings.paypal_client_secret is not None
    if settings.paypal_webhook_id is None or not configured:
        return None
    return build_webhooks(
        _api(settings, clock, sessions), sessions, settings.paypal_webhook_id,
        settings.paypal_webhook_verification, settings.paypal_webhook_roots,
    )  # fmt: skip


def _hello(settings: PaypalSettings) -> Hello:
    secret = settings.paypal_client_secret.get_secret_value() if settings.paypal_client_secret is not None else ""
    basic = base64.b64encode(f"{settings.paypal_client_id}:{secret}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    url = f"{settings.paypal_api_base}/v1/oauth2/token"
    return Hello("POST", url, headers, "PAYPAL_CLIENT_SECRET", b"grant_type=client_credentials")


PROVIDER: Registration[PaypalSettings] = Registration(
    name=NAME,
    configured=lambda settings: settings.paypal_client_id is not None and settings.paypal_client_secret is not None,
    build=_build,
    rate_per_s=lambda settings: settings.paypal_rate_per_s,
    webhooks=_webhooks,
    methods=lambda settings, clock, sessions: PaypalMethods(_api(settings, clock, sessions)),
    hello=_hello,
)


class PaypalProvider:
    """The Provider port over PayPal's API. For one event loop."""

    name = NAME

    def __init__(self, api: PaypalApi) -> None:
        self._api = api

    async def create_object(self, call: ProviderCall) -> Answer:
        request = create_request(call)
        if isinstance(request, Answer):
            return request
        reply = await self._ask(call, request)
        return reply if isinstance(reply, Answer) else created_answer(call, reply)

    async def send(self, call: ProviderCall) -> Answer:
        match call.kind:
            case Kind.CAPTURE:
                return await self._capture(call)
            case Kind.VOID:
                return await self._void(call)
            case Kind.REFUND:
                return await self._refund(call)
            case _:
                return await self._pay(call)

    async def lookup(self, call: ProviderCall) -> Answer:
        """All of a payment is in its order."""
        order = await self._order(call)
        if isinstance(order, Answer):
            return order
        return order_answer(call, order.body) if order.status == 200 else question_error(call, order)

    # --- a charge ----------------------------------------------------------------------------------------------------

    async def _pay(self, call: ProviderCall) -> Answer:
        """The first attempt with a saved wallet is sent at once. Any other looks first: the shopper may have approved
        the order, and has to be sent there if not; an earlier attempt may have paid it."""
        approved = False
        if call.adopted or call.method_token is None or call.number > 1:
            order = await self._order(call)
            if isinstance(order, Answer):
                return _unsent(order)
            if order.status == 200:
                standing = order_answer(call, order.body)
                approved = standing.approved
                unpaid = standing.code == NOT_FOUND or standing.next_action is not None
                if not (approved or (unpaid and call.method_token is not None)):
                    return _found(call, standing)
                if not {AMOUNT_DIFFERS, CURRENCY_DIFFERS}.isdisjoint(standing.review):
                    return await self._closed(call, replace(said_answer(call, CHANGED), review=standing.review))
            elif order.status != 404 or call.adopted:
                # A named order that PayPal will not show us is not ours to ask for again, or to close.
                if call.adopted and error_answer(call, order).verdict is Verdict.DECLINED:
                    return replace(error_answer(call, order), object_closed=True)
                return _unsent(question_error(call, order))
        if call.object_id is None:
            return _no_object(call)
        if call.method_token is None and not approved:
            return said_answer(call, GONE)
        request = pay_request(call, call.object_id, with_token=not approved)
        if isinstance(request, Answer):
            return request
        answer = await self._carry_out(call, request)
        if approved and answer.verdict is Verdict.DECLINED and not answer.object_closed:
            return await self._closed(call, answer)  # what the shopper approved was refused
        return answer

    async def _closed(self, call: ProviderCall, no: Answer) -> Answer:
        """The next attempt asks the shopper anew, with an order of its own."""
        assert call.object_id is not None, "it was looked at"
        closed = await self._ask(call, close_request(call, call.object_id))
        return replace(no, object_closed=isinstance(closed, Reply) and closed.status == 204)

    async def _carry_out(self, call: ProviderCall, request: Request) -> Answer:
        reply = await self._ask(call, request)
        if isinstance(reply, Answer):
            return reply
        if reply.status in (200, 201):
            return order_answer(call, reply.body)
        if wants_another_look(reply):
            return await self._look_again(call)
        if reply.status == 404 and not call.adopted:
            return said_answer(call, GONE)  # an order that is not there was not paid by this
        return error_answer(call, reply)

    async def _look_again(self, call: ProviderCall) -> Answer:
        """Refused by its state; whatever goes wrong now, that is not known."""
        order = await self._order(call)
        if isinstance(order, Reply) and order.status == 200:
            return _found(call, order_answer(call, order.body, refused=True))
        return replace(order if isinstance(order, Answer) else question_error(call, order), verdict=Verdict.UNKNOWN)

    # --- what follows a charge ----------------------------------------------------------------------------------------

    async def _capture(self, call: ProviderCall) -> Answer:
        authorization_id = paypal_id(call.charge_id)
        if authorization_id is None:
            order = await self._order(call)
            if isinstance(order, Answer) or order.status != 200:
                return _unsent(order if isinstance(order, Answer) else question_error(call, order))
            authorization_id = authorization_of(Fields(order.body))
            if authorization_id is None:
                return order_answer(call, order.body)
        request = capture_request(call, authorization_id)
        return request if isinstance(request, Answer) else await self._move(call, request)

    async def _refund(self, call: ProviderCall) -> Answer:
        capture_id = paypal_id(call.charge_id)
        if capture_id is None:
            order = await self._order(call)
            if isinstance(order, Answer) or order.status != 200:
                return _unsent(order if isinstance(order, Answer) else question_error(call, order))
            taken = with_money(payments_of(Fields(order.body), "captures"))
            capture_id = paypal_id(taken.get("id")) if taken is not None else None
            if capture_id is None:
                return _no_object(call)
        request = refund_request(call, capture_id)
        return request if isinstance(request, Answer) else await self._move(call, request)

    async def _move(self, call: ProviderCall, request: Request) -> Answer:
        reply = await self._ask(call, request)
        if isinstance(reply, Answer):
            return reply
        if reply.status in (200, 201):
            return movement_answer(call, reply.body)
        if wants_another_look(reply) and call.object_id is not None:
            return await self._look_again(call)
        return error_answer(call, reply)

    async def _void(self, call: ProviderCall) -> Answer:
        """Nothing keeps a repeat from being done twice but looking first."""
        order = await self._order(call)
        if isinstance(order, Answer):
            return _unsent(order)
        if order.status != 200:
            return question_error(call, order)
        answer = order_answer(call, order.body)
        if answer.code != NOT_FOUND or call.object_id is None:
            return answer
        fields = Fields(order.body)
        authorization_id = authorization_of(fields)
        if authorization_id is None and payments_of(fields, "captures"):
            return answer  # pending there: it ends by itself
        request = void_request(authorization_id) if authorization_id else close_request(call, call.object_id)
        reply = await self._ask(call, request)
        if isinstance(reply, Answer):
            return reply
        if reply.status in (200, 204):
            return said_answer(call, YES)
        return await self._refused_void(call) if reply.status in (400, 422) else error_answer(call, reply)

    async def _refused_void(self, call: ProviderCall) -> Answer:
        """PayPal promises to patch orders that are CREATED or APPROVED; one that waits for its shopper pays nobody."""
        order = await self._order(call)
        if isinstance(order, Answer) or order.status != 200:
            answer = order if isinstance(order, Answer) else question_error(call, order)
            return replace(answer, verdict=Verdict.UNKNOWN)
        fields, answer = Fields(order.body), order_answer(call, order.body)
        waits = fields.get("status") == "PAYER_ACTION_REQUIRED" and authorization_of(fields) is None
        return said_answer(call, YES) if answer.code == NOT_FOUND and waits else answer

    # --- one request -----------------------------------------------------------------------------------------------

    async def _order(self, call: ProviderCall) -> Reply | Answer:
        if call.object_id is None:
            return _no_object(call)
        object_id = paypal_id(call.object_id)
        if object_id is None:
            return not_ours(call) if call.adopted else _no_object(call)
        return await self._ask(call, order_request(object_id))

    async def _ask(self, call: ProviderCall, request: Request) -> Reply | Answer:
        reply = await self._api.ask(request)
        if isinstance(reply, Answer):
            return replace(reply, object_id=call.object_id)
        if reply.status in (401, 403):
            log.error("paypal_key_refused status=%s payment_id=%s key=%s", reply.status, call.payment_id, call.key)
        return reply


GONE = Said(Verdict.DECLINED, OBJECT_GONE, "PayPal has no such order any more", closed=True)
"""Orders that nobody approved end after some hours; the next attempt makes a new one."""
CHANGED = Said(Verdict.DECLINED, OBJECT_DIFFERS, "the order was changed since it was made")
"""PayPal's script lets the shopper's page do that until they approve it. Such an order is not taken."""


def _found(call: ProviderCall, standing: Answer) -> Answer:
    """Taken before this call could: what is less than the order was made for, the page's script has taken."""
    if standing.verdict is not Verdict.APPROVED or call.kind not in TAKES_MONEY:
        return standing
    if standing.currency == call.currency and (standing.amount_minor or 0) >= call.amount_minor:
        return standing
    reason = AMOUNT_DIFFERS if standing.currency == call.currency else CURRENCY_DIFFERS
    return replace(standing, verdict=Verdict.UNKNOWN, code=OBJECT_DIFFERS, review=(*standing.review, reason))


def _no_object(call: ProviderCall) -> Answer:
    return Answer(Verdict.UNKNOWN, object_id=call.object_id, code=NO_OBJECT, message="the call names no order")


def _unsent(answer: Answer) -> Answer:
    """Looking before the first step found no answer: nothing was sent, whatever the question met."""
    if answer.code not in (PROVIDER_TIMEOUT, PROVIDER_ERROR):
        return answer
    return replace(answer, verdict=Verdict.NOT_SENT, code=PROVIDER_UNAVAILABLE)
