"""What a provider's news means for a payment: the command that follows, or why there is none yet.

Room: core. Pure. What may be done is decide.py's; here is found out which attempt or refund the news is about, and
whether it can be believed as it is:

- Nothing is applied that is not about a provider object (or a charge) of this payment. Who pays an object of their own
  that only names the payment, for one cent say, has paid nothing here.
- What is odd or contradicts what we know is asked for again first (`ask`); once it was asked, it is the truth.
- What comes before the news it follows (a refund before its charge) waits, for a while.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from payment_service.core import commands as c
from payment_service.core import events as e
from payment_service.core.facts import apply
from payment_service.core.payment import (
    CURRENCY_DIFFERS,
    Attempt,
    Payment,
    attempt_in_the_way,
    authorization_ended,
    refund_of,
    status_of,
)
from payment_service.core.ports import Answer
from payment_service.core.terms import (
    REFUND_OPEN,
    TAKES_MONEY,
    UNSETTLED,
    AttemptState,
    DisputeState,
    Kind,
    RefundStatus,
    Source,
    Status,
    Verdict,
)
from payment_service.core.webhooks import (
    Approved,
    AttemptNews,
    AuthorizationEnded,
    DisputeNews,
    MethodNews,
    News,
    Notice,
    RefundNews,
)

IN_FLIGHT_MS = 60_000
"""An attempt younger than this may be under way right now: a no that could be an earlier attempt's is not given to
it. Longer than a lease; after it the reconciler and this say the same."""
OBJECT_CANCELLED = "OBJECT_CANCELLED"
AMOUNT_DIFFERS = "AMOUNT_DIFFERS"


@dataclass(frozen=True, slots=True)
class Step:
    """Exactly one of these, or none: then the news changes nothing."""

    command: c.Command | None = None
    ask: str = ""
    """Ask the provider first, because of this."""
    wait: str = ""
    """Look again later, because of this."""
    fail: str = ""
    """It cannot be applied: flag the payment with this, a person looks."""


NOTHING = Step()


@dataclass(frozen=True, slots=True)
class Reading:
    """How a notice is read now."""

    at_ms: int
    command_id: str
    asked: bool = False
    """The provider was asked: this is the present truth."""
    patient: bool = True
    """False: it waited long enough for what should come before it."""


def object_number_of(payment: Payment, notice: Notice) -> int | None:
    """Which of the payment's provider objects the notice is about. None: none that the row alone knows of."""
    if notice.object_id is not None and notice.object_id == payment.object_id:
        return payment.object_number
    if notice.charge_id is not None:
        for attempt in payment.attempts:
            if attempt.provider_id == notice.charge_id:
                return attempt.object_number
    return None


def earlier_object_number(payment_id: str, events: Iterable[e.Event], object_id: str) -> int | None:
    """The same, of an object that another one has followed: only the history knows its id."""
    payment: Payment | None = None
    for event in events:
        payment, _ = apply(payment, event, payment_id)
        if payment.object_id == object_id:
            return payment.object_number
    return None


def is_of_its_provider(payment: Payment, provider: str) -> bool:
    return provider == payment.provider or any(attempt.provider == provider for attempt in payment.attempts)


def step_of(payment: Payment, object_number: int | None, notice: Notice, news: News, reading: Reading) -> Step:
    """What follows from one piece of news. `object_number` None: the object is none of this payment's, as yet."""
    if isinstance(news, MethodNews):
        return NOTHING  # about no payment
    if notice.review:  # another account or mode: never applied, whatever it says
        return Step(fail=notice.review[0]) if reading.asked else Step(ask=notice.review[0])
    if not is_of_its_provider(payment, notice.provider):
        return _odd(reading, "WEBHOOK_OF_ANOTHER_PROVIDER")
    if object_number is None:
        if not reading.asked:
            return Step(ask="OBJECT_UNKNOWN")
        return Step(wait="OBJECT_UNKNOWN") if reading.patient else Step(fail="WEBHOOK_OF_UNKNOWN_OBJECT")
    match news:
        case AttemptNews():
            return _attempt(payment, object_number, notice, news, reading)
        case RefundNews():
            return _refund(payment, news, reading)
        case DisputeNews():
            return _dispute(payment, news, reading)
        case Approved():
            return _approved(payment, object_number, reading)
        case AuthorizationEnded():
            return _ended(payment, object_number, reading)


def _odd(reading: Reading, reason: str) -> Step:
    return Step(fail=reason) if reading.asked else Step(ask=reason)


# --- attempts --------------------------------------------------------------------------------------------------


