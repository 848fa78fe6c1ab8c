"""PayPal's saved wallets: a setup token that the shopper approves on PayPal's page, exchanged for a payment token.

Room: adapters/providers, beside paypal.py. Sources: developer.paypal.com/docs/api/payment-tokens/v3 and
/docs/checkout/save-payment-methods/purchase-later/payment-tokens-api/paypal. Wallets alone: a card in PayPal's vault
comes from a page that sees its number. No money moves here.

Every POST carries a key made of the method's id, which the vault keeps for three hours: longer than anybody waits for
the shopper here, so that an exchange whose answer was lost is told again. Each wallet is a token of its own, also when
two users share one PayPal account: else removing one's would remove the other's.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from payment_service.adapters.providers.paypal_answers import (
    ERRORS_BY_STATUS,
    INVALID_REQUEST,
    approval_of,
    issue_of,
)
from payment_service.adapters.providers.paypal_api import PaypalApi, Reply
from payment_service.adapters.providers.paypal_requests import Request, vault_id
from payment_service.adapters.providers.registration import NOT_UNDERSTOOD, PROVIDER_ERROR
from payment_service.adapters.providers.stripe_fields import Fields
from payment_service.core.payment_method import METHOD_GONE, Card, MethodAnswer, MethodCall, MethodSecrets
from payment_service.core.ports import Answer, NextAction
from payment_service.core.terms import Verdict

SETUP, TOKENS = "/v3/vault/setup-tokens", "/v3/vault/payment-tokens"
WAITS = frozenset({"CREATED", "PAYER_ACTION_REQUIRED"})
EXCHANGED = frozenset({"VAULTED", "TOKENIZED"})
"""Statuses of a setup token that has become a payment token."""
WALLET = Card(brand="paypal")
"""A wallet has no number and no end; whose it is stays at PayPal."""
_NOT_UNDERSTOOD = MethodAnswer(Verdict.UNKNOWN, code=NOT_UNDERSTOOD, message="PayPal's answer is not known")
_NOT_TAKEN = MethodAnswer(Verdict.DECLINED, code=METHOD_GONE, message="PayPal has no such wallet for this user")


class PaypalMethods:
    """The MethodKeeper port. Without a token PayPal is asked for one, and the shopper for their approval; a token that
    is given is a setup token which somebody else of the shop has made."""

    def __init__(self, api: PaypalApi) -> None:
        self._api = api

    async def keep(self, call: MethodCall) -> MethodAnswer:
        given = call.secrets.given
        if given is None:
            return await self._ask_for_approval(call)
        setup_id = vault_id(given)
        return _NOT_TAKEN if setup_id is None else await self._standing(call, replace(call.secrets, setup_id=setup_id))

    async def look(self, call: MethodCall) -> MethodAnswer:
        return _NOT_UNDERSTOOD if call.secrets.setup_id is None else await self._standing(call, call.secrets)

    async def detach(self, call: MethodCall) -> MethodAnswer:
        """A setup token cannot be cancelled, and nothing is charged with one. One that was exchanged while its user
        removed it has a payment token that only the same exchange tells."""
        token = call.secrets.token
        if token is None and call.secrets.setup_id is not None:
            reply = await self._api.ask(Request("GET", _path(SETUP, call.secrets.setup_id)))
            if isinstance(reply, Answer) or reply.status not in (200, 404):
                return _failed(reply)
            if reply.body.get("status") in EXCHANGED:
                made = await self._exchange(call, call.secrets)
                if made.verdict not in (Verdict.APPROVED, Verdict.DECLINED):
                    return made
                token = made.secrets.token if made.secrets is not None else None
        if token is None:
            return MethodAnswer(Verdict.APPROVED)
        reply = await self._api.ask(Request("DELETE", _path(TOKENS, token)))
        gone = isinstance(reply, Reply) and reply.status in (200, 204, 404)
        return MethodAnswer(Verdict.APPROVED) if gone else _failed(reply)

    # --- steps -----------------------------------------------------------------------------------------------

    async def _ask_for_approval(self, call: MethodCall) -> MethodAnswer:
        context = {"shipping_preference": "NO_SHIPPING"}
        if call.secrets.return_url is not None:
            context |= {"return_url": call.secrets.return_url, "cancel_url": call.secrets.return_url}
        wallet = {
            "usage_type": "MERCHANT", "customer_type": "CONSUMER", "permit_multiple_payment_tokens": True,
            "experience_context": context,
        }  # fmt: skip
        body = {"customer": {"merchant_customer_id": _name_of(call)}, "payment_source": {"paypal": wallet}}
        reply = await self._api.ask(Request("POST", SETUP, body, f"{call.key}:setup"))
        if isinstance(reply, Answer) or reply.status not in (200, 201):
            return _failed(reply)
        setup = Fields(reply.body)
        setup_id, action = vault_id(setup.get("id")), approval_of(setup)
        if setup_id is None or action is None:
            return _NOT_UNDERSTOOD
        secrets = replace(call.secrets, setup_id=setup_id, approve_url=action.url)
        return MethodAnswer(Verdict.PENDING, next_action=action, secrets=secrets, card=WALLET)

    async def _standing(self, call: MethodCall, secrets: MethodSecrets) -> MethodAnswer:
        """How the setup token stands; once it is approved, it is exchanged."""
        assert secrets.setup_id is not None, "asked for only with one"
        reply = await self._api.ask(Request("GET", _path(SETUP, secrets.setup_id)))
        if isinstance(reply, Answer) or reply.status != 200:
            return _failed(reply)
        setup = Fields(reply.body)
        if setup.get("id") != secrets.setup_id:
            return _NOT_UNDERSTOOD
        owner = setup.inner("customer").get("merchant_customer_id")
        if not _is_wallet(setup.body) or owner not in (None, _name_of(call)):
            return _NOT_TAKEN
        status = setup.get("status")
        if status == "APPROVED" or status in EXCHANGED:
            return await self._exchange(call, secrets)
        if status not in WAITS:
            return _NOT_UNDERSTOOD
        # Nothing says that PayPal shows the page's address again.
        action = approval_of(setup)
        if action is None and secrets.approve_url is not None:
            action = NextAction("redirect", url=secrets.approve_url)
        return MethodAnswer(Verdict.PENDING, next_action=action, secrets=secrets, card=WALLET)

    async def _exchange(self, call: MethodCall, secrets: MethodSecrets) -> MethodAnswer:
        source = {"token": {"id": secrets.setup_id, "type": "SETUP_TOKEN"}}
        reply = await self._api.ask(Request("POST", TOKENS, {"payment_source": source}, f"{call.key}:token"))
        if isinstance(reply, Answer) or reply.status not in (200, 201):
            return _failed(reply)
        token = vault_id(reply.body.get("id"))
        if token is None or not _is_wallet(reply.body):
            return _NOT_UNDERSTOOD
        kept = replace(secrets, token=token, given=None, approve_url=None)
        return MethodAnswer(Verdict.APPROVED, secrets=kept, card=WALLET)


def _path(kind: str, name: str) -> str:
    return f"{kind}/{quote(name, safe='')}"


def _name_of(call: MethodCall) -> str:
    """The user, for PayPal: what is approved by one is not kept by another. Not their id itself."""
    return blake2b(call.user_id.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _is_wallet(body: Mapping[str, Any]) -> bool:
    source = body.get("payment_source")
    return isinstance(source, Mapping) and isinstance(source.get("paypal"), Mapping)


def _failed(reply: Reply | Answer) -> MethodAnswer:
    """What a failure means for the saving. PayPal's texts are not kept: they may quote the token."""
    if isinstance(reply, Answer):
        return MethodAnswer(reply.verdict, code=reply.code, message=reply.message)
    if reply.status >= 500:
        return MethodAnswer(Verdict.UNKNOWN, code=PROVIDER_ERROR, message=f"PayPal answered {reply.status}")
    said = ERRORS_BY_STATUS.get(reply.status)
    if said is not None:
        return MethodAnswer(said.verdict, code=said.code, message=said.message)
    if reply.status == 404:
        return _NOT_TAKEN
    issue = issue_of(reply)
    if reply.status not in (400, 422) or not issue:
        return _NOT_UNDERSTOOD
    return MethodAnswer(Verdict.DECLINED, code=INVALID_REQUEST, message=f"PayPal refused the request: {issue}")
