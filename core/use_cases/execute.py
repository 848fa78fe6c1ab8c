"""The one room behind the four doors: lane -> load -> decide -> commit, and only then does anybody hear of it.

Room: core/use_cases. Awaits on ports only.

- A lane: in one process, commands of one payment run one after another. No lane is held while a provider is asked.
- A conflict (somebody else committed first) is loaded and decided again, a few rounds.
- A connection lost during the commit is resolved by inbox mark, or by the facts under their versions, before anyone is
  answered; what cannot be resolved in time is "unknown", never "nothing happened".
- A caller that is cancelled or goes away changes nothing: the command runs on in a task of ours.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextvars import Context, copy_context
from dataclasses import field, replace
from typing import Any

from payment_service.core.commands import Cancel, Command, CreatePayment
from payment_service.core.decide import decide
from payment_service.core.effects import CallProvider, call_of
from payment_service.core.errors import OutcomeUnknown, Unavailable
from payment_service.core.events import Event
from payment_service.core.facts import apply
from payment_service.core.frozen import dataclass
from payment_service.core.idempotency import Bound, RequestKey, bind, check, is_free
from payment_service.core.payment import Payment, attempt_in_the_way
from payment_service.core.ports import (
    NO_SECRETS,
    NOT_THERE,
    Change,
    Clock,
    Committed,
    Eventual,
    Intent,
    Loaded,
    PaymentStore,
    Secrets,
    Step,
)
from payment_service.core.terms import AttemptState
from payment_service.core.use_cases.provider_calls import NO_CONTEXT, CallContext, build_call

ROUNDS_MAX = 8
"""Conflicts in a row before the caller is told to come again."""
RESOLVE_S = 10.0
"""How long a commit with a lost connection is looked for before the answer is "unknown" (202)."""
RESOLVE_DELAY_S = 0.2
LANE_LENGTH_MAX = 1000
"""Commands of one payment that may wait in one process; more is refused as busy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one command did. `steps` is empty when it was already so, or done before."""

    payment: Payment
    secrets: Secrets
    steps: tuple[Step, ...]
    intents: tuple[Intent, ...] = ()
    claimed_at: float = 0.0
    """Monotonic seconds before the commit: the lease of an intent of ours ends no earlier than this plus its length."""
    bound: Bound | None = None
    """What the caller's key is bound to; None without a key."""
    again: bool = False
    """Bound by an earlier request with the same key: this command did nothing."""

    @property
    def events(self) -> tuple[Event, ...]:
        return tuple(step.event for step in self.steps)


@dataclass(slots=True)
class _Job:
    command: Command
    context: CallContext
    future: asyncio.Future[Outcome]
    where: Context = field(default_factory=copy_context)
    """Whoever asked for it, for logs and traces: one that waited in its lane is not started by who was before it."""
    change: Change | None = None
    claimed_at: float = 0.0
    lost: bool = False
    """A commit of `change` may have happened, or may happen yet: its statement may still run."""


