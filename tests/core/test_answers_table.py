"""The answer table: every state of an attempt or refund x every verdict, also late and contradicting ones.

kind | state | verdict | then. The words are those of rigs/histories.py. A long row goes on in an indented line.
DISPLACED is by a void, BY-CHARGE by another charge of the object.
A void exists three times: of a hold, and of an object the shopper still had to act on (cancelled, or expired).
"""

import pytest
from rigs.histories import given, outcome

from payment_service.core.payment import attempt_of, refund_of
from payment_service.core.terms import AttemptState, RefundStatus, Verdict

CHARGE = "created, charge, object"
HOLD = "created manual, charge, object"
_FIRST = {
    "OPEN": "", "ACCEPTED": ", pending", "UNKNOWN": ", unknown", "ACTION": ", action",
    "DISPLACED": ", action, expire-action #1", "APPROVED": ", approved", "DECLINED": ", declined",
    "NOT_SENT": ", not-sent", "BY-CHARGE": ", action, charge", "SUPERSEDED": ", action, charge, declined",
}  # fmt: skip
_ONLY_FIRST = ("ACTION", "DISPLACED", "BY-CHARGE", "SUPERSEDED")
_NEXT = {state: then for state, then in _FIRST.items() if state not in _ONLY_FIRST}
_STATES = {"ACCEPTED": "OPEN", "BY-CHARGE": "DISPLACED"}
_REFUND = {
    "PENDING": "", "PROCESSING": ", pending r#1", "UNKNOWN": ", unknown r#1", "COMPLETED": ", approved r#1",
    "FAILED": ", declined r#1", "FAILED-LATE": ", approved r#1, declined r#1", "CANCELLED": ", not-sent r#1",
}  # fmt: skip
KINDS = {
    "CHARGE": (CHARGE, "#1", _FIRST),
    "AUTHORIZE": (HOLD, "#1", _FIRST),
    "CAPTURE": (f"{HOLD}, approved, capture", "#2", _NEXT),
    "VOID-HOLD": (f"{HOLD}, approved, cancel", "#2", _NEXT),
    "VOID-ACTION": (f"{CHARGE}, action, cancel", "#2", _NEXT),
    "VOID-EXPIRED": (f"{CHARGE}, action, expire-action", "#2", _NEXT),
    "REFUND": (f"{CHARGE}, approved, refund 1000", "r#1", _REFUND),
}
TABLE = """
CHARGE       | OPEN        | approved | AttemptApproved(#1 3000)>processed = SUCCEEDED
CHARGE       | OPEN        | declined | AttemptDeclined(#1 DECLINED)>failed = FAILED
CHARGE       | OPEN        | not-sent | AttemptNotSent(#1) = PENDING
CHARGE       | OPEN        | pending  | AttemptPending(#1)
CHARGE       | OPEN        | unknown  | AttemptUnknown(#1)>unknown = UNKNOWN
CHARGE       | ACCEPTED    | approved | AttemptApproved(#1 3000)>processed = SUCCEEDED
CHARGE       | ACCEPTED    | declined | AttemptDeclined(#1 DECLINED)>failed = FAILED
CHARGE       | ACCEPTED    | not-sent | nothing
CHARGE       | ACCEPTED    | pending  | nothing
CHARGE       | ACCEPTED    | unknown  | nothing
CHARGE       | UNKNOWN     | approved | AttemptApproved(#1 3000)>processed = SUCCEEDED
CHARGE       | UNKNOWN     | declined | AttemptDeclined(#1 DECLINED)>failed = FAILED
CHARGE       | UNKNOWN     | not-sent | nothing
CHARGE       | UNKNOWN     | pending  | AttemptPending(#1) = PROCESSING
CHARGE       | UNKNOWN     | unknown  | nothing
CHARGE       | ACTION      | approved | AttemptApproved(#1 3000)>processed = SUCCEEDED
CHARGE       | ACTION      | declined | AttemptDeclined(#1 DECLINED)>failed = FAILED
CHARGE       | ACTION      | not-sent | nothing
CHARGE       | ACTION      | pending  | AttemptPending(#1) = PROCESSING
CHARGE       | ACTION      | unknown  | nothing
CHARGE       | DISPLACED   | approved | AttemptApproved(#1 3000)>processed = SUCCEEDED
CHARGE       | DISPLACED   | declined | nothing
CHARGE       | DISPLACED   | not-sent | nothing
CHARGE       | DISPLACED   | pending  | nothing
CHARGE       | DISPLACED   | unknown  | nothing
CHARGE       | APPROVED    | approved | nothing
CHARGE       | APPROVED    | declined | Contradicted(attempt:1 APPROVED DECLINED)
CHARGE       | APPROVED    | not-sent | nothing
CHARGE       | APPROVED    | pending  | nothing
CHARGE       | APPROVED    | unknown  | nothing
CHARGE       | DECLINED    | approved | Contradicted(attempt:1 DECLINED APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED
CHARGE       | DECLINED    | declined | nothing
CHARGE       | DECLINED    | not-sent | nothing
CHARGE       | DECLINED    | pending  | nothing
CHARGE       | DECLINED    | unknown  | nothing
CHARGE       | NOT_SENT    | approved | Contradicted(attempt:1 NOT_SENT APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED
CHARGE       | NOT_SENT    | declined | nothing
CHARGE       | NOT_SENT    | not-sent | nothing
CHARGE       | NOT_SENT    | pending  | nothing
CHARGE       | NOT_SENT    | unknown  | nothing
CHARGE       | BY-CHARGE   | approved | AttemptApproved(#1 3000)>processed = SUCCEEDED
CHARGE       | BY-CHARGE   | declined | nothing
CHARGE       | BY-CHARGE   | not-sent | nothing
CHARGE       | BY-CHARGE   | pending  | nothing
CHARGE       | BY-CHARGE   | unknown  | nothing
CHARGE       | SUPERSEDED  | approved | Contradicted(attempt:1 SUPERSEDED APPROVED),
    AttemptApproved(#1 3000)>processed = SUCCEEDED
CHARGE       | SUPERSEDED  | declined | nothing
CHARGE       | SUPERSEDED  | not-sent | nothing
CHARGE       | SUPERSEDED  | pending  | nothing
CHARGE       | SUPERSEDED  | unknown  | nothing

AUTHORIZE    | OPEN        | approved | AttemptApproved(#1 3000)>processed = AUTHORIZED
AUTHORIZE    | OPEN        | declined | AttemptDeclined(#1 DECLINED)>failed = FAILED
AUTHORIZE    | OPEN        | not-sent | AttemptNotSent(#1) = PENDING
AUTHORIZE    | OPEN        | pending  | AttemptPending(#1)
AUTHORIZE    | OPEN        | unknown  | AttemptUnknown(#1)>unknown = UNKNOWN
AUTHORIZE    | ACCEPTED    | approved | AttemptApproved(#1 3000)>processed = AUTHORIZED
AUTHORIZE    | ACCEPTED    | declined | AttemptDeclined(#1 DECLINED)>failed = FAILED
AUTHORIZE    | ACCEPTED    | not-sent | nothing
AUTHORIZE    | ACCEPTED    | pending  | nothing
AUTHORIZE    | ACCEPTED    | unknown  | nothing
AUTHORIZE    | UNKNOWN     | approved | AttemptApproved(#1 3000)>processed = AUTHORIZED
AUTHORIZE    | UNKNOWN     | declined | AttemptDeclined(#1 DECLINED)>failed = FAILED
AUTHORIZE    | UNKNOWN     | not-sent | nothing
AUTHORIZE    | UNKNOWN     | pending  | AttemptPending(#1) = PROCESSING
AUTHORIZE    | UNKNOWN     | unknown  | nothing
AUTHORIZE    | ACTION      | approved | AttemptApproved(#1 3000)>processed = AUTHORIZED
AUTHORIZE    | ACTION      | declined | AttemptDeclined(#1 DECLINED)>failed = FAILED
AUTHORIZE    | ACTION      | not-sent | nothing
AUTHORIZE    | ACTION      | pending  | AttemptPending(#1) = PROCESSING
AUTHORIZE    | ACTION      | unknown  | nothing
AUTHORIZE    | DISPLACED   | approved | AttemptApproved(#1 3000)
AUTHORIZE    | DISPLACED   | declined | nothing
AUTHORIZE    | DISPLACED   | not-sent | nothing
AUTHORIZE    | DISPLACED   | pending  | nothing
AUTHORIZE    | DISPLACED   | unknown  | nothing
AUTHORIZE    | APPROVED    | approved | nothing
AUTHORIZE    | APPROVED    | declined | Contradicted(attempt:1 APPROVED DECLINED)
AUTHORIZE    | APPROVED    | not-sent | nothing
AUTHORIZE    | APPROVED    | pending  | nothing
AUTHORIZE    | APPROVED    | unknown  | nothing
AUTHORIZE    | DECLINED    | approved | Contradicted(attempt:1 DECLINED APPROVED),
    AttemptApproved(#1 3000)>processed = AUTHORIZED
AUTHORIZE    | DECLINED    | declined | nothing
AUTHORIZE    | DECLINED    | not-sent | nothing
AUTHORIZE    | DECLINED    | pending  | nothing
AUTHORIZE    | DECLINED    | unknown  | nothing
AUTHORIZE    | NOT_SENT    | approved | Contradicted(attempt:1 NOT_SENT APPROVED),
    AttemptApproved(#1 3000)>processed = AUTHORIZED
AUTHORIZE    | NOT_SENT    | declined | nothing
AUTHORIZE    | NOT_SENT    | not-sent | nothing
AUTHORIZE    | NOT_SENT    | pending  | nothing
AUTHORIZE    | NOT_SENT    | unknown  | nothing
AUTHORIZE    | BY-CHARGE   | approved | AttemptApproved(#1 3000)
AUTHORIZE    | BY-CHARGE   | declined | nothing
AUTHORIZE    | BY-CHARGE   | not-sent | nothing
AUTHORIZE    | BY-CHARGE   | pending  | nothing
AUTHORIZE    | BY-CHARGE   | unknown  | nothing
AUTHORIZE    | SUPERSEDED  | approved | Contradicted(attempt:1 SUPERSEDED APPROVED),
    AttemptApproved(#1 3000)>processed = AUTHORIZED
AUTHORIZE    | SUPERSEDED  | declined | nothing
AUTHORIZE    | SUPERSEDED  | not-sent | nothing
AUTHORIZE    | SUPERSEDED  | pending  | nothing
AUTHORIZE    | SUPERSEDED  | unknown  | nothing

CAPTURE      | OPEN        | approved | AttemptApproved(#2 3000)>processed = SUCCEEDED
CAPTURE      | OPEN        | declined | AttemptDeclined(#2 DECLINED) = AUTHORIZED
CAPTURE      | OPEN        | not-sent | AttemptNotSent(#2) = AUTHORIZED
CAPTURE      | OPEN        | pending  | AttemptPending(#2)
CAPTURE      | OPEN        | unknown  | AttemptUnknown(#2)>unknown = UNKNOWN
CAPTURE      | ACCEPTED    | approved | AttemptApproved(#2 3000)>processed = SUCCEEDED
CAPTURE      | ACCEPTED    | declined | AttemptDeclined(#2 DECLINED) = AUTHORIZED
CAPTURE      | ACCEPTED    | not-sent | nothing
CAPTURE      | ACCEPTED    | pending  | nothing
CAPTURE      | ACCEPTED    | unknown  | nothing
CAPTURE      | UNKNOWN     | approved | AttemptApproved(#2 3000)>processed = SUCCEEDED
CAPTURE      | UNKNOWN     | declined | AttemptDeclined(#2 DECLINED)>processed = AUTHORIZED
CAPTURE      | UNKNOWN     | not-sent | nothing
CAPTURE      | UNKNOWN     | pending  | AttemptPending(#2) = PROCESSING
CAPTURE      | UNKNOWN     | unknown  | nothing
CAPTURE      | APPROVED    | approved | nothing
CAPTURE      | APPROVED    | declined | Contradicted(attempt:2 APPROVED DECLINED)
CAPTURE      | APPROVED    | not-sent | nothing
CAPTURE      | APPROVED    | pending  | nothing
CAPTURE      | APPROVED    | unknown  | nothing
CAPTURE      | DECLINED    | approved | Contradicted(attempt:2 DECLINED APPROVED),
    AttemptApproved(#2 3000)>processed = SUCCEEDED
CAPTURE      | DECLINED    | declined | nothing
CAPTURE      | DECLINED    | not-sent | nothing
CAPTURE      | DECLINED    | pending  | nothing
CAPTURE      | DECLINED    | unknown  | nothing
CAPTURE      | NOT_SENT    | approved | Contradicted(attempt:2 NOT_SENT APPROVED),
    AttemptApproved(#2 3000)>processed = SUCCEEDED
CAPTURE      | NOT_SENT    | declined | nothing
CAPTURE      | NOT_SENT    | not-sent | nothing
CAPTURE      | NOT_SENT    | pending  | nothing
CAPTURE      | NOT_SENT    | unknown  | nothing

VOID-HOLD    | OPEN        | approved | AttemptApproved(#2 3000), PaymentCancelled>cancelled = CANCELLED
VOID-HOLD    | OPEN        | declined | AttemptDeclined(#2 DECLINED), ReviewFlagged(CANCEL_VOID_FAILED) = AUTHORIZED
VOID-HOLD    | OPEN        | not-sent | AttemptNotSent(#2), ReviewFlagged(CANCEL_VOID_FAILED) = AUTHORIZED
VOID-HOLD    | OPEN        | pending  | AttemptPending(#2)
VOID-HOLD    | OPEN        | unknown  | AttemptUnknown(#2)>unknown = UNKNOWN
VOID-HOLD    | ACCEPTED    | approved | AttemptApproved(#2 3000), PaymentCancelled>cancelled = CANCELLED
VOID-HOLD    | ACCEPTED    | declined | AttemptDeclined(#2 DECLINED), ReviewFlagged(CANCEL_VOID_FAILED) = AUTHORIZED
VOID-HOLD    | ACCEPTED    | not-sent | nothing
VOID-HOLD    | ACCEPTED    | pending  | nothing
VOID-HOLD    | ACCEPTED    | unknown  | nothing
VOID-HOLD    | UNKNOWN     | approved | AttemptApproved(#2 3000), PaymentCancelled>cancelled = CANCELLED
VOID-HOLD    | UNKNOWN     | declined | AttemptDeclined(#2 DECLINED)>processed,
    ReviewFlagged(CANCEL_VOID_FAILED) = AUTHORIZED
VOID-HOLD    | UNKNOWN     | not-sent | nothing
VOID-HOLD    | UNKNOWN     | pending  | AttemptPending(#2) = PROCESSING
VOID-HOLD    | UNKNOWN     | unknown  | nothing
VOID-HOLD    | APPROVED    | approved | nothing
VOID-HOLD    | APPROVED    | declined | Contradicted(attempt:2 APPROVED DECLINED)
VOID-HOLD    | APPROVED    | not-sent | nothing
VOID-HOLD    | APPROVED    | pending  | nothing
VOID-HOLD    | APPROVED    | unknown  | nothing
VOID-HOLD    | DECLINED    | approved | Contradicted(attempt:2 DECLINED APPROVED), AttemptApproved(#2 3000),
    PaymentCancelled>cancelled = CANCELLED
VOID-HOLD    | DECLINED    | declined | nothing
VOID-HOLD    | DECLINED    | not-sent | nothing
VOID-HOLD    | DECLINED    | pending  | nothing
VOID-HOLD    | DECLINED    | unknown  | nothing
VOID-HOLD    | NOT_SENT    | approved | Contradicted(attempt:2 NOT_SENT APPROVED), AttemptApproved(#2 3000),
    PaymentCancelled>cancelled = CANCELLED
VOID-HOLD    | NOT_SENT    | declined | nothing
VOID-HOLD    | NOT_SENT    | not-sent | nothing
VOID-HOLD    | NOT_SENT    | pending  | nothing
VOID-HOLD    | NOT_SENT    | unknown  | nothing

VOID-ACTION  | OPEN        | approved | AttemptApproved(#2 3000), PaymentCancelled>cancelled = CANCELLED
VOID-ACTION  | OPEN        | declined | AttemptDeclined(#2 DECLINED)>unknown = UNKNOWN
VOID-ACTION  | OPEN        | not-sent | AttemptNotSent(#2), ReviewFlagged(CANCEL_VOID_FAILED) = REQUIRES_ACTION
VOID-ACTION  | OPEN        | pending  | AttemptPending(#2)
VOID-ACTION  | OPEN        | unknown  | AttemptUnknown(#2)>unknown = UNKNOWN
VOID-ACTION  | ACCEPTED    | approved | AttemptApproved(#2 3000), PaymentCancelled>cancelled = CANCELLED
VOID-ACTION  | ACCEPTED    | declined | AttemptDeclined(#2 DECLINED)>unknown = UNKNOWN
VOID-ACTION  | ACCEPTED    | not-sent | nothing
VOID-ACTION  | ACCEPTED    | pending  | nothing
VOID-ACTION  | ACCEPTED    | unknown  | nothing
VOID-ACTION  | UNKNOWN     | approved | AttemptApproved(#2 3000), PaymentCancelled>cancelled = CANCELLED
VOID-ACTION  | UNKNOWN     | declined | AttemptDeclined(#2 DECLINED)
VOID-ACTION  | UNKNOWN     | not-sent | nothing
VOID-ACTION  | UNKNOWN     | pending  | AttemptPending(#2) = PROCESSING
VOID-ACTION  | UNKNOWN     | unknown  | nothing
VOID-ACTION  | APPROVED    | approved | nothing
VOID-ACTION  | APPROVED    | declined | Contradicted(attempt:2 APPROVED DECLINED)
VOID-ACTION  | APPROVED    | not-sent | nothing
VOID-ACTION  | APPROVED    | pending  | nothing
VOID-ACTION  | APPROVED    | unknown  | nothing
VOID-ACTION  | DECLINED    | approved | Contradicted(attempt:2 DECLINED APPROVED), AttemptApproved(#2 3000)
VOID-ACTION  | DECLINED    | declined | nothing
VOID-ACTION  | DECLINED    | not-sent | nothing
VOID-ACTION  | DECLINED    | pending  | nothing
VOID-ACTION  | DECLINED    | unknown  | nothing
VOID-ACTION  | NOT_SENT    | approved | Contradicted(attempt:2 NOT_SENT APPROVED), AttemptApproved(#2 3000),
    AttemptStarted(#3 VOID 3000 scheduled CANCEL) = PROCESSING
VOID-ACTION  | NOT_SENT    | declined | nothing
VOID-ACTION  | NOT_SENT    | not-sent | nothing
VOID-ACTION  | NOT_SENT    | pending  | nothing
VOID-ACTION  | NOT_SENT    | unknown  | nothing

VOID-EXPIRED | OPEN        | approved | AttemptApproved(#2 3000), AttemptDeclined(#1 ACTION_EXPIRED)>failed = FAILED
VOID-EXPIRED | OPEN        | declined | AttemptDeclined(#2 DECLINED)>unknown = UNKNOWN
VOID-EXPIRED | OPEN        | not-sent | AttemptNotSent(#2) = REQUIRES_ACTION
VOID-EXPIRED | OPEN        | pending  | AttemptPending(#2)
VOID-EXPIRED | OPEN        | unknown  | AttemptUnknown(#2)>unknown = UNKNOWN
VOID-EXPIRED | ACCEPTED    | approved | AttemptApproved(#2 3000), AttemptDeclined(#1 ACTION_EXPIRED)>failed = FAILED
VOID-EXPIRED | ACCEPTED    | declined | AttemptDeclined(#2 DECLINED)>unknown = UNKNOWN
VOID-EXPIRED | ACCEPTED    | not-sent | nothing
VOID-EXPIRED | ACCEPTED    | pending  | nothing
VOID-EXPIRED | ACCEPTED    | unknown  | nothing
VOID-EXPIRED | UNKNOWN     | approved | AttemptApproved(#2 3000), AttemptDeclined(#1 ACTION_EXPIRED)>failed = FAILED
VOID-EXPIRED | UNKNOWN     | declined | AttemptDeclined(#2 DECLINED)
VOID-EXPIRED | UNKNOWN     | not-sent | nothing
VOID-EXPIRED | UNKNOWN     | pending  | AttemptPending(#2) = PROCESSING
VOID-EXPIRED | UNKNOWN     | unknown  | nothing
VOID-EXPIRED | APPROVED    | approved | nothing
VOID-EXPIRED | APPROVED    | declined | Contradicted(attempt:2 APPROVED DECLINED)
VOID-EXPIRED | APPROVED    | not-sent | nothing
VOID-EXPIRED | APPROVED    | pending  | nothing
VOID-EXPIRED | APPROVED    | unknown  | nothing
VOID-EXPIRED | DECLINED    | approved | Contradicted(attempt:2 DECLINED APPROVED), AttemptApproved(#2 3000)
VOID-EXPIRED | DECLINED    | declined | nothing
VOID-EXPIRED | DECLINED    | not-sent | nothing
VOID-EXPIRED | DECLINED    | pending  | nothing
VOID-EXPIRED | DECLINED    | unknown  | nothing
VOID-EXPIRED | NOT_SENT    | approved | Contradicted(attempt:2 NOT_SENT APPROVED), AttemptApproved(#2 3000)
VOID-EXPIRED | NOT_SENT    | declined | nothing
VOID-EXPIRED | NOT_SENT    | not-sent | nothing
VOID-EXPIRED | NOT_SENT    | pending  | nothing
VOID-EXPIRED | NOT_SENT    | unknown  | nothing

REFUND       | PENDING     | approved | RefundCompleted(#1 1000)>refunded = PARTIALLY_REFUNDED
REFUND       | PENDING     | declined | RefundFailed(#1)>refund_failed
REFUND       | PENDING     | not-sent | RefundNotSent(#1)
REFUND       | PENDING     | pending  | RefundPending(#1)
REFUND       | PENDING     | unknown  | RefundUnknown(#1)
REFUND       | PROCESSING  | approved | RefundCompleted(#1 1000)>refunded = PARTIALLY_REFUNDED
REFUND       | PROCESSING  | declined | RefundFailed(#1)>refund_failed
REFUND       | PROCESSING  | not-sent | nothing
REFUND       | PROCESSING  | pending  | nothing
REFUND       | PROCESSING  | unknown  | nothing
REFUND       | UNKNOWN     | approved | RefundCompleted(#1 1000)>refunded = PARTIALLY_REFUNDED
REFUND       | UNKNOWN     | declined | RefundFailed(#1)>refund_failed
REFUND       | UNKNOWN     | not-sent | nothing
REFUND       | UNKNOWN     | pending  | RefundPending(#1)
REFUND       | UNKNOWN     | unknown  | nothing
REFUND       | COMPLETED   | approved | nothing
REFUND       | COMPLETED   | declined | RefundFailed(#1)>refund_failed = SUCCEEDED
REFUND       | COMPLETED   | not-sent | nothing
REFUND       | COMPLETED   | pending  | nothing
REFUND       | COMPLETED   | unknown  | nothing
REFUND       | FAILED      | approved | Contradicted(refund:1 FAILED APPROVED),
    RefundCompleted(#1 1000)>refunded = PARTIALLY_REFUNDED
REFUND       | FAILED      | declined | nothing
REFUND       | FAILED      | not-sent | nothing
REFUND       | FAILED      | pending  | nothing
REFUND       | FAILED      | unknown  | nothing
REFUND       | FAILED-LATE | approved | Contradicted(refund:1 FAILED APPROVED)
REFUND       | FAILED-LATE | declined | nothing
REFUND       | FAILED-LATE | not-sent | nothing
REFUND       | FAILED-LATE | pending  | nothing
REFUND       | FAILED-LATE | unknown  | nothing
REFUND       | CANCELLED   | approved | Contradicted(refund:1 CANCELLED APPROVED),
    RefundCompleted(#1 1000)>refunded = PARTIALLY_REFUNDED
REFUND       | CANCELLED   | declined | nothing
REFUND       | CANCELLED   | not-sent | nothing
REFUND       | CANCELLED   | pending  | nothing
REFUND       | CANCELLED   | unknown  | nothing
"""
ROWS = [tuple(part.strip() for part in line.split("|")) for line in TABLE.replace("\n    ", " ").splitlines() if line]


