"""The topic payment-provider-stats: every worker's finished windows go into the table `provider_health`.

Room: Kafka in. Windows are finished when the table's changelog has their rows: a batch of a partition at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from payment_service.agents.records import Carried, read_each
from payment_service.codecs.health import decode_window
from payment_service.core.ports import Cipher
from payment_service.tables.provider_health import ProviderHealthTable


@dataclass(frozen=True, slots=True)
class StatsEvents:
    """Keeps how each provider did in each minute."""

    table: ProviderHealthTable
    cipher: Cipher
    name: str = "provider-stats"

    async def carry_out(self, partition: int, records: Sequence[Any]) -> Carried:
        carried, windows = read_each(records, lambda it: decode_window(it.key, it.value, self.cipher))
        carried.refused += await self.table.take(partition, windows)
        return carried
