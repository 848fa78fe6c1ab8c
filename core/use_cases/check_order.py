"""Before a payment is made by REST: does the order service know this order, as the caller tells it?

Room: core/use_cases. Awaits on ports only. Only where there is an order service.
"""

from payment_service.core.decide import not_found
from payment_service.core.errors import Refused
from payment_service.core.frozen import dataclass
from payment_service.core.idempotency import check
from payment_service.core.ids import payment_id_of
from payment_service.core.orders import Orders
from payment_service.core.ports import PaymentStore
from payment_service.core.use_cases.payment_requests import Caller


@dataclass(frozen=True, slots=True)
class CheckOrder:
    orders: Orders
    store: PaymentStore

    async def __call__(self, caller: Caller, order_id: str, amount_minor: int, currency: str) -> bool:
        """True: the order is the caller's, of this amount. False: not asked, for an earlier request with the same key
        was carried out, and whoever repeats it hears the same whatever became of the order service since.

        Raises: Refused NOT_FOUND (no such order), PAYMENT_NOT_FOUND (somebody else's), AMOUNT_MISMATCH; Unavailable;
        what `check` raises, for a key that is bound.
        """
        if caller.key is not None:
            loaded = await self.store.load(payment_id_of(order_id), caller.command_id)
            if loaded.bound is not None:
                check(caller.key, loaded.bound)
                return False
        order = await self.orders.find(order_id, caller.bearer)
        if order.user_id != caller.user_id:
            raise not_found()
        if (order.amount_minor, order.currency) != (amount_minor, currency):
            raise Refused("the order says another amount or currency", code="AMOUNT_MISMATCH")
        return True
