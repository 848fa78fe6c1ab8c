"""Every request of PayPal's adapter, and every answer of our simulator, against PayPal's own OpenAPI documents.

Prism stands between the two (servers/prism.py). A request that breaks the documents comes back as 422 with the field
that is wrong, an answer that does as 500. Run by `make test-providers`.
"""

import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from rigs.paypal_recorded import event
from rigs.paypal_signer import Signer
from rigs.provider_paypal import api_on
from rigs.provider_rig import call_for
from servers.prism import HOW_TO_GET, is_there, paypal_documents
from servers.provider_sim import ProviderSim

from payment_service.adapters.providers.paypal import PaypalProvider
from payment_service.adapters.providers.paypal_api import PaypalApi, Reply
from payment_service.adapters.providers.paypal_methods import PaypalMethods
from payment_service.adapters.providers.paypal_requests import Request, order_request
from payment_service.adapters.providers.paypal_webhooks import PaypalWebhooks
from payment_service.core.errors import Refused
from payment_service.core.payment_method import MethodCall, MethodSecrets
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import Kind, Verdict

pytestmark = [pytest.mark.prism, pytest.mark.skipif(not is_there(), reason=HOW_TO_GET)]


@dataclass
class Proxied:
    sim: ProviderSim
    url: str
    """Of the documents, before the simulator."""


@pytest.fixture(scope="module")
def proxied() -> Iterator[Proxied]:
    with ProviderSim() as sim, paypal_documents(sim.url) as url:
        yield Proxied(sim, url)


class Checked(PaypalApi):
    """Nobody's opinion of a request or an answer may be that it breaks the documents."""

    async def ask_raw(self, method: str, path: str, data: bytes | None, key: str | None = None) -> Reply | Answer:
        reply = await super().ask_raw(method, path, data, key)
        assert isinstance(reply, Reply), reply
        assert reply.status < 500, (method, path, data, reply)
        assert "validation" not in reply.body, (method, path, data, reply)
        return reply


@pytest_asyncio.fixture
async def api(proxied: Proxied) -> AsyncIterator[PaypalApi]:
    async with api_on(proxied.sim.url) as api:
        api.__class__ = Checked
        missing = await api.ask(order_request("0000000000000000A"))  # no document has the page that gives tokens
        assert isinstance(missing, Reply)
        assert missing.status == 404
        api.base = proxied.url
        yield api


@pytest.fixture
def provider(api: PaypalApi) -> PaypalProvider:
    return PaypalProvider(api)


async def approve(proxied: Proxied, object_id: str | None) -> None:
    async with ClientSession() as session, session.post(f"{proxied.sim.url}/_sim/approve/{object_id}") as response:
        assert response.status == 200


def later(call: ProviderCall, answer: Answer, kind: Kind, number: int, amount_minor: int) -> ProviderCall:
    return replace(
        call, kind=kind, number=number, amount_minor=amount_minor, charge_id=answer.provider_id,
        key=f"{call.payment_id}:{kind.lower()}:{number}", method_token=None,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
async def test_a_payments_life_is_valid_for_paypals_own_documents(
    provider: PaypalProvider, proxied: Proxied, kind: Kind
) -> None:
    payment_id = f"pay_{os.urandom(16).hex()}"
    call = replace(
        call_for(payment_id, kind, manual=kind is Kind.AUTHORIZE, provider="PAYPAL"),
        return_url="https://shop.test/back?order=1", description="Two books and a lamp", order_id="order-ä/1",
    )  # fmt: skip
    made = await provider.create_object(call)
    assert made.next_action is not None, made
    call = replace(call, object_id=made.object_id, number=2, key=f"{payment_id}:{kind.lower()}:2")
    assert (await provider.send(call)).verdict is Verdict.PENDING
    await approve(proxied, call.object_id)
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


async def test_saving_a_wallet_and_charging_it_is_valid_too(api: PaypalApi, proxied: Proxied) -> None:
    methods, key = PaypalMethods(api), f"pmt_{os.urandom(12).hex()}"
    back = "https://shop.test/back?order=1"
    asked = await methods.keep(MethodCall(key, "ann", MethodSecrets(return_url=back)))
    assert asked.secrets is not None, asked
    waiting = MethodCall(key, "ann", asked.secrets)
    assert (await methods.look(waiting)).verdict is Verdict.PENDING
    await approve(proxied, asked.secrets.setup_id)
    saved = await methods.look(waiting)
    assert saved.secrets is not None and saved.secrets.token is not None, saved
    provider = PaypalProvider(api)
    payment_id = f"pay_{os.urandom(16).hex()}"
    call = replace(call_for(payment_id, provider="PAYPAL", token=saved.secrets.token), payment_method_id=key)
    made = await provider.create_object(call)
    assert (await provider.send(replace(call, object_id=made.object_id))).verdict is Verdict.APPROVED
    there = PaypalWebhooks(api, "WEBHOOKOFTHETEST3", None)
    gone = there.read(event("wallet_deleted"))
    assert (await there.refetch(gone)).news == gone.news, "the one of the recording was never there"
    for _ in range(2):
        assert (await methods.detach(MethodCall(key, "ann", saved.secrets))).verdict is Verdict.APPROVED


async def test_the_postback_is_valid_too(api: PaypalApi, proxied: Proxied) -> None:
    body, webhooks = event("capture_completed"), PaypalWebhooks(api, "WEBHOOKOFTHETEST3", None)
    headers = Signer().headers(f"{proxied.url}/v1/notifications/certs/CERT-1", body)
    with pytest.raises(Refused, match="does not know this webhook"):
        await webhooks.verify(headers, body, time.time_ns() // 1_000_000)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/checkout/orders"),
        ("PATCH", "/v2/checkout/orders/5O190127TN364715T"),
        ("POST", "/v2/checkout/orders/5O190127TN364715T/authorize"),
        ("POST", "/v2/checkout/orders/5O190127TN364715T/capture"),
        ("POST", "/v2/payments/authorizations/5O190127TN364715T/capture"),
        ("POST", "/v2/payments/captures/5O190127TN364715T/refund"),
        ("POST", "/v3/vault/setup-tokens"),
        ("POST", "/v3/vault/payment-tokens"),
        ("POST", "/v1/notifications/verify-webhook-signature"),
    ],
)
async def test_the_documents_are_asked_at_all(api: PaypalApi, method: str, path: str) -> None:
    """Prism takes any body, in silence, where it cannot compile a schema."""
    api.__class__ = PaypalApi
    reply = await api.ask(Request(method, path, 7, "key"))
    assert isinstance(reply, Reply)
    assert (reply.status, "validation" in reply.body) == (422, True)
