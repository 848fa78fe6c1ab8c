"""Stripe under the providers' contract suite: our adapter over HTTP, on a simulator of Stripe's API of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rigs.provider_rig import ProviderRig
from servers.provider_sim import ProviderSim

from payment_service.adapters.outbound import Outbound
from payment_service.adapters.providers.stripe import StripeProvider
from payment_service.adapters.providers.stripe_api import StripeApi

KEY = "sk_test_simulated"
DEADLINE_S = 10.0


@asynccontextmanager
async def stripe_on(url: str, key: str = KEY) -> AsyncIterator[StripeProvider]:
    outbound = Outbound()
    try:
        yield StripeProvider(StripeApi(key, url, DEADLINE_S, outbound.session), live=False)
    finally:
        await outbound.close()


@asynccontextmanager
async def make_rig() -> AsyncIterator[ProviderRig]:
    with ProviderSim() as sim:
        async with stripe_on(sim.url) as provider:
            yield ProviderRig(
                provider,
                yes="tok_visa",
                no="tok_chargeDeclinedInsufficientFunds",
                no_code="insufficient_funds",
                action="tok_threeDSecure",
                error="tok_error",
            )
