"""Carrying out committed intents: ask the provider, and bring its answer back as a command.

Room: core/use_cases. Awaits on ports only.

- The intent was committed before; the lease is checked again right before the call; the call is made outside any
  transaction; its answer is recorded however long that takes.
- The worker that committed an intent for somebody who waits calls at once (`start`). Scheduled intents, and those
  whose owner's lease ran out, are claimed by the runner (`run`), a bounded number at a time.
- What was certainly never sent is sent, and stays known as such: that is put back as insistently as an answer is
  recorded. What may have been sent is looked up, never sent again from here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from payment_service.core.commands import ExpireAction, RecordAnswer, RecordObject, RequireAction
from payment_service.core.errors import Malformed, PaymentError, Refused, Unavailable
from payment_service.core.payment import Payment, attempt_of, refund_of
from payment_service.core.ports import Answer, CallQueue, ClaimedCall, Clock, Metrics, Provider, ProviderCall
from payment_service.core.terms import REFUND_OPEN, TAKES_MONEY, AttemptState, Kind, Source, Verdict
from payment_service.core.use_cases.execute import Execute, Outcome
from payment_service.core.use_cases.provider_calls import CallContext

ResultT = TypeVar("ResultT")

ADMIT_WAIT_S = 2.0
"""How long a request waits for a free call before it is told that nothing was sent."""
RECORD_DELAY_S_MAX = 5.0
"""Longest pause between two tries to record an answer. There is no last try: an answer is never given up."""
CLAIM_MAX = 200
"""Intents claimed in one statement."""
POLL_S = 1.0
"""How often the runner looks for due intents when nothing wakes it."""
DRAIN_POLL_S = 0.02
"""How often `stop` looks for calls that were admitted and have not begun."""
SEND_RETRY_S = 5.0
"""Pause before a scheduled call that was certainly not sent is tried again."""
CANCELLED = "CANCELLED"
SECOND_OBJECT = "SECOND_OBJECT"
"""Why a call was not made although the provider object was: final, unlike a provider that was out of reach."""
LOOKUP_DELAYS_S = (5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 86400.0)
"""Pauses between look-ups of one call (design §4); the last one repeats."""


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
    _slots: asyncio.Semaphore = field(init=False)
    _running: dict[str, asyncio.Task[Outcome | None]] = field(default_factory=dict)
    _inside: int = 0
    """Slots taken: calls under way, and those admitted whose intent is being committed."""
    _claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False

    def __post_init__(self) -> None:
        assert self.deadline_s < self.lease_s, "a call must end before its lease does"
        self._slots = asyncio.Semaphore(self.concurrency)

    async def admit(self) -> Callable[[], None]:
        """Room for one call, taken before its intent is committed. Returns what gives the room back.

        Raises Unavailable (PROVIDER_UNAVAILABLE): certainly nothing was sent.
        """
        if self._stopping:
            raise Unavailable("the worker is stopping", retry_after_s=1.0)
        if self._slots.locked():
            try:
                await asyncio.wait_for(self._slots.acquire(), ADMIT_WAIT_S)
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
        self, key: str, work: Coroutine[Any, Any, Outcome | None], release: Callable[[], None]
    ) -> asyncio.Task[Outcome | None]:
        task = asyncio.get_running_loop().create_task(work)
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
                    await asyncio.wait_for(self._wake.wait(), POLL_S)

    async def _claim(self, limit: int) -> int:
        """How many were claimed. Those for which there is no time any more are given back as they were."""
        try:
            claimed = await self.queue.claim(self.worker_id, limit, self.lease_s)
        except Unavailable:
            self.metrics.count("effect_claims_failed")
            return 0
        for claim in claimed:
            await self._slots.acquire()
            self._inside += 1
            if self._stopping:
                self._leave()
                await self._put_back(claim.call, 0.0)
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
        work = self._send_scheduled(claim) if claim.tries == 0 else self._look_up(claim)
        self._spawn(claim.call.key, work, self._leave)

    # --- calling ---------------------------------------------------------------------------------------------

    async def _perform(self, call: ProviderCall, claimed_at: float) -> Outcome | None:
        """One intent of ours. None: the lease was lost, somebody else settles it."""
        answer = await self._call(call, claimed_at)
        return None if answer is None else await self._record(call, answer)

    async def _call(self, call: ProviderCall, claimed_at: float) -> Answer | None:
        """The provider object first if there is none, with a commit of its id between, then the call itself."""
        provider = self.providers[call.provider]
        if call.kind in TAKES_MONEY and call.object_id is None:
            if not await self._leased(call, claimed_at):
                return None
            made = await provider.create_object(call)
            if made.verdict is not Verdict.APPROVED or made.object_id is None:
                return made
            made_id = f"{call.object_key}:made:{made.object_id}"  # another object is other news
            outcome = await self._tell(
                RecordObject(call.payment_id, made_id, self.clock.now_ms(), call.number, made.object_id)
            )
            if not _is_open(outcome.payment, call):
                return None  # somebody settled it meanwhile: what the world was told stays true
            if outcome.payment.cancel_requested:
                return Answer(Verdict.NOT_SENT, code=CANCELLED)
            if outcome.payment.object_id != made.object_id:
                return Answer(Verdict.NOT_SENT, code=SECOND_OBJECT)
            if made.next_action is not None:
                return replace(made, verdict=Verdict.PENDING)
            call = replace(call, object_id=made.object_id)
        if not await self._leased(call, claimed_at):
            return None
        return await provider.send(call)

    async def _leased(self, call: ProviderCall, claimed_at: float) -> bool:
        """Right before the socket: is there time for the whole call within the lease? Else ask for more."""
        if self.clock.monotonic_s() + self.deadline_s < claimed_at + self.lease_s:
            return True
        try:
            return await self.queue.renew(call.key, self.worker_id, self.lease_s)
        except Unavailable:
            return False

    async def _record(self, call: ProviderCall, answer: Answer, source: Source = Source.LIVE) -> Outcome:
        now = self.clock.now_ms()
        self.metrics.count("payment_attempts", provider=call.provider, kind=call.kind, verdict=answer.verdict)
        if answer.verdict is Verdict.PENDING and answer.next_action is not None and call.kind in TAKES_MONEY:
            return await self._tell(
                RequireAction(call.payment_id, "", now, call.number, answer.next_action.type, now + self.action_ttl_ms),
                CallContext(next_action=answer.next_action),
            )
        said = RecordAnswer(
            call.payment_id, "", now, call.kind, call.number, answer.verdict, source, answer.provider_id,
            answer.amount_minor, answer.currency, answer.code, answer.message, answer.decline_code, answer.review,
            answer.object_closed,
        )  # fmt: skip
        return await self._tell(said)

    async def _tell(
        self, command: RecordAnswer | RecordObject | RequireAction, context: CallContext | None = None
    ) -> Outcome:
        """A provider's answer is recorded, however long the database is away."""
        return await self._insist(lambda: self.execute(command, context), Refused)

    async def _insist(self, ask: Callable[[], Awaitable[ResultT]], *final: type[PaymentError]) -> ResultT:
        """Until it is done, or ends in one of the errors that are `final`."""
        delay = 0.05
        while True:
            try:
                return await ask()
            except final:
                raise
            except PaymentError:
                self.metrics.count("effect_retries")
            await asyncio.sleep(delay)
            delay = min(delay * 2, RECORD_DELAY_S_MAX)

    # --- the runner's two ways -------------------------------------------------------------------------------

    async def _send_scheduled(self, claim: ClaimedCall) -> Outcome | None:
        """Claimed for the first time: certainly never sent. Wanted still? Then send."""
        call = claim.call
        # Given up here, it would be due again as one that may have been sent, and nobody would ever send it.
        loaded = await self._insist(lambda: self.execute.store.load(call.payment_id), Refused, Malformed)
        assert loaded.payment is not None, "an intent belongs to a payment"
        payment = loaded.payment
        if not _is_open(payment, call):
            return None
        if call.kind in TAKES_MONEY and payment.cancel_requested:
            return await self._record(call, Answer(Verdict.NOT_SENT, code="CANCELLED"))
        if call.provider not in self.providers:
            await self._put_back(call, SEND_RETRY_S)
            return None
        call = replace(call, object_id=payment.object_id if payment.object_open else call.object_id)
        answer = await self._call(call, claim.claimed_at)
        unsent = answer is not None and answer.verdict is Verdict.NOT_SENT
        if answer is None or (unsent and answer.code not in (CANCELLED, SECOND_OBJECT)):
            await self._put_back(call, SEND_RETRY_S)
            return None
        return await self._record(call, answer)

    async def _put_back(self, call: ProviderCall, delay_s: float) -> None:
        """This claim sent nothing, for certain. Nothing happens if somebody else has it by now."""
        await self._insist(lambda: self.queue.reschedule(call.key, self.worker_id, delay_s, sent=False))

    async def _look_up(self, claim: ClaimedCall) -> Outcome | None:
        """It may have been sent: ask what became of it. What is not known stays as it is, and is asked again."""
        call = claim.call
        loaded = await self.execute.store.load(call.payment_id)
        assert loaded.payment is not None, "an intent belongs to a payment"
        payment = loaded.payment
        if call.kind is not Kind.REFUND:
            attempt = attempt_of(payment, call.number)
            due = attempt.action_expires_at_ms
            if attempt.state is AttemptState.ACTION and due is not None and self.clock.now_ms() >= due:
                await self._later(call, claim, payment)
                return await self.execute(ExpireAction(call.payment_id, "", self.clock.now_ms(), call.number))
        if call.provider not in self.providers:
            await self._later(call, claim, payment)
            return None
        call = replace(call, object_id=call.object_id or payment.object_id)
        answer = await self.providers[call.provider].lookup(call)
        if answer.verdict is Verdict.NOT_SENT:
            answer = replace(answer, verdict=Verdict.UNKNOWN)
        outcome = await self._record(call, answer, Source.LOOKUP)
        if _is_open(outcome.payment, call):
            await self._later(call, claim, outcome.payment)
        return outcome

    async def _later(self, call: ProviderCall, claim: ClaimedCall, payment: Payment) -> None:
        """Not after the shopper's time is up: then the object is cancelled."""
        delay = LOOKUP_DELAYS_S[min(claim.tries, len(LOOKUP_DELAYS_S) - 1)]
        attempt = None if call.kind is Kind.REFUND else attempt_of(payment, call.number)
        due = attempt.action_expires_at_ms if attempt is not None and attempt.state is AttemptState.ACTION else None
        if due is not None and due > self.clock.now_ms():
            delay = min(delay, (due - self.clock.now_ms()) / 1000)
        await self.queue.reschedule(call.key, self.worker_id, delay, sent=True)


def _is_open(payment: Payment, call: ProviderCall) -> bool:
    if call.kind is Kind.REFUND:
        return refund_of(payment, call.number).status in REFUND_OPEN
    return attempt_of(payment, call.number).state in (
        AttemptState.OPEN, AttemptState.UNKNOWN, AttemptState.ACTION, AttemptState.DISPLACED,
    )  # fmt: skip
