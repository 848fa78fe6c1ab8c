"""Saved wallets at PayPal: over a simulator of its API that keeps state, and by what it might say."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from rigs.paypal_recorded import event
from rigs.provider_paypal import api_on
from rigs.provider_rig import call_for
from servers.provider_sim import ProviderSim

from payment_service.adapters.providers.paypal import PaypalProvider
from payment_service.adapters.providers.paypal_api import PaypalApi, Reply
from payment_service.adapters.providers.paypal_methods import PaypalMethods
from payment_service.adapters.providers.paypal_requests import Request
from payment_service.adapters.providers.paypal_webhooks import PaypalWebhooks
from payment_service.core.payment_method import Card, MethodAnswer, MethodCall, MethodSecrets
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import Kind, Verdict
from payment_service.core.webhooks import MethodNews

BACK = "https://shop.test/back?x=1"


def call_of(key: str = "pmt_1", user: str = "ann", **known: Any) -> MethodCall:
    return MethodCall(key, user, MethodSecrets(return_url=BACK, **known))


@dataclass
class Rig:
    sim: ProviderSim
    session: ClientSession
    api: PaypalApi
    methods: PaypalMethods
    provider: PaypalProvider

    async def approve(self, setup_id: str | None, wallet: str = "tok_visa") -> str:
        """Where the shopper is led back to."""
        url = f"{self.sim.url}/_sim/approve/{setup_id}?with={wallet}"
        async with self.session.get(url, allow_redirects=False) as response:
            assert response.status in (200, 302), await response.text()
            return response.headers.get("Location", "")

    async def faults(self, **given: Any) -> None:
        async with self.session.post(f"{self.sim.url}/_sim/faults", json=given) as response:
            assert response.status == 200

    async def asked(self, key: str = "pmt_1", user: str = "ann") -> MethodCall:
        """One that waits for its shopper."""
        answer = await self.methods.keep(call_of(key, user))
        assert answer.verdict is Verdict.PENDING and answer.secrets is not None, answer
        return MethodCall(key, user, answer.secrets)

    async def kept(self, key: str = "pmt_1", wallet: str = "tok_visa", user: str = "ann") -> MethodCall:
        waiting = await self.asked(key, user)
        await self.approve(waiting.secrets.setup_id, wallet)
        answer = await self.methods.look(waiting)
        assert answer.verdict is Verdict.APPROVED and answer.secrets is not None, answer
        return replace(waiting, secrets=answer.secrets)

    def objects(self, kind: str) -> dict[str, Any]:
        return {line["id"]: line["value"] for line in self.sim.lines("object") if line["kind"] == f"paypal.{kind}"}


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    with ProviderSim() as sim:
        async with ClientSession() as session, api_on(sim.url) as api:
            yield Rig(sim, session, api, PaypalMethods(api), PaypalProvider(api))


async def test_a_wallet_is_saved_by_its_shoppers_approval(rig: Rig) -> None:
    asked = await rig.methods.keep(call_of())
    assert (asked.verdict, asked.card) == (Verdict.PENDING, Card("paypal"))
    assert asked.next_action is not None and asked.secrets is not None
    assert (asked.next_action.type, asked.next_action.url) == ("redirect", asked.secrets.approve_url)
    waiting = MethodCall("pmt_1", "ann", asked.secrets)
    still = await rig.methods.look(waiting)
    assert (still.verdict, still.next_action) == (Verdict.PENDING, asked.next_action)
    back = await rig.approve(asked.secrets.setup_id)
    assert back.startswith(f"{BACK}&approval_token_id={asked.secrets.setup_id}")
    saved = await rig.methods.look(waiting)
    assert (saved.verdict, saved.card, saved.next_action) == (Verdict.APPROVED, Card("paypal"), None)
    assert saved.secrets is not None and saved.secrets.token in rig.objects("payment_token")
    assert (saved.secrets.given, saved.secrets.approve_url) == (None, None)
    (wallet,) = rig.objects("payment_token").values()
    assert wallet["payment_source"]["paypal"]["permit_multiple_payment_tokens"] is True
    assert "ann" not in wallet["customer"]["merchant_customer_id"]


async def test_asking_again_makes_nothing_twice(rig: Rig) -> None:
    first = await rig.asked()
    assert await rig.asked() == first
    await rig.approve(first.secrets.setup_id)
    saved = [(await rig.methods.look(first)).secrets for _ in range(3)]
    assert saved[0] is not None and saved[0] == saved[1] == saved[2]
    assert (len(rig.objects("setup_token")), len(rig.objects("payment_token"))) == (1, 1)
    other = await rig.kept("pmt_2", user="bob")
    assert other.secrets.token != saved[0].token, "each has a token of its own"


@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
async def test_a_saved_wallet_is_charged_without_its_shopper(rig: Rig, kind: Kind) -> None:
    saved = await rig.kept()

    async def paid(payment_id: str, token: str | None) -> Answer:
        call: ProviderCall = replace(
            call_for(payment_id, kind, token=token, provider="PAYPAL", manual=kind is Kind.AUTHORIZE),
            payment_method_id="pmt_1",
        )  # fmt: skip
        made = await rig.provider.create_object(call)
        assert made.object_id is not None and made.next_action is None
        return await rig.provider.send(replace(call, object_id=made.object_id))

    answer = await paid("pay_1", saved.secrets.token)
    assert (answer.verdict, answer.amount_minor) == (Verdict.APPROVED, 1000)
    poor = await rig.kept("pmt_2", "tok_chargeDeclinedInsufficientFunds")
    assert (await paid("pay_2", poor.secrets.token)).code == "CARD_DECLINED"
    assert (await rig.methods.detach(saved)).verdict is Verdict.APPROVED
    gone = await paid("pay_3", saved.secrets.token)
    assert gone.verdict is Verdict.DECLINED, gone
    assert [line["payment_id"] for line in rig.sim.movements()] == ["pay_1"]


async def test_a_setup_token_that_the_shops_own_server_made_is_taken(rig: Rig) -> None:
    wallet = {"paypal": {"usage_type": "MERCHANT"}}
    made = await rig.api.ask(Request("POST", "/v3/vault/setup-tokens", {"payment_source": wallet}, "theirs"))
    assert isinstance(made, Reply)
    call = call_of(given=made.body["id"])
    waiting = await rig.methods.keep(call)
    assert (waiting.verdict, waiting.next_action is not None) == (Verdict.PENDING, True)
    await rig.approve(made.body["id"])
    assert (await rig.methods.keep(call)).verdict is Verdict.APPROVED


async def test_what_another_user_approved_or_nobody_made_is_not_taken(rig: Rig) -> None:
    theirs = await rig.asked("pmt_1", "ann")
    await rig.approve(theirs.secrets.setup_id)
    for given in (theirs.secrets.setup_id, "0000000000000000A", "../orders", "tok_visa", "a" * 37, "ä"):
        answer = await rig.methods.keep(call_of("pmt_2", "bob", given=given))
        assert (answer.verdict, answer.code) == (Verdict.DECLINED, "INVALID_PAYMENT_METHOD"), given
    assert rig.objects("payment_token") == {}


async def test_what_is_removed_is_deleted_there_also_when_the_exchange_was_not_heard_of(rig: Rig) -> None:
    waiting = await rig.asked()
    assert (await rig.methods.detach(waiting)).verdict is Verdict.APPROVED, "nothing was made of it"
    await rig.approve(waiting.secrets.setup_id)
    await rig.faults(next=[{"path": "/v3/vault/payment-tokens", "fault": "drop_response", "times": 1}])
    assert (await rig.methods.look(waiting)).verdict is Verdict.UNKNOWN
    assert [token["_gone"] for token in rig.objects("payment_token").values()] == [False]
    for _ in range(2):
        assert (await rig.methods.detach(waiting)).verdict is Verdict.APPROVED
    assert [token["_gone"] for token in rig.objects("payment_token").values()] == [True]
    saved = await rig.kept("pmt_2")
    for _ in range(2):
        assert (await rig.methods.detach(saved)).verdict is Verdict.APPROVED
    assert all(token["_gone"] for token in rig.objects("payment_token").values())


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ("drop_request", Verdict.UNKNOWN),
        ("drop_response", Verdict.UNKNOWN),
        ("cut_body", Verdict.UNKNOWN),
        ("status_500_after", Verdict.UNKNOWN),
        ("status_429", Verdict.NOT_SENT),
    ],
)
async def test_a_lost_answer_is_asked_for_again_under_the_same_key(rig: Rig, fault: str, verdict: Verdict) -> None:
    once: dict[str, Any] = {"fault": fault, "times": 1}
    await rig.faults(next=[{"path": "/v3/vault/setup-tokens", **once}, {"path": "/v3/vault/payment-tokens", **once}])
    lost = await rig.methods.keep(call_of())
    assert (lost.verdict, lost.secrets) == (verdict, None)
    waiting = await rig.asked()
    await rig.approve(waiting.secrets.setup_id)
    assert (await rig.methods.look(waiting)).verdict is verdict
    assert (await rig.methods.look(waiting)).verdict is Verdict.APPROVED
    assert (len(rig.objects("setup_token")), len(rig.objects("payment_token"))) == (1, 1)


async def test_its_owner_may_take_it_back_at_paypal(rig: Rig) -> None:
    """News only once PayPal has it no more: an event by itself is not believed."""
    saved = await rig.kept()
    token = saved.secrets.token
    assert token is not None
    webhooks = PaypalWebhooks(rig.api, "WEBHOOK", None)
    body = event("wallet_deleted").replace(b'"nkq2y9g"', f'"{token}"'.encode())
    notice = webhooks.read(body)
    gone = (MethodNews(token, detached=True),)
    assert (notice.news, notice.refetch, notice.payment_id, notice.object_id) == (gone, True, None, None)
    assert (await webhooks.refetch(notice)).news == ()
    await rig.methods.detach(saved)
    fresh = await webhooks.refetch(notice)
    assert (fresh.news, fresh.refetch) == (gone, False)
    strange = webhooks.read(body.replace(f'"{token}"'.encode(), b'"../orders"'))
    assert (strange.news, strange.refetch) == ((), False)


SETUP = {"id": "SETUP1", "status": "APPROVED", "payment_source": {"paypal": {}}}


class Says(PaypalApi):
    """PayPal, as a test wants it."""

    def __init__(self, *replies: Reply | Answer) -> None:
        self.replies = list(replies)
        self.asked: list[Request] = []

    async def ask(self, request: Request) -> Reply | Answer:
        self.asked.append(request)
        return self.replies.pop(0)


@pytest.mark.parametrize(
    ("replies", "verdict", "code"),
    [
        ([Reply(200, {**SETUP, "status": "OF_TOMORROW"})], Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD"),
        ([Reply(200, {**SETUP, "id": "ANOTHER"})], Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD"),
        ([Reply(200, {**SETUP, "payment_source": {"card": {}}})], Verdict.DECLINED, "INVALID_PAYMENT_METHOD"),
        ([Reply(200, {**SETUP, "payment_source": None})], Verdict.DECLINED, "INVALID_PAYMENT_METHOD"),
        ([Reply(200, {})], Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD"),
        ([Reply(404, {})], Verdict.DECLINED, "INVALID_PAYMENT_METHOD"),
        ([Reply(500, {})], Verdict.UNKNOWN, "PROVIDER_ERROR"),
        ([Reply(403, {"name": "NOT_AUTHORIZED"})], Verdict.NOT_SENT, "PROVIDER_KEY_REFUSED"),
        ([Reply(409, {})], Verdict.UNKNOWN, "IDEMPOTENCY_IN_USE"),
        ([Reply(418, {"name": "TEAPOT"})], Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD"),
        ([Reply(200, SETUP), Reply(200, {"id": "t1", "payment_source": {"card": {}}})], Verdict.UNKNOWN,
         "ANSWER_NOT_UNDERSTOOD"),
        ([Reply(200, SETUP), Reply(201, {"payment_source": {"paypal": {}}})], Verdict.UNKNOWN,
         "ANSWER_NOT_UNDERSTOOD"),
        ([Reply(200, SETUP), Reply(422, {"details": [{"issue": "TOKEN_EXPIRED"}]})], Verdict.DECLINED,
         "INVALID_REQUEST"),
        ([Reply(200, SETUP), Reply(422, {})], Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD"),
        ([Reply(200, SETUP), Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")], Verdict.UNKNOWN, "PROVIDER_TIMEOUT"),
    ],
)  # fmt: skip
async def test_what_paypal_may_say(replies: list[Reply | Answer], verdict: Verdict, code: str) -> None:
    answer = await PaypalMethods(Says(*replies)).look(call_of(setup_id="SETUP1"))
    assert (answer.verdict, answer.code) == (verdict, code)
    assert isinstance(answer, MethodAnswer) and answer.secrets is None


@pytest.mark.parametrize(
    "body", [{}, {"id": "S1"}, {"id": "S1", "links": [{"rel": "approve", "href": "javascript:alert(1)"}]}, {"links": 1}]
)
async def test_without_a_page_to_approve_it_nothing_is_known(body: dict[str, Any]) -> None:
    assert (await PaypalMethods(Says(Reply(201, body))).keep(call_of())).code == "ANSWER_NOT_UNDERSTOOD"


async def test_no_secret_is_shown(rig: Rig) -> None:
    answer = await rig.methods.keep(call_of())
    assert answer.secrets is not None
    for secret in (answer.secrets.setup_id, answer.secrets.approve_url):
        assert secret is not None and secret not in repr(answer)
