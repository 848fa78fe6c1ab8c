"""Stripe's test cards: which token or test PaymentMethod does what (docs.stripe.com/testing).

Room: cli/provider_sim. `tok_…` and `pm_card_…` of the same name are the same card. Beside Stripe's own: `threeDSecure`,
`pending`, `timeout` and `error`, which mean what they mean for the mock provider (contract §7).
"""

from dataclasses import dataclass

from payment_service.cli.provider_sim.world import Thing


@dataclass(frozen=True, slots=True)
class Card:
    brand: str = "visa"
    last4: str = "4242"
    does: str = "pay"
    """pay, decline, authenticate, process (settles later), never (no answer), fail (500)."""
    code: str = "card_declined"
    decline_code: str | None = None
    message: str = "Your card was declined."
    attaches: bool = True
    """False: it is declined already when it is saved."""
    dispute: str | None = None
    """The reason it is disputed with, right after it was charged."""
    refund: str = "succeeded"
    """How its refunds go: succeeded, pending (settles later), failing (fails after it succeeded)."""


def _declined(last4: str, decline_code: str | None, message: str, code: str = "card_declined") -> Card:
    return Card(last4=last4, does="decline", code=code, decline_code=decline_code, message=message, attaches=False)


CARDS: dict[str, Card] = {
    "visa": Card(),
    "visa_debit": Card(last4="5556"),
    "mastercard": Card("mastercard", "4444"),
    "mastercard_debit": Card("mastercard", "3222"),
    "mastercard_prepaid": Card("mastercard", "5100"),
    "amex": Card("amex", "8431"),
    "discover": Card("discover", "1117"),
    "diners": Card("diners", "3222"),
    "jcb": Card("jcb", "0505"),
    "unionpay": Card("unionpay", "0005"),
    "in": Card(last4="0007"),
    "bypassPending": Card(last4="0077"),
    "chargeDeclined": _declined("0002", "generic_decline", "Your card was declined."),
    "chargeDeclinedInsufficientFunds": _declined("9995", "insufficient_funds", "Your card has insufficient funds."),
    "chargeDeclinedLostCard": _declined("9987", "lost_card", "Your card was declined."),
    "chargeDeclinedStolenCard": _declined("9979", "stolen_card", "Your card was declined."),
    "chargeDeclinedFraudulent": _declined("0019", "fraudulent", "Your card was declined."),
    "chargeDeclinedVelocityLimitExceeded": _declined("6975", "card_velocity_exceeded", "Your card was declined."),
    "chargeDeclinedExpiredCard": _declined("0069", None, "Your card has expired.", "expired_card"),
    "chargeDeclinedIncorrectCvc": _declined(
        "0127", None, "Your card's security code is incorrect.", "incorrect_cvc"
    ),
    "chargeDeclinedProcessingError": _declined(
        "0119", None, "An error occurred while processing your card. Try again in a little bit.", "processing_error"
    ),
    "chargeCustomerFail": Card(last4="0341", does="decline", decline_code="generic_decline"),
    "threeDSecure": Card(last4="3220", does="authenticate"),
    "threeDSecureRequired": Card(last4="3063", does="authenticate"),
    "threeDSecure2Required": Card(last4="3220", does="authenticate"),
    "authenticationRequired": Card(last4="3184", does="authenticate"),
    "threeDSecureOptional": Card(last4="3055"),
    "createDispute": Card(last4="0259", dispute="fraudulent"),
    "createDisputeProductNotReceived": Card(last4="2685", dispute="product_not_received"),
    "pendingRefund": Card(last4="7726", refund="pending"),
    "refundFail": Card(last4="5126", refund="failing"),
    "pending": Card(last4="0000", does="process"),
    "timeout": Card(last4="0000", does="never"),
    "error": Card(last4="0000", does="fail"),
}  # fmt: skip


def card_of(token: str) -> str | None:
    """The card's name in CARDS; None: there is no such test token."""
    for prefix in ("pm_card_", "tok_"):
        if token.startswith(prefix):
            name = token.removeprefix(prefix)
            for candidate in (name, name.removeprefix("visa_")):  # pm_card_visa_chargeDeclined is the newer name
                if candidate in CARDS:
                    return candidate
    return None


def details(card: Card) -> Thing:
    """The `card` of a PaymentMethod."""
    return {
        "brand": card.brand, "checks": {"address_line1_check": None, "address_postal_code_check": None,
        "cvc_check": "pass"}, "country": "US", "display_brand": card.brand, "exp_month": 12, "exp_year": 2034,
        "fingerprint": f"sim{card.brand}{card.last4}", "funding": "credit", "generated_from": None,
        "last4": card.last4, "networks": {"available": [card.brand], "preferred": None},
        "three_d_secure_usage": {"supported": True}, "wallet": None,
    }  # fmt: skip