def _attempt(payment: Payment, object_number: int, notice: Notice, news: AttemptNews, reading: Reading) -> Step:
    verdict = news.answer.verdict
    if verdict in (Verdict.UNKNOWN, Verdict.NOT_SENT):
        return NOTHING if reading.asked else Step(ask="SAYS_NOTHING")
    on_object = [a for a in payment.attempts if a.object_number == object_number and a.provider == notice.provider]
    if news.kind is Kind.VOID:
        return _void(payment, on_object, news, reading)
    kind = _kind_here(on_object, news.kind)
    mine = [attempt for attempt in on_object if attempt.kind is kind]
    if verdict is Verdict.APPROVED and _is_by_others(mine, kind, notice, news.answer):
        return _moved_outside(payment, object_number, kind, notice, news.answer, reading)
    if not mine:
        return NOTHING
    attempt = _which(mine, news)
    named = attempt.number == news.number or len(mine) == 1
    if verdict is Verdict.PENDING:
        if attempt.state is AttemptState.ACTION and not reading.asked:
            return Step(ask="CONTRADICTS")  # old news would take away what the shopper has to do
        # What the shopper has to do is told by the call or the look-up; a webhook has no return address for it.
        return NOTHING if news.answer.next_action is not None else _answered(payment, attempt, news.answer, reading)
    if verdict is Verdict.DECLINED and not named:
        if not reading.asked:
            return Step(ask="WHICH_ATTEMPT")
        in_flight = attempt.state is AttemptState.OPEN and not attempt.accepted
        if in_flight and reading.at_ms - attempt.started_at_ms < IN_FLIGHT_MS:
            return Step(wait="IN_FLIGHT")
    if not reading.asked and _contradicts(payment, attempt, news.answer):
        return Step(ask="CONTRADICTS")
    return _answered(payment, attempt, _in_doubt(attempt, news.answer), reading)


def _is_by_others(mine: list[Attempt], kind: Kind, notice: Notice, answer: Answer) -> bool:
    """Nothing of ours waits for it, or has it: taken or held by somebody else's hand. A hold can be captured part by
    part there, each part with an id of its own."""
    if not mine:
        return True
    ids = {attempt.provider_id for attempt in mine if attempt.state is AttemptState.APPROVED}
    known = ids - {None, notice.object_id}  # an object's own id stands for an id that was not told
    waits = any(attempt.state in UNSETTLED for attempt in mine)
    return kind is Kind.CAPTURE and not waits and bool(known) and answer.provider_id not in known | {None}


def _moved_outside(
    payment: Payment, object_number: int, kind: Kind, notice: Notice, answer: Answer, reading: Reading
) -> Step:
    """A hold that was captured in the provider's dashboard is captured here too. Whatever else moved by itself is for a
    person, but for the hold that came before such a capture."""
    taken = [it for it in notice.news if isinstance(it, AttemptNews) and it.kind in (Kind.CHARGE, Kind.CAPTURE)]
    if kind is Kind.AUTHORIZE and any(it.answer.verdict is Verdict.APPROVED for it in taken):
        return NOTHING
    if not reading.asked:
        return Step(ask="MOVED_OUTSIDE")
    on_object = [a for a in payment.attempts if a.object_number == object_number and a.kind in TAKES_MONEY]
    # Of an object that a caller named, nobody has said yet that it is for this amount.
    named = any(a.adopted for a in on_object) and all(a.state is not AttemptState.APPROVED for a in on_object)
    if kind is not Kind.CAPTURE or named:
        return Step(fail="MOVED_OUTSIDE")
    if answer.amount_minor is None:
        return Step(fail="CAPTURE_WITHOUT_AMOUNT")
    if answer.currency not in (None, payment.currency):
        return Step(fail=CURRENCY_DIFFERS)
    return Step(
        c.RecordExternalCapture(
            payment.payment_id, reading.command_id, reading.at_ms, notice.provider, answer.provider_id,
            answer.amount_minor, object_number, Source.WEBHOOK,
        )
    )  # fmt: skip


def _in_doubt(attempt: Attempt, answer: Answer) -> Answer:
    """The provider says yes again, to another amount than it said before: nothing is counted twice, a person looks."""
    counted = attempt.state is AttemptState.APPROVED and attempt.kind in (Kind.CHARGE, Kind.CAPTURE)
    differs = attempt.moved_minor and answer.amount_minor not in (None, attempt.moved_minor)
    if not (counted and differs and answer.verdict is Verdict.APPROVED):
        return answer
    return replace(answer, review=tuple(dict.fromkeys((*answer.review, AMOUNT_DIFFERS))))


