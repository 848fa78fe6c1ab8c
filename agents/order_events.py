"""The order topics: `order.created` becomes a payment, `order.cancelled` cancels one.

Room: Kafka in. An event is finished when its commit is done; no provider is called from here: a charge that an
order starts is committed as scheduled, and the runner takes it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from payment_service.agents.delivery import Record, Work
from payment_service.codecs.order_events import OrderRules, decode_order_event
from payment_service.core.commands import CreatePayment
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.order_charges import OrderCharges
from payment_service.core.use_cases.provider_calls import NO_CONTEXT, CallContext


@dataclass(frozen=True, slots=True)
class OrderEvents:
    """Turns `order.created` and `order.cancelled` into commands for the order's payment."""

    execute: Execute
    rules: OrderRules
    now_ms: Callable[[], int]
    charges: OrderCharges | None = None
    """Finds what an order is charged with. None: there are no saved methods."""
    heard: Callable[[CreatePayment], None] = lambda command: None
    """Told of each order that is to be paid, as it was read."""
    name: str = "orders"

    def plan(self, record: Record) -> Work | None:
        decoded = decode_order_event(record.value, record.headers, self.rules, self.now_ms())
        if decoded is None:
            return None
        if isinstance(decoded.command, CreatePayment):
            self.heard(decoded.command)
        start: Callable[[], Awaitable[object]]
        if self.charges is not None:
            start = partial(self.charges, decoded.command, decoded.token, names_provider=decoded.names_provider)
        else:
            context = NO_CONTEXT if decoded.token is None else CallContext(stored_token=decoded.token)
            start = partial(self.execute.submit, decoded.command, context)
        return Work(decoded.command.payment_id, start)
