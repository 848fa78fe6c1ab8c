"""The mock under the providers' contract suite: as it is, on a clock that stands still."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rigs.provider_rig import ProviderRig
from rigs.settable_clock import SettableClock

from payment_service.adapters.providers.mock import MockProvider


@asynccontextmanager
async def make_rig() -> AsyncIterator[ProviderRig]:
    yield ProviderRig(
        MockProvider(SettableClock(), public_url="http://shop.test"),
        yes="tok_visa",
        no="tok_chargeDeclinedInsufficientFunds",
        no_code="insufficient_funds",
        action="tok_threeDSecure",
        error="tok_error",
    )