def _kind_here(attempts: list[Attempt], kind: Kind) -> Kind:
    """Money that is taken at once is a charge here and may be called a capture there, and the other way round."""
    held = any(attempt.kind is Kind.AUTHORIZE for attempt in attempts)
    if kind is Kind.CAPTURE and not held:
        return Kind.CHARGE
    if kind is Kind.CHARGE and held:
        return Kind.CAPTURE
    return kind


def _which(attempts: list[Attempt], news: AttemptNews) -> Attempt:
    """A yes is for the attempt that waits for it, whatever number the object carries. Where none waits it is heard
    again: of the one that it names, since a hold may be captured part by part."""
    waiting = [attempt for attempt in attempts if attempt.state in UNSETTLED]
    numbered = [attempt for attempt in attempts if attempt.number == news.number]
    same = [attempt for attempt in attempts if attempt.provider_id and attempt.provider_id == news.answer.provider_id]
    if news.answer.verdict is Verdict.APPROVED:
        approved = [attempt for attempt in attempts if attempt.state is AttemptState.APPROVED]
        heard = [attempt for attempt in same if attempt.state is AttemptState.APPROVED]
        return (waiting or heard or approved or numbered or attempts)[-1]
    return (numbered or same or waiting or attempts)[-1]


def _contradicts(payment: Payment, attempt: Attempt, answer: Answer) -> bool:
    if attempt.state not in UNSETTLED and attempt.state.value != answer.verdict.value:
        return True
    if answer.verdict is not Verdict.APPROVED:
        return False
    other_amount = answer.amount_minor is not None and answer.amount_minor != attempt.amount_minor
    return other_amount or answer.currency not in (None, payment.currency)


def _answered(payment: Payment, attempt: Attempt, answer: Answer, reading: Reading) -> Step:
    return Step(_record(payment, attempt.kind, attempt.number, answer, reading))


def _record(payment: Payment, kind: Kind, number: int, answer: Answer, reading: Reading) -> c.RecordAnswer:
    return c.RecordAnswer(
        payment.payment_id, reading.command_id, reading.at_ms, kind, number, answer.verdict, Source.WEBHOOK,
        answer.provider_id, answer.amount_minor, answer.currency, answer.code, answer.message, answer.decline_code,
        answer.review, answer.object_closed,
    )  # fmt: skip


def _void(payment: Payment, on_object: list[Attempt], news: AttemptNews, reading: Reading) -> Step:
    """Ours, or one that somebody made in the dashboard."""
    ours = [attempt for attempt in on_object if attempt.kind is Kind.VOID]
    if ours:
        attempt = _which(ours, news)
        if not reading.asked and _contradicts(payment, attempt, replace(news.answer, amount_minor=None)):
            return Step(ask="CONTRADICTS")
        return _answered(payment, attempt, news.answer, reading)
    if news.answer.verdict is not Verdict.APPROVED or not on_object:
        return NOTHING
    if not reading.asked:
        return Step(ask="CANCELLED_OUTSIDE")
    if payment.captured > 0 and any(a.kind in (Kind.CHARGE, Kind.CAPTURE) for a in on_object):
        return Step(fail="VOIDED_AND_CAPTURED")
    waiting = [a for a in on_object if a.kind in TAKES_MONEY and a.state in UNSETTLED]
    if waiting:
        closed = Answer(
            Verdict.DECLINED, code=OBJECT_CANCELLED, message="it was cancelled at the provider", object_closed=True
        )
        return _answered(payment, waiting[-1], closed, reading)
    if on_object[-1].object_number == payment.object_number and payment.authorization_open > 0:
        return Step(c.ExpireAuthorization(payment.payment_id, reading.command_id, reading.at_ms, Source.WEBHOOK))
    return NOTHING


# --- what follows a charge ---------------------------------------------------------------------------------------


def _too_early(payment: Payment, reading: Reading) -> Step | None:
    if payment.captured > 0:
        return None
    if not reading.asked:
        return Step(ask="BEFORE_ITS_CHARGE")
    return Step(wait="BEFORE_ITS_CHARGE") if reading.patient else None


