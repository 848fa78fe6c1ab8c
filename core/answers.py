"""THE state machine, what a provider's answer means: five verdicts against every state, live, late or contradicting.

Room: core. Called by decide.py alone.
A repeated answer changes nothing. A timid one (PENDING, UNKNOWN) never takes back a definite one. A definite one
that contradicts a definite one is recorded (`Contradicted`) and alarmed: a late yes is money and counts, a late no
after a yes does not.
"""

from dataclasses import replace
from typing import assert_never

from payment_service.core import commands as c
from payment_service.core import events as e
from payment_service.core.errors import Refused
from payment_service.core.facts import apply
from payment_service.core.follow_up import GIVEN_UP, cancel_follow_up, flag_once
from payment_service.core.payment import (
    CURRENCY_DIFFERS,
    Attempt,
    Payment,
    Refund,
    attempt_of,
    refund_of,
    subject_of,
)
from payment_service.core.terms import (
    REFUND_OPEN,
    TAKES_MONEY,
    UNSETTLED,
    AttemptState,
    Kind,
    RefundStatus,
    Source,
    Verdict,
)

_ENDS_WITH_ITS_OBJECT = {
    "ACTION_EXPIRED": "the shopper did not act in time",
    GIVEN_UP: "the provider did not answer, and the payment was cancelled there",
}
"""Cause of a void -> what is said of the charge whose object it cancelled."""


def decide_by_hand(payment: Payment, command: c.DecideByHand) -> list[e.Event]:
    """What a person found out, with who and why. Raises Refused for what is not open, or cannot end like that: an
    attempt that waits for its shopper, or for the void or charge that displaced it, ends with that."""
    answer = command.answer
    known = payment.refunds if answer.kind is Kind.REFUND else payment.attempts
    if not 1 <= answer.number <= len(known):
        raise Refused("no such attempt or refund", code="NOT_FOUND")
    if answer.kind is Kind.REFUND:
        is_open = refund_of(payment, answer.number).status in REFUND_OPEN
    else:
        is_open = attempt_of(payment, answer.number).state in UNSETTLED
    if not is_open:
        raise Refused("it is not open: there is nothing to decide", code="INVALID_STATE")
    subject = subject_of(answer.kind, answer.number)
    decided = e.DecidedByHand(command.at_ms, command.by, subject, answer.verdict, command.reason)
    events = decide_answer(apply(payment, decided)[0], answer)
    if all(isinstance(event, e.ReviewFlagged) for event in events):
        raise Refused("it cannot end like that as it is now", code="INVALID_STATE")
    return [decided, *events]


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
        command = _as_it_counts(payment, attempt, command)
        events = _attempt_answer(payment, attempt, command)
    # A repeated answer changes nothing, but what its reader found odd about it is kept.
    reasons = _review_reasons(payment, command) if events else command.review
    flags: list[e.Event] = [
        e.ReviewFlagged(command.at_ms, "provider", reason) for reason in reasons if reason not in payment.review
    ]
    if not events:
        return flags
    after = payment
    for event in [*events, *flags]:
        after, _ = apply(after, event)
    if after.captured > max(payment.captured, payment.amount_minor):
        flags += flag_once(after, command.at_ms, "CAPTURED_EXCEEDS", by="provider")
    elif after.authorization_open > max(payment.authorization_open, payment.amount_minor):
        flags += flag_once(after, command.at_ms, "AUTHORIZED_EXCEEDS", by="provider")
    return [*events, *flags, *cancel_follow_up(after, command.at_ms, answered=command)]


def _as_it_counts(payment: Payment, attempt: Attempt, command: c.RecordAnswer) -> c.RecordAnswer:
    """Less than was asked pays nothing by itself where others may have had their hands in it: an object that a caller
    named may carry our id and be somebody's own, made and paid for a cent; one of ours may have been changed and taken
    by the page's script, which a webhook or a look-up tells. It is nobody's no either: a person looks first."""
    if command.verdict is not Verdict.APPROVED or command.source is Source.OPERATOR:
        return command
    theirs = attempt.adopted or command.source in (Source.WEBHOOK, Source.LOOKUP)
    if not theirs or command.kind not in TAKES_MONEY:
        return command
    other_currency = command.currency not in (None, payment.currency)
    less = command.amount_minor is not None and command.amount_minor < attempt.amount_minor
    if not (other_currency or less):
        return command
    reason = CURRENCY_DIFFERS if other_currency else "AMOUNT_DIFFERS"
    review = tuple(dict.fromkeys((*command.review, reason)))
    return replace(command, verdict=Verdict.UNKNOWN, code=reason, review=review)


