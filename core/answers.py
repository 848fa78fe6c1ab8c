"""THE state machine, what a provider's answer means: five verdicts against every state, live, late or contradicting.

Room: core. Called by decide.py alone.
A repeated answer changes nothing. A timid one (PENDING, UNKNOWN) never takes back a definite one. A definite one
that contradicts a definite one is recorded (`Contradicted`) and alarmed: a late yes is money and counts, a late no
after a yes does not.
"""

from typing import assert_never

from payment_service.core import commands as c
from payment_service.core import events as e
from payment_service.core.errors import Refused
from payment_service.core.facts import apply
from payment_service.core.payment import (
    ATTEMPTS_MAX,
    Attempt,
    Payment,
    Refund,
    attempt_in_the_way,
    attempt_of,
    refund_of,
    refundable,
)
from payment_service.core.terms import (
    REFUND_OPEN,
    UNSETTLED,
    AttemptState,
    Kind,
    RefundStatus,
    Source,
    Verdict,
)


def decide_answer(payment: Payment, command: c.RecordAnswer) -> list[e.Event]:
    """The facts that follow an answer, and what a pending cancellation makes of them."""
    known = payment.refunds if command.kind is Kind.REFUND else payment.attempts
    if not 1 <= command.number <= len(known):
        raise Refused("no such attempt or refund", code="NOT_FOUND")
    if command.kind is Kind.REFUND:
        events = _refund_answer(payment, refund_of(payment, command.number), command)
    else:
        attempt = attempt_of(payment, command.number)
        if attempt.kind is not command.kind:
            raise Refused("the attempt is of another kind", code="NOT_FOUND")
        events = _attempt_answer(payment, attempt, command)
    if not events:
        return []
    events += [
        e.ReviewFlagged(command.at_ms, "provider", reason)
        for reason in _review_reasons(payment, command)
        if reason not in payment.review
    ]
    after = payment
    for event in events:
        after, _ = apply(after, event)
    return [*events, *cancel_follow_up(after, command.at_ms, answered=command)]


def _review_reasons(payment: Payment, command: c.RecordAnswer) -> list[str]:
    reasons = list(command.review)
    if command.verdict is not Verdict.APPROVED or command.kind is Kind.VOID:
        return reasons
    if command.currency is not None and command.currency != payment.currency:
        reasons.append("CURRENCY_DIFFERS")
    asked = (
        refund_of(payment, command.number) if command.kind is Kind.REFUND else attempt_of(payment, command.number)
    ).amount_minor
    if command.amount_minor is not None and command.amount_minor != asked:
        reasons.append("AMOUNT_DIFFERS")
    return reasons


def _moved(payment: Payment, command: c.RecordAnswer, asked: int) -> int:
    """What the provider says it moved. In another currency the number would mean nothing here: what was asked
    is taken, and the payment is flagged."""
    same_currency = command.currency is None or command.currency == payment.currency
    return command.amount_minor if command.amount_minor is not None and same_currency else asked


def _attempt_answer(payment: Payment, attempt: Attempt, command: c.RecordAnswer) -> list[e.Event]:
    if attempt.state not in UNSETTLED:
        return _late_answer(payment, attempt, command)
    at_ms, number, source, state = command.at_ms, attempt.number, command.source, attempt.state
    match command.verdict:
        case Verdict.APPROVED:
            return _approval(payment, attempt, command)
        case Verdict.DECLINED:
            if state is AttemptState.DISPLACED:
                return []  # the void in flight settles it
            return [_decline(attempt, command)]
        case Verdict.NOT_SENT:
            if state is AttemptState.OPEN and not attempt.accepted or source is Source.OPERATOR:
                return [e.AttemptNotSent(at_ms, number, source, command.code)]
            return []  # what may have been sent cannot become "not sent" by anybody's word but a person's
        case Verdict.PENDING:
            if state is AttemptState.DISPLACED or (state is AttemptState.OPEN and attempt.accepted):
                return []
            return [e.AttemptPending(at_ms, number, source, command.provider_id)]
        case Verdict.UNKNOWN:
            if state is not AttemptState.OPEN or attempt.accepted:
                return []
            return [e.AttemptUnknown(at_ms, number, source, command.code)]
        case _:
            assert_never(command.verdict)


def _decline(attempt: Attempt, command: c.RecordAnswer) -> e.AttemptDeclined:
    return e.AttemptDeclined(
        command.at_ms, attempt.number, command.source, command.code, command.message, command.decline_code,
        command.provider_id,
    )  # fmt: skip


def _approval(payment: Payment, attempt: Attempt, command: c.RecordAnswer) -> list[e.Event]:
    # One movement of money can be reported for two attempts that confirm the same object: count it once.
    counted = command.provider_id is None or not any(
        a.provider_id == command.provider_id and a.state is AttemptState.APPROVED and a.kind is attempt.kind
        for a in payment.attempts
    )
    approved = e.AttemptApproved(
        command.at_ms, attempt.number, command.source, command.provider_id,
        _moved(payment, command, attempt.amount_minor), counted,
    )  # fmt: skip
    if attempt.kind is not Kind.VOID or attempt.cause != "ACTION_EXPIRED" or payment.cancel_requested:
        return [approved]
    expired = [a for a in payment.attempts if a.state is AttemptState.DISPLACED]
    return [
        approved,
        *(
            e.AttemptDeclined(
                command.at_ms, a.number, command.source, "ACTION_EXPIRED", "the shopper did not act in time"
            )
            for a in expired
        ),
    ]