@pytest.mark.parametrize(("kind", "state", "verdict", "then"), ROWS, ids=[" ".join(row[:3]) for row in ROWS])
def test_answers(kind: str, state: str, verdict: str, then: str) -> None:
    history, number, states = KINDS[kind]
    assert outcome(history + states[state], f"{verdict} {number}") == then


@pytest.mark.parametrize("kind", KINDS)
def test_the_histories_lead_to_their_states(kind: str) -> None:
    history, number, states = KINDS[kind]
    for state, then in states.items():
        payment = given(history + then)
        if kind == "REFUND":
            assert refund_of(payment, 1).status.value == state.removesuffix("-LATE")
        else:
            attempt = attempt_of(payment, int(number[1:]))
            assert attempt.state.value == _STATES.get(state, state)
            assert attempt.kind.value == kind.split("-")[0]


def test_the_table_is_complete() -> None:
    verdicts = [verdict.value.lower().replace("_", "-") for verdict in Verdict]
    wanted = [
        (kind, state, verdict) for kind, (_, _, states) in KINDS.items() for state in states for verdict in verdicts
    ]
    assert sorted(row[:3] for row in ROWS) == sorted(wanted)
    assert {_STATES.get(state, state) for state in _FIRST} == set(AttemptState)
    assert {state.removesuffix("-LATE") for state in _REFUND} == set(RefundStatus)
