"""A Provider around a Provider: admission, deadline, circuit breaker, retry of what is safe, counting.

Room: adapters. The same for every provider; what a provider's answers mean stays in its own file.

What the caller may rely on, whatever is inside:
- no exception but a cancellation comes out; an exception of the adapter is UNKNOWN;
- every call ends within `GuardLimits.deadline_s`, waiting and retries included; what was not answered then is UNKNOWN;
- NOT_SENT from here means that *this* call did not reach the provider. An earlier one with the same key may have;
- a look-up never says NOT_SENT: that it was not asked says nothing about the call it asks for.
"""

import asyncio
import logging
import random
import traceback
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from payment_service.adapters.admission import Admission, Urgency
from payment_service.adapters.providers.registration import (
    ADAPTER_ERROR,
    PROVIDER_ERROR,
    PROVIDER_TIMEOUT,
    PROVIDER_UNAVAILABLE,
    RATE_LIMITED,
    TROUBLE,
    Registration,
)
from payment_service.core.ports import Answer, Clock, Metrics, Provider, ProviderCall
from payment_service.core.resilience import (
    CLOSED,
    BreakerRule,
    Passage,
    RateRule,
    abandoned,
    backoff_s,
    failed,
    is_barred,
    pass_through,
    succeeded,
)
from payment_service.core.terms import Kind, Verdict

log = logging.getLogger(__name__)

TRIES_MAX = 3
"""Of one call, the first included; all of them together keep the deadline."""
RETRY_FIRST_S = 0.1
RETRY_CAP_S = 2.0
WAIT_S = 2.0
"""How long a call waits for a slot and a rate token."""
BREAKER = BreakerRule(failures_max=10, open_s=5.0, open_s_max=60.0)
STACK_LINES_MAX = 4
"""Places of an adapter's exception in the log."""

CREATE, LOOKUP = "CREATE", "LOOKUP"
KEEP_METHOD, LOOK_AT_METHOD, DETACH_METHOD = "KEEP_METHOD", "LOOK_AT_METHOD", "DETACH_METHOD"
VERIFY_WEBHOOK, REFETCH = "VERIFY_WEBHOOK", "REFETCH"
"""Operations, in metrics, each with a rate of its own; a `send` is counted under its kind."""
SAME_ENDPOINT: dict[str, str] = {Kind.AUTHORIZE: Kind.CHARGE, REFETCH: LOOKUP, LOOK_AT_METHOD: LOOKUP}
"""Operations that ask the same of a provider."""

URGENCY: dict[str, Urgency] = {
    Kind.CAPTURE: Urgency.SETTLE,
    Kind.VOID: Urgency.SETTLE,
    CREATE: Urgency.CHARGE,
    Kind.CHARGE: Urgency.CHARGE,
    Kind.AUTHORIZE: Urgency.CHARGE,
    Kind.REFUND: Urgency.REFUND,
    LOOKUP: Urgency.LOOKUP,
    KEEP_METHOD: Urgency.CHARGE,
    LOOK_AT_METHOD: Urgency.LOOKUP,
    DETACH_METHOD: Urgency.LOOKUP,
    VERIFY_WEBHOOK: Urgency.LOOKUP,
    REFETCH: Urgency.LOOKUP,
}


def endpoint_of(operation: str) -> str:
    """Whose rate it is counted by."""
    return SAME_ENDPOINT.get(operation, operation)


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """`breaker`, `rate` None: there is none."""

    concurrency: int
    deadline_s: float
    """From being called to the answer; the caller's lease must be longer."""
    wait_s: float = WAIT_S
    rate: RateRule | None = None
    breaker: BreakerRule | None = BREAKER


class GuardSettings(Protocol):
    """What the guard reads of the settings, beside what the provider's own rate needs."""

    @property
    def provider_concurrency(self) -> int: ...

    @property
    def provider_deadline_s(self) -> float: ...


def limits_for(registration: Registration[Any], settings: GuardSettings) -> GuardLimits:
    """A second's worth of the account's rate may go at once."""
    rate: RateRule | None = None
    networked = registration.networked if isinstance(registration.networked, bool) else registration.networked(settings)
    if registration.rate_per_s is not None:
        per_s = registration.rate_per_s(settings)
        rate = RateRule(per_s, max(1.0, per_s))
    return GuardLimits(
        settings.provider_concurrency,
        settings.provider_deadline_s,
        min(WAIT_S, settings.provider_deadline_s / 2),
        rate,
        BREAKER if networked else None,
    )


