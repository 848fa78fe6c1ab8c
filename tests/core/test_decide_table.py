"""The decision table: every public status x every command, read line by line.

given (a status and the history that leads to it) | when (a command) | then (facts, a refusal's code, or nothing).
The words are those of rigs/histories.py. A long row goes on in an indented line.
"""

from typing import get_args

import pytest
from rigs.histories import command_of, given, outcome

from payment_service.core.commands import Command
from payment_service.core.payment import status_of
from payment_service.core.terms import Status

HISTORIES = {
    "NOTHING": "",
    "BEFORE": "order-cancel",  # cancelled before it was created
    "PENDING": "created",
    "PROCESSING": "created, charge, object",
    "REQUIRES_ACTION": "created, charge, object, action",
    "AUTHORIZED": "created manual, charge, object, approved",
    "SUCCEEDED": "created, charge, object, approved",
    "FAILED": "created, charge, object, declined",
    "UNKNOWN": "created, charge, object, unknown",
    "CANCELLED": "created, cancel",
    "PARTIALLY_REFUNDED": "created, charge, object, approved, refund 1000, approved r#1",
    "REFUNDED": "created, charge, object, approved, refund, approved r#1",
}
TABLE = """
NOTHING             | created              | PaymentCreated(3000 unconfirmed)>created = PENDING
NOTHING             | order                | PaymentCreated(3000)>created = PENDING
NOTHING             | order charge         | PaymentCreated(3000)>created,
    AttemptStarted(#1 CHARGE 3000 scheduled) = PROCESSING
NOTHING             | charge               | PAYMENT_NOT_FOUND
NOTHING             | process              | PAYMENT_NOT_FOUND
NOTHING             | capture              | PAYMENT_NOT_FOUND
NOTHING             | cancel               | PAYMENT_NOT_FOUND
NOTHING             | order-cancel         | CancelledBeforeCreation = CANCELLED
NOTHING             | order-cancel refund  | CancelledBeforeCreation = CANCELLED
NOTHING             | refund 1000          | PAYMENT_NOT_FOUND
NOTHING             | object               | PAYMENT_NOT_FOUND
NOTHING             | action               | PAYMENT_NOT_FOUND
NOTHING             | approved             | PAYMENT_NOT_FOUND
NOTHING             | declined             | PAYMENT_NOT_FOUND
NOTHING             | expire-action        | PAYMENT_NOT_FOUND
NOTHING             | expire-authorization | PAYMENT_NOT_FOUND
NOTHING             | captured 500         | PAYMENT_NOT_FOUND
NOTHING             | external 500 re_9    | PAYMENT_NOT_FOUND
NOTHING             | dispute open 500     | PAYMENT_NOT_FOUND
NOTHING             | flag ODD             | PAYMENT_NOT_FOUND
NOTHING             | clear                | PAYMENT_NOT_FOUND
NOTHING             | give-up              | PAYMENT_NOT_FOUND
NOTHING             | send-again           | PAYMENT_NOT_FOUND
NOTHING             | by-hand approved     | PAYMENT_NOT_FOUND

BEFORE              | created              | INVALID_STATE
BEFORE              | order                | OrderConfirmed(u1 3000 changed)>created, PaymentCancelled(final)>cancelled
BEFORE              | order charge         | OrderConfirmed(u1 3000 changed)>created, PaymentCancelled(final)>cancelled
BEFORE              | charge               | PAYMENT_NOT_FOUND
BEFORE              | process              | PAYMENT_NOT_FOUND
BEFORE              | capture              | PAYMENT_NOT_FOUND
BEFORE              | cancel               | PAYMENT_NOT_FOUND
BEFORE              | order-cancel         | nothing
BEFORE              | order-cancel refund  | nothing
BEFORE              | refund 1000          | PAYMENT_NOT_FOUND
BEFORE              | object               | PAYMENT_NOT_FOUND
BEFORE              | action               | PAYMENT_NOT_FOUND
BEFORE              | approved             | PAYMENT_NOT_FOUND
BEFORE              | declined             | PAYMENT_NOT_FOUND
BEFORE              | expire-action        | PAYMENT_NOT_FOUND
BEFORE              | expire-authorization | PAYMENT_NOT_FOUND
BEFORE              | captured 500         | PAYMENT_NOT_FOUND
BEFORE              | external 500 re_9    | PAYMENT_NOT_FOUND
BEFORE              | dispute open 500     | PAYMENT_NOT_FOUND
BEFORE              | flag ODD             | PAYMENT_NOT_FOUND
BEFORE              | clear                | PAYMENT_NOT_FOUND
BEFORE              | give-up              | PAYMENT_NOT_FOUND
BEFORE              | send-again           | PAYMENT_NOT_FOUND
BEFORE              | by-hand approved     | PAYMENT_NOT_FOUND

PENDING             | created              | nothing
PENDING             | order                | OrderConfirmed(u1 3000)
PENDING             | order charge         | OrderConfirmed(u1 3000),
    AttemptStarted(#1 CHARGE 3000 scheduled) = PROCESSING
PENDING             | charge               | AttemptStarted(#1 CHARGE 3000) = PROCESSING
PENDING             | process              | AttemptStarted(#1 CHARGE 3000) = PROCESSING
PENDING             | capture              | INVALID_STATE
PENDING             | cancel               | PaymentCancelled>cancelled = CANCELLED
PENDING             | order-cancel         | PaymentCancelled(final)>cancelled = CANCELLED
PENDING             | order-cancel refund  | PaymentCancelled(final)>cancelled = CANCELLED
PENDING             | refund 1000          | INVALID_STATE
PENDING             | object               | NOT_FOUND
PENDING             | action               | NOT_FOUND
PENDING             | approved             | NOT_FOUND
PENDING             | declined             | NOT_FOUND
PENDING             | expire-action        | NOT_FOUND
PENDING             | expire-authorization | nothing
PENDING             | captured 500         | ExternalCapture(#1 500)>processed,
    ReviewFlagged(CAPTURED_EXCEEDS) = SUCCEEDED
PENDING             | external 500 re_9    | ExternalRefund(#1 500 COMPLETED)>refunded, ReviewFlagged(REFUND_EXCEEDS)
PENDING             | dispute open 500     | DisputeChanged(OPEN 500)>disputed, ReviewFlagged(DISPUTE_EXCEEDS)
PENDING             | flag ODD             | ReviewFlagged(ODD)
PENDING             | clear                | nothing
PENDING             | give-up              | NOT_FOUND
PENDING             | send-again           | nothing
PENDING             | by-hand approved     | NOT_FOUND

PROCESSING          | created              | nothing
PROCESSING          | order                | OrderConfirmed(u1 3000)
PROCESSING          | order charge         | OrderConfirmed(u1 3000)
PROCESSING          | charge               | nothing
PROCESSING          | process              | nothing
PROCESSING          | capture              | INVALID_STATE
PROCESSING          | cancel               | CancelRequested
PROCESSING          | order-cancel         | CancelRequested(final)
PROCESSING          | order-cancel refund  | CancelRequested(final)
PROCESSING          | refund 1000          | INVALID_STATE
PROCESSING          | object               | ReviewFlagged(SECOND_OBJECT:pi_2)
PROCESSING          | action               | ActionRequired(#1)>requires_action = REQUIRES_ACTION
PROCESSING          | approved             | AttemptApproved(#1 3000)>processed = SUCCEEDED
PROCESSING          | declined             | AttemptDeclined(#1 DECLINED)>failed = FAILED
PROCESSING          | expire-action        | nothing
PROCESSING          | expire-authorization | nothing
PROCESSING          | captured 500         | ExternalCapture(#2 500)>processed,
    ReviewFlagged(CAPTURED_EXCEEDS) = SUCCEEDED
PROCESSING          | external 500 re_9    | ExternalRefund(#1 500 COMPLETED)>refunded, ReviewFlagged(REFUND_EXCEEDS)
PROCESSING          | dispute open 500     | DisputeChanged(OPEN 500)>disputed, ReviewFlagged(DISPUTE_EXCEEDS)
PROCESSING          | flag ODD             | ReviewFlagged(ODD)
PROCESSING          | clear                | nothing
PROCESSING          | give-up              | AttemptStarted(#2 VOID 3000 scheduled GIVEN_UP)
PROCESSING          | send-again           | nothing
PROCESSING          | by-hand approved     | DecidedByHand(attempt:1 APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED

REQUIRES_ACTION     | created              | nothing
REQUIRES_ACTION     | order                | OrderConfirmed(u1 3000)
REQUIRES_ACTION     | order charge         | OrderConfirmed(u1 3000)
REQUIRES_ACTION     | charge               | AttemptStarted(#2 CHARGE 3000) = PROCESSING
REQUIRES_ACTION     | process              | nothing
REQUIRES_ACTION     | capture              | INVALID_STATE
REQUIRES_ACTION     | cancel               | CancelRequested, AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
REQUIRES_ACTION     | order-cancel         | CancelRequested(final),
    AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
REQUIRES_ACTION     | order-cancel refund  | CancelRequested(final),
    AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
REQUIRES_ACTION     | refund 1000          | INVALID_STATE
REQUIRES_ACTION     | object               | ReviewFlagged(SECOND_OBJECT:pi_2)
REQUIRES_ACTION     | action               | nothing
REQUIRES_ACTION     | approved             | AttemptApproved(#1 3000)>processed = SUCCEEDED
REQUIRES_ACTION     | declined             | AttemptDeclined(#1 DECLINED)>failed = FAILED
REQUIRES_ACTION     | expire-action        | AttemptStarted(#2 VOID 3000 scheduled ACTION_EXPIRED) = PROCESSING
REQUIRES_ACTION     | expire-authorization | nothing
REQUIRES_ACTION     | captured 500         | ExternalCapture(#2 500)>processed,
    ReviewFlagged(CAPTURED_EXCEEDS) = SUCCEEDED
REQUIRES_ACTION     | external 500 re_9    | ExternalRefund(#1 500 COMPLETED)>refunded, ReviewFlagged(REFUND_EXCEEDS)
REQUIRES_ACTION     | dispute open 500     | DisputeChanged(OPEN 500)>disputed, ReviewFlagged(DISPUTE_EXCEEDS)
REQUIRES_ACTION     | flag ODD             | ReviewFlagged(ODD)
REQUIRES_ACTION     | clear                | nothing
REQUIRES_ACTION     | give-up              | nothing
REQUIRES_ACTION     | send-again           | nothing
REQUIRES_ACTION     | by-hand approved     | DecidedByHand(attempt:1 APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED

AUTHORIZED          | created              | nothing
AUTHORIZED          | order                | OrderConfirmed(u1 3000)
AUTHORIZED          | order charge         | OrderConfirmed(u1 3000)
AUTHORIZED          | charge               | nothing
AUTHORIZED          | process              | nothing
AUTHORIZED          | capture              | AttemptStarted(#2 CAPTURE 3000) = PROCESSING
AUTHORIZED          | cancel               | CancelRequested, AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
AUTHORIZED          | order-cancel         | CancelRequested(final),
    AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
AUTHORIZED          | order-cancel refund  | CancelRequested(final),
    AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
AUTHORIZED          | refund 1000          | INVALID_STATE
AUTHORIZED          | object               | ReviewFlagged(SECOND_OBJECT:pi_2)
AUTHORIZED          | action               | nothing
AUTHORIZED          | approved             | nothing
AUTHORIZED          | declined             | Contradicted(attempt:1 APPROVED DECLINED)
AUTHORIZED          | expire-action        | nothing
AUTHORIZED          | expire-authorization | AuthorizationExpired>cancelled = CANCELLED
AUTHORIZED          | captured 500         | ExternalCapture(#2 500)>processed = SUCCEEDED
AUTHORIZED          | external 500 re_9    | ExternalRefund(#1 500 COMPLETED)>refunded, ReviewFlagged(REFUND_EXCEEDS)
AUTHORIZED          | dispute open 500     | DisputeChanged(OPEN 500)>disputed, ReviewFlagged(DISPUTE_EXCEEDS)
AUTHORIZED          | flag ODD             | ReviewFlagged(ODD)
AUTHORIZED          | clear                | nothing
AUTHORIZED          | give-up              | nothing
AUTHORIZED          | send-again           | nothing
AUTHORIZED          | by-hand approved     | INVALID_STATE

SUCCEEDED           | created              | nothing
SUCCEEDED           | order                | OrderConfirmed(u1 3000)
SUCCEEDED           | order charge         | OrderConfirmed(u1 3000)
SUCCEEDED           | charge               | nothing
SUCCEEDED           | process              | nothing
SUCCEEDED           | capture              | INVALID_STATE
SUCCEEDED           | cancel               | INVALID_STATE
SUCCEEDED           | order-cancel         | nothing
SUCCEEDED           | order-cancel refund  | CancelRequested(final), RefundRequested(#1 3000 scheduled CANCEL)
SUCCEEDED           | refund 1000          | RefundRequested(#1 1000)
SUCCEEDED           | object               | ReviewFlagged(SECOND_OBJECT:pi_2)
SUCCEEDED           | action               | nothing
SUCCEEDED           | approved             | nothing
SUCCEEDED           | declined             | Contradicted(attempt:1 APPROVED DECLINED)
SUCCEEDED           | expire-action        | nothing
SUCCEEDED           | expire-authorization | nothing
SUCCEEDED           | captured 500         | ExternalCapture(#2 500), ReviewFlagged(CAPTURED_EXCEEDS)
SUCCEEDED           | external 500 re_9    | ExternalRefund(#1 500 COMPLETED)>refunded = PARTIALLY_REFUNDED
SUCCEEDED           | dispute open 500     | DisputeChanged(OPEN 500)>disputed
SUCCEEDED           | flag ODD             | ReviewFlagged(ODD)
SUCCEEDED           | clear                | nothing
SUCCEEDED           | give-up              | nothing
SUCCEEDED           | send-again           | nothing
SUCCEEDED           | by-hand approved     | INVALID_STATE

FAILED              | created              | nothing
FAILED              | order                | OrderConfirmed(u1 3000)
FAILED              | order charge         | OrderConfirmed(u1 3000)
FAILED              | charge               | AttemptStarted(#2 CHARGE 3000) = PROCESSING
FAILED              | process              | AttemptStarted(#2 CHARGE 3000) = PROCESSING
FAILED              | capture              | INVALID_STATE
FAILED              | cancel               | CancelRequested, AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
FAILED              | order-cancel         | CancelRequested(final),
    AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
FAILED              | order-cancel refund  | CancelRequested(final),
    AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
FAILED              | refund 1000          | INVALID_STATE
FAILED              | object               | ReviewFlagged(SECOND_OBJECT:pi_2)
FAILED              | action               | nothing
FAILED              | approved             | Contradicted(attempt:1 DECLINED APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED
FAILED              | declined             | nothing
FAILED              | expire-action        | nothing
FAILED              | expire-authorization | nothing
FAILED              | captured 500         | ExternalCapture(#2 500)>processed,
    ReviewFlagged(CAPTURED_EXCEEDS) = SUCCEEDED
FAILED              | external 500 re_9    | ExternalRefund(#1 500 COMPLETED)>refunded, ReviewFlagged(REFUND_EXCEEDS)
FAILED              | dispute open 500     | DisputeChanged(OPEN 500)>disputed, ReviewFlagged(DISPUTE_EXCEEDS)
FAILED              | flag ODD             | ReviewFlagged(ODD)
FAILED              | clear                | nothing
FAILED              | give-up              | nothing
FAILED              | send-again           | nothing
FAILED              | by-hand approved     | INVALID_STATE

UNKNOWN             | created              | nothing
UNKNOWN             | order                | OrderConfirmed(u1 3000)
UNKNOWN             | order charge         | OrderConfirmed(u1 3000)
UNKNOWN             | charge               | nothing
UNKNOWN             | process              | nothing
UNKNOWN             | capture              | INVALID_STATE
UNKNOWN             | cancel               | CancelRequested
UNKNOWN             | order-cancel         | CancelRequested(final)
UNKNOWN             | order-cancel refund  | CancelRequested(final)
UNKNOWN             | refund 1000          | INVALID_STATE
UNKNOWN             | object               | ReviewFlagged(SECOND_OBJECT:pi_2)
UNKNOWN             | action               | ActionRequired(#1)>requires_action = REQUIRES_ACTION
UNKNOWN             | approved             | AttemptApproved(#1 3000)>processed = SUCCEEDED
UNKNOWN             | declined             | AttemptDeclined(#1 DECLINED)>failed = FAILED
UNKNOWN             | expire-action        | nothing
UNKNOWN             | expire-authorization | nothing
UNKNOWN             | captured 500         | ExternalCapture(#2 500)>processed,
    ReviewFlagged(CAPTURED_EXCEEDS) = SUCCEEDED
UNKNOWN             | external 500 re_9    | ExternalRefund(#1 500 COMPLETED)>refunded, ReviewFlagged(REFUND_EXCEEDS)
UNKNOWN             | dispute open 500     | DisputeChanged(OPEN 500)>disputed, ReviewFlagged(DISPUTE_EXCEEDS)
UNKNOWN             | flag ODD             | ReviewFlagged(ODD)
UNKNOWN             | clear                | nothing
UNKNOWN             | give-up              | AttemptStarted(#2 VOID 3000 scheduled GIVEN_UP) = PROCESSING
UNKNOWN             | send-again           | nothing
UNKNOWN             | by-hand approved     | DecidedByHand(attempt:1 APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED

CANCELLED           | created              | Reopened>created = PENDING
CANCELLED           | order                | OrderConfirmed(u1 3000)
CANCELLED           | order charge         | OrderConfirmed(u1 3000)
CANCELLED           | charge               | INVALID_STATE
CANCELLED           | process              | INVALID_STATE
CANCELLED           | capture              | INVALID_STATE
CANCELLED           | cancel               | nothing
CANCELLED           | order-cancel         | PaymentCancelled(final not-announced)
CANCELLED           | order-cancel refund  | PaymentCancelled(final not-announced)
CANCELLED           | refund 1000          | INVALID_STATE
CANCELLED           | object               | NOT_FOUND
CANCELLED           | action               | NOT_FOUND
CANCELLED           | approved             | NOT_FOUND
CANCELLED           | declined             | NOT_FOUND
CANCELLED           | expire-action        | NOT_FOUND
CANCELLED           | expire-authorization | nothing
CANCELLED           | captured 500         | ExternalCapture(#1 500)>processed, ReviewFlagged(CAPTURED_EXCEEDS),
    RefundRequested(#1 500 scheduled CANCEL) = SUCCEEDED
CANCELLED           | external 500 re_9    | ExternalRefund(#1 500 COMPLETED)>refunded, ReviewFlagged(REFUND_EXCEEDS)
CANCELLED           | dispute open 500     | DisputeChanged(OPEN 500)>disputed, ReviewFlagged(DISPUTE_EXCEEDS)
CANCELLED           | flag ODD             | ReviewFlagged(ODD)
CANCELLED           | clear                | nothing
CANCELLED           | give-up              | NOT_FOUND
CANCELLED           | send-again           | nothing
CANCELLED           | by-hand approved     | NOT_FOUND

PARTIALLY_REFUNDED  | created              | nothing
PARTIALLY_REFUNDED  | order                | OrderConfirmed(u1 3000)
PARTIALLY_REFUNDED  | order charge         | OrderConfirmed(u1 3000)
PARTIALLY_REFUNDED  | charge               | nothing
PARTIALLY_REFUNDED  | process              | nothing
PARTIALLY_REFUNDED  | capture              | INVALID_STATE
PARTIALLY_REFUNDED  | cancel               | INVALID_STATE
PARTIALLY_REFUNDED  | order-cancel         | nothing
PARTIALLY_REFUNDED  | order-cancel refund  | CancelRequested(final), RefundRequested(#2 2000 scheduled CANCEL)
PARTIALLY_REFUNDED  | refund 1000          | RefundRequested(#2 1000)
PARTIALLY_REFUNDED  | object               | ReviewFlagged(SECOND_OBJECT:pi_2)
PARTIALLY_REFUNDED  | action               | nothing
PARTIALLY_REFUNDED  | approved             | nothing
PARTIALLY_REFUNDED  | declined             | Contradicted(attempt:1 APPROVED DECLINED)
PARTIALLY_REFUNDED  | expire-action        | nothing
PARTIALLY_REFUNDED  | expire-authorization | nothing
PARTIALLY_REFUNDED  | captured 500         | ExternalCapture(#2 500), ReviewFlagged(CAPTURED_EXCEEDS)
PARTIALLY_REFUNDED  | external 500 re_9    | ExternalRefund(#2 500 COMPLETED)>refunded
PARTIALLY_REFUNDED  | dispute open 500     | DisputeChanged(OPEN 500)>disputed
PARTIALLY_REFUNDED  | flag ODD             | ReviewFlagged(ODD)
PARTIALLY_REFUNDED  | clear                | nothing
PARTIALLY_REFUNDED  | give-up              | nothing
PARTIALLY_REFUNDED  | send-again           | nothing
PARTIALLY_REFUNDED  | by-hand approved     | INVALID_STATE

REFUNDED            | created              | nothing
REFUNDED            | order                | OrderConfirmed(u1 3000)
REFUNDED            | order charge         | OrderConfirmed(u1 3000)
REFUNDED            | charge               | nothing
REFUNDED            | process              | nothing
REFUNDED            | capture              | INVALID_STATE
REFUNDED            | cancel               | INVALID_STATE
REFUNDED            | order-cancel         | nothing
REFUNDED            | order-cancel refund  | nothing
REFUNDED            | refund 1000          | REFUND_EXCEEDS
REFUNDED            | object               | ReviewFlagged(SECOND_OBJECT:pi_2)
REFUNDED            | action               | nothing
REFUNDED            | approved             | nothing
REFUNDED            | declined             | Contradicted(attempt:1 APPROVED DECLINED)
REFUNDED            | expire-action        | nothing
REFUNDED            | expire-authorization | nothing
REFUNDED            | captured 500         | ExternalCapture(#2 500)>processed,
    ReviewFlagged(CAPTURED_EXCEEDS) = PARTIALLY_REFUNDED
REFUNDED            | external 500 re_9    | ExternalRefund(#2 500 COMPLETED)>refunded, ReviewFlagged(REFUND_EXCEEDS)
REFUNDED            | dispute open 500     | DisputeChanged(OPEN 500)>disputed, ReviewFlagged(DISPUTE_EXCEEDS)
REFUNDED            | flag ODD             | ReviewFlagged(ODD)
REFUNDED            | clear                | nothing
REFUNDED            | give-up              | nothing
REFUNDED            | send-again           | nothing
REFUNDED            | by-hand approved     | INVALID_STATE
"""
ROWS = [tuple(part.strip() for part in line.split("|")) for line in TABLE.replace("\n    ", " ").splitlines() if line]


@pytest.mark.parametrize(("status", "when", "then"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_decides(status: str, when: str, then: str) -> None:
    assert outcome(HISTORIES[status], when) == then


def test_the_histories_lead_to_their_statuses() -> None:
    assert set(HISTORIES) == {"NOTHING", "BEFORE", *Status}
    assert all(
        status_of(given(history)) is Status[name] for name, history in HISTORIES.items() if name in Status.__members__
    )


def test_the_table_is_complete() -> None:
    words = {row[1] for row in ROWS}
    assert sorted((row[0], row[1]) for row in ROWS) == sorted((s, w) for s in HISTORIES for w in words)
    payment = given(HISTORIES["SUCCEEDED"])
    assert {type(command_of(word, payment, at_ms=1)) for word in words} == set(get_args(Command))
