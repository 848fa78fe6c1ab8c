"""Carrying out committed intents: ask the provider, and bring its answer back as a command.

Room: core/use_cases. Awaits on ports only.

- The worker that committed an intent for somebody who waits calls at once (`start`). Scheduled intents, and those
  whose owner's lease ran out, are claimed by the runner (`run`), a bounded number at a time.
- What was certainly never sent is sent, and stays known as such: that is put back as insistently as an answer is
  recorded. What may have been sent is for reconcile.py, which looks first.
- Whoever wants the truth at once (`ask`) goes the same way, by the same lease.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Any

from payment_service.core.errors import Malformed, PaymentError, Refused, Unavailable
from payment_service.core.payment import Payment, attempt_of, provider_key, refund_of
from payment_service.core.ports import Answer, CallQueue, ClaimedCall, Clock, Metrics, Provider, ProviderCall
from payment_service.core.terms import REFUND_OPEN, TAKES_MONEY, UNSETTLED, Kind, Verdict
from payment_service.core.use_cases.call_provider import (
    CANCELLED,
    KEY_REFUSED,
    SECOND_OBJECT,
    Calling,
    is_open,
    is_wanted,
)
from payment_service.core.use_cases.execute import Execute, Outcome
from payment_service.core.use_cases.reconcile import NOT_CONFIGURED, Reconciler

ADMIT_WAIT_S = 2.0
"""How long a request waits for a free call before it is told that nothing was sent."""
CLAIM_MAX = 200
"""Intents claimed in one statement."""
ASK_MAX = 10
"""Calls of one payment that are asked about at once; more than that are open in no ordinary life."""
POLL_S = 1.0
"""How often the runner looks for due intents when nothing wakes it."""
DRAIN_POLL_S = 0.02
"""How often `stop` looks for calls that were admitted and have not begun."""
SEND_RETRY_S = 5.0
"""Pause before a scheduled call that was certainly not sent is tried again."""
UNSENDABLE_RETRY_S = 20.0
"""The same while this worker has no such provider (another one may have it), or a key that the provider refuses."""
UNSENDABLE_TRIES = 3
"""After so many of these pauses a person is asked; it is tried on, and alarmed each time."""


@dataclass(slots=True)
class Effects:
    """The calls under way in this worker."""

    execute: Execute
    queue: CallQueue
    providers: Mapping[str, Provider]
    clock: Clock
    metrics: Metrics
    worker_id: str
    lease_s: float
    deadline_s: float
    """Longest time one provider call may take; shorter than the lease."""
    action_ttl_ms: int
    concurrency: int
    resend_window_s: float = 120.0
    unanswered: frozenset[str] = frozenset()
    """As the Reconciler's."""
    on_alarm: Callable[[str, str], None] = lambda reason, key: None
    calling: Calling = field(init=False)
    reconciler: Reconciler = field(init=False)
    _slots: asyncio.Semaphore = field(init=False)
    _running: dict[str, asyncio.Task[Outcome | None]] = field(default_factory=dict)
    _asking: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """By payment: one question at a time, however many want its answer."""
    _inside: int = 0
    """Slots taken: calls under way, and those admitted whose intent is being committed."""
    _claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False

    def __post_init__(self) -> None:
        assert self.deadline_s < self.lease_s, "a call must end before its lease does"
        self._slots = asyncio.Semaphore(self.concurrency)
        self.calling = Calling(
            self.execute, self.queue, self.providers, self.clock, self.metrics, self.worker_id, self.lease_s,
            self.deadline_s, self.action_ttl_ms, self.on_alarm,
        )  # fmt: skip
        self.reconciler = Reconciler(self.calling, self.resend_window_s, self.unanswered)

    async def admit(self) -> Callable[[], None]:
        """Room for one call, taken before its intent is committed. Returns what gives the room back.

        Raises Unavailable (PROVIDER_UNAVAILABLE): certainly nothing was sent.
        """
        if self._stopping:
            raise Unavailable("the worker is stopping", retry_after_s=1.0)
        if self._slots.locked():
            try:
                async with asyncio.timeout(ADMIT_WAIT_S):
                    await self._slots.acquire()
            except TimeoutError:
                raise Unavailable("too many provider calls", code="PROVIDER_UNAVAILABLE", retry_after_s=2.0) from None
        else:
            await self._slots.acquire()
        self._inside += 1
        return self._leave

    def _leave(self) -> None:
        self._inside -= 1
        self._slots.release()

    def start(self, call: ProviderCall, claimed_at: float, release: Callable[[], None]) -> asyncio.Task[Outcome | None]:
        """Call now, in a task of its own: whoever waits for it may go away. `release` is called at its end."""
        return self._spawn(call.key, self._perform(call, claimed_at), release)

    def _spawn(
        self, key: str, work: Coroutine[Any, Any, Outcome | None], release: Callable[[], None],
        where: Context | None = None,
    ) -> asyncio.Task[Outcome | None]:  # fmt: skip
        task = asyncio.get_running_loop().create_task(work, context=where)
        self._running[key] = task
        task.add_done_callback(lambda done: self._ended(key, done, release))
        return task

    def _ended(self, key: str, task: asyncio.Task[Outcome | None], release: Callable[[], None]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        release()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.metrics.count("effect_failed", reason=type(error).__name__)
            if not isinstance(error, PaymentError):  # a bug: heard of, and the others go on
                report = {"message": f"the call {key} ended in an error", "exception": error, "task": task}
                task.get_loop().call_exception_handler(report)

    def under_way(self, key: str) -> asyncio.Task[Outcome | None] | None:
        """The task of a call that runs in this worker."""
        return self._running.get(key)

    def wake(self) -> None:
        """A scheduled intent was committed here."""
        self._wake.set()

    async def run(self) -> None:
        """The runner: claims due intents as long as there is room. Runs until it is cancelled or stopped."""
        while not self._stopping:
            free = min(CLAIM_MAX, self.concurrency - self._inside)
            claimed = 0
            self._wake.clear()
            if free > 0:
                async with self._claiming:
                    claimed = await self._claim(free)
            if claimed < free or free <= 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):  # wait_for would lose a cancellation that comes with the wake
                        await self._wake.wait()

    async def ask(self, payment: Payment, wait_s: float) -> None:
        """Ask the provider now about every open call of a payment that may have been sent, and wait for its answers,
        at most `wait_s`. What another worker has under way is left to it; without a free call nothing is asked."""
        payment_id = payment.payment_id
        asking = self._asking.get(payment_id)
        if asking is None:
            asking = self._asking[payment_id] = asyncio.get_running_loop().create_task(self._ask(payment))
            asking.add_done_callback(lambda _: self._asking.pop(payment_id, None))
        await asyncio.wait((asking,), timeout=wait_s)

    async def _ask(self, payment: Payment) -> None:
        free = min(ASK_MAX, self.concurrency - self._inside)
        if free > 0 and not self._stopping:
            async with self._claiming:
                await self._claim(free, payment.payment_id)
        tasks = [self._running[key] for key in _open_keys(payment) if key in self._running]
        if tasks:
            await asyncio.wait(tasks)

    async def _claim(self, limit: int, payment_id: str | None = None) -> int:
        """How many were claimed. Those for which there is no time any more are given back as they were."""
        queue = self.calling.queue
        try:
            if payment_id is None:
                claimed = await queue.claim(self.worker_id, limit, self.lease_s)
            else:
                claimed = await queue.claim_of(payment_id, self.worker_id, limit, self.lease_s)
        except Unavailable:
            self.metrics.count("effect_claims_failed")
            return 0
        for claim in claimed:
            await self._slots.acquire()
            self._inside += 1
            if self._stopping:
                self._leave()
                await self._put_back(claim.call, claim.due_in_s or 0.0, sent=claim.due_in_s is not None)
            else:
                self._take(claim)
        return len(claimed)

    async def stop(self, drain_s: float) -> None:
        """No new calls; waits for those under way, at most `drain_s`. The rest is found by its lease later."""
        self._stopping = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                async with self._claiming:  # what is being claimed now is given back
                    pass
                while self._inside:
                    running = list(self._running.values())
                    await asyncio.wait(running) if running else await asyncio.sleep(DRAIN_POLL_S)

    def _take(self, claim: ClaimedCall) -> None:
        work = self._send_scheduled(claim) if claim.tries == 0 else self.reconciler.reconcile(claim)
        self._spawn(claim.call.key, work, self._leave, claim.where)

    # --- calls of ours ---------------------------------------------------------------------------------------

    async def _perform(self, call: ProviderCall, claimed_at: float) -> Outcome | None:
        """One intent of ours. None: the lease was lost, somebody else settles it."""
        answer = await self.calling.call(call, claimed_at)
        return None if answer is None else await self.calling.record(call, answer)

    async def _send_scheduled(self, claim: ClaimedCall) -> Outcome | None:
        """Claimed for the first time: certainly never sent. Wanted still? Then send."""
        calling, call = self.calling, claim.call
        # Given up here, it would be due again as one that may have been sent, and would be looked for in vain first.
        loaded = await calling.insist(lambda: self.execute.store.load(call.payment_id), Refused, Malformed)
        assert loaded.payment is not None, "an intent belongs to a payment"
        payment = loaded.payment
        if not is_open(payment, call):
            return None
        if not is_wanted(payment, call):
            return await calling.record(call, Answer(Verdict.NOT_SENT, code=CANCELLED))
        if call.provider not in self.providers:
            await self._unsendable(payment, call, NOT_CONFIGURED)
            return None
        if call.kind in TAKES_MONEY and payment.object_open:
            call = replace(call, object_id=payment.object_id)
        answer = await calling.call(call, claim.claimed_at)
        if answer is not None and answer.code == KEY_REFUSED:
            await self._unsendable(payment, call, KEY_REFUSED)
            return None
        unsent = answer is not None and answer.verdict is Verdict.NOT_SENT
        if answer is None or (unsent and answer.code not in (CANCELLED, SECOND_OBJECT)):
            await self._put_back(call, SEND_RETRY_S)
            return None
        return await calling.record(call, answer)

    async def _unsendable(self, payment: Payment, call: ProviderCall, reason: str) -> None:
        """A worker that cannot send must not keep its calls in silence: nobody waits for a scheduled one."""
        self.calling.alarm(reason, call)
        if call.kind is Kind.REFUND:
            since_ms = refund_of(payment, call.number).created_at_ms
        else:
            since_ms = attempt_of(payment, call.number).started_at_ms
        if self.clock.now_ms() - since_ms >= UNSENDABLE_TRIES * UNSENDABLE_RETRY_S * 1000:
            await self.calling.flag(call, f"{reason}:{call.provider}")
        await self._put_back(call, UNSENDABLE_RETRY_S)

    async def _put_back(self, call: ProviderCall, delay_s: float, *, sent: bool = False) -> None:
        """This claim sent nothing, for certain. Nothing happens if somebody else has it by now."""
        queue = self.calling.queue
        await self.calling.insist(lambda: queue.reschedule(call.key, self.worker_id, delay_s, sent=sent))


def has_open_calls(payment: Payment) -> bool:
    return bool(_open_keys(payment))


def _open_keys(payment: Payment) -> list[str]:
    attempts = [(a.kind, a.number) for a in payment.attempts if a.state in UNSETTLED]
    refunds = [(Kind.REFUND, r.number) for r in payment.refunds if r.status in REFUND_OPEN]
    return [provider_key(payment.payment_id, kind, number) for kind, number in (*attempts, *refunds)]
