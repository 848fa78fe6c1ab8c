"""THE state machine, second half: which facts follow a command. Pure; `decide(payment, command) -> events`.

Room: core. No events: it is already so, nothing changes. `Refused`: a rule says no; final for this state.
A list is in the order in which the facts happened; every one but the last is applied before the next is decided.
"""

from typing import assert_never

from payment_service.core import commands as c
from payment_service.core import events as e
from payment_service.core.answers import decide_answer, decide_by_hand, decide_external_capture, decide_external_refund
from payment_service.core.errors import Refused
from payment_service.core.facts import apply
from payment_service.core.follow_up import (
    CANCEL_VOID_FAILED,
    cancel_follow_up,
    flag_once,
    give_up,
    may_void,
    provider_of_object,
    start_void,
)
from payment_service.core.payment import (
    ATTEMPTS_MAX,
    CLOSING_ATTEMPTS,
    REFUNDS_MAX,
    Attempt,
    Payment,
    attempt_in_the_way,
    attempt_of,
    moved_another_currency,
    refundable,
    status_of,
)
from payment_service.core.terms import (
    TAKES_MONEY,
    UNSETTLED,
    AttemptState,
    CaptureMethod,
    DisputeState,
    Kind,
    Status,
)

ORDER_MISMATCH = "ORDER_MISMATCH"
"""The order says another owner or amount than the one already tried to charge: no further charge."""


def decide(payment: Payment | None, command: c.Command) -> list[e.Event]:
    """The facts that follow. Raises Refused when a rule forbids it; the payment is then unchanged."""
    if payment is None:
        return _decide_first(command)
    owner = getattr(command, "owner", None)
    if owner is not None and owner != payment.user_id:
        raise not_found()
    if not payment.known and not (
        isinstance(command, c.CreatePayment) or (isinstance(command, c.Cancel) and command.by_order)
    ):
        raise not_found()
    match command:
        case c.CreatePayment():
            return _order_says(payment, command) if command.by_order else _create_again(payment, command)
        case c.StartCharge():
            return _start_charge(payment, command)
        case c.StartCapture():
            return _start_capture(payment, command)
        case c.Cancel():
            return _cancel(payment, command)
        case c.RequestRefund():
            return _request_refund(payment, command)
        case c.RecordObject() | c.RequireAction() | c.RecordAnswer() | c.ExpireAction() | c.GiveUp():
            return _decide_attempt(payment, command)
        case c.SendAgain():
            return []
        case c.DecideByHand():
            return decide_by_hand(payment, command)
        case c.ExpireAuthorization():
            return _expire_authorization(payment, command)
        case c.RecordExternalCapture():
            return decide_external_capture(payment, command)
        case c.RecordExternalRefund():
            return decide_external_refund(payment, command)
        case c.RecordDispute():
            return _record_dispute(payment, command)
        case c.FlagReview():
            return flag_once(payment, command.at_ms, command.reason, command.by)
        case c.ClearReview():
            return [e.ReviewCleared(command.at_ms, command.by, command.reason)] if payment.review else []
        case _:
            assert_never(command)


def _in_our_currency(payment: Payment) -> None:
    if moved_another_currency(payment):
        raise Refused("the provider moved another currency; a person looks at it", code="INVALID_STATE")


def not_found() -> Refused:
    """Also for somebody else's payment: its existence is nobody's business."""
    return Refused("no such payment", code="PAYMENT_NOT_FOUND")


# --- creation --------------------------------------------------------------------------------------------------


def _decide_first(command: c.Command) -> list[e.Event]:
    if isinstance(command, c.Cancel) and command.by_order:
        return [
            e.CancelledBeforeCreation(
                command.at_ms, command.by, command.order_id, command.user_id, command.provider, command.reason
            )
        ]
    if not isinstance(command, c.CreatePayment):
        raise not_found()
    created = e.PaymentCreated(
        command.at_ms, command.by, command.order_id, command.user_id, command.amount_minor, command.currency,
        command.provider, command.payment_method_id, command.capture_method, command.description,
        command.metadata, not (command.by_order or command.confirmed),
    )  # fmt: skip
    if not (command.by_order and command.charge):
        return [created]
    payment, _ = apply(None, created, command.payment_id)
    return [created, _attempt_started(payment, command, _charge_kind(payment), payment.amount_minor, scheduled=True)]