def _late_answer(payment: Payment, attempt: Attempt, command: c.RecordAnswer) -> list[e.Event]:
    """An answer for an attempt that was answered for good."""
    verdict, state = command.verdict, attempt.state
    if verdict not in (Verdict.APPROVED, Verdict.DECLINED) or state.value == verdict.value:
        return []
    if verdict is Verdict.DECLINED and state is not AttemptState.APPROVED:
        return []  # a no after "not sent" or after the object was cancelled: still no
    contradicted = e.Contradicted(
        command.at_ms, f"attempt:{attempt.number}", state.value, verdict.value, command.source
    )
    if verdict is Verdict.DECLINED:
        return [contradicted]
    if attempt.kind is Kind.VOID:
        return [contradicted] if payment.captured > 0 else [contradicted, *_approval(payment, attempt, command)]
    return [contradicted, *_approval(payment, attempt, command)]


def _refund_answer(payment: Payment, refund: Refund, command: c.RecordAnswer) -> list[e.Event]:
    at_ms, number, source = command.at_ms, refund.number, command.source
    is_open = refund.status in REFUND_OPEN
    match command.verdict:
        case Verdict.APPROVED:
            if refund.status is RefundStatus.COMPLETED:
                return []
            completed = e.RefundCompleted(
                at_ms, number, source, command.provider_id, _moved(payment, command, refund.amount_minor)
            )
            if is_open:
                return [completed]
            contradicted = e.Contradicted(at_ms, f"refund:{number}", refund.status.value, "APPROVED", source)
            return [contradicted] if refund.was_completed else [contradicted, completed]
        case Verdict.DECLINED:
            if refund.status in (RefundStatus.FAILED, RefundStatus.CANCELLED):
                return []
            return [e.RefundFailed(at_ms, number, source, command.code, command.message, command.provider_id)]
        case Verdict.NOT_SENT:
            if refund.status is RefundStatus.PENDING or (is_open and source is Source.OPERATOR):
                return [e.RefundNotSent(at_ms, number, source, command.code)]
            return []
        case Verdict.PENDING:
            if refund.status not in (RefundStatus.PENDING, RefundStatus.UNKNOWN):
                return []
            return [e.RefundPending(at_ms, number, source, command.provider_id)]
        case Verdict.UNKNOWN:
            if refund.status is not RefundStatus.PENDING:
                return []
            return [e.RefundUnknown(at_ms, number, source, command.code)]
        case _:
            assert_never(command.verdict)


def start_void(payment: Payment, at_ms: int, by: str, cause: str) -> e.AttemptStarted:
    """Cancel the provider object. Always scheduled: whoever asked need not wait, and it is retried until done."""
    amount = payment.authorization_open or payment.amount_minor
    return e.AttemptStarted(
        at_ms, by, len(payment.attempts) + 1, Kind.VOID, amount, payment.provider, None, True, cause
    )


def cancel_follow_up(payment: Payment, at_ms: int, answered: c.RecordAnswer | None = None) -> list[e.Event]:
    """What a wanted cancellation does now that the truth has landed: refund, void, or simply cancelled.

    Also for money that lands on a payment that was cancelled already. A void or refund of ours that failed is
    not repeated by itself: a person is asked, so that nothing loops.
    """
    if not (payment.cancel_requested or payment.cancelled) or attempt_in_the_way(payment) is not None:
        return []
    no = answered is not None and answered.verdict in (Verdict.DECLINED, Verdict.NOT_SENT)
    if answered is not None and answered.kind is Kind.REFUND:
        return _flag_once(payment, at_ms, "CANCEL_REFUND_FAILED") if no else []
    if payment.captured > 0:
        left = refundable(payment)
        if left == 0:
            return []
        number = len(payment.refunds) + 1
        return [e.RefundRequested(at_ms, "system", number, left, "the order was cancelled", {}, True, "CANCEL")]
    if payment.object_open or payment.authorization_open > 0:
        if len(payment.attempts) >= ATTEMPTS_MAX or (no and answered is not None and answered.kind is Kind.VOID):
            return _flag_once(payment, at_ms, "CANCEL_VOID_FAILED")
        return [start_void(payment, at_ms, "system", "CANCEL")]
    if payment.cancelled:
        return []
    return [e.PaymentCancelled(at_ms, "system", "cancelled as requested", payment.cancel_final)]


def _flag_once(payment: Payment, at_ms: int, reason: str) -> list[e.Event]:
    return [] if reason in payment.review else [e.ReviewFlagged(at_ms, "system", reason)]


def decide_external_refund(payment: Payment, command: c.RecordExternalRefund) -> list[e.Event]:
    """A refund somebody made in the provider's dashboard. Known by its provider id, it is an answer like any."""
    known = next((r for r in payment.refunds if r.provider_id == command.provider_id), None)
    if known is not None:
        answer = c.RecordAnswer(
            command.payment_id, command.command_id, command.at_ms, Kind.REFUND, known.number, command.verdict,
            command.source, command.provider_id, command.amount_minor,
        )  # fmt: skip
        return decide_answer(payment, answer)
    if command.verdict not in (Verdict.APPROVED, Verdict.PENDING):
        return []  # nothing moved, and nothing of ours was waiting for it
    status = RefundStatus.COMPLETED if command.verdict is Verdict.APPROVED else RefundStatus.PROCESSING
    refund = e.ExternalRefund(
        command.at_ms, len(payment.refunds) + 1, command.provider_id, command.amount_minor, status, command.source
    )
    after, _ = apply(payment, refund)
    if after.refunded + after.refund_pending > after.captured:
        return [refund, *_flag_once(payment, command.at_ms, "REFUND_EXCEEDS")]
    return [refund]
