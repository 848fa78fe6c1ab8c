"""What becomes of a call that may have been sent and was not answered: its worker died, or the answer was lost.

Room: core/use_cases. Awaits on ports only. Called with a claim, by whichever worker got it.

- Look first. A definite answer is recorded by the same verdict table as the live path's.
- There, and this was not done: within the window, and if it is still wanted, the same bytes go out again under the
  same key, so that the provider does it once. The window counts from when it may first have been sent: a shopper who
  left is not charged hours later.
- After that a charge's object is cancelled at the provider (`GiveUp`), and only that makes it a no. A void may be sent
  again at any time: it takes nobody's money. A capture or refund has no shopper who could have left: it is sent again
  as long as every provider keeps its key, unless money went back beside us meanwhile (a person may have made up for
  it). Later it is looked up, and never guessed.
- Without an object nothing can have been confirmed: confirming needs its committed id, and making it moves no money
  and has a key of its own. An object that was made and not committed is never paid: nobody got its secret.
- A shopper's time is only up when the provider still waits for them: what they did in time may not have been told.
- What stays open is looked up at growing intervals, for ever; at the end of the growth a person is asked.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from payment_service.core.commands import ExpireAction, GiveUp, SendAgain, StartCharge
from payment_service.core.errors import Refused
from payment_service.core.payment import Payment, Refund, attempt_of, is_unanswered, no_answer, refund_of, subject_of
from payment_service.core.ports import Answer, ClaimedCall, ProviderCall
from payment_service.core.terms import TAKES_MONEY, AttemptState, Kind, RefundStatus, Source, Verdict
from payment_service.core.use_cases.call_provider import OBJECT_GONE, Calling, is_open, is_wanted, unsent_id
from payment_service.core.use_cases.execute import Outcome

LOOKUP_DELAYS_S = (5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 86400.0)
"""Pauses between look-ups of one call (design §4); the last one repeats."""
KEYS_KEPT_S = 18_000.0
"""So long every provider does the same key once: Stripe keeps them for a day, PayPal for six hours and more."""
NO_ANSWER = "NO_ANSWER"
NOT_CONFIGURED = "PROVIDER_NOT_CONFIGURED"
NO_OBJECT = "NO_OBJECT"
"""Another provider object took its place while it was open, so that nobody here knows what to look up."""


class Next(StrEnum):
    """What to do about a call that the provider does not have."""

    SEND_AGAIN = "SEND_AGAIN"
    GIVE_UP = "GIVE_UP"
    WAIT = "WAIT"


def next_step(payment: Payment, call: ProviderCall, *, in_window: bool, key_kept: bool) -> Next:
    """`in_window`: it may first have been sent so recently that the shopper still waits. `key_kept`: that the provider
    still knows its key."""
    if call.kind is Kind.REFUND:
        refund = refund_of(payment, call.number)
        doubtful = refund.status in (RefundStatus.PENDING, RefundStatus.UNKNOWN)
        again = in_window or (key_kept and not _went_back_beside_us(payment, refund))
        return Next.SEND_AGAIN if doubtful and again else Next.WAIT
    if not is_unanswered(attempt_of(payment, call.number)):
        return Next.WAIT  # the provider has it, the shopper has to act, or a void in flight decides
    in_time = key_kept if call.kind is Kind.CAPTURE else in_window
    if call.kind is Kind.VOID or (in_time and is_wanted(payment, call)):
        return Next.SEND_AGAIN
    return Next.GIVE_UP if call.kind in TAKES_MONEY else Next.WAIT


def _went_back_beside_us(payment: Payment, refund: Refund) -> bool:
    """By the dashboard or the bank, since this refund was asked for."""
    return payment.disputed > 0 or any(
        it.by == "provider" and it.created_at_ms >= refund.created_at_ms for it in payment.refunds
    )


@dataclass(slots=True)
class Reconciler:
    calling: Calling
    resend_window_s: float
    unanswered: frozenset[str]
    """Codes of a look-up that did not reach the provider, or got no answer of its own: they say nothing about the
    call, so that nothing may follow from them."""

    async def reconcile(self, claim: ClaimedCall) -> Outcome | None:
        """None: somebody else settles it. Raises Unavailable: it comes back when its lease ends."""
        calling, call = self.calling, claim.call
        payment = await self._load(call)
        if not is_open(payment, call):
            return None
        overdue = False
        if call.kind is not Kind.REFUND:
            attempt = attempt_of(payment, call.number)
            due = attempt.action_expires_at_ms
            overdue = attempt.state is AttemptState.ACTION and due is not None and calling.clock.now_ms() >= due
            if call.kind in TAKES_MONEY and attempt.object_number == 0 and is_unanswered(attempt):
                return await self._from_the_start(claim, payment)
            if call.object_id is None and attempt.object_number == payment.object_number:
                call = replace(call, object_id=payment.object_id)
        if call.provider not in calling.providers or (call.object_id is None and call.kind is not Kind.REFUND):
            calling.alarm(NOT_CONFIGURED if call.provider not in calling.providers else NO_OBJECT, call)
            await self._later(claim, payment)
            return None
        if not await calling.leased(call, claim.claimed_at):
            return None
        answer = await calling.providers[call.provider].lookup(call)
        if overdue and answer.code not in self.unanswered and _waits_for_shopper(answer):
            await self._later(claim, payment)
            return await calling.execute(ExpireAction(call.payment_id, "", calling.clock.now_ms(), call.number))
        if answer.verdict not in (Verdict.UNKNOWN, Verdict.NOT_SENT):
            return await self._record(claim, call, answer, Source.LOOKUP)
        # That it is not there now says nothing about a request that is still on its way.
        answer = replace(answer, verdict=Verdict.UNKNOWN)
        if answer.code not in self.unanswered:
            return await self._not_done(claim, call, answer)
        return await self._record(claim, call, answer, Source.LOOKUP)

    async def _not_done(self, claim: ClaimedCall, call: ProviderCall, answer: Answer) -> Outcome | None:
        """The provider answered that it has not done it. What is wanted may have changed while it was asked."""
        calling = self.calling
        payment = await self._load(call)
        if not is_open(payment, call):
            return None
        key_kept = self._since_sent_s(claim) < KEYS_KEPT_S
        match next_step(payment, call, in_window=self._in_window(claim), key_kept=key_kept):
            case Next.SEND_AGAIN:
                if not (await self._still_open(call) and await calling.leased(call, claim.claimed_at)):
                    return None
                calling.metrics.count("calls_sent_again", provider=call.provider, kind=call.kind)
                again = await calling.providers[call.provider].send(call)
                return await self._record(claim, call, _at_most_unknown(again), Source.LIVE)
            case Next.GIVE_UP:
                outcome = await calling.tell(GiveUp(call.payment_id, "", calling.clock.now_ms(), call.number))
                if outcome.steps:
                    calling.metrics.count("calls_given_up", provider=call.provider, kind=call.kind)
                if is_open(outcome.payment, call):
                    await self._later(claim, outcome.payment)
                return outcome
            case Next.WAIT if answer.approved:
                return await self._take_approved(claim, call)
            case Next.WAIT:
                return await self._record(claim, call, answer, Source.LOOKUP)

    async def _take_approved(self, claim: ClaimedCall, call: ProviderCall) -> Outcome | None:
        """The shopper approved the object, and nobody told: the money is taken as the webhook would have it taken."""
        calling = self.calling
        command = StartCharge(call.payment_id, "", calling.clock.now_ms(), "provider", approved=True)
        try:
            outcome = await calling.tell(command)
        except Refused:  # cancelled, or a person looks at it
            outcome = None
        if outcome is None or not outcome.intents:
            await self._later(claim, await self._load(call))
            return outcome
        started = outcome.intents[0].call
        answer = await calling.call(started, outcome.claimed_at)
        return outcome if answer is None else await calling.record(started, answer)

    async def _from_the_start(self, claim: ClaimedCall, payment: Payment) -> Outcome | None:
        """No provider object was committed for it."""
        calling, call = self.calling, claim.call
        # A scheduled one has nobody who could have left: it was never sent, and its order waits for it.
        in_time = self._in_window(claim) or attempt_of(payment, call.number).scheduled
        if not (in_time and is_wanted(payment, call)):
            calling.metrics.count("calls_given_up", provider=call.provider, kind=call.kind)
            return await calling.tell(GiveUp(call.payment_id, "", calling.clock.now_ms(), call.number))
        if call.provider not in calling.providers:
            calling.alarm(NOT_CONFIGURED, call)
            await self._later(claim, payment)
            return None
        if not await self._still_open(call):
            return None
        calling.metrics.count("calls_sent_again", provider=call.provider, kind=call.kind)
        answer = await calling.call(call, claim.claimed_at)
        return None if answer is None else await self._record(claim, call, _at_most_unknown(answer), Source.LIVE)

    async def _still_open(self, call: ProviderCall) -> bool:
        """From here on nobody's word that it was not sent is heard; was it heard before, nothing is sent."""
        calling = self.calling
        await calling.tell(SendAgain(call.payment_id, unsent_id(call), calling.clock.now_ms()))
        return is_open(await self._load(call), call)

    def _in_window(self, claim: ClaimedCall) -> bool:
        return self._since_sent_s(claim) < self.resend_window_s

    def _since_sent_s(self, claim: ClaimedCall) -> float:
        """Since it may first have been sent."""
        return claim.sent_for_s + self.calling.clock.monotonic_s() - claim.claimed_at

    async def _load(self, call: ProviderCall) -> Payment:
        loaded = await self.calling.execute.store.load(call.payment_id)
        assert loaded.payment is not None, "an intent belongs to a payment"
        return loaded.payment

    async def _record(self, claim: ClaimedCall, call: ProviderCall, answer: Answer, source: Source) -> Outcome:
        outcome = await self.calling.record(call, answer, source)
        if is_open(outcome.payment, call):
            await self._later(claim, outcome.payment)
        return outcome

    async def _later(self, claim: ClaimedCall, payment: Payment) -> None:
        """When it is looked up again: not after the shopper's time is up, for then the object is cancelled."""
        calling, call = self.calling, claim.call
        delay = LOOKUP_DELAYS_S[min(claim.tries, len(LOOKUP_DELAYS_S) - 1)]
        if claim.due_in_s is not None:
            delay = claim.due_in_s  # somebody asked meanwhile: its own time stays as it was
        attempt = None if call.kind is Kind.REFUND else attempt_of(payment, call.number)
        due = attempt.action_expires_at_ms if attempt is not None and attempt.state is AttemptState.ACTION else None
        now_ms = calling.clock.now_ms()
        if due is not None and due > now_ms:
            delay = min(delay, (due - now_ms) / 1000)
        if claim.tries >= len(LOOKUP_DELAYS_S) and claim.due_in_s is None:
            calling.alarm(NO_ANSWER, call)
            await calling.flag(call, no_answer(subject_of(call.kind, call.number)))
        await calling.queue.reschedule(call.key, calling.worker_id, delay, sent=True)


def _waits_for_shopper(answer: Answer) -> bool:
    """Asked before the shopper's time is called up: they may have acted in time, and nobody told us."""
    if answer.approved:
        return False
    return answer.verdict is Verdict.UNKNOWN or (answer.verdict is Verdict.PENDING and answer.next_action is not None)


def _at_most_unknown(answer: Answer) -> Answer:
    """That this request did not arrive, or that its object is not there now, says nothing about an earlier one with the
    same key: our credentials may be another account's by now."""
    if answer.code == OBJECT_GONE:
        return replace(answer, verdict=Verdict.UNKNOWN, review=(*answer.review, OBJECT_GONE))
    return replace(answer, verdict=Verdict.UNKNOWN) if answer.verdict is Verdict.NOT_SENT else answer
