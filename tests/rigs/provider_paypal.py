"""PayPal under the providers' contract suite: our adapter over HTTP, on a simulator of PayPal's API of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rigs.provider_rig import ProviderRig
from rigs.settable_clock import SettableClock
from servers.provider_sim import ProviderSim

from payment_service.adapters.outbound import Outbound
from payment_service.adapters.providers.paypal import PaypalProvider
from payment_service.adapters.providers.paypal_api import PaypalApi

DEADLINE_S = 10.0


@asynccontextmanager
async def api_on(url: str, secret: str = "simulated", clock: SettableClock | None = None) -> AsyncIterator[PaypalApi]:
    """`clock`: by which the access token grows old; it stands still."""
    outbound = Outbound()
    try:
        yield PaypalApi("client", secret, url, DEADLINE_S, outbound.session, clock or SettableClock())
    finally:
        await outbound.close()


@asynccontextmanager
async def make_rig() -> AsyncIterator[ProviderRig]:
    with ProviderSim() as sim:
        async with api_on(sim.url) as api:
            yield ProviderRig(
                PaypalProvider(api),
                yes="tok_visa",
                no="tok_chargeDeclinedInsufficientFunds",
                no_code="INSTRUMENT_DECLINED",
                action="tok_threeDSecure",
                error="tok_error",
                tells_declines=False,
            )
