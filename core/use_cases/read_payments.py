"""Reading one payment: from the cache where it has it, else from the truth, which fills the cache.

Room: core/use_cases. Awaits on ports only. Whoever decides something reads the truth.
"""

from payment_service.core.frozen import dataclass
from payment_service.core.payment import Payment
from payment_service.core.ports import Loaded, PaymentCache, PaymentStore
from payment_service.core.use_cases.perform_effects import has_open_calls


@dataclass(frozen=True, slots=True)
class CachedReads:
    store: PaymentStore
    cache: PaymentCache

    async def load(self, payment_id: str, command_id: str = "") -> Loaded:
        """Raises as PaymentStore.load does. From the cache: the payment alone, without secrets or marks."""
        payment = await self.cache.get(payment_id)
        if payment is not None:
            return Loaded(payment)
        loaded = await self.store.load(payment_id, command_id)
        if loaded.payment is not None and may_be_kept(loaded.payment):
            self.cache.offer(loaded.payment)
        return loaded


def may_be_kept(payment: Payment) -> bool:
    """What is under way changes at any moment, and may carry what lets a shopper act: never in the cache."""
    return payment.known and not has_open_calls(payment)
