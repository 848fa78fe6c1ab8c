"""What passes between a stream and its handler: records, the work they mean, and the ports that a delivery asks for.

Room: Kafka in. Shapes, and how records are read; the last two are Delivery's own.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from time import monotonic
from typing import Any, Protocol, TypeVar

from payment_service.core.errors import Malformed, PaymentError
from payment_service.core.frozen import dataclass
from payment_service.core.offsets import DonePrefix

ReadT = TypeVar("ReadT")


class Fate:
    """Outcomes as DeliveryMetrics counts them; dropped: not started because the assignment ended."""

    DONE, SKIPPED, DEAD = "done", "skipped", "dead_letter"
    RETRIED, DROPPED, CRASHED = "retried", "dropped", "crashed"


@dataclass(frozen=True, slots=True)
class Record:
    """What a stream gives us: always raw. An order may hold a one-time token: no log or error shows the bytes."""

    topic: str
    partition: int
    offset: int
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes], ...] = field(repr=False)
    timestamp_ms: int

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset


def record_of(it: Any) -> Record:
    """From aiokafka's record. A header may have no value in Kafka: to whoever reads it that is an empty one."""
    headers = tuple([(name, text or b"") for name, text in it.headers])
    return Record(it.topic, it.partition, it.offset, it.key, it.value, headers, it.timestamp)


def record_of_event(message: Any) -> Record:
    """From the message of a Faust event."""
    headers = message.headers or ()
    given = headers.items() if isinstance(headers, Mapping) else headers
    pairs = tuple([(name, text or b"") for name, text in given])
    timestamp_ms = int(message.timestamp * 1000)
    return Record(message.topic, message.partition, message.offset, message.key, message.value, pairs, timestamp_ms)


@dataclass(frozen=True, slots=True)
class Work:
    """What a handler made of a record.

    `lane`: what must not run side by side: the payment id from the decoded value, never the Kafka key.
    `start`: done when the outcome is durable. May be called again with the same meaning: Idempotent by an id
    inside the record. A Future costs no task; a coroutine gets one.
    """

    lane: str
    start: Callable[[], Awaitable[object]]


class StreamHandler(Protocol):
    @property
    def name(self) -> str: ...

    def plan(self, record: Record) -> Work | None:
        """Decode, no waiting. None: nothing for us, counted as skipped. Raises: Malformed, Refused."""


@dataclass(slots=True)
class Carried:
    """What became of a batch that was carried out; the rest of it is durable."""

    refused: list[tuple[Any, PaymentError]] = field(default_factory=list)
    """aiokafka's records that can never be valid, each with why."""
    skipped: int = 0


def read_each(records: Sequence[Any], read: Callable[[Any], ReadT]) -> tuple[Carried, list[tuple[Any, ReadT]]]:
    """aiokafka's records, each with what `read` makes of it. Tombstones are skipped; where it raises Malformed, the
    record is refused."""
    carried = Carried()
    good: list[tuple[Any, ReadT]] = []
    for record in records:
        if record.value is None:
            carried.skipped += 1
            continue
        try:
            good.append((record, read(record)))
        except Malformed as error:
            carried.refused.append((record, error))
    return carried, good


class BatchHandler(Protocol):
    @property
    def name(self) -> str: ...

    async def carry_out(self, partition: int, records: Sequence[Any]) -> Carried:
        """aiokafka's records of one partition, in its order. Returns when their outcome is durable. May be called
        again with the same ones. Raises: Unavailable, OutcomeUnknown: all of them again."""


class DeadLetters(Protocol):
    async def __call__(self, record: Record, reason: str, error: str) -> None:
        """Return when it is durable (the broker's ack, or PostgreSQL). Raises: Unavailable: asked again."""


class DeliveryMetrics(Protocol):
    def counted(self, stream: str, outcome: str, amount: int = 1) -> None: ...

    def observed(self, stream: str, *, in_flight: int, window: int, backlog: int, oldest_age_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """How much is held at a time. Beyond it nothing is taken from the broker.

    `in_flight_max`: events started or queued in lanes. `partition_in_flight_max`: those of one partition, so
    that one hot key cannot fill all. `window_max`: of one partition, with what is finished behind an unfinished
    one: at most so much comes again after a kill -9.
    """

    in_flight_max: int
    partition_in_flight_max: int
    window_max: int

    @classmethod
    def of(cls, in_flight_max: int) -> "DeliveryLimits":
        partition = max(1, in_flight_max * 3 // 4)
        return cls(in_flight_max, partition, 4 * partition)


class PartitionState:
    """One partition in one assignment."""

    __slots__ = ("backlog", "events", "generation", "in_flight", "live", "over", "retried_at_ms", "window")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.window = DonePrefix()
        self.backlog: deque[Any] = deque()  # aiokafka's records that were fetched and wait for room
        self.events: deque[Any] = deque()  # Faust's events of the window, only when a Faust stream feeds us
        self.in_flight = 0
        self.live = True  # False: nothing of it is started any more
        self.over = False  # True: nothing of it is acknowledged any more
        self.retried_at_ms = 0


class InFlight:
    """An event in flight. Called by its future: no closure, no task."""

    __slots__ = ("attempts", "future", "lane", "owner", "part", "record", "refusal", "timer", "waiting", "work")

    def __init__(self, owner: "Answers", part: PartitionState, record: Record, lane: object) -> None:
        self.owner = owner
        self.part = part
        self.record = record
        self.lane = lane
        self.work: Work | None = None
        self.refusal: PaymentError | None = None  # set: it goes to the dead letters
        self.attempts = 0
        self.future: asyncio.Future[Any] | None = None  # kept: a task that nobody holds may be collected
        self.timer: asyncio.TimerHandle | None = None
        self.waiting: deque[InFlight] | None = None  # those behind it in its lane

    def __call__(self, future: "asyncio.Future[Any]") -> None:
        self.owner.answered(self, future)


class Answers(Protocol):
    def answered(self, item: InFlight, future: "asyncio.Future[Any]") -> None: ...


def release(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def now_ms() -> int:
    """Of a clock that only goes on."""
    return int(monotonic() * 1000)
