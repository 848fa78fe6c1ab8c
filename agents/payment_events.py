"""Our own payment.* topics, all nine: each event brings its payment's row in the table `payments` up to date.

Room: Kafka in. An event is finished when the table's changelog has the row. No task and no send of its own for
an event: the table gathers the writes of a partition (agents/durable_table.py).
"""

from dataclasses import dataclass
from functools import partial

from payment_service.agents.records import Record, Work
from payment_service.codecs.published import decode_published
from payment_service.core.errors import Malformed
from payment_service.tables.payments import PaymentsTable


@dataclass(frozen=True, slots=True)
class PaymentEvents:
    """Brings each payment's row in the table `payments` up to date with its last event."""

    table: PaymentsTable
    name: str = "payment-events"

    def plan(self, record: Record) -> Work | None:
        if record.value is None:
            return None
        event = decode_published(record.value)
        payment_id: str = event["data"]["paymentId"]
        if not payment_id:
            raise Malformed("a published event without a payment id")
        return Work(payment_id, partial(self.table.put, record.partition, payment_id, event))
