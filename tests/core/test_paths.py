"""The paths on which money or an event could get lost: cancels in flight, late and doubled answers, expiries, refunds.

given | when | then, as in test_decide_table.py. A long row goes on in an indented line.
"""

import pytest
from rigs.histories import given, outcome

from payment_service.core.payment import ATTEMPTS_MAX, CLOSING_ATTEMPTS, REFUNDS_MAX, status_of
from payment_service.core.terms import Status

BEGINNINGS = {
    "SENT": "created, charge, object",
    "ACTION": "created, charge, object, action",
    "PAID": "created, charge, object, approved",
    "HOLD": "created manual, charge, object",
    "HELD": "created manual, charge, object, approved",
}
TABLE = """
# cancelled before it was created
order-cancel, order charge | charge | INVALID_STATE
order-cancel, order | created | INVALID_STATE
order-cancel, order | order-cancel | nothing

# the order says otherwise
created | order amount=500 user=u2 | OrderConfirmed(u2 500 changed)>created
created, charge, declined | order amount=500 | ReviewFlagged(ORDER_MISMATCH)
created, charge, declined, order amount=500 | order amount=500 | nothing
created, charge, declined, order amount=500 | charge | INVALID_STATE
created, charge, declined, order user=u2, clear | charge | AttemptStarted(#2 CHARGE 3000) = PROCESSING
created method=pmt_1 | order | OrderConfirmed(u1 3000 pmt_1)
created method=pmt_1 | order user=u2 | OrderConfirmed(u2 3000 changed)>created
created method=pmt_1, charge process, declined | order method=pmt_2 | OrderConfirmed(u1 3000 pmt_1)
created method=pmt_1, charge, declined | order method=pmt_2 | OrderConfirmed(u1 3000)
created user=u2 | created | PAYMENT_EXISTS
created user=u2 | created confirmed | OrderConfirmed(u1 3000 changed)>created
created user=u2, charge user=u2 | created confirmed | PAYMENT_EXISTS
created user=u2 confirmed | created confirmed | PAYMENT_EXISTS
created | created amount=500 | PAYMENT_EXISTS
created | created currency=USD | PAYMENT_EXISTS

# an order starts one charge in a payment's life
order charge | order charge | nothing
order charge, not-sent | order charge | nothing
created, charge, not-sent | order charge | OrderConfirmed(u1 3000)
created, cancel | order charge | OrderConfirmed(u1 3000)
created, cancel, created | order charge | OrderConfirmed(u1 3000), AttemptStarted(#1 CHARGE 3000 scheduled) = PROCESSING

# unconfirmed, in production
created | charge production | ORDER_UNCONFIRMED
ACTION | charge production | ORDER_UNCONFIRMED
created confirmed | charge production | AttemptStarted(#1 CHARGE 3000) = PROCESSING
created, order | charge production | AttemptStarted(#1 CHARGE 3000) = PROCESSING

# somebody else's payment
created | charge user=u2 | PAYMENT_NOT_FOUND
created | cancel user=u2 | PAYMENT_NOT_FOUND

# opened again after a shopper's cancel, never after the order's
SENT, declined, cancel, approved | created | Reopened>created = PENDING
SENT, declined, cancel, approved, created | charge | AttemptStarted(#3 CHARGE 3000) = PROCESSING
created, cancel, order-cancel | created | INVALID_STATE
created, charge, cancel, order-cancel | cancel | nothing
created, cancel | created amount=500 | PAYMENT_EXISTS

# a cancel in flight waits for the truth
SENT, cancel | approved | AttemptApproved(#1 3000)>processed, RefundRequested(#1 3000 scheduled CANCEL) = SUCCEEDED
SENT, unknown, order-cancel | approved | AttemptApproved(#1 3000)>processed,
    RefundRequested(#1 3000 scheduled CANCEL) = SUCCEEDED
SENT, cancel, approved, approved r#1 | declined r#1 | RefundFailed(#1)>refund_failed,
    ReviewFlagged(CANCEL_REFUND_FAILED) = SUCCEEDED
SENT, cancel, approved | declined r#1 | RefundFailed(#1)>refund_failed, ReviewFlagged(CANCEL_REFUND_FAILED)
SENT, cancel, approved, declined r#1 | declined #1 | Contradicted(attempt:1 APPROVED DECLINED)
HOLD, cancel | approved | AttemptApproved(#1 3000)>processed, AttemptStarted(#2 VOID 3000 scheduled CANCEL)
HOLD, cancel, approved | approved | AttemptApproved(#2 3000), PaymentCancelled>cancelled = CANCELLED
SENT, cancel | declined | AttemptDeclined(#1 DECLINED)>failed, AttemptStarted(#2 VOID 3000 scheduled CANCEL)
created, charge, cancel | declined | AttemptDeclined(#1 DECLINED)>failed, PaymentCancelled>cancelled = CANCELLED
created, charge, cancel | not-sent | AttemptNotSent(#1), PaymentCancelled>cancelled = CANCELLED
SENT, cancel, declined, approved | created | Reopened>created = PENDING
HELD, capture, cancel | approved | AttemptApproved(#2 3000)>processed,
    RefundRequested(#1 3000 scheduled CANCEL) = SUCCEEDED
HELD, capture, cancel | declined | AttemptDeclined(#2 DECLINED), AttemptStarted(#3 VOID 3000 scheduled CANCEL)
SENT, cancel | cancel | nothing
SENT, cancel | order-cancel | CancelRequested(final)
SENT, cancel | charge | nothing
created, charge, cancel | object | ObjectCreated(#1 pi_1)
created, charge, not-sent, cancel | object #1 | ObjectCreated(#1 pi_1),
    AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING

# a hold without a provider object is voided as well
created manual, charge, approved | cancel | CancelRequested, AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING

# the shopper would have to act for what is cancelled
SENT, cancel | action | ActionRequired(#1), AttemptStarted(#2 VOID 3000 scheduled CANCEL)
ACTION, cancel | approved #1 | AttemptApproved(#1 3000)>processed = SUCCEEDED
ACTION, cancel, approved #1 | declined #2 | AttemptDeclined(#2 DECLINED), RefundRequested(#1 3000 scheduled CANCEL)
ACTION, cancel, approved #1 | approved #2 | AttemptApproved(#2 3000), ReviewFlagged(VOIDED_AND_CAPTURED),
    RefundRequested(#1 3000 scheduled CANCEL)
ACTION, cancel, declined #2 | approved #1 | AttemptApproved(#1 3000)>processed,
    RefundRequested(#1 3000 scheduled CANCEL) = SUCCEEDED
ACTION, cancel, declined #2 | declined #1 | AttemptDeclined(#1 DECLINED)>failed,
    AttemptStarted(#3 VOID 3000 scheduled CANCEL) = PROCESSING
ACTION, cancel, declined #2, declined #1 | declined #3 | AttemptDeclined(#3 DECLINED),
    ReviewFlagged(CANCEL_VOID_FAILED) = FAILED
ACTION, cancel, not-sent #2 | cancel | AttemptStarted(#3 VOID 3000 scheduled CANCEL) = PROCESSING
HELD, cancel, declined | cancel | AttemptStarted(#3 VOID 3000 scheduled CANCEL) = PROCESSING
HELD, cancel, declined | capture | INVALID_STATE
ACTION, charge, cancel | not-sent | AttemptNotSent(#2), AttemptStarted(#3 VOID 3000 scheduled CANCEL)

# the action expired
ACTION | expire-action | AttemptStarted(#2 VOID 3000 scheduled ACTION_EXPIRED) = PROCESSING
ACTION, expire-action | cancel | CancelRequested
ACTION, expire-action, cancel | approved | AttemptApproved(#2 3000), PaymentCancelled>cancelled = CANCELLED
ACTION, expire-action, declined | declined #1 | AttemptDeclined(#1 DECLINED)>failed = FAILED
ACTION, expire-action, unknown | not-sent #2 by=operator | AttemptNotSent(#2)>requires_action = REQUIRES_ACTION
ACTION, expire-action, unknown | declined #2 | AttemptDeclined(#2 DECLINED)
ACTION, expire-action, approved | charge | AttemptStarted(#3 CHARGE 3000) = PROCESSING
HOLD, action, expire-action, approved #1 | approved #2 | AttemptApproved(#2 3000),
    PaymentCancelled>cancelled = CANCELLED
HOLD, action, expire-action, approved #1 | declined #2 | AttemptDeclined(#2 DECLINED)>processed = AUTHORIZED

# a charge that was never sent gives back the action it replaced
ACTION, charge | not-sent | AttemptNotSent(#2) = REQUIRES_ACTION
ACTION, charge, not-sent | expire-action #1 | AttemptStarted(#3 VOID 3000 scheduled ACTION_EXPIRED) = PROCESSING
ACTION, charge, not-sent, charge | not-sent | AttemptNotSent(#3) = REQUIRES_ACTION
ACTION, charge, action, expire-action | not-sent | AttemptNotSent(#3) = REQUIRES_ACTION
ACTION, charge, pending | not-sent #2 by=operator | AttemptNotSent(#2)>failed = PENDING
ACTION, charge, approved #1 | not-sent #2 | AttemptNotSent(#2)
ACTION, expire-action, not-sent, charge | approved #2 | Contradicted(attempt:2 NOT_SENT APPROVED),
    AttemptApproved(#2 3000)
ACTION, expire-action, not-sent, charge, approved #2 | not-sent #3 | AttemptNotSent(#3) = REQUIRES_ACTION
ACTION, charge, unknown | not-sent #2 by=operator | AttemptNotSent(#2)>requires_action = REQUIRES_ACTION
ACTION, charge, unknown | not-sent #2 | nothing
SENT, unknown | not-sent by=operator | AttemptNotSent(#1)>failed = PENDING
SENT, pending | not-sent by=operator | AttemptNotSent(#1) = PENDING
ACTION | not-sent by=operator | nothing

# nobody knows, and it is too late to send it again
created, charge | give-up | AttemptNotSent(#1) = PENDING
created, charge, unknown | give-up | AttemptNotSent(#1)>failed = PENDING
created, charge, unknown | not-sent | nothing
created, charge, order-cancel | give-up | AttemptNotSent(#1), PaymentCancelled(final)>cancelled = CANCELLED
SENT | give-up | AttemptStarted(#2 VOID 3000 scheduled GIVEN_UP)
SENT, unknown | give-up | AttemptStarted(#2 VOID 3000 scheduled GIVEN_UP) = PROCESSING
SENT, unknown, give-up | give-up #1 | nothing
SENT, unknown, give-up | approved | AttemptApproved(#2 3000), AttemptDeclined(#1 GIVEN_UP)>failed = FAILED
SENT, unknown, give-up, approved | charge | AttemptStarted(#3 CHARGE 3000) = PROCESSING
SENT, unknown, give-up, approved | approved #1 | Contradicted(attempt:1 DECLINED APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED
HOLD, unknown, give-up, approved | approved #1 | nothing
SENT, unknown, give-up | declined | AttemptDeclined(#2 DECLINED) = UNKNOWN
SENT, unknown, give-up, declined | give-up #1 | ReviewFlagged(GIVE_UP_FAILED)
SENT, unknown, give-up, declined, give-up #1 | give-up #1 | nothing
SENT, unknown, give-up, declined | approved #1 | AttemptApproved(#1 3000)>processed = SUCCEEDED
SENT, unknown, give-up | unknown | AttemptUnknown(#2)>unknown = UNKNOWN
SENT, unknown, give-up | approved #1 | AttemptApproved(#1 3000)>processed = SUCCEEDED
SENT, unknown, give-up | declined #1 | nothing
SENT, unknown, give-up | not-sent #2 by=operator | AttemptNotSent(#2) = UNKNOWN
SENT, unknown, give-up, order-cancel | approved | AttemptApproved(#2 3000),
    PaymentCancelled(final)>cancelled = CANCELLED
SENT, unknown, order-cancel | give-up | AttemptStarted(#2 VOID 3000 scheduled GIVEN_UP) = PROCESSING
SENT, pending | give-up | nothing
ACTION | give-up | nothing
ACTION, charge, unknown | give-up | AttemptStarted(#3 VOID 3000 scheduled GIVEN_UP) = PROCESSING
ACTION, charge, unknown, give-up | declined | AttemptDeclined(#3 DECLINED) = UNKNOWN
ACTION, charge, unknown, give-up | approved | AttemptApproved(#3 3000),
    AttemptDeclined(#2 GIVEN_UP)>failed = FAILED
HOLD, unknown, give-up, approved #1 | approved | AttemptApproved(#2 3000), PaymentCancelled>cancelled = CANCELLED
HELD, capture, unknown | give-up | nothing

# decided by a person
SENT, unknown | by-hand approved | DecidedByHand(attempt:1 APPROVED), AttemptApproved(#1 3000)>processed = SUCCEEDED
SENT, unknown | by-hand declined | DecidedByHand(attempt:1 DECLINED), AttemptDeclined(#1 DECLINED)>failed = FAILED
SENT, unknown | by-hand not-sent | DecidedByHand(attempt:1 NOT_SENT), AttemptNotSent(#1)>failed = PENDING
SENT, unknown, order-cancel | by-hand approved | DecidedByHand(attempt:1 APPROVED),
    AttemptApproved(#1 3000)>processed, RefundRequested(#1 3000 scheduled CANCEL) = SUCCEEDED
SENT, unknown, flag NO_ANSWER:attempt:1, flag ODD, by-hand declined | flag ODD | nothing
SENT, unknown, flag NO_ANSWER:attempt:1, by-hand declined | flag NO_ANSWER:attempt:1 |
    ReviewFlagged(NO_ANSWER:attempt:1)
SENT, declined | by-hand approved | INVALID_STATE
SENT, pending | by-hand approved amount=10 | DecidedByHand(attempt:1 APPROVED), AttemptApproved(#1 10)>processed,
    ReviewFlagged(AMOUNT_DIFFERS) = SUCCEEDED
ACTION | by-hand not-sent | INVALID_STATE
ACTION, cancel | by-hand declined #1 | INVALID_STATE
PAID, refund 1000, unknown r#1 | by-hand approved r#1 | DecidedByHand(refund:1 APPROVED),
    RefundCompleted(#1 1000)>refunded = PARTIALLY_REFUNDED
PAID, refund 1000, unknown r#1 | by-hand not-sent r#1 | DecidedByHand(refund:1 NOT_SENT), RefundNotSent(#1)
PAID, refund 1000, approved r#1 | by-hand declined r#1 | INVALID_STATE
PAID | by-hand declined r#1 | NOT_FOUND

# one object moves money once
ACTION, charge, approved #1 | approved #2 id=ch_1 | AttemptApproved(#2 3000 not-counted)
ACTION, charge, approved #1 | approved #2 id=none | AttemptApproved(#2 3000 not-counted)
ACTION, charge, approved #1 id=none | approved #2 | AttemptApproved(#2 3000 not-counted)
ACTION, charge, approved #1 | approved #2 | AttemptApproved(#2 3000), ReviewFlagged(CAPTURED_EXCEEDS)
ACTION, charge, approved #1 | declined #2 | AttemptDeclined(#2 DECLINED)
SENT, declined, charge, approved #2 | approved #1 id=ch_2 | Contradicted(attempt:1 DECLINED APPROVED),
    AttemptApproved(#1 3000 not-counted)
HOLD, action, charge, approved #1 | approved #2 id=ch_1 | AttemptApproved(#2 3000 not-counted)>processed = AUTHORIZED
HOLD, action, charge, approved #1 | approved #2 | AttemptApproved(#2 3000)>processed,
    ReviewFlagged(AUTHORIZED_EXCEEDS) = AUTHORIZED
HOLD, action, charge, approved #1, approved #2 | capture | AttemptStarted(#3 CAPTURE 3000) = PROCESSING
HOLD, action, charge, approved #1, approved #2 | capture 3001 | VALIDATION_ERROR
SENT, declined, cancel, approved, created, charge, object | approved #1 | Contradicted(attempt:1 DECLINED APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED
SENT, declined, cancel, approved, created, charge, object, approved #1 | action #3 | ActionRequired(#3),
    AttemptStarted(#4 VOID 3000 scheduled PAID_ALREADY)
SENT, declined, cancel, approved, created, charge, object, approved #1 | approved #3 | AttemptApproved(#3 3000),
    ReviewFlagged(CAPTURED_EXCEEDS)
SENT, declined, cancel, approved, created, charge, object | approved #2 id=none | nothing

# provider objects
SENT | object pi_1 | nothing
SENT | object pi_7 | ReviewFlagged(SECOND_OBJECT:pi_7)
SENT, object pi_7 | object pi_7 | nothing
SENT, declined, cancel, approved | object pi_1 #1 | nothing
SENT, declined, cancel, approved | object pi_7 #1 | ObjectCreated(#1 pi_7),
    AttemptStarted(#3 VOID 3000 scheduled CANCEL) = PROCESSING
PAID | object pi_7 #1 | ReviewFlagged(SECOND_OBJECT:pi_7)
HELD, capture | object pi_7 #2 | ReviewFlagged(SECOND_OBJECT:pi_7)
HELD, capture | action #2 | nothing
SENT, declined | charge object=pi_9 | INVALID_STATE
SENT, declined | charge object=pi_1 | AttemptStarted(#2 CHARGE 3000 pi_1) = PROCESSING
created | charge object=pi_9 | AttemptStarted(#1 CHARGE 3000 pi_9) = PROCESSING
SENT, declined gone, charge | object | ObjectCreated(#2 pi_2)
HELD, capture | declined gone | AttemptDeclined(#2 DECLINED object_closed), PaymentCancelled>cancelled = CANCELLED

# money that lands on a cancelled payment goes back
created, charge, not-sent, cancel | approved #1 | Contradicted(attempt:1 NOT_SENT APPROVED),
    AttemptApproved(#1 3000)>processed, RefundRequested(#1 3000 scheduled CANCEL) = SUCCEEDED
created, charge, not-sent, order-cancel | approved #1 | Contradicted(attempt:1 NOT_SENT APPROVED),
    AttemptApproved(#1 3000)>processed, RefundRequested(#1 3000 scheduled CANCEL) = SUCCEEDED
created manual, charge, not-sent, cancel | approved #1 | Contradicted(attempt:1 NOT_SENT APPROVED),
    AttemptApproved(#1 3000)>processed, AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
created manual, charge, not-sent, cancel, approved #1 | approved #2 | AttemptApproved(#2 3000)>cancelled = CANCELLED
SENT, declined, cancel | approved #1 | Contradicted(attempt:1 DECLINED APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED
SENT, declined, cancel, approved #1 | approved #2 | AttemptApproved(#2 3000), ReviewFlagged(VOIDED_AND_CAPTURED),
    RefundRequested(#1 3000 scheduled CANCEL)

# captures and expired holds
HELD | capture 1000 | AttemptStarted(#2 CAPTURE 1000) = PROCESSING
HELD, capture 1000, approved amount=1000 | capture | nothing
HELD | capture 3001 | VALIDATION_ERROR
HELD | capture 0 | VALIDATION_ERROR
HELD, capture | capture | nothing
HELD, capture | capture 1000 | INVALID_STATE
HELD, capture | expire-authorization | AuthorizationExpired
HELD, capture, expire-authorization | approved | AttemptApproved(#2 3000)>processed = SUCCEEDED
HELD, capture, expire-authorization | declined | AttemptDeclined(#2 DECLINED), PaymentCancelled>cancelled = CANCELLED
HELD, cancel | expire-authorization | AuthorizationExpired
HELD, cancel, expire-authorization | declined | AttemptDeclined(#2 DECLINED), PaymentCancelled>cancelled = CANCELLED
HELD, capture, unknown | declined | AttemptDeclined(#2 DECLINED)>processed = AUTHORIZED
HELD, expire-authorization | created | Reopened>created = PENDING
HELD, cancel, unknown | declined | AttemptDeclined(#2 DECLINED)>processed,
    ReviewFlagged(CANCEL_VOID_FAILED) = AUTHORIZED

# answers that differ from what was asked
SENT | approved amount=2000 | AttemptApproved(#1 2000)>processed, ReviewFlagged(AMOUNT_DIFFERS) = SUCCEEDED
SENT | approved amount=0 | AttemptApproved(#1 3000)>processed, ReviewFlagged(AMOUNT_DIFFERS) = SUCCEEDED
SENT | approved amount=9000 | AttemptApproved(#1 9000)>processed, ReviewFlagged(AMOUNT_DIFFERS),
    ReviewFlagged(CAPTURED_EXCEEDS) = SUCCEEDED
SENT | approved amount=2000 currency=USD | AttemptApproved(#1 3000)>processed, ReviewFlagged(CURRENCY_DIFFERS:2000 USD),
    ReviewFlagged(AMOUNT_DIFFERS) = SUCCEEDED
SENT | approved review=ACCOUNT_DIFFERS | AttemptApproved(#1 3000)>processed, ReviewFlagged(ACCOUNT_DIFFERS) = SUCCEEDED
PAID | approved review=ACCOUNT_DIFFERS | ReviewFlagged(ACCOUNT_DIFFERS)
PAID, declined | declined | nothing
PAID | approved #9 | NOT_FOUND

# refunds
PAID | refund | RefundRequested(#1 3000)
PAID, refund 1000 | refund 2001 | REFUND_EXCEEDS
PAID, refund 1000 | refund | RefundRequested(#2 2000)
PAID | refund 0 | REFUND_EXCEEDS
PAID | refund -5 | REFUND_EXCEEDS
PAID, refund 2000, declined r#1 | refund 3000 | RefundRequested(#2 3000)
PAID, refund 2000, not-sent r#1 | refund 3000 | RefundRequested(#2 3000)
PAID, refund 2000, unknown r#1 | refund 2000 | REFUND_EXCEEDS
PAID, refund, approved r#1 | declined r#1 | RefundFailed(#1)>refund_failed = SUCCEEDED
PAID, refund, approved r#1, declined r#1 | approved r#1 | Contradicted(refund:1 FAILED APPROVED)
PAID, refund, approved r#1, declined r#1, approved r#1 | approved r#1 | nothing
PAID, refund, approved r#1, declined r#1 | refund | RefundRequested(#2 3000)
PAID, refund 1000 | approved r#1 amount=900 | RefundCompleted(#1 900)>refunded,
    ReviewFlagged(AMOUNT_DIFFERS) = PARTIALLY_REFUNDED
PAID, refund 1000, pending r#1 | unknown r#1 | nothing
PAID, refund 1000 | not-sent r#1 by=operator | RefundNotSent(#1)
PAID, refund 1000, unknown r#1 | not-sent r#1 by=operator | RefundNotSent(#1)

# refunds made beside us
PAID | external 3001 re_9 | ExternalRefund(#1 3001 COMPLETED)>refunded, ReviewFlagged(REFUND_EXCEEDS) = REFUNDED
PAID, external 500 re_9 | external 500 re_9 | nothing
PAID, external 500 re_9 pending | external 500 re_9 | RefundCompleted(#1 500)>refunded = PARTIALLY_REFUNDED
PAID, external 500 re_9 pending | external 500 re_9 declined | RefundFailed(#1)>refund_failed
PAID | external 500 re_9 declined | nothing
PAID, refund 1000, approved r#1 | external 1000 re_1 | nothing
PAID, refund 1000, unknown r#1 | external 1000 re_1 | ExternalRefund(#2 1000 COMPLETED)>refunded = PARTIALLY_REFUNDED
PAID, refund 1000, unknown r#1, external 1000 re_1 | approved r#1 | RefundCompleted(#1 1000 not-counted)
PAID, refund 1000, unknown r#1, external 1000 re_1, approved r#1 | declined r#1 | RefundFailed(#1),
    RefundFailed(#2)>refund_failed = SUCCEEDED
PAID, refund 1000, unknown r#1, external 1000 re_1, approved r#1 | external 1000 re_1 declined | RefundFailed(#1),
    RefundFailed(#2)>refund_failed = SUCCEEDED
PAID, refund 1000, unknown r#1, external 1000 re_1, approved r#1 | refund 2000 | RefundRequested(#3 2000)

# disputes
PAID | dispute open 3000 | DisputeChanged(OPEN 3000)>disputed
PAID, dispute open 3000 | refund | REFUND_EXCEEDS
PAID, dispute open 3000, dispute won | refund | RefundRequested(#1 3000)
PAID, dispute open 3000 | dispute lost | DisputeChanged(LOST 3000)>disputed
PAID, dispute open 3000, dispute lost | dispute open 3000 | nothing
PAID, refund, approved r#1 | dispute open 3000 | DisputeChanged(OPEN 3000)>disputed, ReviewFlagged(DISPUTE_EXCEEDS)
PAID, dispute open 1000 | refund 2000 | RefundRequested(#1 2000)
SENT, cancel, approved, dispute open 3000, declined r#1 | dispute won | DisputeChanged(WON 3000)>disputed
"""
ROWS = [
    tuple(part.strip() for part in line.split("|"))
    for line in TABLE.replace("\n    ", " ").splitlines()
    if line and not line.startswith("#")
]