def _create_again(payment: Payment, command: c.CreatePayment) -> list[e.Event]:
    """The same order again, by REST: the same payment, or a conflict; after a shopper's cancel it opens again."""
    if not payment.known or payment.cancel_final:
        raise Refused("the order was cancelled", code="INVALID_STATE")
    differs = _differs(payment, command)
    # The order service has just said whose order it is: nobody keeps an order by having asked first.
    decides = payment.unconfirmed and command.confirmed and not payment.attempts
    if differs and not decides:
        if payment.user_id != command.user_id:
            raise Refused("the order has a payment already", code="PAYMENT_EXISTS")
        raise Refused("the order has a payment of another amount or currency", code="PAYMENT_EXISTS")
    events: list[e.Event] = []
    if payment.unconfirmed and command.confirmed:
        events.append(_confirmation(payment, command, changed=differs))
    if status_of(payment) is Status.CANCELLED:
        if payment.object_open and command.provider != provider_of_object(payment):
            # Its void was refused, or is not confirmed: the first provider may still take the money.
            raise Refused("another provider's object of this payment is not closed", code="INVALID_STATE")
        reopened = e.Reopened(
            command.at_ms, command.by, command.provider, command.payment_method_id, command.capture_method,
            command.description, command.metadata,
        )  # fmt: skip
        events.append(reopened)
    return events


def _differs(payment: Payment, command: c.CreatePayment) -> bool:
    ours = (payment.user_id, payment.amount_minor, payment.currency)
    return ours != (command.user_id, command.amount_minor, command.currency)


def _confirmation(payment: Payment, command: c.CreatePayment, *, changed: bool) -> e.OrderConfirmed:
    # Another owner's order is not paid with what somebody else left here, nor where they wanted it paid.
    same_owner = payment.user_id == command.user_id
    kept = payment.payment_method_id if same_owner else None
    method = payment.payment_method_id if payment.attempts else command.payment_method_id or kept
    return e.OrderConfirmed(
        command.at_ms,
        command.by,
        command.user_id,
        command.amount_minor,
        command.currency,
        payment.provider if payment.known and same_owner else command.provider,
        method,
        changed,
    )


def _order_says(payment: Payment, command: c.CreatePayment) -> list[e.Event]:
    """`order.created` decides owner, amount and currency as long as nothing was tried."""
    changed = not payment.known or _differs(payment, command)
    if changed and payment.attempts:
        return flag_once(payment, command.at_ms, ORDER_MISMATCH, command.by)
    events: list[e.Event] = []
    if changed or payment.unconfirmed:
        events.append(_confirmation(payment, command, changed=changed))
    if not payment.known:
        events.append(e.PaymentCancelled(command.at_ms, command.by, "cancelled before creation", final=True))
    elif command.charge and not (payment.attempts or payment.order_charged or payment.cancelled):
        for event in events:
            payment, _ = apply(payment, event)
        events.append(_attempt_started(payment, command, _charge_kind(payment), payment.amount_minor, scheduled=True))
    return events


# --- attempts --------------------------------------------------------------------------------------------------


def _charge_kind(payment: Payment) -> Kind:
    return Kind.AUTHORIZE if payment.capture_method is CaptureMethod.MANUAL else Kind.CHARGE


def _attempt_started(
    payment: Payment,
    command: c.CreatePayment | c.StartCharge | c.StartCapture,
    kind: Kind,
    amount_minor: int,
    *,
    scheduled: bool,
    object_id: str | None = None,
) -> e.AttemptStarted:
    attempts_max = ATTEMPTS_MAX if kind in TAKES_MONEY else ATTEMPTS_MAX + CLOSING_ATTEMPTS
    if len(payment.attempts) >= attempts_max:
        raise Refused(f"a payment has at most {attempts_max} attempts", code="INVALID_STATE")
    method = getattr(command, "payment_method_id", None)
    other = isinstance(command, c.StartCharge) and (command.has_method or command.object_id or command.approved)
    if method is None and not other:
        method = payment.payment_method_id  # nothing else pays: no one-time token, no object that was approved
    return e.AttemptStarted(
        command.at_ms, command.by, len(payment.attempts) + 1, kind, amount_minor, payment.provider,
        method if kind in TAKES_MONEY else None, scheduled, object_id=object_id,
    )  # fmt: skip


