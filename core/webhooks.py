"""What providers tell us by themselves, in our words; and what a provider's file does with a webhook.

Room: core. A webhook is a hint that carries news: verified, then applied; what is odd, old or contradicting is asked
for again first (design §4). The same verdicts as on the live path: a word that is not known is UNKNOWN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from payment_service.core.ports import Answer
from payment_service.core.terms import DisputeState, Kind


@dataclass(frozen=True, slots=True)
class AttemptNews:
    """What became of a provider object: charged or authorized (also by the shopper's browser), captured, cancelled."""

    kind: Kind
    """CHARGE, AUTHORIZE, CAPTURE or VOID; a VOID that nobody here asked for is one made in the dashboard."""
    answer: Answer
    number: int | None = None
    """Of our attempt, where the provider carries it; else it is about the attempt that uses the object."""


@dataclass(frozen=True, slots=True)
class RefundNews:
    """`answer.provider_id` is the provider's id of the refund. `number` None: made beside us, or not told."""

    answer: Answer
    number: int | None = None


@dataclass(frozen=True, slots=True)
class DisputeNews:
    dispute_id: str
    state: DisputeState
    amount_minor: int
    currency: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Approved:
    """The shopper approved the object (PayPal): it can be captured without the browser."""


@dataclass(frozen=True, slots=True)
class AuthorizationEnded:
    """The hold expired at the provider."""


@dataclass(frozen=True, slots=True)
class MethodNews:
    """A saved method changed at the provider. `detached`: it can never be charged again."""

    method_id: str
    detached: bool
    brand: str | None = None
    last4: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None


News = AttemptNews | RefundNews | DisputeNews | Approved | AuthorizationEnded | MethodNews


@dataclass(frozen=True, slots=True)
class Notice:
    """One provider event, read. Holds no card holder data and no secret."""

    provider: str
    event_id: str
    type: str
    """The provider's own word."""
    created_at_ms: int
    payment_id: str | None
    """Ours, where the provider carries it (metadata, custom_id)."""
    object_id: str | None
    """The provider object (PaymentIntent, PayPal order)."""
    charge_id: str | None
    news: tuple[News, ...]
    """Empty: nothing that concerns us."""
    refetch: bool = False
    """The event itself says too little, or may be old: ask before it is applied. Always so for PayPal."""
    review: tuple[str, ...] = ()
    """Another account or mode than ours."""


class WebhookReader(Protocol):
    """A provider's side of its webhooks. One for each configured provider that has a webhook secret or id."""

    @property
    def asks_to_verify(self) -> bool:
        """The provider is asked about every event, before it is believed: whoever sends us anything makes us ask."""

    async def verify(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        """Of the raw body, before anything else reads it. Header names in small letters.

        Raises: Refused INVALID_SIGNATURE; Malformed; Unavailable when it cannot be verified now (PayPal's
        certificate or postback cannot be reached): the provider is asked to send it again.
        """

    def read(self, body: bytes) -> Notice:
        """Of a body that was verified when it came in. Raises Malformed."""

    async def refetch(self, notice: Notice) -> Notice:
        """The same notice with the object's present state, and with `payment_id` where the event had none.

        Raises: Unavailable when the provider cannot be asked now; RATE_LIMITED: when it was asked too often.
        """


# --- on the way: verified, durable, applied ------------------------------------------------------------------------


class WebhookStatus(StrEnum):
    RECEIVED = "RECEIVED"
    """Kept, and not applied yet; also while the provider cannot be asked."""
    PROCESSED = "PROCESSED"
    PARKED = "PARKED"
    """Its payment, or that payment's provider object, is not known yet."""
    IGNORED = "IGNORED"
    """Nothing that concerns us."""
    FAILED = "FAILED"
    """It could not be applied: a person looks. It can be replayed."""


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """A verified event as it travels: the raw body, and beside it what is needed to find it without reading that."""

    provider: str
    event_id: str
    type: str
    created_at_ms: int
    received_at_ms: int
    payment_id: str | None
    object_id: str | None
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClaimedWebhook:
    """A kept event that this worker applies now. `tries` fences: a later claim's result is not overwritten."""

    row_id: int
    webhook: ReceivedWebhook
    tries: int
    waited_s: float
    """Since it was kept, or replayed."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of an event. `delay_s`: with RECEIVED and PARKED, when it is looked at again."""

    status: WebhookStatus
    reason: str = ""
    payment_id: str | None = None
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class ListedWebhook:
    """A row for people, without its body."""

    row_id: int
    provider: str
    event_id: str
    type: str
    status: str
    reason: str
    payment_id: str | None
    object_id: str | None
    tries: int
    received_at_ms: int
    updated_at_ms: int


class WebhookLog(Protocol):
    """Where an event is durable before its sender hears 200."""

    async def append(self, webhook: ReceivedWebhook) -> str:
        """The name of the place that has it. Raises Unavailable: no place took it, the sender has to come again."""


class WebhookStore(Protocol):
    """The kept events. Every method raises Unavailable when the database is away."""

    async def keep(self, webhook: ReceivedWebhook) -> bool:
        """False: it was there before, by provider and event id. Raises Refused for text that cannot be stored."""

    async def claim(self, limit: int, lease_s: float) -> Sequence[ClaimedWebhook]:
        """Those that are due, each for one worker and `lease_s`."""

    async def settle(self, claimed: ClaimedWebhook, applied: Applied) -> None:
        """Nothing happens when somebody else has claimed it since."""

    async def payment_of(self, provider: str, provider_ids: Sequence[str]) -> str | None:
        """Whose attempt has one of these ids at the provider. None also when they belong to several payments."""

    async def waiting(self) -> Mapping[str, tuple[int, float]]:
        """RECEIVED, PARKED and FAILED -> how many (counted to a limit), and the age of the oldest in seconds."""

    async def remove_old(self, age_s: float, limit: int) -> int:
        """Settled ones only. How many there were."""


class WebhookRecords(Protocol):
    """What operators ask of the kept events. Both methods raise Unavailable."""

    async def listed(
        self, *, status: str | None = None, provider: str | None = None, row_id: int | None = None, limit: int
    ) -> Sequence[ListedWebhook]:
        """Newest first."""

    async def replay(self, *, status: str | None = None, row_id: int | None = None) -> int:
        """How many are applied anew by whichever worker sweeps next. What they did before they do not do again."""
