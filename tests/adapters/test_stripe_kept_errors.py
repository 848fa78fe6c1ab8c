"""Stripe keeps a 500 under the key that met it: what moves no money goes on under the next key, in the same order
whoever asks."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from rigs.provider_rig import call_for
from rigs.provider_stripe import stripe_on
from servers.provider_sim import ProviderSim

from payment_service.adapters.providers.registration import PROVIDER_ERROR
from payment_service.adapters.providers.stripe import StripeProvider
from payment_service.adapters.providers.stripe_api import KEYS_MAX
from payment_service.adapters.providers.stripe_methods import StripeMethods
from payment_service.core.payment_method import MethodCall, MethodSecrets
from payment_service.core.ports import ProviderCall
from payment_service.core.terms import Kind, Verdict

INTENTS = "/v1/payment_intents"
KEPT = "status_500_after"


@pytest.fixture(scope="module")
def sim() -> Iterator[ProviderSim]:
    with ProviderSim() as started:
        yield started


@pytest_asyncio.fixture
async def stripe(sim: ProviderSim) -> AsyncIterator[StripeProvider]:
    await fails(sim, 0)
    async with stripe_on(sim.url) as provider:
        yield provider


async def fails(sim: ProviderSim, times: int, path: str = INTENTS) -> None:
    plan: dict[str, Any] = {"next": [{"path": path, "fault": KEPT, "times": times}]}
    async with ClientSession() as session, session.post(f"{sim.url}/_sim/faults", json=plan) as answer:
        assert answer.status == 200


def call(payment_id: str, kind: Kind = Kind.CHARGE, number: int = 1) -> ProviderCall:
    return call_for(payment_id, kind, number, provider="STRIPE", token="tok_visa")


async def test_an_object_is_made_although_the_first_answer_of_its_key_was_an_error(
    sim: ProviderSim, stripe: StripeProvider
) -> None:
    await fails(sim, 1)
    first = await stripe.create_object(call("pay_kept1"))
    assert (first.verdict, first.code) == (Verdict.UNKNOWN, PROVIDER_ERROR)
    made = await stripe.create_object(call("pay_kept1"))
    assert made.verdict is Verdict.APPROVED
    async with stripe_on(sim.url) as another_worker:
        assert (await another_worker.create_object(call("pay_kept1"))).object_id == made.object_id
    paid = await stripe.send(replace(call("pay_kept1"), object_id=made.object_id))
    assert paid.verdict is Verdict.APPROVED
    assert [it["kind"] for it in sim.movements("pay_kept1")] == ["charge"]


async def test_the_keys_are_bounded(sim: ProviderSim, stripe: StripeProvider) -> None:
    await fails(sim, 100)
    answers = [await stripe.create_object(call("pay_kept2")) for _ in range(KEYS_MAX + 2)]
    assert {it.code for it in answers} == {PROVIDER_ERROR}
    assert len([it for it in sim.lines("answer") if "pay_kept2" in it["key"]]) == KEYS_MAX


async def test_a_void_is_made_although_its_key_has_kept_an_error(sim: ProviderSim, stripe: StripeProvider) -> None:
    made = await stripe.create_object(call("pay_kept3"))
    void = replace(call("pay_kept3", Kind.VOID, 2), object_id=made.object_id)
    await fails(sim, 1, f"{INTENTS}/{made.object_id}/cancel")
    assert (await stripe.send(void)).verdict is Verdict.UNKNOWN
    assert (await stripe.send(void)).verdict is Verdict.APPROVED


async def test_what_moves_money_keeps_its_one_key(sim: ProviderSim, stripe: StripeProvider) -> None:
    made = await stripe.create_object(call("pay_kept4"))
    charge = replace(call("pay_kept4"), object_id=made.object_id)
    await fails(sim, 1, f"{INTENTS}/{made.object_id}/confirm")
    for _ in range(2):
        assert (await stripe.send(charge)).code == PROVIDER_ERROR
    assert (await stripe.lookup(charge)).verdict is Verdict.APPROVED
    keys = {it["key"] for it in sim.lines("answer") if it["key"].startswith("pay_kept4:charge")}
    assert keys == {charge.key}


async def test_a_customer_is_made_although_its_key_has_kept_an_error(sim: ProviderSim, stripe: StripeProvider) -> None:
    methods = StripeMethods(stripe._api)
    call = MethodCall("pmt_kept", "user-kept", MethodSecrets(given="tok_visa"))
    await fails(sim, 1, "/v1/customers")
    assert (await methods.keep(call)).verdict is Verdict.NOT_SENT
    assert (await methods.keep(call)).verdict is Verdict.APPROVED
