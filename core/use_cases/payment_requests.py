"""What a caller of REST may ask of a payment, in the order it happens: load, check the caller, execute, wait for the
provider as long as the caller can, answer.

Room: core/use_cases. Awaits on ports only. Knows nothing of HTTP: web/ parses before and renders after.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol

from payment_service.core.frozen import dataclass
from payment_service.core.idempotency import Bound, RequestKey
from payment_service.core.payment import Attempt, Payment, Refund
from payment_service.core.ports import NextAction, PaymentFilter, PaymentPage, StoredEvent
from payment_service.core.terms import CaptureMethod

PRIVILEGED_ROLES = frozenset({"admin", "service"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `user_id` is None for another service."""

    user_id: str | None
    roles: frozenset[str] = frozenset()
    key: RequestKey | None = None
    """The Idempotency-Key of this request."""
    bearer: str | None = field(default=None, repr=False, compare=False)
    """The user's own token, where the order service is to be asked with it."""
    operator: bool = False
    """Somebody of the house, at the console: never the shopper, also where the id is the same."""

    @property
    def by(self) -> str:
        if self.operator:
            return f"operator:{self.user_id}"
        return f"user:{self.user_id}" if self.user_id is not None else "service"

    @property
    def privileged(self) -> bool:
        return not self.roles.isdisjoint(PRIVILEGED_ROLES)

    @property
    def command_id(self) -> str:
        """Of what this request asks for; empty without a key."""
        return self.key.command_id if self.key is not None else ""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the caller is told. Exactly one of the flags describes the outcome of this request."""

    payment: Payment
    next_action: NextAction | None = None
    created: bool = False
    """201: this request made the payment, or opened it again."""
    pending: bool = False
    """202: the outcome is not known yet."""
    declined: Attempt | None = None
    """402: the provider said no to this request's attempt."""
    refund: Refund | None = None
    bound: Bound | None = None
    """What the caller's key is bound to; None without a key."""
    again: bool = False
    """An earlier request with the same key was carried out; this one only tells of it."""
    open: bool = False
    """What this tells may still change: under a key it is told anew the next time."""


class PaymentRequests(Protocol):
    """Every method raises Refused (4xx), Unavailable (503, nothing happened), OutcomeUnknown (202); a payment of
    somebody else is `PAYMENT_NOT_FOUND`, as is one that does not exist. With a key in `caller`, those that change
    something also raise AnsweredBefore, and Refused IDEMPOTENCY_MISMATCH or IDEMPOTENCY_IN_PROGRESS."""

    async def create(
        self,
        caller: Caller,
        *,
        order_id: str,
        amount: object,
        currency: str,
        provider: str | None,
        method: str | None,
        capture_method: CaptureMethod,
        description: str | None,
        metadata: Mapping[str, Any],
    ) -> Answered:
        """`amount` in major units as given. `method`: a saved one (`pmt_…`) or a provider's one-time token."""

    async def process(
        self, caller: Caller, payment_id: str, *, method: str | None, return_url: str | None, object_id: str | None
    ) -> Answered: ...

    async def capture(self, caller: Caller, payment_id: str, *, amount: object | None) -> Answered: ...

    async def cancel(self, caller: Caller, payment_id: str, *, reason: str | None) -> Answered: ...

    async def refund(
        self,
        caller: Caller,
        payment_id: str,
        *,
        amount: object | None,
        reason: str | None,
        metadata: Mapping[str, Any],
    ) -> Answered:
        """`refund` is set in the answer. The roles that may are the setting REFUND_ROLES."""

    async def get(self, caller: Caller, payment_id: str, *, sync: bool = False) -> Answered:
        """`sync`: the provider is asked first about everything that is open, as long as the caller can wait."""

    async def by_order(self, caller: Caller, order_id: str) -> Answered: ...

    async def timeline(self, caller: Caller, payment_id: str) -> Sequence[StoredEvent]: ...

    async def find(self, caller: Caller, query: PaymentFilter) -> PaymentPage:
        """A user sees their own; `admin` sees all, or `query.user_id`'s."""
