"""What happens beside us: objects that come late, another provider, holds captured in a dashboard, other currencies.

given | when | then, as in test_paths.py.
"""

import pytest
from rigs.histories import given, outcome

BEGINNINGS = {
    "SENT": "created, charge, object",
    "HOLD": "created manual, charge, object",
    "HELD": "created manual, charge, object, approved",
}
TABLE = """
# an object that comes late is not taken to another provider
created provider=paypal, charge, cancel, give-up, created | object pi_1 #1 | nothing
created provider=paypal, charge, cancel, give-up, created provider=paypal | object pi_1 #1 | ObjectCreated(#1 pi_1)

# nor is another provider tried while the first one has not let go
created provider=paypal, charge, cancel, declined, object #1, declined | created | INVALID_STATE
created provider=paypal, charge, cancel, declined, object #1, declined | created provider=paypal |
    Reopened>created = PENDING
created provider=paypal, charge, cancel, declined, object #1, approved | created | Reopened>created = PENDING

# holds captured beside us
HELD | captured 1000 | ExternalCapture(#2 1000)>processed = SUCCEEDED
HELD | captured 9000 | ExternalCapture(#2 9000)>processed, ReviewFlagged(CAPTURED_EXCEEDS) = SUCCEEDED
HELD, captured 1000 | captured 1000 | nothing
HELD, captured 1000 | capture | nothing
HELD, captured 1000 | cancel | INVALID_STATE
HELD, captured 1000 | refund 1001 | REFUND_EXCEEDS
HELD, captured 1000 a | captured 500 b | ExternalCapture(#3 500)
HELD, capture | captured 3000 | AttemptApproved(#2 3000)>processed = SUCCEEDED
HELD, capture 1000, unknown | captured 1000 | AttemptApproved(#2 1000)>processed = SUCCEEDED
HELD, capture, captured 3000 ch_2 | approved | nothing
HELD, cancel | captured 3000 | ExternalCapture(#3 3000)>processed = SUCCEEDED
HELD, cancel, captured 3000 | declined #2 | AttemptDeclined(#2 DECLINED), RefundRequested(#1 3000 scheduled CANCEL)
HELD, order-cancel, approved | captured 3000 | ExternalCapture(#3 3000)>processed,
    RefundRequested(#1 3000 scheduled CANCEL) = SUCCEEDED

# another currency moved: our numbers mean nothing there until a person has looked
SENT, approved amount=2000 currency=USD | refund | INVALID_STATE
SENT, approved amount=2000 currency=USD, clear | refund | RefundRequested(#1 3000)
SENT, approved amount=2000 currency=USD | order-cancel refund | CancelRequested(final),
    ReviewFlagged(CANCEL_REFUND_FAILED)
HOLD, approved amount=2000 currency=USD | capture | INVALID_STATE
HOLD, approved amount=2000 currency=USD | cancel | CancelRequested,
    AttemptStarted(#2 VOID 3000 scheduled CANCEL) = PROCESSING
"""
ROWS = [
    tuple(part.strip() for part in line.split("|"))
    for line in TABLE.replace("\n    ", " ").splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize(("history", "when", "then"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_beside_us(history: str, when: str, then: str) -> None:
    first, comma, rest = history.partition(", ")
    assert outcome(BEGINNINGS.get(first, first) + comma + rest, when) == then


def test_what_really_moved_is_kept_where_the_totals_cannot_say_it() -> None:
    payment = given("created, charge, object, approved amount=2000 currency=USD")
    assert (payment.captured, payment.currency) == (3000, "EUR")
    assert "CURRENCY_DIFFERS:2000 USD" in payment.review
