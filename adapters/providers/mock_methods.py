"""The mock's saved cards: a token is kept as it is, and charged again as it is.

Room: adapters/providers, beside mock.py. Nobody is asked, and nothing is remembered, so that a method outlives the
process. Which card a token is, is told by its name, as Stripe's test cards have it (docs.stripe.com/testing). A token
that would be declined is declined here already. Nothing here needs the shopper: `tok_threeDSecure` asks at each charge.
"""

import asyncio
from dataclasses import replace

from payment_service.adapters.providers.mock_tokens import outcome_of
from payment_service.core.payment_method import Card, MethodAnswer, MethodCall
from payment_service.core.terms import Verdict

EXP_MONTH, EXP_YEAR = 12, 2034
"""Of every test card."""
CARDS: dict[str, tuple[str, str]] = {
    "visa": ("visa", "4242"),
    "visa_debit": ("visa", "5556"),
    "mastercard": ("mastercard", "4444"),
    "mastercard_debit": ("mastercard", "3222"),
    "mastercard_prepaid": ("mastercard", "5100"),
    "amex": ("amex", "8431"),
    "discover": ("discover", "1117"),
    "diners": ("diners", "3222"),
    "jcb": ("jcb", "0505"),
    "unionpay": ("unionpay", "0005"),
    "threeDSecure": ("visa", "3220"),
}
OTHER_CARD = CARDS["visa"]
"""Any other token is a yes, so it has a card too."""


class MockMethods:
    """The MethodKeeper port."""

    async def keep(self, call: MethodCall) -> MethodAnswer:
        token = call.secrets.given or ""
        outcome = outcome_of(token)
        if not outcome.answers:
            await asyncio.get_running_loop().create_future()
        if outcome.verdict in (Verdict.DECLINED, Verdict.UNKNOWN):
            return MethodAnswer(
                outcome.verdict, code=outcome.code, message=outcome.message, decline_code=outcome.decline_code
            )
        return MethodAnswer(
            Verdict.APPROVED, secrets=replace(call.secrets, given=None, token=token), card=card_of(token)
        )

    async def look(self, call: MethodCall) -> MethodAnswer:
        """None of the mock's waits for anybody."""
        return MethodAnswer(Verdict.UNKNOWN)

    async def detach(self, call: MethodCall) -> MethodAnswer:
        return MethodAnswer(Verdict.APPROVED)


def card_of(token: str) -> Card:
    name = token.removeprefix("tok_").removeprefix("pm_").removeprefix("card_")
    return Card(*CARDS.get(name, OTHER_CARD), EXP_MONTH, EXP_YEAR)