def _start_charge(payment: Payment, command: c.StartCharge) -> list[e.Event]:
    """`process` by state (contract §2)."""
    status = status_of(payment)
    match status:
        case Status.PENDING | Status.FAILED:
            if command.approved:
                return []  # late news of an approval starts no charge that nobody asks for any more
        case Status.REQUIRES_ACTION:
            if payment.authorization_open > 0 or not (command.has_method or command.approved):
                return []
        case Status.CANCELLED:
            raise Refused("the payment is cancelled", code="INVALID_STATE")
        case _:
            return []
    if payment.cancel_requested:
        raise Refused("the payment is being cancelled", code="INVALID_STATE")
    if ORDER_MISMATCH in payment.review:
        raise Refused("the order says another owner or amount; a person looks at it", code="INVALID_STATE")
    if payment.unconfirmed and command.require_confirmed:
        raise Refused("the order has not confirmed this payment yet", code="ORDER_UNCONFIRMED")
    if command.object_id is not None and payment.object_open and command.object_id != payment.object_id:
        raise Refused("another provider object of this payment can still be paid", code="INVALID_STATE")
    kind, amount = _charge_kind(payment), payment.amount_minor
    return [_attempt_started(payment, command, kind, amount, scheduled=False, object_id=command.object_id)]


def _last(payment: Payment, kind: Kind) -> Attempt | None:
    return next((a for a in reversed(payment.attempts) if a.kind is kind), None)


def _start_capture(payment: Payment, command: c.StartCapture) -> list[e.Event]:
    status, earlier = status_of(payment), _last(payment, Kind.CAPTURE)
    repeats = earlier is not None and command.amount_minor in (None, earlier.amount_minor)
    if status in (Status.SUCCEEDED, Status.PARTIALLY_REFUNDED, Status.REFUNDED) and repeats:
        return []
    if status in (Status.PROCESSING, Status.UNKNOWN) and repeats:
        open_attempt = attempt_in_the_way(payment)
        if open_attempt is not None and open_attempt.kind is Kind.CAPTURE:
            return []
    if status is not Status.AUTHORIZED:
        raise Refused(f"a payment that is {status} cannot be captured", code="INVALID_STATE")
    if payment.cancel_requested:
        raise Refused("the payment is being cancelled", code="INVALID_STATE")
    _in_our_currency(payment)
    # Two holds, or one that is larger than was asked for, are no reason to take more than the order costs.
    most = min(payment.authorization_open, payment.amount_minor)
    amount = most if command.amount_minor is None else command.amount_minor
    if not 0 < amount <= most:
        raise Refused(
            "not within what is authorized",
            code="VALIDATION_ERROR",
            fields={"amount": ["is not within what is authorized"]},
        )
    return [_attempt_started(payment, command, Kind.CAPTURE, amount, scheduled=False)]


def _decide_attempt(
    payment: Payment, command: c.RecordObject | c.RequireAction | c.RecordAnswer | c.ExpireAction | c.GiveUp
) -> list[e.Event]:
    if isinstance(command, c.RecordAnswer):
        return decide_answer(payment, command)
    if not 1 <= command.number <= len(payment.attempts):
        raise Refused("no such attempt", code="NOT_FOUND")
    attempt = attempt_of(payment, command.number)
    match command:
        case c.RecordObject():
            return _record_object(payment, command)
        case c.RequireAction():
            if attempt.state not in (AttemptState.OPEN, AttemptState.UNKNOWN) or attempt.kind not in TAKES_MONEY:
                return []
            required = e.ActionRequired(command.at_ms, command.number, command.action_type, command.expires_at_ms)
            # The shopper would have to act for a payment that was cancelled, or paid, meanwhile.
            return [required, *cancel_follow_up(apply(payment, required)[0], command.at_ms)]
        case c.ExpireAction():
            due = attempt.action_expires_at_ms
            if attempt.state is not AttemptState.ACTION or due is None or command.at_ms < due:
                return []
            if not may_void(payment):
                return flag_once(payment, command.at_ms, "ACTION_VOID_FAILED")
            return [start_void(payment, command.at_ms, "system", "ACTION_EXPIRED")]
        case c.GiveUp():
            return give_up(payment, command.at_ms, command.number)
        case _:
            assert_never(command)


