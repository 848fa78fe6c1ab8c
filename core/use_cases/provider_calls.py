"""From a committed intent to the exact request that a provider gets.

Room: core/use_cases. Pure: the same payment and context give the same request, so a retry is the same bytes.
"""

from dataclasses import field

from payment_service.core.frozen import dataclass
from payment_service.core.idempotency import RequestKey
from payment_service.core.payment import Attempt, Payment, attempt_of, is_about_open_object, provider_key, refund_of
from payment_service.core.payment_method import Usable
from payment_service.core.ports import NO_SECRETS, NextAction, ProviderCall, Secrets
from payment_service.core.terms import TAKES_MONEY, AttemptState, Kind


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a command's caller knows that is too secret, or too passing, for the command itself."""

    method_token: str | None = field(default=None, repr=False)
    """The means of payment for the attempt this command starts."""
    stored_token: str | None = field(default=None, repr=False)
    """A one-time token to keep sealed until the payment is processed."""
    return_url: str | None = None
    next_action: NextAction | None = field(default=None, repr=False)
    adopted: bool = False
    """The caller named another provider object than ours, and the attempt is about that."""
    named: bool = False
    """The caller named the object, ours or not: what was stored does not pay it, only what comes with the call."""
    saved: Usable | None = None
    """The saved method that was found for the attempt this command starts."""
    key: RequestKey | None = None
    """The caller's Idempotency-Key; then the command's id is made of it."""


NO_CONTEXT = CallContext()


def _approved(payment: Payment, kinds: tuple[Kind, ...]) -> Attempt | None:
    """The newest yes of these kinds: what a capture, void or refund is about, and whose provider it is at."""
    return next((a for a in reversed(payment.attempts) if a.kind in kinds and a.state is AttemptState.APPROVED), None)


def build_call(
    payment: Payment, kind: Kind, number: int, context: CallContext, secrets: Secrets = NO_SECRETS
) -> ProviderCall:
    """The request of one attempt or refund."""
    if kind is Kind.REFUND:
        refund = refund_of(payment, number)
        taken = _approved(payment, (Kind.CAPTURE, Kind.CHARGE))
        amount, provider = refund.amount_minor, taken.provider if taken is not None else payment.provider
    else:
        attempt = attempt_of(payment, number)
        amount, provider = attempt.amount_minor, attempt.provider
        taken = None if kind in TAKES_MONEY else _approved(payment, (Kind.AUTHORIZE,))
    object_id = payment.object_id if payment.object_open or kind not in TAKES_MONEY else None
    if kind is Kind.REFUND and taken is not None and not is_about_open_object(payment, taken):
        object_id = None  # another object has followed the one that took the money: its charge says which that was
    method = attempt_of(payment, number).payment_method_id if kind in TAKES_MONEY else None
    token, customer = _means_of_payment(context, secrets, method, provider)
    return ProviderCall(
        key=provider_key(payment.payment_id, kind, number),
        kind=kind,
        number=number,
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        provider=provider,
        amount_minor=amount,
        currency=payment.currency,
        capture_method=payment.capture_method,
        object_id=object_id,
        object_key=provider_key(payment.payment_id, "object", payment.object_number + 1),
        method_token=token if kind in TAKES_MONEY else None,
        return_url=context.return_url,
        description=payment.description,
        charge_id=taken.provider_id if taken is not None else None,
        # By what was committed: which object was ours may have changed since the caller's context was made.
        adopted=kind in TAKES_MONEY and (context.adopted or attempt_of(payment, number).adopted),
        payment_method_id=method,
        customer=customer if kind in TAKES_MONEY else None,
    )


def _means_of_payment(
    context: CallContext, secrets: Secrets, method: str | None, provider: str
) -> tuple[str | None, str | None]:
    """(token, customer). A saved method is what the attempt names or nothing: one that was not found, or is another
    provider's, is never replaced by something else."""
    if method is None:
        stored = None if context.named else secrets.method_token
        return context.method_token or context.stored_token or stored, None
    saved = context.saved
    if saved is None or (saved.method_id, saved.provider) != (method, provider):
        return None, None
    return saved.token, saved.customer
