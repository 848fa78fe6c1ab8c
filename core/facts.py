"""THE state machine, how facts change a payment: `apply`, `fold`.

Room: core. `apply` never refuses: an event is a fact. Whether something may happen is decided in decide.py.
"""

from collections.abc import Iterable
from typing import Any, assert_never

from payment_service.core import events as e
from payment_service.core.imported import imported
from payment_service.core.payment import (
    Attempt,
    Dispute,
    Payment,
    attempt_in_the_way,
    attempt_of,
    is_about_open_object,
    no_answer,
    status_of,
)
from payment_service.core.records import replace
from payment_service.core.refund_facts import evolve_refunds, with_refund
from payment_service.core.terms import (
    IN_THE_WAY,
    TAKES_MONEY,
    AttemptState,
    CaptureMethod,
    DisputeState,
    Kind,
    Source,
    Status,
    Topic,
)
from payment_service.core.topics import topic_of


def _attempt(payment: Payment, number: int, **changes: Any) -> tuple[Attempt, ...]:
    return tuple(replace(a, **changes) if a.number == number else a for a in payment.attempts)


def _settle_displaced(payment: Payment, number: int, state: AttemptState, at_ms: int) -> Payment:
    """What attempt `number`, while it was in the way, makes of the one that it displaced."""
    displacing = attempt_in_the_way(payment)
    if displacing is None or displacing.number != number:
        return payment  # late news: somebody else holds the place now
    displaced = [a.number for a in payment.attempts if a.state is AttemptState.DISPLACED]
    if not displaced:
        return payment
    # Of several that were to confirm one object only the last can be in the way again.
    newest, older = displaced[-1:], AttemptState.SUPERSEDED if state in IN_THE_WAY else state
    attempts = tuple(
        replace(a, state=state if a.number in newest else older, updated_at_ms=at_ms) if a.number in displaced else a
        for a in payment.attempts
    )
    return replace(payment, attempts=attempts)


def _started(payment: Payment, event: e.AttemptStarted) -> Payment:
    earlier = tuple(
        replace(a, state=AttemptState.DISPLACED, updated_at_ms=event.at_ms) if a.state in IN_THE_WAY else a
        for a in payment.attempts
    )
    attempt = Attempt(
        event.number, event.kind, event.amount_minor, AttemptState.OPEN, event.provider, event.scheduled,
        event.at_ms, event.at_ms, event.payment_method_id, event.cause,
        object_number=payment.object_number if payment.object_open else 0,
    )  # fmt: skip
    method = event.payment_method_id if event.kind in TAKES_MONEY else payment.payment_method_id
    changed = replace(payment, attempts=(*earlier, attempt), payment_method_id=method)
    if event.by == "order" and event.kind in TAKES_MONEY:
        changed = replace(changed, order_charged=True)
    if event.object_id is not None:
        other = payment.object_id != event.object_id
        number = payment.object_number + other
        attempts = _attempt(changed, event.number, object_number=number, adopted=other)
        changed = replace(changed, attempts=attempts, object_id=event.object_id, object_number=number, object_open=True)
    return changed


def _approved(payment: Payment, event: e.AttemptApproved) -> Payment:
    attempt = attempt_of(payment, event.number)
    payment = _settle_displaced(payment, event.number, AttemptState.SUPERSEDED, event.at_ms)
    amount = event.amount_minor if event.counted else 0
    attempts = _attempt(
        payment, event.number, state=AttemptState.APPROVED, updated_at_ms=event.at_ms,
        provider_id=event.provider_id or attempt.provider_id,
        moved_minor=amount if attempt.kind in (Kind.CHARGE, Kind.CAPTURE) else 0,
    )  # fmt: skip
    changed = replace(payment, attempts=attempts)
    current = is_about_open_object(payment, attempt)
    match attempt.kind:
        case Kind.CHARGE:
            return replace(
                changed,
                authorized=payment.authorized + amount,
                captured=payment.captured + amount,
                object_open=payment.object_open and not current,
                processed_at_ms=event.at_ms,
            )
        case Kind.AUTHORIZE:
            return replace(
                changed,
                authorized=payment.authorized + amount,
                authorization_open=payment.authorization_open + amount,
                processed_at_ms=event.at_ms,
            )
        case Kind.CAPTURE:
            return replace(
                changed,
                captured=payment.captured + amount,
                authorization_open=0 if current else payment.authorization_open,
                object_open=payment.object_open and not current,
                processed_at_ms=event.at_ms,
            )
        case Kind.VOID:
            if not current:
                return changed
            return replace(changed, authorization_open=0, object_open=False)
        case Kind.REFUND:
            raise AssertionError("refunds are not attempts")
        case _:
            assert_never(attempt.kind)