def _record_object(payment: Payment, command: c.RecordObject) -> list[e.Event]:
    attempt = attempt_of(payment, command.number)
    if attempt.provider != payment.provider:
        return []  # made, too late, where the payment is not any more: nobody has its secret, so nobody pays it
    moved = attempt.kind not in TAKES_MONEY or attempt.state is AttemptState.APPROVED
    moved = moved or payment.captured > 0 or payment.authorization_open > 0
    known = payment.object_id == command.object_id
    taken_up = attempt.object_number > 0 or attempt.state not in UNSETTLED
    if known and (moved or taken_up or not payment.object_open):
        return []  # also when it was closed since: news that comes late does not open it again
    # Known, and not as this attempt's: an earlier one, given up meanwhile, has committed what both were given.
    if moved or (payment.object_open and not known):
        # Two objects for one payment could both be paid. A person needs the second one's id to cancel it.
        return flag_once(payment, command.at_ms, f"SECOND_OBJECT:{command.object_id}", "provider")
    created = e.ObjectCreated(command.at_ms, command.number, command.object_id)
    return [created, *cancel_follow_up(apply(payment, created)[0], command.at_ms)]


# --- cancel, refund, dispute -----------------------------------------------------------------------------------


def _cancel(payment: Payment, command: c.Cancel) -> list[e.Event]:
    final = command.by_order
    at_ms, by, reason = command.at_ms, command.by, command.reason
    status = status_of(payment)
    match status:
        case Status.CANCELLED:
            if final and not payment.cancel_final:
                return [e.PaymentCancelled(at_ms, by, reason, final=True, announced=False)]
            return []
        case Status.SUCCEEDED | Status.PARTIALLY_REFUNDED | Status.REFUNDED:
            if not final:
                raise Refused("money was taken: refund it", code="INVALID_STATE")
            amount = refundable(payment)
            if not command.refund_succeeded or amount == 0 or payment.cancel_requested:
                return []
            requested = e.CancelRequested(at_ms, by, reason, final=True)
            return [requested, *cancel_follow_up(apply(payment, requested)[0], at_ms)]
        case _:
            pass
    news: list[e.Event] = []
    if not payment.cancel_requested or (final and not payment.cancel_final):
        news.append(e.CancelRequested(at_ms, by, reason, final))
    if status in (Status.PROCESSING, Status.UNKNOWN):
        return news
    if status is Status.REQUIRES_ACTION or payment.object_open or payment.authorization_open > 0:
        # Asked again after a void that failed: it is tried again, since a person wants it.
        if not may_void(payment):
            return [*news, *flag_once(payment, at_ms, CANCEL_VOID_FAILED)]
        return [*news, start_void(payment, at_ms, by, "CANCEL")]
    return [e.PaymentCancelled(at_ms, by, reason, final)]


def _expire_authorization(payment: Payment, command: c.ExpireAuthorization) -> list[e.Event]:
    if payment.authorization_open == 0 or payment.captured > 0:
        return []
    return [e.AuthorizationExpired(command.at_ms, command.source)]


def _request_refund(payment: Payment, command: c.RequestRefund) -> list[e.Event]:
    """A refund without an idempotency key is always a new refund; the reserved amount alone bounds it."""
    if payment.captured == 0:
        raise Refused(f"a payment that is {status_of(payment)} cannot be refunded", code="INVALID_STATE")
    _in_our_currency(payment)
    left = refundable(payment)
    amount = left if command.amount_minor is None else command.amount_minor
    if not 0 < amount <= left:
        raise Refused("more than can be refunded", code="REFUND_EXCEEDS")
    if len(payment.refunds) >= REFUNDS_MAX:
        raise Refused(f"a payment has at most {REFUNDS_MAX} refunds", code="INVALID_STATE")
    return [
        e.RefundRequested(
            command.at_ms,
            command.by,
            len(payment.refunds) + 1,
            amount,
            command.reason,
            command.metadata,
            scheduled=False,
        )
    ]


def _record_dispute(payment: Payment, command: c.RecordDispute) -> list[e.Event]:
    known = next((d for d in payment.disputes if d.dispute_id == command.dispute_id), None)
    older = command.state is DisputeState.OPEN and not command.reopened
    if known is not None and (older or known.state is command.state):
        return []
    amount = command.amount_minor or (known.amount_minor if known is not None else 0)
    changed = e.DisputeChanged(command.at_ms, command.dispute_id, command.state, amount, command.reason, command.source)
    after, _ = apply(payment, changed)
    if after.disputed + after.refunded + after.refund_pending > after.captured:
        return [changed, *flag_once(payment, command.at_ms, "DISPUTE_EXCEEDS", "provider")]
    # Money that a won dispute brings back to a cancelled payment goes back to the shopper.
    return [changed, *cancel_follow_up(after, command.at_ms)]
