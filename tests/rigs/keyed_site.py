"""Two workers with their REST sites on one PostgreSQL and one provider that takes its time and keeps books."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from rigs.counted import CountedMetrics
from rigs.ledger_provider import LedgerProvider
from rigs.store_worker import Worker
from rigs.web_site import RULES, SERVICE_TOKEN, Client, services_with

from payment_service.adapters.clock import SystemClock
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.idempotency import PostgresKeys
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Answer, NextAction, Provider, ProviderCall
from payment_service.core.terms import TAKES_MONEY, Kind, Verdict
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.payment_desk import DeskRules, PaymentDesk
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.web.site import build_site
from payment_service.web.tokens import issue_token

LATENCY_S, WAIT_S = 0.15, 0.8
LEASE_S, DEADLINE_S = 1.2, 0.9
VISA = {"paymentMethodId": "tok_visa"}
SERVICE = {"X-Internal-Token": SERVICE_TOKEN}
DECLINED = Answer(Verdict.DECLINED, code="CARD_DECLINED", message="no money", decline_code="insufficient_funds")


@dataclass
class ShopProvider(LedgerProvider):
    """Tokens decide, as the mock's do. `unsent`: how many calls of a kind do not reach it."""

    unsent: Counter[Kind] = field(default_factory=Counter)
    pending: set[Kind] = field(default_factory=set)
    """Kinds that it accepts and settles later."""

    async def send(self, call: ProviderCall) -> Answer:
        if self.unsent[call.kind] > 0:
            self.unsent[call.kind] -= 1
            return Answer(Verdict.NOT_SENT, code="PROVIDER_UNAVAILABLE")
        await asyncio.sleep(LATENCY_S)
        if call.kind in TAKES_MONEY and call.method_token == "tok_no":
            return DECLINED
        if call.kind in TAKES_MONEY and call.method_token == "tok_3ds":
            return Answer(Verdict.PENDING, next_action=NextAction("redirect", "https://bank.example/secret"))
        if call.kind in self.pending:
            return Answer(Verdict.PENDING, f"tx_{call.key}")
        return await super().send(call)


@dataclass(frozen=True)
class Told:
    status: int
    body: bytes
    replayed: bool
    headers: Any

    @property
    def envelope(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        return self.envelope["data"]

    @property
    def code(self) -> str:
        return str(self.envelope.get("code", ""))


class KeyedSite:
    """One worker: its desk behind HTTP, its effects, and a runner for what others leave behind."""

    def __init__(self, url: str, name: str, provider: ShopProvider) -> None:
        self.base = Worker(url)
        self.providers: dict[str, Provider] = {"MOCK": provider}
        self.metrics, clock = CountedMetrics(), SystemClock()
        self.keys = PostgresKeys(self.base.database, self.base.cipher)
        self.execute = Execute(self.base.store, clock, name, LEASE_S)
        self.effects = Effects(
            self.execute, PostgresCallQueue(self.base.database, self.base.cipher), self.providers, clock,
            self.metrics, name, LEASE_S, DEADLINE_S, 3_600_000, 100,
        )  # fmt: skip
        self.execute.on_scheduled = self.effects.wake
        rules = DeskRules("MOCK", WAIT_S, False, frozenset({"owner", "admin", "service"}))
        self.desk = PaymentDesk(self.execute, self.effects, self.base.store, self.providers, clock, rules)
        services = services_with(self.desk, clock=clock, metrics=self.metrics, keys=self.keys)
        self.client: Client = TestClient(TestServer(build_site(services)))
        self.runner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.client.start_server()
        self.runner = asyncio.create_task(self.effects.run())

    async def post(
        self, path: str, body: Any = None, *, key: str | None = None, user: str | None = "ann", **headers: str
    ) -> Told:
        """Of a user, or of a service for None."""
        who = SERVICE if user is None else {"Authorization": f"Bearer {token_of(user)}"}
        named = {"Idempotency-Key": key} if key is not None else {}
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        answer = await self.client.post(f"/api/v1{path}", data=data, headers={**who, **named, **headers})
        text = await answer.read()
        return Told(answer.status, text, answer.headers.get("Idempotent-Replayed") == "true", answer.headers)

    async def kill(self) -> None:
        """As -9 does: nothing more is sent, recorded or answered."""
        left = {*self.effects._running.values(), *([self.runner] if self.runner is not None else [])}
        while left:  # the driver may take a cancellation for its own
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.2)

    async def close(self) -> None:
        await self.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.client.close(), 5.0)
        await self.keys.close(1.0)
        await self.base.close()


def token_of(user: str) -> str:
    return issue_token(RULES, user, (), now_ms=SystemClock().now_ms())


@dataclass
class Shop:
    """What a test talks to. `a` and `b` are the workers."""

    url: str
    provider: ShopProvider
    a: KeyedSite
    b: KeyedSite

    async def created(self, order: str = "o1", user: str = "ann", **more: Any) -> str:
        """The path of a new payment."""
        body = {"orderId": order, "amount": 10, "currency": "USD", **more}
        assert (await self.a.post("/payments", body, user=user)).status == 201
        return f"/payments/{payment_id_of(order)}"

    async def charged(self, order: str = "o1", **more: Any) -> str:
        path = await self.created(order, **more)
        assert (await self.a.post(f"{path}/process", {"paymentMethodId": "tok_visa"})).status == 200
        return path

    def moved(self) -> Counter[str]:
        self.provider.check()
        return Counter(str(movement.kind) for movement in self.provider.movements)


@asynccontextmanager
async def shop_on(url: str, url_of_a: str | None = None) -> AsyncIterator[Shop]:
    provider = ShopProvider()
    sites = [KeyedSite(url_of_a or url, "a", provider), KeyedSite(url, "b", provider)]
    try:
        for site in sites:
            await site.start()
        yield Shop(url, provider, *sites)
    finally:
        provider.release()
        for site in sites:
            await site.close()


def is_the_same(first: Told, again: Told) -> bool:
    assert not first.replayed and again.replayed
    return (first.status, first.body) == (again.status, again.body)


async def until_told(shop: Shop, path: str, body: Any, key: str, status: int) -> Told:
    for _ in range(100):
        told = await shop.b.post(path, body, key=key)
        if told.status == status:
            return told
        assert told.status in (202, 409), told
        await asyncio.sleep(0.05)
    raise AssertionError(f"it stayed {told.status}")