def _review_reasons(payment: Payment, command: c.RecordAnswer) -> list[str]:
    reasons = list(command.review)
    if command.verdict is not Verdict.APPROVED:
        return reasons
    if command.kind is Kind.VOID:
        void = attempt_of(payment, command.number)
        if any(
            a.kind in (Kind.CHARGE, Kind.CAPTURE)
            and a.state is AttemptState.APPROVED
            and a.object_number == void.object_number
            for a in payment.attempts
        ):
            reasons.append("VOIDED_AND_CAPTURED")
        return reasons
    if command.currency is not None and command.currency != payment.currency:
        # What really moved, since the totals count what was asked.
        moved = f":{command.amount_minor} {command.currency}" if command.amount_minor else ""
        reasons.append(f"{CURRENCY_DIFFERS}{moved}")
    asked = (
        refund_of(payment, command.number) if command.kind is Kind.REFUND else attempt_of(payment, command.number)
    ).amount_minor
    if command.amount_minor is not None and command.amount_minor != asked:
        reasons.append("AMOUNT_DIFFERS")
    return reasons


def _moved(payment: Payment, command: c.RecordAnswer, asked: int) -> int:
    """What the provider says it moved. In another currency, or when it says yes to nothing, the number would mean
    nothing here: what was asked is taken, and the payment is flagged with what moved."""
    same_currency = command.currency is None or command.currency == payment.currency
    return command.amount_minor if command.amount_minor and same_currency else asked


def _attempt_answer(payment: Payment, attempt: Attempt, command: c.RecordAnswer) -> list[e.Event]:
    if attempt.state not in UNSETTLED:
        return _late_answer(payment, attempt, command)
    at_ms, number, source, state = command.at_ms, attempt.number, command.source, attempt.state
    match command.verdict:
        case Verdict.APPROVED:
            return _approval(payment, attempt, command)
        case Verdict.DECLINED:
            if state is AttemptState.DISPLACED:
                return []  # the void or charge in flight settles it
            return [_decline(attempt, command)]
        case Verdict.NOT_SENT:
            if state is AttemptState.OPEN and not attempt.accepted:
                return [e.AttemptNotSent(at_ms, number, source, command.code)]
            # What may have been sent cannot become "not sent" by anybody's word but a person's; what made the
            # provider ask for the shopper was sent, whoever says otherwise.
            by_hand = source is Source.OPERATOR and state in (AttemptState.OPEN, AttemptState.UNKNOWN)
            return [e.AttemptNotSent(at_ms, number, source, command.code)] if by_hand else []
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
        command.provider_id, command.object_closed,
    )  # fmt: skip


def _counts(payment: Payment, attempt: Attempt, command: c.RecordAnswer) -> bool:
    """One movement of money can be reported for two attempts that confirm the same object: count it once."""
    provider_id = command.provider_id or attempt.provider_id
    for other in payment.attempts:
        if other.number == attempt.number or other.kind is not attempt.kind or other.state is not AttemptState.APPROVED:
            continue
        if provider_id is not None and other.provider_id is not None:
            if provider_id == other.provider_id:
                return False
        elif attempt.object_number and attempt.object_number == other.object_number:
            return False  # an object moves money once; without both ids nothing says that it was twice
    return True


def _approval(payment: Payment, attempt: Attempt, command: c.RecordAnswer) -> list[e.Event]:
    approved = e.AttemptApproved(
        command.at_ms, attempt.number, command.source, command.provider_id,
        _moved(payment, command, attempt.amount_minor), _counts(payment, attempt, command),
    )  # fmt: skip
    late = attempt.state not in UNSETTLED
    said = _ENDS_WITH_ITS_OBJECT.get(attempt.cause or "")
    if late or attempt.kind is not Kind.VOID or said is None or attempt.cause is None or payment.cancel_requested:
        return [approved]
    ended = [a for a in payment.attempts if a.state is AttemptState.DISPLACED]
    return [
        approved,
        *(e.AttemptDeclined(command.at_ms, a.number, command.source, attempt.cause, said) for a in ended[-1:]),
    ]


