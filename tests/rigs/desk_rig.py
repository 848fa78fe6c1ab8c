"""The desk, the executor and the effects together, over the memory store and a provider that says what it is told."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import Payment
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import CaptureMethod, Kind, Verdict
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.payment_desk import DeskRules, PaymentDesk
from payment_service.core.use_cases.payment_requests import Answered, Caller
from payment_service.core.use_cases.perform_effects import Effects

ANN = Caller("ann")
BOB = Caller("bob")
SERVICE = Caller(None, frozenset({"service"}))
ADMIN = Caller("root", frozenset({"admin"}))


class Clock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


class NoMetrics:
    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...
    def observe(self, name: str, value: float, **labels: str) -> None: ...
    def gauge(self, name: str, value: float, **labels: str) -> None: ...


@dataclass
class ScriptedProvider:
    """Answers by kind; records each call in order."""

    name: str = "MOCK"
    answers: dict[Kind, Answer] = field(default_factory=dict)
    object_answer: Answer = field(default_factory=lambda: Answer(Verdict.APPROVED, object_id="obj_1"))
    lookups: dict[Kind, Answer] = field(default_factory=dict)
    calls: list[tuple[str, ProviderCall]] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def create_object(self, call: ProviderCall) -> Answer:
        self.calls.append(("object", call))
        return self.object_answer

    async def send(self, call: ProviderCall) -> Answer:
        self.calls.append(("send", call))
        if self.gate is not None:
            await self.gate.wait()
        return self.answers.get(
            call.kind, Answer(Verdict.APPROVED, f"tx_{call.key}", amount_minor=call.amount_minor, currency="USD")
        )

    async def lookup(self, call: ProviderCall) -> Answer:
        self.calls.append(("lookup", call))
        return self.lookups.get(call.kind, Answer(Verdict.UNKNOWN))


@dataclass
class Rig:
    store: MemoryPaymentStore
    provider: ScriptedProvider
    execute: Execute
    effects: Effects
    desk: PaymentDesk

    async def create(self, order: str = "o1", caller: Caller = ANN, **more: Any) -> Answered:
        fields: dict[str, Any] = {
            "order_id": order, "amount": 10.5, "currency": "USD", "provider": None, "method": None,
            "capture_method": CaptureMethod.AUTOMATIC, "description": None, "metadata": {},
        }  # fmt: skip
        return await self.desk.create(caller, **(fields | more))

    async def process(self, order: str = "o1", method: str | None = "tok_visa", caller: Caller = ANN) -> Answered:
        return await self.desk.process(caller, payment_id_of(order), method=method, return_url=None, object_id=None)

    async def refund(self, amount: object | None = None, caller: Caller = ANN) -> Answered:
        return await self.desk.refund(caller, payment_id_of("o1"), amount=amount, reason=None, metadata={})

    def sent(self) -> list[str]:
        return [f"{what}:{call.kind}:{call.number}" for what, call in self.provider.calls]

    async def payment(self, order: str = "o1") -> Payment:
        found = (await self.store.load(payment_id_of(order))).payment
        assert found is not None
        return found

    async def until(self, reached: Callable[[Payment], bool], order: str = "o1") -> Payment:
        """The payment once it is so; fails after a second."""
        for _ in range(100):
            payment = await self.payment(order)
            if reached(payment):
                return payment
            await asyncio.sleep(0.01)
        raise AssertionError(f"it did not come about: {payment}")


@asynccontextmanager
async def desk_over(
    store: MemoryPaymentStore, *, lease_s: float = 30.0, deadline_s: float = 20.0, concurrency: int = 10,
    refund_roles: frozenset[str] = frozenset({"owner", "admin", "service"}), running: bool = True,
) -> AsyncIterator[Rig]:  # fmt: skip
    provider, clock = ScriptedProvider(), Clock()
    execute = Execute(store, clock, "w1", lease_s)
    effects = Effects(
        execute, store, {"MOCK": provider}, clock, NoMetrics(), "w1", lease_s, deadline_s, 3_600_000,
        concurrency=concurrency,
    )  # fmt: skip
    execute.on_scheduled = effects.wake
    rules = DeskRules("MOCK", 0.5, require_confirmed=False, refund_roles=refund_roles)
    desk = PaymentDesk(execute, effects, store, {"MOCK": provider}, clock, rules)
    runner = asyncio.create_task(effects.run()) if running else None
    yield Rig(store, provider, execute, effects, desk)
    await effects.stop(1.0)
    if runner is not None:
        runner.cancel()
