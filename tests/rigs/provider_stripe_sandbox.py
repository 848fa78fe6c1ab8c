"""Stripe under the providers' contract suite, at Stripe itself: a sandbox of whoever has its key. No money moves."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from rigs.provider_rig import ProviderRig
from rigs.provider_stripe import stripe_on

BASE = os.environ.get("STRIPE_API_BASE") or "https://api.stripe.com"
HOW_TO_RUN = "STRIPE_SECRET_KEY=sk_test_… make test-live"


@asynccontextmanager
async def make_rig() -> AsyncIterator[ProviderRig]:
    """Skips without a key, and refuses one that charges real cards."""
    key = os.environ.get("STRIPE_SECRET_KEY", "")
    if not key.startswith(("sk_test_", "rk_test_")):
        pytest.skip(f"no key of a sandbox: {HOW_TO_RUN}")
    async with stripe_on(BASE, key) as provider:
        yield ProviderRig(
            provider,
            yes="pm_card_visa",
            no="tok_chargeDeclinedInsufficientFunds",
            no_code="insufficient_funds",
            action="pm_card_authenticationRequired",
            error=None,
        )
