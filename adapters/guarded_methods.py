"""A MethodKeeper behind the guard of its provider: one account, so one rate, one breaker, one deadline.

Room: adapters.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from payment_service.adapters.guarded import DETACH_METHOD, KEEP_METHOD, LOOK_AT_METHOD, GuardedProvider
from payment_service.core.payment_method import MethodAnswer, MethodCall, MethodKeeper
from payment_service.core.ports import Answer


@dataclass(frozen=True, slots=True)
class GuardedKeeper:
    """The MethodKeeper port. What the guard says instead of the provider has no secrets and no card."""

    inner: MethodKeeper
    guard: GuardedProvider

    async def keep(self, call: MethodCall) -> MethodAnswer:
        return await self._ask(KEEP_METHOD, call, self.inner.keep)

    async def look(self, call: MethodCall) -> MethodAnswer:
        return await self._ask(LOOK_AT_METHOD, call, self.inner.look)

    async def detach(self, call: MethodCall) -> MethodAnswer:
        return await self._ask(DETACH_METHOD, call, self.inner.detach)

    async def _ask(
        self, operation: str, call: MethodCall, ask: Callable[[MethodCall], Coroutine[Any, Any, Answer]]
    ) -> MethodAnswer:
        answer = await self.guard.ask(operation, call, ask)
        if isinstance(answer, MethodAnswer):
            return answer
        return MethodAnswer(answer.verdict, code=answer.code, message=answer.message)
