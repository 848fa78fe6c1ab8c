"""Our own payment.* topics, all nine: each event brings its payment's row in the table `payments` up to date.

Room: Kafka in. Events are finished when the table's changelog has their rows: a batch of a partition at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from payment_service.agents.records import Carried
from payment_service.codecs.published import decode_published
from payment_service.core.errors import Malformed
from payment_service.tables.payments import PaymentsTable


@dataclass(frozen=True, slots=True)
class PaymentEvents:
    """Brings each payment's row in the table `payments` up to date with its last event."""

    table: PaymentsTable
    name: str = "payment-events"

    async def carry_out(self, partition: int, records: Sequence[Any]) -> Carried:
        carried = Carried()
        events = []
        for record in records:
            if record.value is None:
                carried.skipped += 1
                continue
            try:
                event = decode_published(record.value)
            except Malformed as error:
                carried.refused.append((record, error))
                continue
            events.append((record, event["data"]["paymentId"], event))
        carried.refused += await self.table.take(partition, events)
        return carried