class Asked(Protocol):
    """What the guard knows of a request: by what key it is found again."""

    @property
    def key(self) -> str: ...


CallT = TypeVar("CallT", bound=Asked)


class GuardedProvider:
    """The Provider port. One per provider and process, for one event loop."""

    def __init__(
        self,
        inner: Provider,
        limits: GuardLimits,
        clock: Clock,
        metrics: Metrics,
        *,
        jitter: Callable[[], float] = random.random,
        workers: Callable[[], int] = lambda: 1,
    ) -> None:
        """`workers`: how many that are alive share the account's rate."""
        self.name = inner.name
        self.inner = inner
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._admission = Admission(limits.concurrency, limits.rate, clock, workers)
        self._breaker = CLOSED
        self.on_try: Callable[[str, str, str], Callable[[Answer | None], None]] | None = None
        """Told of each try: provider, operation and key; what it gives is told the answer. None: nobody traces."""
        self.on_answer: Callable[[str, Asked, Answer, float], None] | None = None
        """Told of each try's operation, what was asked, the answer, and the seconds it took."""

    @property
    def calls_inside(self) -> int:
        return self._admission.inside

    @property
    def available(self) -> bool:
        """False while the breaker bars calls: for /ready and the console, never a reason to change an answer."""
        return not is_barred(self._breaker, self._clock.monotonic_s())

    def gauges(self) -> Mapping[str, Callable[[], float]]:
        """How it is doing now, by the names of metrics."""
        admission = self._admission
        return {
            "provider_breaker_open": lambda: self._breaker.open_until_s is not None,
            "provider_calls_inside": lambda: admission.inside,
            "provider_calls_waiting": lambda: admission.waiting,
            "provider_tokens": lambda: admission.bucket.tokens,
            "provider_rate_per_s": lambda: admission.bucket.per_s,
        }

    async def create_object(self, call: ProviderCall) -> Answer:
        return await self._guarded(CREATE, call, self.inner.create_object)

    async def send(self, call: ProviderCall) -> Answer:
        return await self._guarded(call.kind, call, self.inner.send)

    async def lookup(self, call: ProviderCall) -> Answer:
        answer = await self._guarded(LOOKUP, call, self.inner.lookup)
        return replace(answer, verdict=Verdict.UNKNOWN) if answer.verdict is Verdict.NOT_SENT else answer

    # --- one call, with its tries ------------------------------------------------------------------------------

    async def ask(self, operation: str, call: CallT, ask: Callable[[CallT], Coroutine[Any, Any, Answer]]) -> Answer:
        """For what else is asked of the same account (guarded_methods.py): under the same limits."""
        return await self._guarded(operation, call, ask)

    async def _guarded(
        self, operation: str, call: CallT, ask: Callable[[CallT], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        called_s = started_s = self._clock.monotonic_s()
        if is_barred(self._breaker, called_s):
            return self._held_back(operation, "breaker")
        admission, endpoint = self._admission, endpoint_of(operation)
        if not admission.enter_now(endpoint):
            if not await admission.enter(endpoint, URGENCY[operation], self._limits.wait_s):
                return self._held_back(operation, "wait")
            started_s = self._clock.monotonic_s()
        try:
            self._breaker, passage = pass_through(self._breaker, started_s)
            if passage is Passage.BARRED:  # it opened while this call waited
                return self._held_back(operation, "breaker")
            end_s = called_s + self._limits.deadline_s
            answer = await self._try(operation, call, ask, passage, started_s, end_s)
            if may_retry(operation, answer):
                answer = await self._retried(operation, call, ask, answer, end_s)
            return answer
        finally:
            admission.leave()

    async def _retried(
        self,
        operation: str,
        call: CallT,
        ask: Callable[[CallT], Coroutine[Any, Any, Answer]],
        answer: Answer,
        end_s: float,
    ) -> Answer:
        """More tries, as long as they are safe, in time and let through; else the answer there is."""
        for tries in range(1, TRIES_MAX):
            pause_s = backoff_s(tries, RETRY_FIRST_S, RETRY_CAP_S, self._jitter())
            if self._clock.monotonic_s() + pause_s >= end_s:
                return answer
            await asyncio.sleep(pause_s)
            now_s = self._clock.monotonic_s()
            if is_barred(self._breaker, now_s) or not self._admission.take_token(endpoint_of(operation)):
                return answer
            self._breaker, passage = pass_through(self._breaker, now_s)
            self._metrics.count("provider_retries", provider=self.name, operation=operation)
            answer = await self._try(operation, call, ask, passage, now_s, end_s)
            if not may_retry(operation, answer):
                return answer
        return answer

    async def _try(
        self,
        operation: str,
        call: CallT,
        ask: Callable[[CallT], Coroutine[Any, Any, Answer]],
        passage: Passage,
        started_s: float,
        end_s: float,
    ) -> Answer:
        """One try, which the breaker let pass as `passage`. Its outcome is always reported to the breaker."""
        ended = self.on_try(self.name, operation, call.key) if self.on_try is not None else None
        answer: Answer | None = None
        try:
            answer = await self._in_time(call, ask(call), end_s - started_s)
        except BaseException:
            self._breaker = abandoned(self._breaker, passage)
            raise
        finally:
            if ended is not None:
                ended(answer)
        now_s = self._clock.monotonic_s()
        if answer.code in TROUBLE:
            self._failed(passage, now_s)
        else:
            if passage is Passage.PROBE:
                log.warning("provider_breaker_closed provider=%s", self.name)
            self._breaker = succeeded(self._breaker, passage)
            if answer.code == RATE_LIMITED:
                self._admission.slow_down(endpoint_of(operation))
        metrics, name = self._metrics, self.name
        metrics.count("provider_calls", provider=name, operation=operation, verdict=answer.verdict)
        metrics.observe("provider_call_seconds", now_s - started_s, provider=name, operation=operation)
        if self.on_answer is not None:
            self.on_answer(operation, call, answer, now_s - started_s)
        return answer

    async def _in_time(self, call: Asked, asking: Coroutine[Any, Any, Answer], left_s: float) -> Answer:
        """The answer, or UNKNOWN when it does not come in time or an exception does.

        The first step is made by hand: a provider that answers without waiting costs no timer.
        """
        deadline: asyncio.Timeout | None = None
        try:
            try:
                awaited = asking.send(None)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]  # a coroutine's result is untyped here
            async with asyncio.timeout(left_s) as deadline:
                return await _Rest(asking, awaited)
        except Exception as error:
            if deadline is not None and deadline.expired() and isinstance(error, TimeoutError):
                return Answer(Verdict.UNKNOWN, code=PROVIDER_TIMEOUT, message="no answer in time")
            return self._adapter_failed(call, error)

    # --- what is said instead of the provider --------------------------------------------------------------------

    def _held_back(self, operation: str, reason: str) -> Answer:
        self._metrics.count("provider_refusals", provider=self.name, operation=operation, reason=reason)
        return Answer(Verdict.NOT_SENT, code=PROVIDER_UNAVAILABLE, message="the provider cannot be asked now")

    def _adapter_failed(self, call: Asked, error: Exception) -> Answer:
        """Logged without the exception's text: a driver's may quote the request, with its key or token."""
        places = traceback.extract_tb(error.__traceback__)[-STACK_LINES_MAX:]
        log.error(
            "provider_adapter_failed provider=%s key=%s error=%s at=%s",
            self.name,
            call.key,
            type(error).__name__,
            " < ".join(f"{place.filename.rpartition('/')[2]}:{place.lineno}" for place in reversed(places)),
        )
        return Answer(Verdict.UNKNOWN, code=ADAPTER_ERROR, message="the answer could not be understood")

    def _failed(self, passage: Passage, now_s: float) -> None:
        rule = self._limits.breaker
        if rule is None:
            return
        before = self._breaker
        self._breaker = failed(before, passage, rule, now_s)
        if self._breaker.openings > before.openings:
            log.warning("provider_breaker_opened provider=%s times=%s", self.name, self._breaker.openings)


def may_retry(operation: str, answer: Answer) -> bool:
    """At once and by itself: what certainly did not reach the provider, and making an object, which moves no money
    and has a key of its own. What may have moved money is for the reconciler, which looks first."""
    if answer.verdict is Verdict.NOT_SENT:
        return answer.code in (PROVIDER_UNAVAILABLE, RATE_LIMITED)
    return operation == CREATE and answer.verdict is Verdict.UNKNOWN and answer.code == PROVIDER_ERROR


class _Rest:
    """The rest of a coroutine whose first step was made by hand and now waits for `awaited`."""

    __slots__ = ("_awaited", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Answer], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Answer]:
        coroutine, awaited = self._coroutine, self._awaited
        try:
            while True:
                try:
                    sent = yield awaited
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as thrown:
                    awaited = coroutine.throw(thrown)
                else:
                    awaited = coroutine.send(sent)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # as above
