"""The facts of a payment's life, in the order of its life. An event is never refused: it has happened.

Room: core. The class names and field names are the storage format of `payment_events`: a field may be added
with a default, never renamed or removed. No secret is in here, only ids.

Units: `*_minor` minor units of the payment's currency, `*_at_ms`/`at_ms` milliseconds since 1970 UTC.
`by` is who caused it: "user:<id>", "service", "order", "system", "provider", "operator:<name>".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from payment_service.core.frozen import dataclass
from payment_service.core.terms import CaptureMethod, DisputeState, Kind, RefundStatus, Source


@dataclass(frozen=True, slots=True)
class PaymentCreated:
    at_ms: int
    by: str
    order_id: str
    user_id: str
    amount_minor: int
    currency: str
    provider: str
    payment_method_id: str | None
    capture_method: CaptureMethod
    description: str | None
    metadata: Mapping[str, Any]
    unconfirmed: bool
    """Neither the order service nor `order.created` has confirmed owner and amount yet."""


@dataclass(frozen=True, slots=True)
class OrderConfirmed:
    """The order said who owns it and what it costs. `changed`: it differs from what we had, so it is told again."""

    at_ms: int
    by: str
    user_id: str
    amount_minor: int
    currency: str
    provider: str
    payment_method_id: str | None
    changed: bool


@dataclass(frozen=True, slots=True)
class Reopened:
    """The shopper cancelled and came back: the same payment is payable again."""

    at_ms: int
    by: str
    provider: str
    payment_method_id: str | None
    capture_method: CaptureMethod
    description: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CancelledBeforeCreation:
    """`order.cancelled` came before `order.created`: a payment without an amount that can never be charged."""

    at_ms: int
    by: str
    order_id: str
    user_id: str
    provider: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class PaymentImported:
    """A payment of the service before this one, as its rows said (legacy.py). The world knows it: nothing of it is
    published, and its first own event is the first of its sequence."""

    at_ms: int
    by: str
    legacy_id: str
    legacy_status: str
    order_id: str
    user_id: str
    amount_minor: int
    currency: str
    provider: str
    payment_method_id: str | None
    description: str | None
    metadata: Mapping[str, Any]
    created_at_ms: int
    updated_at_ms: int
    object_id: str | None
    """The provider object of those attempts that are about one."""
    calls: Sequence[Mapping[str, Any]]
    """Its charges and voids: fields of an Attempt by their names, without what follows from their place."""
    refunds: Sequence[Mapping[str, Any]]
    """The same of a Refund."""
    cancelled: bool
    cancel_requested: bool
    review: Sequence[str]


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The intent to call the provider, committed before the call."""

    at_ms: int
    by: str
    number: int
    kind: Kind
    amount_minor: int
    provider: str
    payment_method_id: str | None
    scheduled: bool
    """Nobody waits for it: a runner takes it when there is room."""
    cause: str | None = None
    """Why a void was started: CANCEL, ACTION_EXPIRED, PAID_ALREADY or GIVEN_UP."""
    object_id: str | None = None
    """A provider object that the front end made and confirmed itself."""


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """The provider object (PaymentIntent, PayPal order) that every attempt of this payment confirms."""

    at_ms: int
    number: int
    object_id: str


@dataclass(frozen=True, slots=True)
class ActionRequired:
    at_ms: int
    number: int
    action_type: str
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class AttemptPending:
    at_ms: int
    number: int
    source: Source
    provider_id: str | None


@dataclass(frozen=True, slots=True)
class AttemptApproved:
    at_ms: int
    number: int
    source: Source
    provider_id: str | None
    amount_minor: int
    """What the provider says it moved; it may differ from what was asked."""
    counted: bool = True
    """False when another attempt already counted the same movement of money."""


@dataclass(frozen=True, slots=True)
class AttemptDeclined:
    at_ms: int
    number: int
    source: Source
    code: str
    message: str
    decline_code: str | None = None
    provider_id: str | None = None
    object_closed: bool = False
    """The provider object is over for good (cancelled there, expired): the next attempt makes a new one."""


@dataclass(frozen=True, slots=True)
class AttemptNotSent:
    at_ms: int
    number: int
    source: Source
    code: str


@dataclass(frozen=True, slots=True)
class AttemptUnknown:
    at_ms: int
    number: int
    source: Source
    code: str


