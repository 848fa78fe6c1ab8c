"""Every request of PayPal's adapter, and every answer of our simulator, against PayPal's own OpenAPI documents.

Needs Prism as a validating proxy in front of a simulator; PAYPAL_PROXY and PAYPAL_PROXIED name the two. A request that
breaks the documents comes back as 422 with `sl-violations`, an answer that does as 500.
"""

import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from rigs.paypal_recorded import event
from rigs.paypal_signer import Signer
from rigs.provider_paypal import api_on
from rigs.provider_rig import call_for

from payment_service.adapters.providers.paypal import PaypalProvider
from payment_service.adapters.providers.paypal_api import PaypalApi, Reply
from payment_service.adapters.providers.paypal_requests import order_request
from payment_service.adapters.providers.paypal_webhooks import PaypalWebhooks
from payment_service.core.errors import Refused
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import Kind, Verdict

PROXY, PROXIED = os.environ.get("PAYPAL_PROXY"), os.environ.get("PAYPAL_PROXIED")
pytestmark = pytest.mark.skipif(
    not (PROXY and PROXIED), reason="PAYPAL_PROXY and PAYPAL_PROXIED name no validating proxy and its simulator"
)


class Checked(PaypalApi):
    """Nobody's opinion of a request or an answer may be that it breaks the documents."""

    async def ask_raw(self, method: str, path: str, data: bytes | None, key: str | None = None) -> Reply | Answer:
        reply = await super().ask_raw(method, path, data, key)
        assert isinstance(reply, Reply), reply
        assert reply.status < 500, (method, path, data, reply)
        assert "validation" not in reply.body, (method, path, data, reply)
        return reply


@pytest_asyncio.fixture
async def api() -> AsyncIterator[PaypalApi]:
    assert PROXY is not None
    assert PROXIED is not None
    async with api_on(PROXIED) as api:
        api.__class__ = Checked
        missing = await api.ask(order_request("0000000000000000A"))  # the proxy gives tokens that nobody takes
        assert isinstance(missing, Reply)
        assert missing.status == 404
        api.base = PROXY
        yield api


@pytest.fixture
def provider(api: PaypalApi) -> PaypalProvider:
    return PaypalProvider(api)


async def approve(call: ProviderCall) -> None:
    async with ClientSession() as session, session.post(f"{PROXIED}/_sim/approve/{call.object_id}") as response:
        assert response.status == 200


def later(call: ProviderCall, answer: Answer, kind: Kind, number: int, amount_minor: int) -> ProviderCall:
    return replace(
        call, kind=kind, number=number, amount_minor=amount_minor, charge_id=answer.provider_id,
        key=f"{call.payment_id}:{kind.lower()}:{number}", method_token=None,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
async def test_a_payments_life_is_valid_for_paypals_own_documents(provider: PaypalProvider, kind: Kind) -> None:
    payment_id = f"pay_{os.urandom(16).hex()}"
    call = replace(
        call_for(payment_id, kind, manual=kind is Kind.AUTHORIZE, provider="PAYPAL"),
        return_url="https://shop.test/back?order=1", description="Two books and a lamp", order_id="order-ä/1",
    )  # fmt: skip
    made = await provider.create_object(call)
    assert made.next_action is not None, made
    call = replace(call, object_id=made.object_id, number=2, key=f"{payment_id}:{kind.lower()}:2")
    assert (await provider.send(call)).verdict is Verdict.PENDING
    await approve(call)
    answer = await provider.send(call)
    assert answer.verdict is Verdict.APPROVED, answer
    assert (await provider.lookup(call)).verdict is Verdict.APPROVED
    if kind is Kind.AUTHORIZE:
        answer = await provider.send(later(call, answer, Kind.CAPTURE, 3, 700))
        assert (answer.verdict, answer.amount_minor) == (Verdict.APPROVED, 700)
    refund = later(call, answer, Kind.REFUND, 1, 300)
    assert (await provider.send(refund)).verdict is Verdict.APPROVED
    assert (await provider.lookup(refund)).verdict is Verdict.APPROVED
    assert (await provider.send(later(call, answer, Kind.REFUND, 2, 9_999))).verdict is Verdict.DECLINED


@pytest.mark.parametrize("currency", ["USD", "JPY", "HUF", "TWD"])
@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
async def test_saved_wallets_voids_and_closing_are_valid_too(
    provider: PaypalProvider, kind: Kind, currency: str
) -> None:
    call = replace(
        call_for(f"pay_{os.urandom(16).hex()}", kind, manual=kind is Kind.AUTHORIZE, provider="PAYPAL"),
        method_token="tok_visa", currency=currency,
    )  # fmt: skip
    made = await provider.create_object(call)
    closed = replace(call, object_id=made.object_id, payment_id=call.payment_id)
    assert (await provider.send(later(closed, made, Kind.VOID, 2, 1000))).verdict is Verdict.APPROVED

    other = replace(call, object_key=f"{call.payment_id}:object:2")
    made = await provider.create_object(other)
    other = replace(other, object_id=made.object_id)
    answer = await provider.send(other)
    assert (answer.verdict, answer.amount_minor, answer.currency) == (Verdict.APPROVED, 1000, currency)
    asks = replace(call, object_key=f"{call.payment_id}:object:3", method_token="tok_threeDSecure")
    made = await provider.create_object(asks)
    asks = replace(asks, object_id=made.object_id, key=f"{call.payment_id}:{kind.lower()}:4")
    assert (await provider.send(asks)).next_action is not None
    if kind is Kind.CHARGE:  # the document of /authorize forgets this issue
        no = replace(asks, method_token="tok_chargeDeclined", number=5, key=f"{call.payment_id}:charge:5")
        assert (await provider.send(no)).code == "CARD_DECLINED"
    void = await provider.send(later(other, answer, Kind.VOID, 3, 1000))
    assert void.verdict is (Verdict.APPROVED if kind is Kind.AUTHORIZE else Verdict.DECLINED)


async def test_the_postback_is_valid_too(api: PaypalApi) -> None:
    assert PROXY is not None
    body, webhooks = event("capture_completed"), PaypalWebhooks(api, "WEBHOOKOFTHETEST3", None)
    headers = Signer().headers(f"{PROXY}/v1/notifications/certs/CERT-1", body)
    with pytest.raises(Refused, match="does not know this webhook"):
        await webhooks.verify(headers, body, time.time_ns() // 1_000_000)
