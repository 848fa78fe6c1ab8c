"""What may be asked of a payment. Whatever comes in, by whatever door, becomes one of these.

Room: core. Time, ids and the caller's identity arrive inside the command, so that deciding needs no clock.

`payment_id`: the lane and the row. `command_id`: the inbox key; it outlives offsets and retries (design §3).
`by`: as in events. `owner`: when set, the payment must belong to this user, else it is "not found".
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from payment_service.core.frozen import dataclass
from payment_service.core.terms import CaptureMethod, DisputeState, Kind, Source, Verdict


@dataclass(frozen=True, slots=True)
class CreatePayment:
    """By REST, or by `order.created` (`by_order`): the order's word decides owner, amount and currency."""

    payment_id: str
    command_id: str
    at_ms: int
    by: str
    order_id: str
    user_id: str
    amount_minor: int
    currency: str
    provider: str
    payment_method_id: str | None = None
    capture_method: CaptureMethod = CaptureMethod.AUTOMATIC
    description: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    by_order: bool = False
    confirmed: bool = False
    """The order service was asked and agrees (REST), so it is not `unconfirmed`."""
    charge: bool = False
    """`order.created` with automatic processing: also start the one charge an order may start."""


@dataclass(frozen=True, slots=True)
class StartCharge:
    """Process: charge, or authorize when the payment is captured by hand."""

    payment_id: str
    command_id: str
    at_ms: int
    by: str
    owner: str | None = None
    payment_method_id: str | None = None
    has_method: bool = False
    """A means of payment comes with it (a saved one or a one-time token)."""
    approved: bool = False
    """The shopper approved the object at the provider (PayPal): it can be captured without the browser."""
    object_id: str | None = None
    require_confirmed: bool = False
    """Production: refuse a payment that the order never confirmed."""


@dataclass(frozen=True, slots=True)
class StartCapture:
    payment_id: str
    command_id: str
    at_ms: int
    by: str
    owner: str | None = None
    amount_minor: int | None = None
    """None: all that is authorized. Less: the rest is released, and it is final."""


@dataclass(frozen=True, slots=True)
class Cancel:
    payment_id: str
    command_id: str
    at_ms: int
    by: str
    owner: str | None = None
    reason: str | None = None
    by_order: bool = False
    order_id: str = ""
    user_id: str = ""
    provider: str = ""
    refund_succeeded: bool = False
    """CANCEL_REFUNDS_SUCCEEDED: an order's cancellation also gives paid money back."""


@dataclass(frozen=True, slots=True)
class RequestRefund:
    payment_id: str
    command_id: str
    at_ms: int
    by: str
    owner: str | None = None
    amount_minor: int | None = None
    """None: all that can be refunded."""
    reason: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordObject:
    payment_id: str
    command_id: str
    at_ms: int
    number: int
    object_id: str


@dataclass(frozen=True, slots=True)
class RequireAction:
    payment_id: str
    command_id: str
    at_ms: int
    number: int
    action_type: str
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """What the provider says of one attempt (`kind` not REFUND) or one refund."""

    payment_id: str
    command_id: str
    at_ms: int
    kind: Kind
    number: int
    verdict: Verdict
    source: Source
    provider_id: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    code: str = ""
    message: str = ""
    decline_code: str | None = None
    review: tuple[str, ...] = ()
    """Reasons for a person to look, found by whoever read the answer (e.g. another account)."""
    object_closed: bool = False
    """With DECLINED: the provider object is over for good, nothing can be confirmed or paid with it any more."""


@dataclass(frozen=True, slots=True)
class ExpireAction:
    payment_id: str
    command_id: str
    at_ms: int
    number: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody knows what became of a charge, the provider does not have it, and it is too late or not wanted any more
    to send it again: it ends as a no once its provider object is cancelled."""

    payment_id: str
    command_id: str
    at_ms: int
    number: int


@dataclass(frozen=True, slots=True)
class SendAgain:
    """A call that may have been sent is about to be sent once more. It changes nothing and is marked: under the id of
    the word that the call was not sent, so that this word, when it comes late, is not heard any more."""

    payment_id: str
    command_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class DecideByHand:
    """A person has found out what became of an open attempt or refund. `answer`: of Source.OPERATOR."""

    payment_id: str
    command_id: str
    at_ms: int
    by: str
    reason: str
    answer: RecordAnswer


@dataclass(frozen=True, slots=True)
class ExpireAuthorization:
    payment_id: str
    command_id: str
    at_ms: int
    source: Source


@dataclass(frozen=True, slots=True)
class RecordExternalCapture:
    """A hold of the payment's object `object_number` was captured, and not by us."""

    payment_id: str
    command_id: str
    at_ms: int
    provider: str
    provider_id: str | None
    amount_minor: int
    object_number: int
    source: Source


@dataclass(frozen=True, slots=True)
class RecordExternalRefund:
    payment_id: str
    command_id: str
    at_ms: int
    provider_id: str
    amount_minor: int
    verdict: Verdict
    source: Source


@dataclass(frozen=True, slots=True)
class RecordDispute:
    payment_id: str
    command_id: str
    at_ms: int
    dispute_id: str
    state: DisputeState
    amount_minor: int
    reason: str | None
    source: Source
    reopened: bool = False
    """It was won, and the provider says that it is open again; else such news is older than the end it had."""


@dataclass(frozen=True, slots=True)
class FlagReview:
    payment_id: str
    command_id: str
    at_ms: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClearReview:
    payment_id: str
    command_id: str
    at_ms: int
    by: str
    reason: str


Command = (
    CreatePayment | StartCharge | StartCapture | Cancel | RequestRefund | RecordObject | RequireAction
    | RecordAnswer | ExpireAction | GiveUp | SendAgain | DecideByHand | ExpireAuthorization | RecordExternalCapture
    | RecordExternalRefund | RecordDispute | FlagReview | ClearReview
)  # fmt: skip
