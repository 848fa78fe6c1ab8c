"""What serves many requests does not speak in the name of the one that happened to start it."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import aiohttp
import pytest
import structlog
from rigs.counted import CountedMetrics
from rigs.settable_clock import SettableClock

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.cache import RedisCache
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.embedded_process import free_port
from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.batching import Batches, Waiting
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.providers import paypal_api
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core.audit import AuditEntry
from payment_service.core.commands import CreatePayment, FlagReview
from payment_service.core.errors import Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Change, Committed
from payment_service.core.use_cases.execute import Execute

T = TypeVar("T")
ID = payment_id_of("order-1")
KEY = b"k" * 32


def request_id() -> str | None:
    return structlog.contextvars.get_contextvars().get("request_id")


async def by_request(name: str, work: Callable[[], Awaitable[T]]) -> T:
    """As the web runs it: in a context of the request's own."""

    async def run() -> T:
        structlog.contextvars.bind_contextvars(request_id=name)
        return await work()

    return await asyncio.get_running_loop().create_task(run(), context=contextvars.Context())


class Lines(logging.Handler):
    """Each line, with the request in whose context it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.name.rpartition(".")[2], request_id()))


@pytest.fixture
def lines() -> Iterator[Lines]:
    root, handler = logging.getLogger(), Lines()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)


async def until_said(lines: Lines, by: str) -> None:
    async with asyncio.timeout(10):
        while by not in [name for name, _ in lines.seen]:  # noqa: ASYNC110 a line has no event of its own
            await asyncio.sleep(0.01)


async def test_a_batch_is_nobodys() -> None:
    ran: list[tuple[int, str | None]] = []
    gate = asyncio.Event()

    async def run(batch: list[Waiting[int, None]]) -> None:
        ran.append((len(batch), request_id()))
        await gate.wait()
        for one in batch:
            one.answer(None)

    batches: Batches[int, None] = Batches(run, lambda one: None, workers=1, batch_max=9, bytes_max=9, queue_max=9)

    async def put() -> None:
        batches.put(1, None, 1)

    await by_request("r1", put)
    await asyncio.sleep(0)
    await by_request("r2", put)
    await by_request("r3", put)
    gate.set()
    await batches.close(1)
    assert ran == [(1, None), (2, None)]


async def test_each_command_of_a_lane_is_carried_out_in_its_own_requests_name() -> None:
    said: list[tuple[str, str | None]] = []

    class Noting(MemoryPaymentStore):
        def submit(self, change: Change) -> "asyncio.Future[Committed]":
            said.append((change.command_id, request_id()))
            return super().submit(change)

    execute = Execute(Noting(), SystemClock(), "worker", 30)

    async def create() -> Any:
        return execute.submit(CreatePayment(ID, "c1", 1, "user:u", "order-1", "u", 100, "USD", "MOCK"))

    async def again() -> Any:
        return execute.submit(CreatePayment(ID, "c2", 1, "user:u", "order-1", "u", 100, "USD", "MOCK"))

    async def flag() -> Any:
        return execute.submit(FlagReview(ID, "c3", 1, "system", "LOOK"))

    asking = [by_request(name, work) for name, work in (("r1", create), ("r2", again), ("r3", flag))]
    await asyncio.gather(*await asyncio.gather(*asking))
    assert said == [("c1", "r1"), ("c2", "r2"), ("c2", "r2"), ("c3", "r3")]


async def test_the_audit_log_is_nobodys(lines: Lines) -> None:
    database = Database(f"postgresql://127.0.0.1:{free_port()}/nothing")
    log = PostgresAuditLog(database, chain_key(KEY), "w:1", SettableClock(1.0), CountedMetrics())

    async def record() -> None:
        log.record(AuditEntry(1, "payment.create", "OK", "user:u1"))

    await by_request("r1", record)
    await until_said(lines, "pool")
    await log.close()
    await database.close()
    assert {name for _, name in lines.seen} == {None}


async def test_the_cache_is_nobodys(lines: Lines) -> None:
    address = f"redis://127.0.0.1:{free_port()}/0"
    cache = RedisCache(address, "p", AesGcmCipher(KEY), SystemClock(), CountedMetrics())

    async def change() -> None:
        cache.changed(ID, 2)

    await by_request("r1", change)
    await until_said(lines, "cache")
    await cache.close(0.1)
    assert {name for _, name in lines.seen} == {None}


async def test_paypals_token_is_everybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str | None] = []

    async def fetch(self: paypal_api.PaypalApi) -> Any:
        said.append(request_id())
        raise Unavailable("no token")

    monkeypatch.setattr(paypal_api.PaypalApi, "_fetch", fetch)
    async with aiohttp.ClientSession() as session:
        api = paypal_api.PaypalApi("id", "secret", "http://127.0.0.1:1", 1.0, lambda: session, SystemClock())

        async def ask() -> None:
            with pytest.raises(Unavailable):
                await api._bearer()

        await by_request("r1", ask)
    assert said == [None]
