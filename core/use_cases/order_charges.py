"""`order.created` with automatic processing: which means of payment the order is charged with.

Room: core/use_cases. Awaits on ports only, and on the database alone: no provider is asked inside a stream.

What an order is charged with, in this order:
1. the one-time token it carries;
2. the saved method it names (`pmt_…`). If that is not its user's, not active or of another provider than the order
   names, nothing else is charged instead: the payment is FAILED with INVALID_PAYMENT_METHOD, and may be processed
   with another;
3. what its payment was created with by REST;
4. its user's default method, if that is of the provider which the order or its payment names;
5. nothing: the payment is created and waits (PENDING) for its user to process it.

The method is found when the intent is committed, not when the runner sends (payment_methods.py says why).
"""

from collections.abc import Awaitable
from dataclasses import dataclass, replace

from payment_service.core.commands import Cancel, CreatePayment
from payment_service.core.payment_method import Usable
from payment_service.core.ports import PaymentStore
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.payment_methods import MethodFinder
from payment_service.core.use_cases.provider_calls import NO_CONTEXT, CallContext


@dataclass(frozen=True, slots=True)
class OrderCharges:
    """Only an order that is charged with a saved method, or brings none, costs a further read."""

    execute: Execute
    store: PaymentStore
    methods: MethodFinder

    def __call__(
        self, command: CreatePayment | Cancel, token: str | None, *, names_provider: bool
    ) -> Awaitable[object]:
        """Done when it is committed. Raises as Execute does; Unavailable also when the methods cannot be read."""
        if token is not None:
            return self.execute.submit(command, CallContext(stored_token=token))
        if isinstance(command, Cancel) or not command.charge:
            return self.execute.submit(command, NO_CONTEXT)
        return self._charged(command, names_provider)

    async def _charged(self, command: CreatePayment, names_provider: bool) -> object:
        if command.payment_method_id is not None:
            found = await self.methods.usable(command.user_id, command.payment_method_id)
            if found is not None and not names_provider:
                command = replace(command, provider=found.provider)
            return await self.execute(command, CallContext(saved=found))
        loaded = await self.store.load(command.payment_id)
        payment = loaded.payment
        if payment is not None and payment.known and payment.user_id == command.user_id:
            if loaded.secrets.method_token is not None:
                return await self.execute(command)
            if payment.payment_method_id is not None:
                own = await self.methods.usable(command.user_id, payment.payment_method_id)
                return await self.execute(command, CallContext(saved=own))
            command, names_provider = replace(command, provider=payment.provider), True
        default = await self.methods.usable(command.user_id, None)
        if default is None or (names_provider and default.provider != command.provider):
            return await self.execute(replace(command, charge=False))
        return await self._with_default(command, default)

    async def _with_default(self, command: CreatePayment, default: Usable) -> object:
        chosen = replace(command, provider=default.provider, payment_method_id=default.method_id)
        return await self.execute(chosen, CallContext(saved=default))
