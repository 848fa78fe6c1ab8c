"""What happens in the demo's shop: who orders what, and how each of them goes on. The same for the same seed.

Room: cli. Pure: no clock, no network.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from payment_service.core.money import EXPONENTS, to_major

SPREAD_S = 12.0
"""Time over which the orders come in."""
CURRENCIES = ("USD", "USD", "USD", "EUR", "EUR", "GBP", "INR", "JPY", "KWD")
PRICE_MAJOR_MAX = 400
TWICE_EVERY = 6
"""Every such order event is sent twice, as at-least-once delivery does."""
JUNK_EVERY = 15
"""One broken message for so many orders."""


class Kind(StrEnum):
    """How a shopper goes on."""

    PAYS = "pays"
    PAYS_AT_SECOND_TRY = "declined, then pays"
    DECLINED = "declined"
    SECURE = "3-D Secure"
    PENDING = "settles later"
    LEAVES = "never pays"
    CANCELS = "order cancelled"
    CANCELLED_FIRST = "cancelled before created"
    REFUND_FULL = "pays, full refund"
    REFUND_PARTS = "pays, partial refunds"
    REFUND_TOO_MUCH = "pays, asks too much back"
    CAPTURES = "authorised, then captured"
    VOIDS = "authorised, then cancelled"
    BY_REST = "order known by REST alone"


WEIGHTS = {
    Kind.PAYS: 40,
    Kind.PAYS_AT_SECOND_TRY: 9,
    Kind.DECLINED: 7,
    Kind.SECURE: 6,
    Kind.PENDING: 5,
    Kind.LEAVES: 6,
    Kind.CANCELS: 6,
    Kind.CANCELLED_FIRST: 4,
    Kind.REFUND_FULL: 5,
    Kind.REFUND_PARTS: 5,
    Kind.REFUND_TOO_MUCH: 3,
    Kind.CAPTURES: 5,
    Kind.VOIDS: 2,
    Kind.BY_REST: 4,
}
EXPECTED: dict[Kind, frozenset[str]] = {
    Kind.PAYS: frozenset({"SUCCEEDED"}),
    Kind.PAYS_AT_SECOND_TRY: frozenset({"SUCCEEDED"}),
    Kind.DECLINED: frozenset({"FAILED"}),
    # The shopper may leave in the middle of it, and money may take longer than a demo.
    Kind.SECURE: frozenset({"SUCCEEDED", "REQUIRES_ACTION", "PROCESSING"}),
    Kind.PENDING: frozenset({"SUCCEEDED", "PROCESSING"}),
    Kind.LEAVES: frozenset({"PENDING"}),
    Kind.CANCELS: frozenset({"CANCELLED"}),
    Kind.CANCELLED_FIRST: frozenset({"CANCELLED"}),
    Kind.REFUND_FULL: frozenset({"REFUNDED"}),
    Kind.REFUND_PARTS: frozenset({"PARTIALLY_REFUNDED"}),
    Kind.REFUND_TOO_MUCH: frozenset({"SUCCEEDED"}),
    Kind.CAPTURES: frozenset({"SUCCEEDED"}),
    Kind.VOIDS: frozenset({"CANCELLED"}),
    Kind.BY_REST: frozenset({"SUCCEEDED"}),
}
"""The statuses a payment may have when its story is over."""
REST_FIRST = frozenset({Kind.CAPTURES, Kind.VOIDS, Kind.BY_REST})
"""No order event: only REST can ask for a manual capture."""


@dataclass(frozen=True, slots=True)
class Story:
    number: int
    run: str
    kind: Kind
    at_s: float
    """When the order comes in, from the start."""
    amount_minor: int
    currency: str

    @property
    def order_id(self) -> str:
        return f"{self.run}-{self.number:05d}"

    @property
    def user_id(self) -> str:
        return f"shopper-{self.run}-{self.number}"

    @property
    def amount(self) -> int | float:
        return to_major(self.amount_minor, self.currency)

    @property
    def twice(self) -> bool:
        return self.number % TWICE_EVERY == 0


@dataclass(frozen=True, slots=True)
class Message:
    """One record for the orders topic."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def stories(run: str, count: int, seed: int) -> list[Story]:
    """Every kind in its share and at least once where there is room, in a mixed order."""
    random = Random(seed)  # noqa: S311 - a shop, not a secret
    total = sum(WEIGHTS.values())
    kinds = [kind for kind, weight in WEIGHTS.items() for _ in range(max(1, count * weight // total))]
    kinds += [Kind.PAYS] * (count - len(kinds))
    kinds = kinds[:count]
    random.shuffle(kinds)
    made = []
    for number, kind in enumerate(kinds):
        currency = random.choice(CURRENCIES)
        major = random.randint(5, PRICE_MAJOR_MAX)
        cents = 10 ** EXPONENTS[currency]
        amount_minor = major * cents + random.randrange(cents) // 10 * 10
        made.append(Story(number, run, kind, SPREAD_S * number / count, amount_minor, currency))
    return made


def created(story: Story, timestamp: str, form: int) -> Message:
    """`order.created` in one of the four envelopes that are seen in the wild."""
    fields = {
        "orderId": story.order_id, "orderNumber": f"ORD-{story.number}", "userId": story.user_id,
        "totalAmount": story.amount, "currency": story.currency, "timestamp": timestamp, "source": "order-service",
    }  # fmt: skip
    return _enveloped("order.created", story, fields, form)


def cancelled(story: Story, timestamp: str, form: int) -> Message:
    fields = {
        "orderId": story.order_id, "userId": story.user_id, "reason": "changed my mind", "timestamp": timestamp,
        "source": "order-service",
    }  # fmt: skip
    return _enveloped("order.cancelled", story, fields, form)


def _enveloped(kind: str, story: Story, fields: dict[str, Any], form: int) -> Message:
    key = story.order_id.encode()
    match form % 4:
        case 0:
            return Message(key, _json({"eventType": kind, **fields}))
        case 1:  # the old order service: the topic's name as the key
            return Message(b"orders", _json({"type": kind, "data": fields}))
        case 2:
            attributes = {"specversion": "1.0", "id": f"{kind}-{story.order_id}", "source": "/orders"}
            return Message(key, _json({**attributes, "type": kind, "data": fields}))
        case _:
            headers = (("ce_specversion", b"1.0"), ("ce_type", kind.encode()), ("ce_id", key), ("ce_source", b"/o"))
            return Message(None, _json(fields), headers)


def junk(run: str, count: int) -> list[tuple[Message, bool]]:
    """Messages that are no orders. True: it belongs into the dead letters; else it is skipped."""
    order: dict[str, Any] = {"eventType": "order.created", "orderId": f"{run}-junk", "userId": "u", "currency": "USD"}
    kinds = [
        (Message(b"k", b"{not json"), True),
        (Message(b"k", None), False),
        (Message(b"k", b"[1,2,3]"), True),
        (Message(b"k", _json({"eventType": "order.shipped", "orderId": f"{run}-junk"})), False),
        (Message(b"k", _json({**order, "totalAmount": -5})), True),
        (Message(b"k", b"\xff\xfe\x00"), True),
        (Message(b"k", _json({**order, "totalAmount": 10.999})), True),
        (Message(b"k", _json({"hello": "world"})), False),
        (Message(b"k", _json({**order, "totalAmount": 5, "currency": "XXX"})), True),
    ]
    return [kinds[number % len(kinds)] for number in range(max(1, count // JUNK_EVERY))]


def refunds_of(story: Story) -> Sequence[int]:
    """Minor units of each refund the shopper asks for."""
    match story.kind:
        case Kind.REFUND_FULL:
            return (story.amount_minor,)
        case Kind.REFUND_PARTS:
            part = max(1, story.amount_minor // 4)
            return (part, part)
        case _:
            return ()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
