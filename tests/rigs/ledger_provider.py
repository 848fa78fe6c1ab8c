"""A provider that keeps books of what really moved, forgets nothing but can lose a request or an answer on the way.

It keeps idempotency keys as providers do, and its objects are paid once, whatever the key. What it cannot protect us
from, as no provider can: two objects of one payment that are both paid.
"""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import TAKES_MONEY, Kind, Verdict

DROP_REQUEST, DROP_ANSWER, HANG_BEFORE, HANG_AFTER = "drop_request", "drop_answer", "hang_before", "hang_after"
HANG_UNSENT = "hang_unsent"
"""Hangs until gate "unsent" opens, and then it was not sent."""


@dataclass
class Thing:
    object_id: str
    payment_id: str
    state: str = "open"
    amount_minor: int = 0


@dataclass(frozen=True)
class Movement:
    payment_id: str
    key: str
    kind: Kind
    amount_minor: int


@dataclass
class LedgerProvider:
    """`faults`: by operation ("create", "send:CHARGE", "lookup") what happens to its next calls, in order."""

    name: str = "MOCK"
    faults: dict[str, list[str]] = field(default_factory=dict)
    things: dict[str, Thing] = field(default_factory=dict)
    said: dict[str, Answer] = field(default_factory=dict)
    movements: list[Movement] = field(default_factory=list)
    asked: list[tuple[str, str, float]] = field(default_factory=list)
    """(operation, key, when) of everything that arrived."""
    gates: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """By operation: ends what hangs."""

    async def create_object(self, call: ProviderCall) -> Answer:
        return await self._through("create", call.object_key, lambda: self._create(call))

    async def send(self, call: ProviderCall) -> Answer:
        return await self._through(f"send:{call.kind}", call.key, lambda: self._once(call))

    async def lookup(self, call: ProviderCall) -> Answer:
        return await self._through("lookup", call.key, lambda: self._found(call))

    async def _through(self, operation: str, key: str, do: object) -> Answer:
        assert callable(do)
        left = self.faults.get(operation)
        fault = left.pop(0) if left else ""
        if fault == HANG_BEFORE:
            await self.gates[operation].wait()
        if fault == HANG_UNSENT:
            await self.gates["unsent"].wait()
            return Answer(Verdict.NOT_SENT, code="PROVIDER_UNAVAILABLE")
        if fault == DROP_REQUEST:
            return Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")
        self.asked.append((operation, key, time.monotonic()))
        answer: Answer = do()
        if fault == HANG_AFTER:
            await self.gates[operation].wait()
        if fault == DROP_ANSWER:
            return Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")
        await asyncio.sleep(0)
        return answer

    def release(self, *operations: str) -> None:
        """Those, or all that hang now."""
        for operation in operations or list(self.gates):
            self.gates[operation].set()

    # --- the books -------------------------------------------------------------------------------------------

    def _create(self, call: ProviderCall) -> Answer:
        if call.object_key not in self.said:
            object_id = f"obj_{len(self.things) + 1}"
            self.things[object_id] = Thing(object_id, call.payment_id)
            self.said[call.object_key] = Answer(Verdict.APPROVED, object_id=object_id)
        return self.said[call.object_key]

    def _once(self, call: ProviderCall) -> Answer:
        assert call.object_id is not None, "nothing is confirmed without its object"
        if call.key not in self.said:
            self.said[call.key] = self._do(call, self.things[call.object_id])
        return self.said[call.key]

    def _do(self, call: ProviderCall, thing: Thing) -> Answer:
        wanted = {Kind.CHARGE: "open", Kind.AUTHORIZE: "open", Kind.CAPTURE: "held", Kind.REFUND: "captured"}
        if call.kind is Kind.VOID:
            if thing.state not in ("open", "held"):
                return Answer(Verdict.DECLINED, code="INVALID_STATE")
            thing.state = "cancelled"
            return Answer(Verdict.APPROVED, f"tx_{call.key}", thing.object_id)
        if thing.state != wanted[call.kind]:
            return Answer(Verdict.DECLINED, code="INVALID_STATE", object_closed=thing.state == "cancelled")
        thing.state = {Kind.AUTHORIZE: "held"}.get(call.kind, "captured")
        self.movements.append(Movement(call.payment_id, call.key, call.kind, call.amount_minor))
        return self._moved(call, thing)

    def _found(self, call: ProviderCall) -> Answer:
        """What became of a call, by its object, as a GET would say."""
        assert call.object_id is not None
        thing = self.things[call.object_id]
        done = {Kind.CHARGE: "captured", Kind.AUTHORIZE: "held", Kind.CAPTURE: "captured", Kind.VOID: "cancelled"}
        if call.kind is Kind.REFUND:
            if any(movement.key == call.key for movement in self.movements):
                return self._moved(call, thing)
        elif thing.state == done[call.kind]:
            return self._moved(call, thing)
        elif thing.state == "cancelled" and call.kind in TAKES_MONEY:
            return Answer(Verdict.DECLINED, code="OBJECT_CANCELLED", object_closed=True)
        return Answer(Verdict.UNKNOWN, code="NOT_FOUND")

    def _moved(self, call: ProviderCall, thing: Thing) -> Answer:
        return Answer(Verdict.APPROVED, f"tx_{call.key}", thing.object_id, call.amount_minor, "USD")

    # --- the judge -------------------------------------------------------------------------------------------

    def taken(self, payment_id: str) -> int:
        """Money that is with the shop."""
        sign = {Kind.CHARGE: 1, Kind.CAPTURE: 1, Kind.AUTHORIZE: 0, Kind.REFUND: -1}
        return sum(sign[m.kind] * m.amount_minor for m in self.movements if m.payment_id == payment_id)

    def check(self) -> None:
        """No key moved money twice, and no payment was paid twice."""
        keys = Counter(movement.key for movement in self.movements)
        assert not keys or max(keys.values()) == 1, keys.most_common(3)
        paid = Counter(m.payment_id for m in self.movements if m.kind in (Kind.CHARGE, Kind.CAPTURE))
        assert not paid or max(paid.values()) == 1, paid.most_common(3)

    def count(self, operation: str, key: str | None = None) -> int:
        return sum(1 for what, which, _ in self.asked if what == operation and key in (None, which))
