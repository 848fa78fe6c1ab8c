"""A PostgreSQL store as one worker process has it, for tests with more than one connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rigs.changes import AT_MS, change_of, create
from rigs.stores import KEY, SHARDS

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core import commands as c
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Change, Committed, OutboxRow


class Worker:
    """`offered` is what its publisher was told."""

    def __init__(self, url: str, foreign: set[int] | None = None) -> None:
        self.database = Database(url)
        self.offered: list[tuple[OutboxRow, bool]] = []
        self.cipher = AesGcmCipher(KEY)
        self.store = PostgresPaymentStore(
            self.database, self.cipher, chain_key(KEY), SHARDS, self.offered.extend,
            lambda shards: shards & (foreign or set()),
        )  # fmt: skip

    async def close(self) -> None:
        await self.store.close()
        await self.database.close()

    async def create(self, *orders: str) -> list[str]:
        results = await asyncio.gather(*[self.store.submit(change_of(create(order))) for order in orders])
        assert set(results) == {Committed.COMMITTED}
        return [payment_id_of(order) for order in orders]

    async def cancel_of(self, payment_id: str, command_id: str = "cancel") -> Change:
        loaded = await self.store.load(payment_id)
        return change_of(c.Cancel(payment_id, f"{command_id}:{payment_id}", AT_MS, "user:u1"), loaded)

    async def state(self, payment_id: str, command_id: str = "cancel") -> tuple[int, bool]:
        """(version, marked), by which a lost commit is resolved."""
        loaded = await self.store.load(payment_id, f"{command_id}:{payment_id}")
        return (loaded.payment.version if loaded.payment is not None else 0), loaded.marked


@asynccontextmanager
async def working(url: str, foreign: set[int] | None = None) -> AsyncIterator[Worker]:
    worker = Worker(url, foreign)
    try:
        yield worker
    finally:
        await worker.close()