@dataclass(slots=True)
class Execute:
    """Carries out commands. `await execute(command)` or, without a task of one's own, `execute.submit(command)`.

    Raises Refused (final), Unavailable (nothing happened), OutcomeUnknown (it may have been committed).
    """

    store: PaymentStore
    clock: Clock
    worker_id: str
    lease_s: float
    on_scheduled: Any = None
    """Called without arguments when an intent was committed that a runner should take."""
    _lanes: dict[str, deque[_Job]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __call__(self, command: Command, context: CallContext | None = None) -> Outcome:
        # No shield: a caller that is cancelled cancels its future, which nothing but the caller looks at.
        return await self.submit(command, context)

    def submit(self, command: Command, context: CallContext | None = None) -> asyncio.Future[Outcome]:
        """The outcome as a future. In the order of these calls, per payment."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        job = _Job(command, context or NO_CONTEXT, future)
        lane = self._lanes.get(command.payment_id)
        if lane is not None:
            if len(lane) >= LANE_LENGTH_MAX:
                future.set_exception(Unavailable("too many commands of one payment wait", code="SERVICE_UNAVAILABLE"))
            else:
                lane.append(job)
            return future
        self._lanes[command.payment_id] = deque([job])
        self._start(job)
        return future

    @property
    def busy(self) -> int:
        """Payments that have a command under way here."""
        return len(self._lanes)

    # --- one job ---------------------------------------------------------------------------------------------

    def _start(self, job: _Job) -> None:
        """A creation is almost always the first thing that happens to a payment: it is decided on "not there" at
        once, without a read and without a task. If that guess was wrong, the commit conflicts."""
        if isinstance(job.command, CreatePayment):
            try:
                submitted = self.store.submit(self._decide(job, NOT_THERE))
            except Exception as error:  # also a bug of ours: the lane must go on
                self._finish(job, error)
                return
            submitted.add_done_callback(lambda done: self._first_commit(job, done))
        else:
            self._spawn(job)

    def _first_commit(self, job: _Job, done: Eventual[Committed]) -> None:
        error = done.exception()
        committed = done.result() if error is None else None
        if committed is Committed.COMMITTED:
            self._finish(job, self._outcome(job))
        else:
            job.lost = committed is Committed.LOST
            self._spawn(job, error)

    def _spawn(self, job: _Job, failed: BaseException | None = None) -> None:
        task = asyncio.get_running_loop().create_task(self._run(job, failed), context=job.where)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _finish(self, job: _Job, result: Outcome | BaseException) -> None:
        lane = self._lanes[job.command.payment_id]
        lane.popleft()
        if lane:
            lane[0].where.run(self._start, lane[0])
        else:
            del self._lanes[job.command.payment_id]
        if not job.future.done():
            if isinstance(result, Outcome):
                job.future.set_result(result)
            else:
                job.future.set_exception(result)

    async def _run(self, job: _Job, failed: BaseException | None) -> None:
        try:
            if failed is not None:
                raise failed
            result: Outcome | BaseException = await self._until_committed(job)
        except BaseException as error:  # handed to the caller, whatever it is
            result = error
        self._finish(job, result)

    async def _until_committed(self, job: _Job) -> Outcome:
        command = job.command
        for _ in range(ROUNDS_MAX):
            loaded, happened = await self._load(job)
            if happened:
                assert loaded.payment is not None, "facts belong to a payment"
                return replace(self._outcome(job), payment=loaded.payment, secrets=loaded.secrets)
            before = _done_before(job, loaded)
            if before is not None:
                return before
            change = self._decide(job, loaded)
            if not change.steps and not (change.command_id and loaded.payment is not None):
                assert loaded.payment is not None, "without a payment there are facts or a refusal"
                return Outcome(loaded.payment, loaded.secrets, ())
            match await self._commit(job, change):
                case Committed.COMMITTED:
                    return self._outcome(job)
                case Committed.LOST:
                    job.lost = True
                case Committed.CONFLICT:
                    pass  # with `lost`: it may be our own earlier statement that was faster
        if job.lost:
            raise OutcomeUnknown("the connection broke during the commit")
        raise Unavailable(f"payment {command.payment_id} is busy", retry_after_s=1.0)

    async def _commit(self, job: _Job, change: Change) -> Committed:
        """After a lost connection "unavailable" no longer means that nothing happened: its statement may hold the
        very lock that is in our way."""
        try:
            return await self.store.submit(change)
        except Unavailable:
            if not job.lost:
                raise
            await asyncio.sleep(RESOLVE_DELAY_S)
            return Committed.LOST

    async def _load(self, job: _Job) -> tuple[Loaded, bool]:
        """And whether the commit that was lost did happen. The truth is waited for: an error here would hide it."""
        deadline = self.clock.monotonic_s() + RESOLVE_S
        while True:
            try:
                loaded = await self.store.load(job.command.payment_id, job.command.command_id)
                return loaded, job.lost and await self._happened(job, loaded)
            except Unavailable:
                if not job.lost:
                    raise
                if self.clock.monotonic_s() > deadline:
                    raise OutcomeUnknown("the connection broke during the commit") from None
            await asyncio.sleep(RESOLVE_DELAY_S)

    async def _happened(self, job: _Job, loaded: Loaded) -> bool:
        """Whether our very facts are there under their versions. If others' are, ours can never be: not lost any more.
        While nobody's are, the same is decided again, and its statement competes with the lost one for the version."""
        change, payment = job.change, loaded.payment
        if change is None or not change.steps or payment is None or payment.version < change.steps[0].version:
            return False
        ours = {step.version: step.event for step in change.steps}
        there = {it.version: it.event for it in await self.store.events(change.payment_id) if it.version in ours}
        job.lost = there == ours
        return job.lost

    # --- deciding --------------------------------------------------------------------------------------------

    def _decide(self, job: _Job, loaded: Loaded) -> Change:
        command, payment = job.command, loaded.payment
        steps: list[Step] = []
        calls: list[CallProvider] = []
        for event in decide(payment, command):
            payment, topic = apply(payment, event, command.payment_id)
            sequence = payment.sequence if topic is not None else None
            steps.append(Step(event, payment.version, sequence, topic, payment))
            call = call_of(event)
            if call is not None:
                calls.append(call)
        secrets = _secrets_after(loaded, job.context, payment) if steps else None
        if not job.lost:  # else the lease may run since that commit
            job.claimed_at = self.clock.monotonic_s()
        intents: tuple[Intent, ...] = ()
        if calls and payment is not None:
            sealed = secrets or loaded.secrets
            intents = tuple(
                Intent(
                    build_call(payment, call.kind, call.number, job.context, sealed),
                    None if call.scheduled else self.worker_id,
                    self.lease_s,
                )
                for call in calls
            )
        key = job.context.key
        bound = None if key is None else _bound(key, command, payment, steps, intents)
        patient = isinstance(command, CreatePayment | Cancel) and command.by_order
        job.change = Change(
            command.payment_id, command.command_id, loaded, tuple(steps), secrets, intents, bound, patient
        )
        return job.change

    def _outcome(self, job: _Job) -> Outcome:
        change = job.change
        assert change is not None
        if change.intents and self.on_scheduled is not None and any(it.owner is None for it in change.intents):
            self.on_scheduled()
        payment = change.steps[-1].after if change.steps else change.loaded.payment
        assert payment is not None
        secrets = change.loaded.secrets if change.secrets is None else change.secrets
        return Outcome(payment, secrets, change.steps, change.intents, job.claimed_at, change.bound)


def _done_before(job: _Job, loaded: Loaded) -> Outcome | None:
    """Of a command that was carried out before: it changes nothing again. Raises Refused and AnsweredBefore, as
    `check` does."""
    payment, bound = loaded.payment, loaded.bound
    if bound is not None:
        assert job.context.key is not None, "a command id that is made of a key comes with it"
        check(job.context.key, bound)
        assert payment is not None, "a key without an answer belongs to a payment"
        if is_free(bound, payment):
            return None
        return Outcome(payment, loaded.secrets, (), bound=bound, again=True)
    if not loaded.marked:
        return None
    assert payment is not None, "a mark belongs to a payment"
    return Outcome(payment, loaded.secrets, ())


def _bound(
    key: RequestKey, command: Command, payment: Payment | None, steps: Sequence[Step], intents: Sequence[Intent]
) -> Bound:
    """To what was started; to what is in the way, when nothing was: its answer is this request's too."""
    assert payment is not None, "without a payment there are facts or a refusal"
    if intents:
        return bind(key, payment, intents[0].call.kind, intents[0].call.number, made=False, waits=True)
    joined = attempt_in_the_way(payment)
    made = isinstance(command, CreatePayment) and bool(steps)
    kind, number = (None, 0) if joined is None else (joined.kind, joined.number)
    return bind(key, payment, kind, number, made=made, waits=False)


def _secrets_after(loaded: Loaded, context: CallContext, payment: Payment | None) -> Secrets | None:
    """What stays sealed beside the row; None when nothing changes. What is no longer needed is not kept."""
    assert payment is not None
    before = after = loaded.secrets
    if loaded.payment is not None and loaded.payment.user_id != payment.user_id:
        after = NO_SECRETS  # the order has another owner: nobody pays with what somebody else left here
    if context.stored_token is not None:
        after = replace(after, method_token=context.stored_token)
    if context.next_action is not None:
        after = replace(after, next_action=context.next_action)
    # An attempt that another one displaced is given back when that one was never sent: it can still be acted on.
    if after.next_action is not None and not any(
        a.state in (AttemptState.ACTION, AttemptState.DISPLACED) for a in payment.attempts
    ):
        after = replace(after, next_action=None)
    if payment.captured > 0 or payment.cancelled:
        after = NO_SECRETS
    return None if after is before or after == before else after