def expanded(history: str) -> str:
    first, comma, rest = history.partition(", ")
    return BEGINNINGS.get(first, first) + comma + rest


@pytest.mark.parametrize(("history", "when", "then"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_path(history: str, when: str, then: str) -> None:
    assert outcome(expanded(history), when) == then


def test_charges_stop_at_a_maximum_but_what_the_last_one_holds_can_still_be_taken_or_released() -> None:
    tried = ", ".join(["charge, declined"] * (ATTEMPTS_MAX - 1))
    held = f"created manual, {tried}, charge, approved"
    assert outcome(f"created, {tried}, charge, declined", "charge") == "INVALID_STATE"
    assert outcome(held, "capture") == f"AttemptStarted(#{ATTEMPTS_MAX + 1} CAPTURE 3000) = PROCESSING"
    assert outcome(held, "cancel").startswith("CancelRequested, AttemptStarted(")


def test_a_void_that_can_never_be_sent_is_not_started_for_ever() -> None:
    voids = ATTEMPTS_MAX + CLOSING_ATTEMPTS - 1
    stuck = "created, charge, object, action" + ", expire-action #1, not-sent" * voids
    assert outcome(stuck, "expire-action #1") == "ReviewFlagged(ACTION_VOID_FAILED)"
    assert outcome(f"{stuck}, expire-action #1", "expire-action #1") == "nothing"
    assert outcome(stuck, "order-cancel") == "CancelRequested(final), ReviewFlagged(CANCEL_VOID_FAILED)"
    assert status_of(given(stuck)) is Status.REQUIRES_ACTION


def test_refunds_stop_at_a_maximum_but_a_cancellation_still_gives_the_money_back() -> None:
    many = "created, charge, object, approved" + "".join(
        f", refund 1, approved r#{number}" for number in range(1, REFUNDS_MAX + 1)
    )
    assert outcome(many, "refund 1") == "INVALID_STATE"
    assert outcome(many, "order-cancel refund") == (
        f"CancelRequested(final), RefundRequested(#{REFUNDS_MAX + 1} {3000 - REFUNDS_MAX} scheduled CANCEL)"
    )


def test_a_payment_of_an_order_cancelled_first_is_nobodys_until_the_order_fills_it_in() -> None:
    early = given("order-cancel")
    assert (early.known, early.amount_minor, early.currency, early.sequence) == (False, 0, "", 0)
    filled = given("order-cancel, order")
    assert (filled.known, filled.amount_minor, filled.sequence, status_of(filled)) == (True, 3000, 2, Status.CANCELLED)


def test_late_news_of_an_older_provider_object_does_not_close_the_new_one() -> None:
    second = "created, charge, object, declined, cancel, approved, created, charge, object"
    payment = given(f"{second}, approved #1")
    assert (payment.object_id, payment.object_open, payment.captured) == ("pi_2", True, 3000)


def test_a_void_goes_to_the_provider_that_has_the_object() -> None:
    payment = given("created manual, charge, not-sent, cancel, created manual provider=paypal, cancel, approved #1")
    assert payment.provider == "paypal"
    assert payment.attempts[-1].kind == "VOID"
    assert payment.attempts[-1].provider == "mock"
