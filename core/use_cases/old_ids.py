"""Payments by the ids of the service before this one: other services keep theirs for as long as they like.

Room: core/use_cases. Awaits on ports only. Our own ids pass through without a look.
"""

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from payment_service.core.decide import not_found
from payment_service.core.errors import Refused
from payment_service.core.importing import OldIds, OldPayment
from payment_service.core.ports import PaymentFilter, PaymentPage, StoredEvent
from payment_service.core.use_cases.payment_requests import Answered, Caller, PaymentRequests

OWN_PREFIX = "pay_"


@dataclass(frozen=True, slots=True)
class WithOldIds:
    """PaymentRequests. An old payment that is only an order's history can be read, and nothing else."""

    requests: PaymentRequests
    old_ids: OldIds

    def create(self, caller: Caller, **fields: Any) -> Coroutine[Any, Any, Answered]:
        return self.requests.create(caller, **fields)

    async def process(self, caller: Caller, payment_id: str, **fields: Any) -> Answered:
        return await self.requests.process(caller, await self._own(caller, payment_id), **fields)

    async def capture(self, caller: Caller, payment_id: str, *, amount: object | None) -> Answered:
        return await self.requests.capture(caller, await self._own(caller, payment_id), amount=amount)

    async def cancel(self, caller: Caller, payment_id: str, *, reason: str | None) -> Answered:
        return await self.requests.cancel(caller, await self._own(caller, payment_id), reason=reason)

    async def refund(
        self, caller: Caller, payment_id: str, *, amount: object | None, reason: str | None,
        metadata: Mapping[str, Any],
    ) -> Answered:  # fmt: skip
        own = await self._own(caller, payment_id)
        return await self.requests.refund(caller, own, amount=amount, reason=reason, metadata=metadata)

    async def get(self, caller: Caller, payment_id: str, *, sync: bool = False) -> Answered:
        old = await self._old(payment_id)
        if old is None:
            return await self.requests.get(caller, payment_id, sync=sync)
        if old.history is None:
            return await self.requests.get(caller, old.payment_id, sync=sync)
        _check(caller, old)
        return Answered(old.history)

    def by_order(self, caller: Caller, order_id: str) -> Coroutine[Any, Any, Answered]:
        return self.requests.by_order(caller, order_id)

    async def timeline(self, caller: Caller, payment_id: str) -> Sequence[StoredEvent]:
        old = await self._old(payment_id)
        if old is None or old.event is None:
            return await self.requests.timeline(caller, payment_id if old is None else old.payment_id)
        _check(caller, old)
        return [StoredEvent(1, None, old.event.at_ms, type(old.event).__name__, old.event)]

    def find(self, caller: Caller, query: PaymentFilter) -> Coroutine[Any, Any, PaymentPage]:
        return self.requests.find(caller, query)

    async def _own(self, caller: Caller, payment_id: str) -> str:
        old = await self._old(payment_id)
        if old is None:
            return payment_id
        if old.history is not None:
            _check(caller, old)
            raise Refused(f"it is history: the order's payment is {old.payment_id}", code="INVALID_STATE")
        return old.payment_id

    async def _old(self, payment_id: str) -> OldPayment | None:
        return None if payment_id.startswith(OWN_PREFIX) else await self.old_ids.find(payment_id)


def _check(caller: Caller, old: OldPayment) -> None:
    assert old.history is not None, "asked for history alone"
    if "admin" not in caller.roles and caller.user_id != old.history.user_id:
        raise not_found()
