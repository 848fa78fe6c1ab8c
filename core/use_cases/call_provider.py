"""One provider call, from the lease to its recorded answer: what a call of ours now and a later one share.

Room: core/use_cases. Awaits on ports only. The intent was committed before; the lease is checked again right before
each request; nothing is called inside a transaction.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from payment_service.core.commands import Command, FlagReview, RecordAnswer, RecordObject, RequireAction
from payment_service.core.errors import PaymentError, Refused, Unavailable
from payment_service.core.events import ObjectCreated
from payment_service.core.payment import Payment, attempt_of, refund_of
from payment_service.core.payment_method import METHOD_GONE
from payment_service.core.ports import Answer, CallQueue, Clock, Metrics, Provider, ProviderCall
from payment_service.core.terms import REFUND_OPEN, TAKES_MONEY, UNSETTLED, Kind, Source, Verdict
from payment_service.core.use_cases.execute import Execute, Outcome
from payment_service.core.use_cases.provider_calls import CallContext

ResultT = TypeVar("ResultT")

RECORD_DELAY_S_MAX = 5.0
"""Longest pause between two tries to record an answer. There is no last try: an answer is never given up."""
CANCELLED = "CANCELLED"
SECOND_OBJECT = "SECOND_OBJECT"
"""Why a call was not made although the provider object was: final, unlike a provider that was out of reach."""
KEY_REFUSED = "PROVIDER_KEY_REFUSED"
"""NOT_SENT: it looked at our credentials and at nothing else (401, 403). No call gets through until that is mended."""
OBJECT_GONE = "OBJECT_GONE"
"""DECLINED and closed: the provider does not know the object that was to be paid; of a call that is sent again, that
says nothing about the time before (reconcile.py)."""


@dataclass(slots=True)
class Calling:
    """How this worker calls providers."""

    execute: Execute
    queue: CallQueue
    providers: Mapping[str, Provider]
    clock: Clock
    metrics: Metrics
    worker_id: str
    lease_s: float
    deadline_s: float
    """Longest time one request may take; shorter than the lease."""
    action_ttl_ms: int
    on_alarm: Callable[[str, str], None]
    """Hears why a person should look at which call, by its key. Never raises, never waits."""

    async def call(self, call: ProviderCall, claimed_at: float) -> Answer | None:
        """The provider object first if there is none, with a commit of its id between, then the call itself.

        That commit is also the fence: of two workers that are here with one call (one was stopped for longer than its
        lease) only the one that commits the object knows that nothing was sent on it before. None: the lease was
        lost, or somebody settled it: nothing is to be recorded from here.
        """
        if call.kind in TAKES_MONEY and call.payment_method_id is not None and call.method_token is None:
            return Answer(
                Verdict.DECLINED, code=METHOD_GONE, message="the saved payment method cannot be used",
                object_closed=call.adopted,  # nobody has looked whose it is
            )  # fmt: skip
        provider = self.providers[call.provider]
        if call.kind in TAKES_MONEY and call.object_id is None:
            if not await self.leased(call, claimed_at):
                return None
            made = await provider.create_object(call)
            if made.verdict is not Verdict.APPROVED or made.object_id is None:
                return made
            made_id = f"{call.key}:made:{made.object_id}"  # another object, or of another attempt, is other news
            outcome = await self.tell(
                RecordObject(call.payment_id, made_id, self.clock.now_ms(), call.number, made.object_id)
            )
            payment = outcome.payment
            if not is_open(payment, call):
                return None  # somebody settled it meanwhile: what the world was told stays true
            first = any(isinstance(event, ObjectCreated) for event in outcome.events)
            alone = first or attempt_of(payment, call.number).object_number == 0
            unsent = Verdict.NOT_SENT if alone else Verdict.UNKNOWN
            if payment.object_id != made.object_id:
                self.alarm(SECOND_OBJECT, call)
                return Answer(unsent, code=SECOND_OBJECT)
            if not is_wanted(payment, call):
                return Answer(unsent, code=CANCELLED)
            if made.next_action is not None:
                return replace(made, verdict=Verdict.PENDING)
            call = replace(call, object_id=made.object_id)
        if not await self.leased(call, claimed_at):
            return None
        return await provider.send(call)

    async def leased(self, call: ProviderCall, claimed_at: float) -> bool:
        """Right before the socket: is there time for a whole request within the lease? Else ask for more."""
        asked_at = self.clock.monotonic_s()
        if asked_at + self.deadline_s < claimed_at + self.lease_s:
            return True
        try:
            renewed = await self.queue.renew(call.key, self.worker_id, self.lease_s)
        except Unavailable:
            return False
        # The new lease runs since before the answer, which may have been long in coming.
        return renewed and self.clock.monotonic_s() + self.deadline_s < asked_at + self.lease_s

    async def record(self, call: ProviderCall, answer: Answer, source: Source = Source.LIVE) -> Outcome:
        now = self.clock.now_ms()
        self.metrics.count("payment_attempts", provider=call.provider, kind=call.kind, verdict=answer.verdict)
        if answer.code == KEY_REFUSED:
            self.alarm(KEY_REFUSED, call)
        if answer.verdict is Verdict.PENDING and answer.next_action is not None and call.kind in TAKES_MONEY:
            return await self.tell(
                RequireAction(call.payment_id, "", now, call.number, answer.next_action.type, now + self.action_ttl_ms),
                CallContext(next_action=answer.next_action),
            )
        command_id = unsent_id(call) if answer.verdict is Verdict.NOT_SENT else ""
        said = RecordAnswer(
            call.payment_id, command_id, now, call.kind, call.number, answer.verdict, source, answer.provider_id,
            answer.amount_minor, answer.currency, answer.code, answer.message, answer.decline_code, answer.review,
            answer.object_closed,
        )  # fmt: skip
        return await self.tell(said)

    async def tell(self, command: Command, context: CallContext | None = None) -> Outcome:
        """A provider's answer is recorded, however long the database is away."""
        return await self.insist(lambda: self.execute(command, context), Refused)

    async def flag(self, call: ProviderCall, reason: str) -> Outcome:
        """A person should look. Said once in the payment's history."""
        return await self.tell(FlagReview(call.payment_id, "", self.clock.now_ms(), "system", reason))

    def alarm(self, reason: str, call: ProviderCall) -> None:
        self.metrics.count("payment_alarms", reason=reason)
        self.on_alarm(reason, call.key)

    async def insist(self, ask: Callable[[], Awaitable[ResultT]], *final: type[PaymentError]) -> ResultT:
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


def unsent_id(call: ProviderCall) -> str:
    """Of the word that a call was not sent, and of sending it again: whoever commits first excludes the other. Else a
    worker that was stopped, or had no database, for longer than its lease would free the amount of a refund that
    another one is sending just now, and it would be made twice."""
    return f"{call.key}:unsent"


def is_open(payment: Payment, call: ProviderCall) -> bool:
    if call.kind is Kind.REFUND:
        return refund_of(payment, call.number).status in REFUND_OPEN
    return attempt_of(payment, call.number).state in UNSETTLED


def is_wanted(payment: Payment, call: ProviderCall) -> bool:
    """False: nobody wants this call to be made any more: money would be taken, or captured, for a payment that is
    being cancelled, or a second time for one that a late yes has paid meanwhile."""
    stopped = payment.cancel_requested or payment.cancelled
    if call.kind in TAKES_MONEY:
        return not (stopped or payment.captured > 0 or payment.authorization_open > 0)
    return not (stopped and call.kind is Kind.CAPTURE)
