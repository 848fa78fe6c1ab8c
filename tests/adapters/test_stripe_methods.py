"""Saved cards at Stripe: over a simulator of its API that keeps state, and against its own OpenAPI."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from rigs.provider_rig import call_for
from servers.provider_sim import ProviderSim
from servers.stripe_mock import HOW_TO_GET, is_there, stripe_mock_for_tests

from payment_service.adapters.providers.stripe import StripeProvider
from payment_service.adapters.providers.stripe_api import Reply, StripeApi
from payment_service.adapters.providers.stripe_methods import StripeMethods
from payment_service.adapters.providers.stripe_requests import Request, create_request, customer_request
from payment_service.core.payment_method import Card, MethodCall, MethodSecrets
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import Kind, Verdict

KEY = "sk_test_methods"


def call_of(given: str | None = None, key: str = "pmt_1", user: str = "ann", **known: str) -> MethodCall:
    return MethodCall(key, user, MethodSecrets(given=given, **known))


@dataclass
class Rig:
    sim: ProviderSim
    session: ClientSession
    api: StripeApi
    methods: StripeMethods
    provider: StripeProvider

    async def at_stripe(self, method: str, path: str, **form: str) -> Any:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with self.session.request(method, self.sim.url + path, data=form or None, headers=headers) as response:
            return await response.json()

    async def control(self, path: str, body: Any = None) -> None:
        async with self.session.post(self.sim.url + path, json=body or {}) as response:
            assert response.status == 200, await response.text()

    async def kept(self, given: str = "tok_visa", key: str = "pmt_1", **known: str) -> MethodSecrets:
        answer = await self.methods.keep(call_of(given, key, **known))
        assert answer.verdict is Verdict.APPROVED and answer.secrets is not None, answer
        return answer.secrets

    async def paid(self, call: ProviderCall) -> Answer:
        made = await self.provider.create_object(call)
        assert made.object_id is not None, made
        return await self.provider.send(replace(call, object_id=made.object_id))

    def objects(self, prefix: str) -> set[str]:
        """Ids of what was made there, as the ledger has them."""
        return set(re.findall(rf'"id":"({prefix}[A-Za-z0-9]+)"', self.sim.ledger.read_text()))


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    with ProviderSim() as sim:
        async with ClientSession() as session:
            api = StripeApi(KEY, sim.url, 10, lambda: session)
            yield Rig(sim, session, api, StripeMethods(api), StripeProvider(api, live=False))


async def test_a_card_is_kept_for_its_users_one_customer(rig: Rig) -> None:
    answer = await rig.methods.keep(call_of("tok_mastercard"))
    assert (answer.verdict, answer.card) == (Verdict.APPROVED, Card("mastercard", "4444", 12, 2034))
    first = answer.secrets
    assert first is not None and first.token is not None and first.customer is not None
    assert (first.given, first.token[:3], first.customer[:4]) == (None, "pm_", "cus_")
    second = await rig.kept("pm_card_visa", "pmt_2")
    third = await rig.kept("tok_amex", "pmt_3", customer=first.customer)
    assert {first.customer, second.customer, third.customer} == {first.customer}
    assert (await rig.at_stripe("GET", f"/v1/customers/{first.customer}"))["metadata"] == {"user_id": "ann"}
    other = await rig.methods.keep(replace(call_of("tok_visa", "pmt_4"), user_id="bob"))
    assert other.secrets is not None and other.secrets.customer != first.customer


async def test_asking_again_makes_nothing_twice(rig: Rig) -> None:
    first = await rig.kept()
    assert await rig.kept() == first
    assert await rig.kept(customer=first.customer or "") == first
    assert (len(rig.objects("pm_")), len(rig.objects("seti_")), len(rig.objects("cus_"))) == (1, 1, 1)


@pytest.mark.parametrize(
    ("token", "code", "decline_code"),
    [
        ("tok_chargeDeclinedInsufficientFunds", "CARD_DECLINED", "insufficient_funds"),
        ("tok_chargeDeclined", "CARD_DECLINED", "generic_decline"),
        ("tok_unheard_of", "INVALID_PAYMENT_METHOD", None),
        ("pm_unheard_of", "INVALID_PAYMENT_METHOD", None),
        ("4242", "INVALID_PAYMENT_METHOD", None),
    ],
)
async def test_what_is_declined_is_not_kept(rig: Rig, token: str, code: str, decline_code: str | None) -> None:
    answer = await rig.methods.keep(call_of(token))
    assert (answer.verdict, answer.code, answer.decline_code) == (Verdict.DECLINED, code, decline_code)
    assert answer.secrets is None and token not in answer.message


@pytest.mark.parametrize("return_url", ["https://shop.test/back", None])
async def test_the_shopper_may_have_to_confirm_it(rig: Rig, return_url: str | None) -> None:
    call = call_of("tok_threeDSecure")
    asked = await rig.methods.keep(replace(call, secrets=replace(call.secrets, return_url=return_url)))
    assert asked.verdict is Verdict.PENDING and asked.next_action is not None and asked.secrets is not None
    assert asked.next_action.type == ("redirect" if return_url else "use_client_secret")
    assert (asked.card.last4, asked.secrets.setup_id is None) == ("3220", False)
    waiting = MethodCall("pmt_1", "ann", asked.secrets)
    still = await rig.methods.look(waiting)
    assert (still.verdict, still.next_action) == (Verdict.PENDING, asked.next_action)
    await rig.control(f"/_sim/approve/{asked.secrets.setup_id}")
    confirmed = await rig.methods.look(waiting)
    assert confirmed.verdict is Verdict.APPROVED and confirmed.secrets is not None
    assert confirmed.secrets.token == asked.secrets.token
    charge = await rig.paid(
        replace(
            call_for("pay_1", token=confirmed.secrets.token, provider="STRIPE"), payment_method_id="pmt_1",
            customer=confirmed.secrets.customer, return_url="https://shop.test/back",
        )
    )  # fmt: skip
    assert charge.verdict is Verdict.PENDING, "this card asks at each payment"


async def test_one_that_was_never_confirmed_is_cancelled(rig: Rig) -> None:
    asked = await rig.methods.keep(call_of("tok_threeDSecure"))
    assert asked.secrets is not None
    waiting = MethodCall("pmt_1", "ann", asked.secrets)
    assert (await rig.methods.detach(waiting)).verdict is Verdict.APPROVED
    assert (await rig.methods.look(waiting)).verdict is Verdict.DECLINED
    assert (await rig.methods.detach(waiting)).verdict is Verdict.APPROVED


async def test_one_is_charged_again_and_again_and_never_after_it_was_detached(rig: Rig) -> None:
    secrets = await rig.kept()
    saved = replace(
        call_for("pay_1", token=secrets.token, provider="STRIPE"), payment_method_id="pmt_1",
        customer=secrets.customer,
    )  # fmt: skip
    for payment in ("pay_1", "pay_2"):
        paid = replace(saved, payment_id=payment, key=f"{payment}:charge:1", object_key=f"{payment}:object:1")
        assert (await rig.paid(paid)).verdict is Verdict.APPROVED
    call = MethodCall("pmt_1", "ann", secrets)
    for _ in range(3):
        assert (await rig.methods.detach(call)).verdict is Verdict.APPROVED
    late = replace(saved, payment_id="pay_3", key="pay_3:charge:1", object_key="pay_3:object:1")
    refused = await rig.paid(late)
    assert (refused.verdict, refused.code) == (Verdict.DECLINED, "INVALID_PAYMENT_METHOD")
    assert len(rig.sim.movements()) == 2


async def test_it_is_charged_on_an_object_that_an_earlier_attempt_made(rig: Rig) -> None:
    secrets = await rig.kept()
    first = call_for("pay_1", token="tok_chargeDeclined", provider="STRIPE")
    made = await rig.provider.create_object(first)
    assert (await rig.provider.send(replace(first, object_id=made.object_id))).verdict is Verdict.DECLINED
    second = replace(
        call_for("pay_1", number=2, token=secrets.token, object_id=made.object_id, provider="STRIPE"),
        payment_method_id="pmt_1", customer=secrets.customer,
    )  # fmt: skip
    for _ in range(2):
        assert (await rig.provider.send(second)).verdict is Verdict.APPROVED
    assert len(rig.sim.movements()) == 1
    stranger = replace(second, customer="cus_unheard_of", key="pay_1:charge:3", number=3)
    assert (await rig.provider.send(stranger)).verdict in (Verdict.APPROVED, Verdict.DECLINED)
    assert len(rig.sim.movements()) == 1


async def test_a_customer_that_was_deleted_at_stripe_is_made_anew(rig: Rig) -> None:
    secrets = await rig.kept(customer="cus_deleted")
    assert secrets.customer not in (None, "cus_deleted")
    assert (await rig.kept("tok_amex", "pmt_2", customer="cus_deleted")).customer == secrets.customer


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ({"status_429": 1.0}, Verdict.NOT_SENT),
        ({"status_500": 1.0}, Verdict.NOT_SENT),
        ({"drop_response": 1.0}, Verdict.NOT_SENT),
        ({"cut_body": 1.0}, Verdict.NOT_SENT),
    ],
)
async def test_what_fails_before_the_token_is_used_was_not_sent(
    rig: Rig, rates: dict[str, float], verdict: Verdict
) -> None:
    await rig.control("/_sim/faults", {"rates": rates})
    assert (await rig.methods.keep(call_of("tok_visa"))).verdict is verdict
    await rig.control("/_sim/faults", {})
    await rig.kept()
    assert len(rig.objects("cus_")) == 1


@pytest.mark.parametrize("fault", ["status_500", "drop_response", "cut_body"])
async def test_a_lost_answer_is_unknown_and_asked_again(rig: Rig, fault: str) -> None:
    customer = (await rig.kept("tok_amex", "pmt_0")).customer or ""
    await rig.control("/_sim/faults", {"rates": {fault: 1.0}})
    assert (await rig.methods.keep(call_of("tok_visa", customer=customer))).verdict is Verdict.UNKNOWN
    secrets = MethodSecrets(token="pm_1", setup_id="seti_1", customer=customer)
    assert (await rig.methods.look(MethodCall("pmt_1", "ann", secrets))).verdict is Verdict.UNKNOWN
    assert (await rig.methods.detach(MethodCall("pmt_1", "ann", secrets))).verdict is Verdict.UNKNOWN
    await rig.control("/_sim/faults", {})
    await rig.kept(customer=customer)
    assert len(rig.objects("seti_")) == 2


async def test_without_a_connection_nothing_was_sent() -> None:
    async with ClientSession() as session:
        methods = StripeMethods(StripeApi(KEY, "http://127.0.0.1:9", 2, lambda: session))
        for customer in (None, "cus_1"):
            secrets = MethodSecrets(given="tok_visa", customer=customer)
            assert (await methods.keep(MethodCall("pmt_1", "ann", secrets))).verdict is Verdict.NOT_SENT


# --- as Stripe's OpenAPI has it --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mock_url() -> Iterator[str]:
    if not is_there():
        pytest.skip(HOW_TO_GET)
    with stripe_mock_for_tests() as url:
        yield url


async def test_stripes_own_openapi_takes_every_request(mock_url: str) -> None:
    """But for the token of a card, which the published OpenAPI leaves out although the API takes it."""
    async with ClientSession() as session:
        api = StripeApi("sk_test_123", mock_url, 20, lambda: session)
        asked: list[tuple[Request, int]] = []
        ask = api.ask

        async def noted(request: Request) -> Reply | Answer:
            reply = await ask(request)
            assert isinstance(reply, Reply)
            asked.append((request, reply.status))
            return reply

        api.ask = noted  # type: ignore[method-assign]
        methods = StripeMethods(api)
        for url in ("https://shop.test/back", None):
            call = call_of("pm_card_visa")
            await methods.keep(replace(call, secrets=replace(call.secrets, return_url=url)))
        known = MethodSecrets(token="pm_1", customer="cus_1", setup_id="seti_1")
        await methods.look(MethodCall("pmt_1", "ann", known))
        await methods.detach(MethodCall("pmt_1", "ann", known))
        saved = replace(
            call_for("pay_1", Kind.CHARGE, 2, token="pm_1", object_id="pi_1"), customer="cus_1", payment_method_id="p"
        )
        update, create = customer_request(saved), create_request(replace(saved, object_id=None))
        assert update is not None and isinstance(create, Request)
        await noted(update)
        await noted(create)
    assert {(request.method, request.path, status) for request, status in asked if status != 200} == set()
    assert {request.path for request, _ in asked} == {
        "/v1/customers", "/v1/setup_intents", "/v1/setup_intents/seti_1", "/v1/setup_intents/seti_1/cancel",
        "/v1/payment_methods/pm_1/detach", "/v1/payment_intents/pi_1", "/v1/payment_intents",
        *({"/v1/payment_methods/pm_1"} & {request.path for request, _ in asked}),
    }  # fmt: skip
