"""What the mock does with a token: tokens decide the outcome, as Stripe's test tokens do (docs.stripe.com/testing).

Room: adapters/providers, beside mock.py.
"""

from dataclasses import dataclass

from payment_service.adapters.providers.registration import CARD_DECLINED, PROVIDER_ERROR, PROVIDER_TIMEOUT
from payment_service.core.terms import Verdict

INVALID_METHOD = "INVALID_PAYMENT_METHOD"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a token asks for. `answers` False: the provider stays silent for ever."""

    verdict: Verdict
    code: str = ""
    message: str = ""
    decline_code: str | None = None
    redirect: bool = False
    answers: bool = True


YES = Outcome(Verdict.APPROVED)
NO_SUCH_METHOD = Outcome(Verdict.DECLINED, INVALID_METHOD, "no such payment method")

VERDICTS: dict[str, Outcome] = {
    "tok_visa": YES,
    "tok_chargeDeclined": Outcome(Verdict.DECLINED, CARD_DECLINED, "the card was declined", "card_declined"),
    "tok_chargeDeclinedInsufficientFunds": Outcome(
        Verdict.DECLINED, CARD_DECLINED, "the card has insufficient funds", "insufficient_funds"
    ),
    "tok_threeDSecure": Outcome(Verdict.PENDING, redirect=True),
    "tok_pending": Outcome(Verdict.PENDING),
    "tok_timeout": Outcome(Verdict.UNKNOWN, PROVIDER_TIMEOUT, "the provider did not answer", answers=False),
    "tok_error": Outcome(Verdict.UNKNOWN, PROVIDER_ERROR, "the provider answered 500"),
}


def outcome_of(token: str | None) -> Outcome:
    """No method at all is a yes, and so is every other token of the right form (contract §7)."""
    if token is None:
        return YES
    outcome = VERDICTS.get(token)
    if outcome is not None:
        return outcome
    return YES if token.startswith(("tok_", "pm_")) else NO_SUCH_METHOD
