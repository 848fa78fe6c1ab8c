"""Saved methods with the desk, the orders and the sweep around them: over the memory stores and the mock provider."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from rigs.counted import CountedMetrics
from rigs.desk_rig import ANN, Clock

from payment_service.adapters.guarded import GuardedProvider, GuardLimits
from payment_service.adapters.guarded_methods import GuardedKeeper
from payment_service.adapters.memory.payment_methods import MemoryMethods
from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.providers.mock import MockProvider
from payment_service.adapters.providers.mock_methods import MockMethods
from payment_service.agents.order_events import OrderEvents
from payment_service.agents.records import Record
from payment_service.codecs.order_events import OrderRules
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import Payment
from payment_service.core.payment_method import Card, MethodAnswer, MethodCall, MethodSecrets
from payment_service.core.ports import Answer, NextAction, ProviderCall
from payment_service.core.terms import CaptureMethod, Verdict
from payment_service.core.use_cases.choose_method import ChooseMethod
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.order_charges import OrderCharges
from payment_service.core.use_cases.payment_desk import DeskRules, PaymentDesk
from payment_service.core.use_cases.payment_methods import PaymentMethods, Saved
from payment_service.core.use_cases.payment_requests import Answered, Caller
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.core.use_cases.sweep_methods import MethodSweep

DEADLINE_S = 0.3
"""Short: a provider that stays silent is one of the cases."""


@dataclass
class ScriptedKeeper:
    """Says what it is told, in this order; then yes. Records what it was asked."""

    says: list[MethodAnswer] = field(default_factory=list)
    calls: list[tuple[str, MethodCall]] = field(default_factory=list)

    def _say(self, what: str, call: MethodCall) -> MethodAnswer:
        self.calls.append((what, call))
        if self.says:
            return self.says.pop(0)
        secrets = MethodSecrets(token="pm_kept", customer="cus_1", setup_id="seti_1")
        return MethodAnswer(Verdict.APPROVED, secrets=secrets, card=Card("visa", "4242", 12, 2034))

    async def keep(self, call: MethodCall) -> MethodAnswer:
        return self._say("keep", call)

    async def look(self, call: MethodCall) -> MethodAnswer:
        return self._say("look", call)

    async def detach(self, call: MethodCall) -> MethodAnswer:
        return self._say("detach", call)


ACTION = MethodAnswer(
    Verdict.PENDING, next_action=NextAction("redirect", "https://bank.test/3ds"),
    secrets=MethodSecrets(token="pm_kept", customer="cus_1", setup_id="seti_1"), card=Card("visa", "3220", 12, 2034),
)  # fmt: skip


class CountingMethods(MemoryMethods):
    """How often it was asked for what can be charged."""

    looked = 0

    async def usable(self, user_id: str, method_id: str | None) -> Any:
        self.looked += 1
        return await super().usable(user_id, method_id)


class NotedMock(MockProvider):
    """The mock, with what it was sent."""

    sent: list[ProviderCall]

    async def send(self, call: ProviderCall) -> Answer:
        self.sent.append(call)
        return await super().send(call)


@dataclass
class Rig:
    store: MemoryPaymentStore
    kept: CountingMethods
    methods: PaymentMethods
    sweep: MethodSweep
    desk: PaymentDesk
    provider: NotedMock
    scripted: ScriptedKeeper
    orders: OrderEvents

    async def save(self, token: str = "tok_visa", caller: Caller = ANN, provider: str = "MOCK", **more: Any) -> Saved:
        fields = {"type": "card", "is_default": False, "return_url": None, **more}
        return await self.methods.save(caller, provider=provider, token=token, **fields)

    async def saved(self, token: str = "tok_visa", caller: Caller = ANN, provider: str = "MOCK", **more: Any) -> str:
        shown = (await self.save(token, caller, provider, **more)).shown
        assert shown is not None
        return shown.method.method_id

    async def create(self, order: str = "o1", caller: Caller = ANN, **more: Any) -> Answered:
        fields: dict[str, Any] = {
            "order_id": order, "amount": 10.5, "currency": "USD", "provider": None, "method": None,
            "capture_method": CaptureMethod.AUTOMATIC, "description": None, "metadata": {},
        }  # fmt: skip
        return await self.desk.create(caller, **(fields | more))

    async def process(self, method: str | None = None, order: str = "o1", caller: Caller = ANN) -> Answered:
        return await self.desk.process(caller, payment_id_of(order), method=method, return_url=None, object_id=None)

    async def order(self, value: bytes) -> Payment:
        """`order.created` is read and committed; the payment when its charge has had time."""
        work = self.orders.plan(Record("orders", 0, 0, None, value, (), 0))
        assert work is not None
        await work.start()
        for _ in range(50):
            payment = (await self.store.load(work.lane)).payment
            assert payment is not None
            if payment.attempts and payment.attempts[-1].state.value not in ("OPEN", "UNKNOWN"):
                break
            await asyncio.sleep(0.01)
        return payment


@asynccontextmanager
async def method_rig() -> AsyncIterator[Rig]:
    store, kept, clock, metrics = MemoryPaymentStore(), CountingMethods(), Clock(), CountedMetrics()
    provider = NotedMock(clock, public_url="http://shop.test")
    provider.sent = []
    guarded = GuardedProvider(provider, GuardLimits(100, DEADLINE_S), clock, metrics)
    other = GuardedProvider(MockProvider(clock, public_url=""), GuardLimits(100, DEADLINE_S), clock, metrics)
    execute = Execute(store, clock, "w1", 30.0)
    providers = {"MOCK": guarded, "STRIPE": other}
    effects = Effects(execute, store, providers, clock, metrics, "w1", 30.0, 20.0, 3_600_000, concurrency=10)
    execute.on_scheduled = effects.wake
    scripted, ids = ScriptedKeeper(), count(1)
    keepers = {"MOCK": GuardedKeeper(MockMethods(), guarded), "STRIPE": GuardedKeeper(scripted, other)}
    methods = PaymentMethods(kept, keepers, clock, metrics, lambda: f"{next(ids):024x}")
    roles = frozenset({"owner"})
    rules = DeskRules("MOCK", 0.5, require_confirmed=False, refund_roles=roles)
    desk = PaymentDesk(execute, effects, store, providers, clock, rules, methods=ChooseMethod(methods, store))
    orders = OrderEvents(
        execute, OrderRules("MOCK", auto_process=True, cancel_refunds_succeeded=False), clock.now_ms,
        OrderCharges(execute, store, methods),
    )  # fmt: skip
    runner = asyncio.create_task(effects.run())
    yield Rig(store, kept, methods, MethodSweep(methods, 3_600_000), desk, provider, scripted, orders)
    await effects.stop(1.0)
    runner.cancel()
