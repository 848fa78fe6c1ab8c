"""Our own payment.* topics, all nine: each event brings its payment's row in the table `payments` up to date.

Room: Kafka in. Events are finished when the table's changelog has their rows: a batch of a partition at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from payment_service.agents.records import Carried, read_each
from payment_service.codecs.published import decode_published
from payment_service.tables.payments import PaymentsTable


@dataclass(frozen=True, slots=True)
class PaymentEvents:
    """Brings each payment's row in the table `payments` up to date with its last event."""

    table: PaymentsTable
    name: str = "payment-events"

    async def carry_out(self, partition: int, records: Sequence[Any]) -> Carried:
        carried, events = read_each(records, lambda it: decode_published(it.value))
        named = [(record, event["data"]["paymentId"], event) for record, event in events]
        carried.refused += await self.table.take(partition, named)
        return carried
