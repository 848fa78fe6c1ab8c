"""What the mock remembers: its objects and the answers it gave, bounded.

Room: adapters/providers, beside mock.py. Nothing here knows what a token means.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import StrEnum

from payment_service.core.ports import Answer
from payment_service.core.terms import Kind

OBJECTS_MAX = 20_000
"""Provider objects in memory (about 1 KB each); beyond it the oldest settled one is forgotten."""
KEYS_MAX = 4 * OBJECTS_MAX
"""Answers in memory, over all objects."""


class State(StrEnum):
    OPEN = "OPEN"
    ACTION = "ACTION"
    """Waits for the shopper."""
    SETTLING = "SETTLING"
    AUTHORIZED = "AUTHORIZED"
    CAPTURED = "CAPTURED"
    CANCELLED = "CANCELLED"


@dataclass(slots=True)
class MockObject:
    """`authorized` or `captured` None: it happened before the memory begins, nobody knows how much."""

    object_id: str
    currency: str
    recalled: bool
    """Made from a later call, not by `create_object`: it may have been through more than is known."""
    state: State = State.OPEN
    kind: Kind = Kind.CHARGE
    """CHARGE or AUTHORIZE: what a shopper's approval or a settlement completes."""
    amount_minor: int = 0
    settles_at_ms: int = 0
    authorized: int | None = 0
    captured: int | None = 0
    refunded: int = 0
    settled: bool = False
    keys: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer under its key. `fingerprint`: a hash of what was asked, so that no token is kept."""

    fingerprint: int
    answer: Answer


class MockMemory:
    """Limits: `objects_max` objects and `keys_max` answers; an object is forgotten together with its answers."""

    def __init__(self, objects_max: int = OBJECTS_MAX, keys_max: int = KEYS_MAX) -> None:
        self._objects_max, self._keys_max = objects_max, keys_max
        self._forgettable: deque[str] = deque()
        self.objects: OrderedDict[str, MockObject] = OrderedDict()
        self.said: dict[str, Said] = {}

    def remember(self, object_id: str, currency: str, *, recalled: bool) -> MockObject:
        thing = self.objects[object_id] = MockObject(object_id, currency, recalled)
        return thing

    def say(self, thing: MockObject, key: str, fingerprint: int, answer: Answer) -> Answer:
        self.said[key] = Said(fingerprint, answer)
        thing.keys.append(key)
        while len(self.objects) > self._objects_max or len(self.said) > self._keys_max:
            self._forget_one()
        return answer

    def settled(self, thing: MockObject) -> None:
        if not thing.settled:
            thing.settled = True
            self._forgettable.append(thing.object_id)

    def _forget_one(self) -> None:
        """The oldest settled object, or the oldest of all when none is settled."""
        forgotten: MockObject | None = None
        while self._forgettable and forgotten is None:
            oldest = self.objects[self._forgettable.popleft()]
            if oldest.state in (State.ACTION, State.SETTLING):
                oldest.settled = False  # declined once, tried again since
            else:
                forgotten = self.objects.pop(oldest.object_id)
        if forgotten is None:
            _, forgotten = self.objects.popitem(last=False)
        for key in forgotten.keys:
            del self.said[key]
