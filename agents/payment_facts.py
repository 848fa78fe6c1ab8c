"""The topic payment-facts: each side's word about a payment goes into the table `reconciliation`.

Room: Kafka in. Facts are finished when the table's changelog has their rows: a batch of a partition at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from payment_service.agents.records import Carried
from payment_service.codecs.facts import decode_told
from payment_service.core.errors import Malformed
from payment_service.core.ports import Cipher
from payment_service.tables.reconciliation import ReconciliationTable


@dataclass(frozen=True, slots=True)
class FactEvents:
    """Compares what our row, the topics, the provider and the order say of each payment."""

    table: ReconciliationTable
    cipher: Cipher
    name: str = "payment-facts"

    async def carry_out(self, partition: int, records: Sequence[Any]) -> Carried:
        carried = Carried()
        told = []
        for record in records:
            if record.value is None:
                carried.skipped += 1
                continue
            try:
                told.append((record, decode_told(record.key, record.value, self.cipher)))
            except Malformed as error:
                carried.refused.append((record, error))
        carried.refused += await self.table.take(partition, told)
        return carried