def _late_answer(payment: Payment, attempt: Attempt, command: c.RecordAnswer) -> list[e.Event]:
    """An answer for an attempt that was answered for good."""
    verdict, state = command.verdict, attempt.state
    if verdict not in (Verdict.APPROVED, Verdict.DECLINED) or state.value == verdict.value:
        return []
    if verdict is Verdict.DECLINED and state is not AttemptState.APPROVED:
        return []  # a no after "not sent" or after the object was cancelled: still no
    if verdict is Verdict.APPROVED and _released(payment, attempt):
        return []  # the hold was placed before our void, which has let it go
    contradicted = e.Contradicted(
        command.at_ms, f"attempt:{attempt.number}", state.value, verdict.value, command.source
    )
    if verdict is Verdict.DECLINED or (attempt.kind is Kind.VOID and payment.captured > 0):
        return [] if attempt.contradicted_by == verdict.value else [contradicted]
    return [contradicted, *_approval(payment, attempt, command)]


def _released(payment: Payment, attempt: Attempt) -> bool:
    """A hold that ended as a no because the provider confirmed that its object is cancelled. Nothing comes after
    that at a provider, so a yes that is told later is older. Money that was taken is another thing: it counts."""
    return attempt.kind is Kind.AUTHORIZE and any(
        a.kind is Kind.VOID
        and a.state is AttemptState.APPROVED
        and a.cause == attempt.code
        and a.object_number == attempt.object_number > 0
        for a in payment.attempts
    )


def _refund_answer(payment: Payment, refund: Refund, command: c.RecordAnswer) -> list[e.Event]:
    at_ms, number, source = command.at_ms, refund.number, command.source
    is_open = refund.status in REFUND_OPEN
    match command.verdict:
        case Verdict.APPROVED:
            if refund.status is RefundStatus.COMPLETED:
                return []
            completed = e.RefundCompleted(
                at_ms, number, source, command.provider_id, _moved(payment, command, refund.amount_minor),
                counted=not _twins(payment, refund, command),
            )  # fmt: skip
            if is_open:
                return [completed]
            contradicted = e.Contradicted(at_ms, f"refund:{number}", refund.status.value, "APPROVED", source)
            if refund.was_completed:
                return [] if refund.contradicted_by == "APPROVED" else [contradicted]
            return [contradicted, completed]
        case Verdict.DECLINED:
            if refund.status in (RefundStatus.FAILED, RefundStatus.CANCELLED):
                return []
            return [
                e.RefundFailed(at_ms, failed, source, command.code, command.message, command.provider_id)
                for failed in (number, *_twins(payment, refund, command))
            ]
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


def _twins(payment: Payment, refund: Refund, command: c.RecordAnswer) -> list[int]:
    """Completed refunds that are the same movement of money: first heard of as made beside us, then as ours."""
    provider_id = command.provider_id or refund.provider_id
    return [
        r.number
        for r in payment.refunds
        if provider_id is not None
        and r.number != refund.number
        and r.provider_id == provider_id
        and r.status is RefundStatus.COMPLETED
    ]


def decide_external_capture(payment: Payment, command: c.RecordExternalCapture) -> list[e.Event]:
    """A hold that somebody captured in the provider's dashboard: money is money. Where a capture of ours waits for its
    answer, or is this one, it is that answer."""
    ours = [a for a in payment.attempts if a.kind is Kind.CAPTURE and a.object_number == command.object_number]
    same = [a for a in ours if a.state in UNSETTLED or a.provider_id == command.provider_id]
    if same:
        return decide_answer(
            payment,
            c.RecordAnswer(
                command.payment_id, command.command_id, command.at_ms, Kind.CAPTURE, same[-1].number, Verdict.APPROVED,
                command.source, command.provider_id, command.amount_minor,
            ),
        )  # fmt: skip
    captured = e.ExternalCapture(
        command.at_ms, len(payment.attempts) + 1, command.provider, command.provider_id, command.amount_minor,
        command.object_number, command.source,
    )  # fmt: skip
    after, _ = apply(payment, captured)
    flags: list[e.Event] = []
    if after.captured > min(payment.amount_minor, payment.authorized):
        flags = flag_once(after, command.at_ms, "CAPTURED_EXCEEDS", by="provider")
    return [captured, *flags, *cancel_follow_up(after, command.at_ms)]


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
        return [refund, *flag_once(payment, command.at_ms, "REFUND_EXCEEDS")]
    return [refund]