def _external_capture(payment: Payment, event: e.ExternalCapture) -> Payment:
    """As if it had been asked for and answered in one moment."""
    asked = Attempt(
        event.number, Kind.CAPTURE, event.amount_minor, AttemptState.OPEN, event.provider, False,
        event.at_ms, event.at_ms, object_number=event.object_number,
    )  # fmt: skip
    taken = e.AttemptApproved(event.at_ms, event.number, event.source, event.provider_id, event.amount_minor)
    return _approved(replace(payment, attempts=(*payment.attempts, asked)), taken)


def _declined(payment: Payment, event: e.AttemptDeclined | e.AttemptNotSent) -> Payment:
    """A no. What was never sent gives the displaced attempt back: the shopper can still act on it. A void that was
    refused leaves it unknown (it may have been paid meanwhile); a charge that was refused has confirmed its object.
    """
    attempt = attempt_of(payment, event.number)
    at_ms, number = event.at_ms, event.number
    if isinstance(event, e.AttemptNotSent):
        before = AttemptState.UNKNOWN if attempt.cause == "GIVEN_UP" else AttemptState.ACTION
        payment = _settle_displaced(payment, number, before, at_ms)
        attempts = _attempt(payment, number, state=AttemptState.NOT_SENT, updated_at_ms=at_ms, code=event.code)
        return _let_go(replace(payment, attempts=attempts), attempt)
    left = AttemptState.UNKNOWN if attempt.kind is Kind.VOID else AttemptState.SUPERSEDED
    payment = _settle_displaced(payment, number, left, at_ms)
    attempts = _attempt(
        payment, number, state=AttemptState.DECLINED, updated_at_ms=at_ms, code=event.code, message=event.message,
        decline_code=event.decline_code, provider_id=event.provider_id or attempt.provider_id,
    )  # fmt: skip
    changed = replace(payment, attempts=attempts)
    if event.object_closed and is_about_open_object(payment, attempt):
        return replace(changed, object_open=False, authorization_open=0)
    return _let_go(changed, attempt) if event.source is Source.OPERATOR else changed


def _let_go(payment: Payment, attempt: Attempt) -> Payment:
    """Nobody has looked whose the object is that a caller named: it must neither pay nor be cancelled as ours. Named
    again, it is looked at again."""
    if not attempt.adopted or attempt.object_number != payment.object_number:
        return payment
    return replace(payment, object_id=None, object_open=False)


def _dispute(payment: Payment, event: e.DisputeChanged) -> Payment:
    known = {d.dispute_id: d for d in payment.disputes}
    opened = known[event.dispute_id].opened_at_ms if event.dispute_id in known else event.at_ms
    known[event.dispute_id] = Dispute(
        event.dispute_id, event.state, event.amount_minor, event.reason, opened, event.at_ms
    )
    disputed = sum(d.amount_minor for d in known.values() if d.state is not DisputeState.WON)
    return replace(payment, disputes=tuple(known.values()), disputed=disputed)


def _first(payment_id: str, event: e.FirstEvent) -> Payment:
    if isinstance(event, e.PaymentImported):
        return imported(payment_id, event)
    if isinstance(event, e.PaymentCreated):
        return Payment(
            payment_id, event.order_id, event.user_id, event.amount_minor, event.currency, event.provider,
            event.payment_method_id, event.capture_method, event.description, event.metadata,
            event.at_ms, event.at_ms, version=1, sequence=1, unconfirmed=event.unconfirmed, told=Status.PENDING,
        )  # fmt: skip
    return Payment(
        payment_id, event.order_id, event.user_id, 0, "", event.provider, None, CaptureMethod.AUTOMATIC,
        None, {}, event.at_ms, event.at_ms, version=1, known=False, cancelled=True, cancel_final=True,
    )  # fmt: skip


def _confirmed(payment: Payment, event: e.OrderConfirmed) -> Payment:
    if payment.user_id != event.user_id:  # what somebody else wrote about the order is not its owner's
        payment = replace(payment, capture_method=CaptureMethod.AUTOMATIC, description=None, metadata={})
    return replace(
        payment, user_id=event.user_id, amount_minor=event.amount_minor, currency=event.currency,
        provider=event.provider, payment_method_id=event.payment_method_id, unconfirmed=False, known=True,
    )  # fmt: skip


def _reopened(payment: Payment, event: e.Reopened) -> Payment:
    return replace(
        payment, provider=event.provider, payment_method_id=event.payment_method_id,
        capture_method=event.capture_method, description=event.description, metadata=event.metadata,
        cancelled=False, cancel_requested=False, payable_since=len(payment.attempts),
    )  # fmt: skip


