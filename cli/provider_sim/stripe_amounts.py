"""What Stripe counts in, and what ISO 4217 counts in (docs.stripe.com/currencies).

Room: cli/provider_sim. Written from Stripe's own page, not from the service's table: two tables that agree are a check.
"""

from payment_service.cli.provider_sim.stripe_ask import StripeError, invalid

AMOUNT_MAX = 99_999_999
"""Eight digits, of which most currencies may have no more."""
AMOUNT_MIN = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50, "inr": 50, "chf": 50, "cad": 50, "aud": 50}
"""What Stripe charges at least; others are converted there, which is not done here."""
THREE_DECIMALS = frozenset(("bhd", "jod", "kwd", "omr", "tnd"))
"""Counted in thousandths, the last digit always 0."""
WITHOUT_CENTS = frozenset(("isk", "ugx"))
"""No decimals in ISO 4217, but sent times 100 and in whole units."""
IN_WHOLE_UNITS = frozenset(("mga",))
"""Two decimals in ISO 4217, none at Stripe."""


def iso_minor(amount: int, currency: str) -> int:
    """Of an amount as Stripe counts it."""
    if currency in WITHOUT_CENTS:
        return amount // 100
    return amount * 100 if currency in IN_WHOLE_UNITS else amount


def checked(amount: int | None, currency: str) -> int:
    """Raises StripeError as Stripe would."""
    if amount is None:
        raise invalid("Missing required param: amount.", "amount", "parameter_missing")
    if amount < 1:
        raise invalid("This value must be greater than or equal to 1.", "amount", "parameter_invalid_integer")
    if amount > AMOUNT_MAX:
        raise invalid(f"Amount must be no more than {AMOUNT_MAX}", "amount", "amount_too_large")
    if amount < AMOUNT_MIN.get(currency, 1):
        raise invalid("Amount must convert to at least 50 cents.", "amount", "amount_too_small")
    step = 10 if currency in THREE_DECIMALS else 100 if currency in WITHOUT_CENTS else 1
    if amount % step:
        raise invalid(
            f"Invalid amount for {currency}: a multiple of {step} is needed.", "amount", "invalid_charge_amount"
        )
    return amount


def currency_of(text: str) -> str:
    currency = text.lower()
    if len(currency) != 3 or not currency.isalpha() or not currency.isascii():
        raise StripeError(400, "invalid_request_error", f"Invalid currency: {text[:20]}", param="currency")
    return currency