def _refund(payment: Payment, news: RefundNews, reading: Reading) -> Step:
    answer = news.answer
    if answer.verdict in (Verdict.UNKNOWN, Verdict.NOT_SENT):
        return NOTHING if reading.asked else Step(ask="SAYS_NOTHING")
    known = next((r for r in payment.refunds if answer.provider_id and r.provider_id == answer.provider_id), None)
    if news.number is not None and 1 <= news.number <= len(payment.refunds):
        ours = refund_of(payment, news.number)
        if known is None and ours.provider_id is None and ours.by != "provider":
            known = ours
    if known is not None:
        if not reading.asked and _refund_contradicts(payment, known.status, known.amount_minor, answer):
            return Step(ask="CONTRADICTS")
        return Step(_record(payment, Kind.REFUND, known.number, answer, reading))
    # Made beside us. Older news of one that failed since would count it: the first is always asked for.
    if not reading.asked:
        return Step(ask="REFUNDED_OUTSIDE")
    if answer.verdict is Verdict.DECLINED or authorization_ended(payment):
        return NOTHING  # nothing moved: it failed, or a hold was let go, which is a refund to some providers
    if answer.provider_id is None or answer.amount_minor is None:
        return Step(fail="REFUND_WITHOUT_AMOUNT")
    if answer.currency not in (None, payment.currency):
        return Step(fail=CURRENCY_DIFFERS)
    maybe_ours = any(
        r.status in REFUND_OPEN and r.provider_id is None and r.amount_minor == answer.amount_minor
        for r in payment.refunds
    )
    if maybe_ours and reading.patient:
        return Step(wait="REFUND_IN_FLIGHT")
    refunded = c.RecordExternalRefund(
        payment.payment_id, reading.command_id, reading.at_ms, answer.provider_id, answer.amount_minor, answer.verdict,
        Source.WEBHOOK,
    )  # fmt: skip
    return _too_early(payment, reading) or Step(refunded)


def _refund_contradicts(payment: Payment, status: RefundStatus, amount_minor: int, answer: Answer) -> bool:
    if status is RefundStatus.COMPLETED and answer.verdict is Verdict.DECLINED:
        return True
    if answer.verdict is not Verdict.APPROVED:
        return False
    failed = status in (RefundStatus.FAILED, RefundStatus.CANCELLED)
    other = answer.amount_minor not in (None, amount_minor) or answer.currency not in (None, payment.currency)
    return failed or other


def _dispute(payment: Payment, news: DisputeNews, reading: Reading) -> Step:
    known = next((d for d in payment.disputes if d.dispute_id == news.dispute_id), None)
    reopened = known is not None and (known.state, news.state) == (DisputeState.WON, DisputeState.OPEN)
    ended = known is not None and known.state is not DisputeState.OPEN
    other = known is not None and news.state not in (known.state, DisputeState.OPEN)
    if ((ended and other) or reopened) and not reading.asked:
        return Step(ask="CONTRADICTS")
    if reopened and known is not None and reading.at_ms - known.updated_at_ms < IN_FLIGHT_MS:
        return Step(wait="IN_FLIGHT")  # the provider may have been asked before it was won
    same_currency = news.currency == payment.currency
    if not same_currency and not reading.asked:
        return Step(ask=CURRENCY_DIFFERS)
    amount = news.amount_minor if same_currency else 0  # the number would mean nothing here; the flag says so
    disputed = c.RecordDispute(
        payment.payment_id, reading.command_id, reading.at_ms, news.dispute_id, news.state, amount, news.reason,
        Source.WEBHOOK, reopened,
    )  # fmt: skip
    return _too_early(payment, reading) or Step(disputed)


def flags_of(payment: Payment, notice: Notice, news: News) -> list[str]:
    """What a person should look at beside what was applied."""
    if isinstance(news, DisputeNews) and news.currency != payment.currency:
        return [CURRENCY_DIFFERS]
    return []


# --- what the shopper or time did -----------------------------------------------------------------------------------


def _approved(payment: Payment, object_number: int, reading: Reading) -> Step:
    """Captured without the browser, if that is what the payment still waits for."""
    if object_number != payment.object_number or not payment.object_open:
        return NOTHING
    if status_of(payment) in (Status.PROCESSING, Status.UNKNOWN) and reading.patient:
        return Step(wait="IN_FLIGHT")  # the answer that says "the shopper has to act" is on its way
    if status_of(payment) is not Status.REQUIRES_ACTION or payment.cancel_requested:
        return NOTHING
    return Step(c.StartCharge(payment.payment_id, reading.command_id, reading.at_ms, "provider", approved=True))


def _ended(payment: Payment, object_number: int, reading: Reading) -> Step:
    if object_number != payment.object_number or payment.authorization_open == 0:
        return NOTHING
    under_way = attempt_in_the_way(payment)
    if under_way is not None:
        if not reading.asked:
            return Step(ask="CONTRADICTS")
        if reading.patient:
            return Step(wait="IN_FLIGHT")  # a capture that was faster decides
    return Step(c.ExpireAuthorization(payment.payment_id, reading.command_id, reading.at_ms, Source.WEBHOOK))