@dataclass(frozen=True, slots=True)
class ExternalCapture:
    """A hold that was captured beside us, in the provider's dashboard: an attempt that nobody here started."""

    at_ms: int
    number: int
    provider: str
    provider_id: str | None
    amount_minor: int
    object_number: int
    source: Source


@dataclass(frozen=True, slots=True)
class AuthorizationExpired:
    at_ms: int
    source: Source


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants it cancelled while the truth is still out; void or refund follows when it lands."""

    at_ms: int
    by: str
    reason: str | None
    final: bool
    """By the order: the shopper cannot reopen it."""


@dataclass(frozen=True, slots=True)
class PaymentCancelled:
    at_ms: int
    by: str
    reason: str | None
    final: bool
    announced: bool = True
    """False when the world already knows and only `final` is new."""


@dataclass(frozen=True, slots=True)
class RefundRequested:
    at_ms: int
    by: str
    number: int
    amount_minor: int
    reason: str | None
    metadata: Mapping[str, Any]
    scheduled: bool
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class RefundPending:
    at_ms: int
    number: int
    source: Source
    provider_id: str | None


@dataclass(frozen=True, slots=True)
class RefundCompleted:
    at_ms: int
    number: int
    source: Source
    provider_id: str | None
    amount_minor: int
    counted: bool = True
    """False when another refund already counted the same movement of money."""


@dataclass(frozen=True, slots=True)
class RefundFailed:
    """Also days after it was completed: the money is back with the shop."""

    at_ms: int
    number: int
    source: Source
    code: str
    message: str
    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class RefundNotSent:
    at_ms: int
    number: int
    source: Source
    code: str


@dataclass(frozen=True, slots=True)
class RefundUnknown:
    at_ms: int
    number: int
    source: Source
    code: str


@dataclass(frozen=True, slots=True)
class ExternalRefund:
    """A refund made beside us, in the provider's dashboard."""

    at_ms: int
    number: int
    provider_id: str
    amount_minor: int
    status: RefundStatus
    source: Source


@dataclass(frozen=True, slots=True)
class DisputeChanged:
    at_ms: int
    dispute_id: str
    state: DisputeState
    amount_minor: int
    reason: str | None
    source: Source


@dataclass(frozen=True, slots=True)
class Contradicted:
    """A provider said the opposite of what it said before. Kept and alarmed, never dropped."""

    at_ms: int
    subject: str
    """"attempt:<number>" or "refund:<number>"."""
    recorded: str
    said: str
    source: Source


@dataclass(frozen=True, slots=True)
class DecidedByHand:
    """A person said what became of it; the fact they said comes next, with the source `operator`."""

    at_ms: int
    by: str
    subject: str
    """"attempt:<number>" or "refund:<number>"."""
    said: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReviewFlagged:
    at_ms: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReviewCleared:
    at_ms: int
    by: str
    reason: str


_CLASSES = (
    PaymentCreated, OrderConfirmed, Reopened, CancelledBeforeCreation, PaymentImported, AttemptStarted, ObjectCreated,
    ActionRequired, AttemptPending, AttemptApproved, AttemptDeclined, AttemptNotSent, AttemptUnknown,
    ExternalCapture, AuthorizationExpired, CancelRequested, PaymentCancelled, RefundRequested, RefundPending,
    RefundCompleted, RefundFailed, RefundNotSent, RefundUnknown, ExternalRefund, DisputeChanged, Contradicted,
    DecidedByHand, ReviewFlagged, ReviewCleared,
)  # fmt: skip

AttemptEvent = (
    AttemptStarted | ObjectCreated | ActionRequired | AttemptPending | AttemptApproved | AttemptDeclined
    | AttemptNotSent | AttemptUnknown | ExternalCapture
)  # fmt: skip
RefundEvent = (
    RefundRequested | RefundPending | RefundCompleted | RefundFailed | RefundNotSent | RefundUnknown
    | ExternalRefund
)  # fmt: skip
LifeEvent = (
    PaymentCreated | OrderConfirmed | Reopened | CancelledBeforeCreation | PaymentImported | AuthorizationExpired
    | CancelRequested | PaymentCancelled | DisputeChanged | Contradicted | DecidedByHand | ReviewFlagged
    | ReviewCleared
)  # fmt: skip
FirstEvent = PaymentCreated | CancelledBeforeCreation | PaymentImported
Event = AttemptEvent | RefundEvent | LifeEvent

EVENT_TYPES: dict[str, type[Any]] = {cls.__name__: cls for cls in _CLASSES}
"""Stored name -> class."""
