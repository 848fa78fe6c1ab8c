"""What core asks of the world: Protocols and the values that cross them. Implementations live in adapters/.

Room: core. Each method says which errors it raises and what the caller does about them; no driver's exception
crosses a port.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from payment_service.core.audit import AuditEntry
from payment_service.core.events import Event
from payment_service.core.frozen import dataclass
from payment_service.core.idempotency import Bound
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
    bound: Bound | None = None
    """What the command's key is bound to, for a command id that is made of one."""


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
    adopted: bool = False
    """`object_id` was named by the caller, not made by us: it must be this payment's, by what the provider carries of
    ours (metadata, custom_id), by amount and currency, before anything is done with it. Else DECLINED and closed."""
    payment_method_id: str | None = None
    """The saved method that `method_token` is of. With one and without a token nothing may be sent: it is gone."""
    customer: str | None = field(default=None, repr=False)
    """The provider's customer whom a saved method belongs to."""


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
    bound: Bound | None = None
    """Kept instead of an inbox mark: the caller's key, and what it is bound to by this."""
    patient: bool = False
    """Nobody waits for it at a screen: it came in a stream, and goes after what did not."""


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
    sent_for_s: float = 0.0
    """How long ago, at the claim, somebody may first have sent it."""
    due_in_s: float | None = None
    """Claimed before its time, because somebody asked: when its next look-up would have been."""
    where: Any = None
    """The contextvars.Context to work in: of the trace that left it to be done. None: the claimer's own."""


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A provider call that is not settled, for a person."""

    transaction_id: str
    payment_id: str
    kind: str
    status: str
    amount_minor: int
    currency: str
    provider: str
    owner: str | None
    """The worker that has it under way."""
    tries: int
    created_at_ms: int
    sent_at_ms: int | None
    """When it may first have been sent; None: certainly never."""
    due_in_s: float
    """When somebody looks at it next; below zero it is overdue."""


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

    async def under_way_s(self, key: str) -> float:
        """How much longer some worker has this provider call, at most; 0.0: nobody has it."""


class PaymentCache(Protocol):
    """Copies of payments, for reading alone. Never raises; may have nothing, and what it has may be past a while."""

    async def get(self, payment_id: str) -> Payment | None: ...

    def offer(self, payment: Payment) -> None:
        """As it was just read from the truth."""


class CallQueue(Protocol):
    """The intents that wait for a runner: scheduled ones, and those whose owner's lease has run out."""

    async def claim(self, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]: ...

    async def claim_of(self, payment_id: str, owner: str, limit: int, lease_s: float) -> list[ClaimedCall]:
        """Those of one payment that may have been sent and nobody has under way, due or not. Not counted as a try:
        whoever asks often must not bring a payment to the end of its look-ups."""

    async def renew(self, key: str, owner: str, lease_s: float) -> bool:
        """True: still ours, for `lease_s` more from before the call."""

    async def reschedule(self, key: str, owner: str, delay_s: float, *, sent: bool) -> None:
        """Not now. `sent` False: this claim certainly did not send it; if no earlier one may have, it counts as never
        sent."""


class OpenCalls(Protocol):
    """The same rows, for a person. Both methods raise Unavailable when the database is away."""

    async def open_calls(self, limit: int) -> Sequence[OpenCall]:
        """Oldest first."""

    async def hurry(self, limit: int) -> int:
        """Make due now what waits for its next look-up; how many, at most `limit`. That alone sends nothing."""


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
    approved: bool = False
    """With UNKNOWN: the shopper has approved the object, and a charge of ours has to take the money (PayPal)."""
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


class AuditLog(Protocol):
    """Who tried what (core/audit.py): append-only, hash-chained."""

    def record(self, entry: AuditEntry) -> None:
        """Never waits, never raises. Written soon after; what finds no room any more is counted in the log itself."""

    async def flush(self) -> None:
        """Return when all that was recorded is durable. Raises Unavailable: it is not yet, and may still become so."""


class Metrics(Protocol):
    """Counting. Never raises, never waits."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...

    def gauge(self, name: str, value: float, **labels: str) -> None: ...

    def counting(self, name: str, **labels: str) -> Callable[[], None]:
        """What counts one more under these labels: found once, for what every request does."""

    def observing(self, name: str, **labels: str) -> Callable[[float], None]:
        """The same for `observe`."""