def _evolve_attempts(payment: Payment, event: e.AttemptEvent) -> Payment:
    match event:
        case e.AttemptStarted():
            return _started(payment, event)
        case e.ObjectCreated():
            number = payment.object_number + (payment.object_id != event.object_id)
            attempts = _attempt(payment, event.number, object_number=number)
            return replace(
                payment, attempts=attempts, object_id=event.object_id, object_number=number, object_open=True
            )
        case e.ActionRequired():
            payment = _settle_displaced(payment, event.number, AttemptState.SUPERSEDED, event.at_ms)
            attempts = _attempt(
                payment, event.number, state=AttemptState.ACTION, updated_at_ms=event.at_ms,
                action_type=event.action_type, action_expires_at_ms=event.expires_at_ms,
            )  # fmt: skip
            return replace(payment, attempts=attempts)
        case e.AttemptPending():
            if attempt_of(payment, event.number).kind in TAKES_MONEY:
                payment = _settle_displaced(payment, event.number, AttemptState.SUPERSEDED, event.at_ms)
            attempts = _attempt(
                payment, event.number, state=AttemptState.OPEN, accepted=True, updated_at_ms=event.at_ms,
                provider_id=event.provider_id or attempt_of(payment, event.number).provider_id,
            )  # fmt: skip
            return replace(payment, attempts=attempts)
        case e.AttemptApproved():
            return _approved(payment, event)
        case e.AttemptDeclined() | e.AttemptNotSent():
            return _declined(payment, event)
        case e.AttemptUnknown():
            attempts = _attempt(
                payment, event.number, state=AttemptState.UNKNOWN, updated_at_ms=event.at_ms, code=event.code
            )
            return replace(payment, attempts=attempts)
        case e.ExternalCapture():
            return _external_capture(payment, event)
        case _:
            assert_never(event)


def _evolve_life(payment: Payment, event: e.LifeEvent) -> Payment:
    match event:
        case e.PaymentCreated() | e.CancelledBeforeCreation() | e.PaymentImported():
            raise AssertionError("a payment is created once")
        case e.OrderConfirmed():
            return _confirmed(payment, event)
        case e.Reopened():
            return _reopened(payment, event)
        case e.AuthorizationExpired():
            # A capture or void that is under way decides what became of the payment.
            ended = payment.cancelled or attempt_in_the_way(payment) is None
            return replace(payment, authorization_open=0, object_open=False, cancelled=ended)
        case e.CancelRequested():
            final = payment.cancel_final or event.final
            return replace(payment, cancel_requested=True, cancel_final=final)
        case e.PaymentCancelled():
            return replace(payment, cancelled=True, cancel_final=payment.cancel_final or event.final)
        case e.DisputeChanged():
            return _dispute(payment, event)
        case e.Contradicted():
            return _contradicted(payment, event)
        case e.DecidedByHand():
            answered = no_answer(event.subject)
            return replace(payment, review=tuple(reason for reason in payment.review if reason != answered))
        case e.ReviewFlagged():
            return replace(payment, review=_reviewed(payment, event.reason))
        case e.ReviewCleared():
            return replace(payment, review=())
        case _:
            assert_never(event)


def _contradicted(payment: Payment, event: e.Contradicted) -> Payment:
    """Remembered on its subject as well: the same contradiction told again is no news."""
    subject, _, number = event.subject.partition(":")
    changed = replace(payment, review=_reviewed(payment, "CONTRADICTED"))
    if subject == "refund":
        return replace(changed, refunds=with_refund(payment, int(number), contradicted_by=event.said))
    return replace(changed, attempts=_attempt(payment, int(number), contradicted_by=event.said))


def _evolve(payment: Payment, event: e.Event) -> Payment:
    if isinstance(event, e.AttemptEvent):
        return _evolve_attempts(payment, event)
    if isinstance(event, e.RefundEvent):
        return evolve_refunds(payment, event)
    return _evolve_life(payment, event)


def _reviewed(payment: Payment, reason: str) -> tuple[str, ...]:
    return payment.review if reason in payment.review else (*payment.review, reason)


def apply(payment: Payment | None, event: e.Event, payment_id: str = "") -> tuple[Payment, Topic | None]:
    """The payment after a fact, and the topic the fact is published to. Never refuses.

    `payment_id` is needed for the first event only.
    """
    if payment is None:
        assert isinstance(event, e.FirstEvent), "the first event creates"
        first = _first(payment_id, event)  # with its counters: a creation is by far the most frequent fact
        return first, topic_of(None, event, first)
    changed = _evolve(payment, event)
    topic = topic_of(payment, event, changed)
    counted = replace(
        changed,
        version=changed.version + 1,
        sequence=changed.sequence + (topic is not None),
        told=changed.told if topic is None else status_of(changed),
        updated_at_ms=max(changed.updated_at_ms, event.at_ms),
    )
    return counted, topic


def fold(payment_id: str, events: Iterable[e.Event]) -> Payment | None:
    """The payment that a history makes."""
    payment: Payment | None = None
    for event in events:
        payment, _ = apply(payment, event, payment_id)
    return payment
