"""What the stores keep of a provider call, apart from its words (rest.py has those).

Room: codecs.
"""

from dataclasses import replace

from payment_service.core.payment import Attempt, Refund
from payment_service.core.terms import RefundStatus

LOOK_AGAIN_S = 5.0
"""When an attempt that stays open without an owner is looked at first (design §4)."""
OPEN_STATUSES = frozenset({"PENDING", "UNKNOWN"})
"""Transaction statuses that somebody has to look at."""


def moved_by(refund: Refund) -> int:
    """What it adds to the payment's `refunded`."""
    return refund.amount_minor if refund.counted and refund.status is RefundStatus.COMPLETED else 0


def is_same_call(before: Attempt | Refund | None, after: Attempt | Refund) -> bool:
    """Nothing that its row knows has changed. Which provider object it is about is no news: whoever has the call
    under way still has it, and its lease."""
    if isinstance(before, Attempt) and isinstance(after, Attempt):
        return replace(before, object_number=after.object_number) == after
    return before == after
