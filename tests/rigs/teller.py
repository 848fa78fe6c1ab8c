"""A worker's store and its teller of the order service, for tests with more than one of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rigs.changes import AT_MS, answer, change_of, charge, create
from rigs.counted import CountedMetrics
from rigs.order_service import OrderService
from rigs.stores import KEY, SHARDS

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.orders_api import OrdersApi
from payment_service.adapters.outbound import Outbound
from payment_service.adapters.postgres.order_updates import PostgresOrderWords
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core import commands as c
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Committed
from payment_service.core.terms import Verdict
from payment_service.core.use_cases.tell_orders import TellOrders


class Teller:
    """`start()` and `die()`: as a process does, without settling what is under way."""

    def __init__(self, url: str, service: OrderService, *, tells_orders: bool = True) -> None:
        self.database = Database(url)
        self.store = PostgresPaymentStore(
            self.database, AesGcmCipher(KEY), chain_key(KEY), SHARDS, lambda rows: None, tells_orders=tells_orders
        )
        self.words = PostgresOrderWords(self.database)
        self.metrics = CountedMetrics()
        self.alarms: list[tuple[str, str]] = []
        self._outbound = Outbound()
        self.orders = OrdersApi(service.url, "token", self._outbound.session, SystemClock(), self.metrics)
        self.tell = TellOrders(
            self.words, self.orders, SystemClock(), self.metrics, lambda why, order: self.alarms.append((why, order)),
            lambda: 0.0,
        )  # fmt: skip
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.store.on_word = self.tell.wake
        self._running = asyncio.create_task(self.tell.run())

    async def die(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        for task in list(self.tell._tasks):
            task.cancel()
        await asyncio.sleep(0)

    async def close(self) -> None:
        await self.die()
        await self.store.close()
        await self.database.close()
        await self._outbound.close()

    # --- what happens to payments ----------------------------------------------------------------------------

    async def do(self, order_id: str, command: c.Command) -> None:
        loaded = await self.store.load(payment_id_of(order_id))
        assert await self.store.commit(change_of(command, loaded)) is Committed.COMMITTED

    async def made(self, order_id: str) -> None:
        await self.do(order_id, create(order_id))

    async def declined(self, order_id: str, number: int = 1) -> None:
        payment_id = payment_id_of(order_id)
        await self.do(order_id, charge(payment_id, f"charge:{order_id}:{number}"))
        await self.do(order_id, answer(payment_id, Verdict.DECLINED, f"no:{order_id}:{number}", number))

    async def paid(self, order_id: str, number: int = 1) -> None:
        payment_id = payment_id_of(order_id)
        await self.do(order_id, charge(payment_id, f"charge:{order_id}:{number}"))
        await self.do(order_id, answer(payment_id, Verdict.APPROVED, f"yes:{order_id}:{number}", number))

    async def cancelled(self, order_id: str) -> None:
        await self.do(order_id, c.Cancel(payment_id_of(order_id), f"cancel:{order_id}", AT_MS, "user:u1"))


@asynccontextmanager
async def telling(url: str, service: OrderService, *, running: bool = True) -> AsyncIterator[Teller]:
    teller = Teller(url, service)
    if running:
        teller.start()
    try:
        yield teller
    finally:
        await teller.close()
