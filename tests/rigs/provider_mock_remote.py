"""The mock of another process under the providers' contract suite: over HTTP, on a simulator of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rigs.provider_rig import ProviderRig
from servers.provider_sim import ProviderSim

from payment_service.adapters.outbound import Outbound
from payment_service.adapters.providers.mock_remote import RemoteMock


@asynccontextmanager
async def make_rig() -> AsyncIterator[ProviderRig]:
    outbound = Outbound()
    with ProviderSim() as sim:
        try:
            yield ProviderRig(
                RemoteMock(sim.url, outbound.session),
                yes="tok_visa",
                no="tok_chargeDeclinedInsufficientFunds",
                no_code="insufficient_funds",
                action="tok_threeDSecure",
                error="tok_error",
            )
        finally:
            await outbound.close()
