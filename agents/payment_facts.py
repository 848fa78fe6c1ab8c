"""The topic payment-facts: each side's word about a payment goes into the table `reconciliation`.

Room: Kafka in. Facts are finished when the table's changelog has their rows: a batch of a partition at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from payment_service.agents.records import Carried, read_each
from payment_service.codecs.facts import decode_told
from payment_service.core.ports import Cipher
from payment_service.tables.reconciliation import ReconciliationTable


@dataclass(frozen=True, slots=True)
class FactEvents:
    """Compares what our row, the topics, the provider and the order say of each payment."""

    table: ReconciliationTable
    cipher: Cipher
    name: str = "payment-facts"

    async def carry_out(self, partition: int, records: Sequence[Any]) -> Carried:
        carried, told = read_each(records, lambda it: decode_told(it.key, it.value, self.cipher))
        carried.refused += await self.table.take(partition, told)
        return carried
