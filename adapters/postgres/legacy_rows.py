"""The tables of the service before this one, read in pages.

Room: adapters/postgres. Reads alone. An ORM made them: quoted camelCase names, times without a zone that are UTC.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.errors import Refused
from payment_service.core.importing import Part
from payment_service.core.legacy import LegacyCall, LegacyPayment, LegacyRefund

TRIES_MAX = 3
METADATA = 10
"""Its place in a row of `legacy_payments`; null there, and whatever JSON."""
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}", re.ASCII)


class LegacyRows:
    """`schema`: where the tables are. Every method raises Unavailable, or Refused for what the database refuses."""

    def __init__(self, database: Database, schema: str) -> None:
        if _SCHEMA.fullmatch(schema) is None:
            raise Refused("the name of the old tables' schema is none", code="VALIDATION_ERROR")
        self._database = database
        self._schema = schema

    async def sizes(self, webhook_days: int) -> dict[Part, int]:
        """Raises Refused NOT_FOUND: the tables are not there."""
        ((found,),) = await self._fetch("legacy_tables", (self._schema,))
        if found < len(Part) + 2:
            raise Refused(f"the old service's tables are not in the schema {self._schema}", code="NOT_FOUND")
        ((payments, methods, webhooks),) = await self._fetch("legacy_sizes", (webhook_days,))
        return {Part.PAYMENTS: payments, Part.METHODS: methods, Part.WEBHOOKS: webhooks}

    async def orders(self, after: str, limit: int) -> list[str]:
        return [order for (order,) in await self._fetch("legacy_orders", (after, limit))]

    async def payments(self, orders: Sequence[str]) -> dict[str, list[LegacyPayment]]:
        """Of each order, oldest first."""
        rows = await self._fetch("legacy_payments", (list(orders),))
        ids = [row[0] for row in rows]
        calls: dict[str, list[LegacyCall]] = defaultdict(list)
        for payment_id, *fields in await self._fetch("legacy_calls", (ids,)):
            calls[payment_id].append(LegacyCall(*fields))
        refunds: dict[str, list[LegacyRefund]] = defaultdict(list)
        for payment_id, *fields in await self._fetch("legacy_refunds", (ids,)):
            refunds[payment_id].append(LegacyRefund(*fields))
        found: dict[str, list[LegacyPayment]] = defaultdict(list)
        for row in rows:
            legacy_id, order_id = row[:2]
            metadata = row[METADATA] if isinstance(row[METADATA], dict) else {}
            told = (*row[:METADATA], metadata, *row[METADATA + 1 :], calls[legacy_id], refunds[legacy_id])
            found[order_id].append(LegacyPayment(*told))
        return found

    async def methods(self, after: str, limit: int) -> list[Any]:
        return await self._fetch("legacy_methods", (after, limit))

    async def webhooks(self, after: str, limit: int, days: int) -> list[Any]:
        return await self._fetch("legacy_webhooks", (after, days, limit))

    async def _fetch(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        text = QUERIES[name].replace("{schema}", f'"{self._schema}"')
        away = "the database of the old service is away"
        return await self._database.fetch_again(text, parameters, tries=TRIES_MAX, away=away)
