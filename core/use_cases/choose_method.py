"""Which of its owner's saved methods a payment is made or processed with, when the caller of REST names one.

Room: core/use_cases. Awaits on ports only. A payment without a saved method asks nothing here.
"""

from dataclasses import dataclass

from payment_service.core.errors import Refused, invalid_field
from payment_service.core.payment import Payment, status_of
from payment_service.core.payment_method import Usable
from payment_service.core.ports import PaymentStore
from payment_service.core.terms import Status
from payment_service.core.use_cases.payment_methods import MethodFinder

MAY_BE_CHARGED = (Status.PENDING, Status.FAILED, Status.REQUIRES_ACTION)


@dataclass(frozen=True, slots=True)
class ChooseMethod:
    """Raises Refused (NOT_FOUND, INVALID_STATE, VALIDATION_ERROR) and Unavailable: nothing happened."""

    methods: MethodFinder
    store: PaymentStore

    async def provider_of(self, user_id: str, method_id: str, payment_id: str, provider: str | None) -> str:
        """Whose method a new payment names; it must be `provider`'s, if that is named too. One that was removed since
        is no reason to refuse the same creation sent again: its payment is there."""
        try:
            found = (await self.methods.for_user(user_id, method_id)).provider
        except Refused:
            payment = (await self.store.load(payment_id)).payment
            if payment is None or (payment.user_id, payment.payment_method_id) != (user_id, method_id):
                raise
            found = payment.provider
        _of_one_provider(found, provider or found)
        return found

    async def for_payment(self, payment: Payment, method_id: str) -> Usable | None:
        """Of the payment's owner. One that cannot be used does not matter to a payment that is charged already, or
        cannot be any more: None."""
        try:
            found = await self.methods.for_user(payment.user_id, method_id)
        except Refused:
            if status_of(payment) in MAY_BE_CHARGED:
                raise
            return None
        _of_one_provider(found.provider, payment.provider)
        return found


def _of_one_provider(methods: str, payments: str) -> None:
    if methods != payments:
        raise invalid_field("paymentMethodId", f"is a method of {methods}, the payment is of {payments}")
