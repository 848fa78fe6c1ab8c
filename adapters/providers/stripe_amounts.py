"""How Stripe writes an amount, where that differs from ISO 4217's minor units.

Room: adapters/providers, beside stripe.py. Source: docs.stripe.com/currencies (zero-decimal and three-decimal
currencies, special cases); ISK is two-decimal for compatibility (support.stripe.com, ISK deprecation).
"""

from payment_service.core.money import EXPONENTS

THREE_DECIMALS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
"""Sent times 1000, as ISO says, but the last digit has to be 0."""
STEP_OF_THREE_DECIMALS = 10
HUNDREDFOLD = frozenset({"ISK", "UGX"})
"""ISO gives them no decimals; Stripe takes them with two, which have to be 00."""
WHOLE = frozenset({"MGA"})
"""ISO gives it two decimals; Stripe none."""
NOT_TAKEN = frozenset({"CLF", "IQD", "LYD", "UYI", "UYW"})
"""Stripe names no unit for these: a guess could be wrong by ten times."""


def to_stripe(amount_minor: int, currency: str) -> int | None:
    """Our minor units in Stripe's. None: Stripe has no unit that holds this amount, so nothing may be sent."""
    if currency in NOT_TAKEN or currency not in EXPONENTS:
        return None
    if currency in HUNDREDFOLD:
        return amount_minor * 100
    if currency in WHOLE:
        return amount_minor // 100 if amount_minor % 100 == 0 else None
    if currency in THREE_DECIMALS and amount_minor % STEP_OF_THREE_DECIMALS:
        return None
    return amount_minor


def from_stripe(amount: int, currency: str) -> int | None:
    """Stripe's units in our minor ones. None: it is no amount of ours (a part of one of our units)."""
    if currency in NOT_TAKEN or currency not in EXPONENTS:
        return None
    if currency in HUNDREDFOLD:
        return amount // 100 if amount % 100 == 0 else None
    return amount * 100 if currency in WHOLE else amount
