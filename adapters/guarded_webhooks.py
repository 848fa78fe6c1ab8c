"""A WebhookReader behind the guard of its provider: what is asked because of webhooks counts as any other request.

Room: adapters. The same account, so the same rate, breaker and deadline; after everything that moves money. What
verifies by itself, without asking, goes past it.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from payment_service.adapters.guarded import REFETCH, VERIFY_WEBHOOK, GuardedProvider
from payment_service.adapters.providers.registration import (
    ADAPTER_ERROR,
    PROVIDER_ERROR,
    PROVIDER_UNAVAILABLE,
    RATE_LIMITED,
    REFUSED_US,
)
from payment_service.core.errors import PaymentError, Unavailable
from payment_service.core.ports import Answer
from payment_service.core.terms import Verdict
from payment_service.core.webhooks import Notice, WebhookReader

RETRY_AFTER_S = 5.0
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Asked:
    key: str


@dataclass(frozen=True, slots=True)
class GuardedReader:
    """The WebhookReader port. Also raises Unavailable while the guard holds requests back."""

    inner: WebhookReader
    guard: GuardedProvider

    @property
    def asks_to_verify(self) -> bool:
        return self.inner.asks_to_verify

    async def verify(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        if not self.inner.asks_to_verify:
            return await self.inner.verify(headers, body, now_ms)
        try:
            return await self._through(VERIFY_WEBHOOK, "webhook", lambda: self.inner.verify(headers, body, now_ms))
        except Unavailable as error:
            if error.code not in REFUSED_US:
                raise
            # Why is not its sender's business.
            raise Unavailable(error.message, code=PROVIDER_UNAVAILABLE, retry_after_s=error.retry_after_s) from None

    def read(self, body: bytes) -> Notice:
        return self.inner.read(body)

    async def refetch(self, notice: Notice) -> Notice:
        return await self._through(REFETCH, notice.event_id, lambda: self.inner.refetch(notice))

    async def _through(self, operation: str, key: str, work: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        """What `work` gives or raises. The guard hears whether the provider was well, as of any answer."""
        done: list[ResultT] = []
        failed: Exception | None = None

        async def ask(_: _Asked) -> Answer:
            nonlocal failed
            failed = None
            try:
                done.append(await work())
            except Unavailable as error:
                failed = error
                if error.code == RATE_LIMITED:
                    return Answer(Verdict.NOT_SENT, code=RATE_LIMITED)
                return Answer(Verdict.UNKNOWN, code=error.code if error.code in REFUSED_US else PROVIDER_ERROR)
            except PaymentError as error:
                failed = error
            except Exception as error:  # a bug of the adapter: whoever asked hears of it
                failed = error
                return Answer(Verdict.UNKNOWN, code=ADAPTER_ERROR)
            return Answer(Verdict.APPROVED)

        await self.guard.ask(operation, _Asked(key), ask)
        if done:
            return done[-1]
        raise failed or Unavailable(
            "the provider cannot be asked now", code=PROVIDER_UNAVAILABLE, retry_after_s=RETRY_AFTER_S
        )
