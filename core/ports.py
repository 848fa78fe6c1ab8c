"""What core asks of the world: Protocols and the values that cross them. Implementations live in adapters/.

Room: core. Each method says which errors it raises and what the caller does about them; no driver's exception
crosses a port.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from payment_service.core.events import Event
from payment_service.core.payment import Payment
from payment_service.core.terms import CaptureMethod, Kind, Topic, Verdict

ResultT = TypeVar("ResultT", covariant=True)

# --- the store -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NextAction:
    """What the shopper must do. `url` and `client_secret` let whoever has them act: never logged, stored sealed."""

    type: str
    """"redirect" or "use_client_secret"."""
    url: str | None = field(default=None, repr=False)
    client_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a payment needs and nobody may read: kept sealed beside the row, never in an event."""

    method_token: str | None = field(default=None, repr=False)
    """A one-time token that came at creation."""
    next_action: NextAction | None = field(default=None, repr=False)


NO_SECRETS = Secrets()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A payment and one command's inbox mark, read in one snapshot."""

    payment: Payment | None
    secrets: Secrets = NO_SECRETS
    head: bytes = b""
    """Last hash of the payment's audit chain."""
    marked: bool = False
    """The command was committed before: it must change nothing again."""


NOT_THERE = Loaded(None)


@dataclass(frozen=True, slots=True)
class Step:
    """One fact with its place: `sequence` and `topic` are None for an internal step."""

    event: Event
    version: int
    sequence: int | None
    topic: Topic | None
    after: Payment


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """Everything a provider's adapter needs for one attempt; stored sealed with the intent, re-sent as it is."""

    key: str
    """Idempotency key, from core.payment.provider_key."""
    kind: Kind
    number: int
    payment_id: str
    order_id: str
    provider: str
    amount_minor: int
    currency: str
    capture_method: CaptureMethod
    object_id: str | None = None
    object_key: str = ""
    """The idempotency key with which the provider object is created, when there is none yet."""
    method_token: str | None = field(default=None, repr=False)
    return_url: str | None = None
    description: str | None = None
    charge_id: str | None = None
    """The provider's id of the charge or authorization that a capture, void or refund is about."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A provider call that is committed with the change that decided it.

    `owner` None: scheduled, any worker's runner may claim it. Else the worker that will call, for `lease_s`.
    """

    call: ProviderCall
    owner: str | None
    lease_s: float


@dataclass(frozen=True, slots=True)
class Change:
    """All that one command does, committed whole or not at all.

    `steps` empty: nothing changes, only the inbox mark is kept. `command_id` empty: no mark is kept.
    """

    payment_id: str
    command_id: str
    loaded: Loaded
    steps: tuple[Step, ...]
    secrets: Secrets | None = None
    """None: as they were."""
    intents: tuple[Intent, ...] = ()


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A published event on its way to the broker."""

    shard: int
    payment_id: str
    sequence: int
    topic: str
    at_ms: int
    traceparent: str | None
    value: bytes


class Committed(StrEnum):
    COMMITTED = "COMMITTED"
    CONFLICT = "CONFLICT"
    """The row had another version, or the command was marked meanwhile: nothing happened. Load and decide again."""
    LOST = "LOST"
    """The connection broke: it may have been committed. Load: the version and the inbox mark tell."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A row of the timeline."""

    version: int
    sequence: int | None
    at_ms: int
    type: str
    event: Event


@dataclass(frozen=True, slots=True)
class PaymentFilter:
    user_id: str | None = None
    status: str | None = None
    provider: str | None = None
    created_from_ms: int | None = None
    created_to_ms: int | None = None
    amount_min: float | None = None
    """In major units, as the caller of REST gives it."""
    amount_max: float | None = None
    sort_by: str = "createdAt"
    descending: bool = True
    limit: int = 20
    offset: int = 0


@dataclass(frozen=True, slots=True)
class PaymentPage:
    payments: Sequence[Payment]
    total: int
    total_capped: bool


@dataclass(frozen=True, slots=True)
class ClaimedCall:
    """An intent that this worker's runner has claimed by lease."""

    call: ProviderCall
    tries: int
    """How often it was claimed before. 0: it was certainly never sent."""
    claimed_at: float
    """Monotonic seconds taken before the claim: the lease ends no earlier than this plus its length."""


class Eventual(Awaitable[ResultT], Protocol[ResultT]):
    """A result that will be there; what asyncio.Future is, without the import."""

    def add_done_callback(self, callback: Callable[[Any], object], /) -> None: ...

    def result(self) -> ResultT: ...

    def exception(self) -> BaseException | None: ...


class PaymentStore(Protocol):
    """The truth. Every method raises Unavailable when the database is away; nothing happened then."""

    async def load(self, payment_id: str, command_id: str = "") -> Loaded: ...

    def submit(self, change: Change) -> Eventual[Committed]:
        """Raises Refused at once, or through the result, for text that cannot be stored."""

    async def events(self, payment_id: str) -> list[StoredEvent]: ...

    async def find(self, query: PaymentFilter) -> PaymentPage: ...


class CallQueue(Protocol):
    """The intents that wait for a runner: scheduled ones, and those whose owner's lease has run out."""

    async def claim(self, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]: ...

    async def renew(self, key: str, owner: str, lease_s: float) -> bool:
        """True: still ours, for `lease_s` more from before the call."""

    async def reschedule(self, key: str, owner: str, delay_s: float, *, sent: bool) -> None:
        """Not now. `sent` False: it was certainly not sent, the next runner may send it as if new."""


# --- providers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider said, in our words. `next_action` with PENDING: the shopper has to act first."""

    verdict: Verdict
    provider_id: str | None = None
    """The provider's id of this movement (charge, authorization, capture, refund)."""
    object_id: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    code: str = ""
    message: str = ""
    decline_code: str | None = None
    next_action: NextAction | None = None
    review: tuple[str, ...] = ()
    object_closed: bool = False
    """With DECLINED: the provider object is cancelled or expired there; the next attempt needs a new one."""


class Provider(Protocol):
    """One payment provider. No method raises for what the provider says: every answer is a verdict.

    An exception out of these is a bug of the adapter and is taken as UNKNOWN by the caller.
    """

    name: str

    async def create_object(self, call: ProviderCall) -> Answer:
        """Make the provider object (moves no money). APPROVED carries `object_id`. Idempotent by `call.object_key`."""

    async def send(self, call: ProviderCall) -> Answer:
        """Do it. Idempotent by `call.key`."""

    async def lookup(self, call: ProviderCall) -> Answer:
        """What became of it: by object id, never by searching. "Not found" is UNKNOWN."""


# --- the rest --------------------------------------------------------------------------------------------------


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""

    def monotonic_s(self) -> float: ...


class Cipher(Protocol):
    """Authenticated encryption; `place` (column and row id) is bound in, so that a value cannot be moved."""

    def seal(self, plain: bytes, place: str) -> bytes: ...

    def unseal(self, sealed: bytes, place: str) -> bytes:
        """Raises Malformed when it was changed, moved, or sealed with a key we do not have."""


class Metrics(Protocol):
    """Counting. Never raises, never waits."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...
