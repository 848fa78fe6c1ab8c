"""The order service, as this one needs it: what an order says, and the words that orders are told.

Room: core. A word is committed with the change that brought it about, and leaves when the order service has it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from payment_service.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Order:
    """What the order service says of an order."""

    order_id: str
    user_id: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class OrderWord:
    """The newest word for an order. `version`: of the payment, which says which of two words is newer."""

    order_id: str
    payment_id: str
    version: int
    word: str
    """`paid`, `refunded`, `failed` or `pending`."""
    reason: str


@dataclass(frozen=True, slots=True)
class ClaimedWord:
    """A word that this worker may tell now. `claim` fences: whoever claims it later has another one."""

    word: OrderWord
    claim: str
    tries: int
    """How often this word was claimed, this time included."""


class Orders(Protocol):
    """The order service."""

    async def find(self, order_id: str, bearer: str | None) -> Order:
        """`bearer`: the caller's own token, which is forwarded.

        Raises: Refused NOT_FOUND (there is no such order), Refused PAYMENT_NOT_FOUND (it is not this caller's),
        Unavailable (no answer, or one that says nothing).
        """

    async def tell(self, word: OrderWord) -> None:
        """Returns when the order service has it.

        Raises: Unavailable (it does not have it; later), OutcomeUnknown (it may have it, and may get it late: later
        again), Refused (it does not want it).
        """

    def room(self, limit: int) -> int:
        """How many words may be told at once now: none while it is known to be away, one to find out."""


class OrderWords(Protocol):
    """Words that wait. All methods raise Unavailable; nothing happened then, or a claim runs out by itself."""

    async def claim(self, limit: int, lease_s: float) -> Sequence[ClaimedWord]:
        """Due ones, for this worker alone until the lease ends."""

    async def told(self, claimed: ClaimedWord, repeat_s: float) -> None:
        """It leaves; or stays when a newer one came meanwhile, or, for once more after `repeat_s`, when an earlier
        request had no answer and may still arrive behind it."""

    async def again(self, claimed: ClaimedWord, delay_s: float, problem: str, *, late: bool) -> None:
        """After `delay_s`, or at once when a newer one came. `late`: the request may still arrive."""

    async def waiting(self) -> Mapping[str, tuple[int, float]]:
        """(how many, seconds the oldest waits) by what is the matter: "" or the problem's first word."""
