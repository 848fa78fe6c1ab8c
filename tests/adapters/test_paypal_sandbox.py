"""PayPal itself: a sandbox of whoever has its credentials. No money moves.

    PAYPAL_CLIENT_ID=… PAYPAL_CLIENT_SECRET=… make test-live

A shopper's approval is given by a person on PayPal's page, so that by themselves these tests go as far as an order that
waits for it. With PAYPAL_SANDBOX_VAULT_ID, the id of a wallet that was saved in this sandbox (POST
/api/v1/payment-methods, then approve), money of the sandbox is taken and given back.
"""

import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from rigs.provider_rig import call_for

from payment_service.adapters.clock import SystemClock
from payment_service.adapters.outbound import Outbound
from payment_service.adapters.providers.paypal import PaypalProvider
from payment_service.adapters.providers.paypal_api import PaypalApi
from payment_service.adapters.providers.paypal_methods import PaypalMethods
from payment_service.core.payment_method import MethodCall, MethodSecrets
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import Kind, Verdict

BASE = os.environ.get("PAYPAL_API_BASE") or "https://api-m.sandbox.paypal.com"
HOW_TO_RUN = "PAYPAL_CLIENT_ID=… PAYPAL_CLIENT_SECRET=… make test-live"
CLIENT, SECRET = os.environ.get("PAYPAL_CLIENT_ID"), os.environ.get("PAYPAL_CLIENT_SECRET")
WALLET = os.environ.get("PAYPAL_SANDBOX_VAULT_ID")
BACK = "https://example.com/back"
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not (CLIENT and SECRET), reason=f"no credentials of a sandbox: {HOW_TO_RUN}"),
]


@pytest_asyncio.fixture
async def api() -> AsyncIterator[PaypalApi]:
    outbound = Outbound()
    try:
        yield PaypalApi(CLIENT or "", SECRET or "", BASE, 30.0, outbound.session, SystemClock())
    finally:
        await outbound.close()


def new_call(kind: Kind = Kind.CHARGE, token: str | None = None) -> ProviderCall:
    call = call_for(
        f"pay_{uuid.uuid4().hex}", kind, provider="PAYPAL", token=token, manual=kind is Kind.AUTHORIZE
    )  # fmt: skip
    return replace(call, return_url=BACK)


def following(call: ProviderCall, answer: Answer, kind: Kind, number: int, amount_minor: int) -> ProviderCall:
    return replace(
        call, kind=kind, number=number, amount_minor=amount_minor, charge_id=answer.provider_id, method_token=None,
        key=f"{call.payment_id}:{kind.lower()}:{number}",
    )  # fmt: skip


@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
async def test_an_order_waits_for_its_shopper_and_can_be_closed(api: PaypalApi, kind: Kind) -> None:
    provider, call = PaypalProvider(api), new_call(kind)
    made = await provider.create_object(call)
    assert (made.verdict, made.review) == (Verdict.APPROVED, ())
    assert made.next_action is not None
    assert made.next_action.type == "redirect"
    assert (await provider.create_object(call)).object_id == made.object_id, "once per key"
    call = replace(call, object_id=made.object_id)
    waits = await provider.lookup(call)
    assert (waits.verdict, waits.next_action is not None) == (Verdict.PENDING, True)
    void = following(call, made, Kind.VOID, 2, 1000)
    assert (await provider.send(void)).verdict is Verdict.APPROVED
    assert (await provider.lookup(call)).verdict is Verdict.DECLINED


async def test_wrong_credentials_send_nothing() -> None:
    outbound = Outbound()
    try:
        wrong = PaypalApi(CLIENT or "", "wrong", BASE, 30.0, outbound.session, SystemClock())
        answer = await PaypalProvider(wrong).create_object(new_call())
        assert (answer.verdict, answer.code) == (Verdict.NOT_SENT, "PROVIDER_KEY_REFUSED")
    finally:
        await outbound.close()


async def test_a_wallet_is_asked_for(api: PaypalApi) -> None:
    """An account that PayPal has not enabled for its vault answers 403: then this fails, and so will saving."""
    call = MethodCall(f"pmt_{uuid.uuid4().hex[:24]}", "user-of-the-sandbox", MethodSecrets(return_url=BACK))
    asked = await PaypalMethods(api).keep(call)
    assert (asked.verdict, asked.code) == (Verdict.PENDING, "")
    assert asked.secrets is not None
    waits = await PaypalMethods(api).look(replace(call, secrets=asked.secrets))
    assert (waits.verdict, waits.next_action is not None) == (Verdict.PENDING, True)


@pytest.mark.skipif(not WALLET, reason="PAYPAL_SANDBOX_VAULT_ID names no wallet saved in this sandbox")
@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
async def test_a_saved_wallet_is_charged_and_refunded(api: PaypalApi, kind: Kind) -> None:
    provider, call = PaypalProvider(api), new_call(kind, WALLET)
    made = await provider.create_object(call)
    call = replace(call, object_id=made.object_id)
    paid = await provider.send(call)
    assert (paid.verdict, paid.amount_minor, paid.currency) == (Verdict.APPROVED, 1000, "USD")
    assert (await provider.send(call)).provider_id == paid.provider_id, "once per key"
    if kind is Kind.AUTHORIZE:
        paid = await provider.send(following(call, paid, Kind.CAPTURE, 2, 700))
        assert (paid.verdict, paid.amount_minor) == (Verdict.APPROVED, 700)
    refund = following(call, paid, Kind.REFUND, 1, 300)
    refunded = await provider.send(refund)
    assert refunded.verdict in (Verdict.APPROVED, Verdict.PENDING)
    assert (await provider.lookup(refund)).provider_id == refunded.provider_id
