"""What a seed makes a shop do: order events as the broker gets them, and shoppers with what they ask of REST.

Pure: a seed alone decides it, so a run that failed can be repeated with the same inputs (not the same interleaving).
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PARTITIONS = 4
DIGITS = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}
CURRENCIES = ("USD", "USD", "USD", "EUR", "JPY", "KWD")
NOT_TAKEN = {"paypal": "KWD"}
TOKENS: tuple[str | None, ...] = (
    *("tok_visa",) * 8,
    *("tok_chargeDeclined", "tok_chargeDeclinedInsufficientFunds"),
    *("tok_threeDSecure",) * 2,
    *("tok_pending", "tok_error", "tok_timeout", None),
)
ORDER_TOKENS: tuple[str | None, ...] = (*("tok_visa",) * 6, "tok_chargeDeclined", "tok_pending", "tok_error", None)
JUNK = (
    b"{", b"\xff\xfe", b"[1,2]", b'"order.created"', b'{"topic":"order.created"}',
    b'{"topic":"order.created","orderId":"","userId":"u","totalAmount":1}',
    b'{"type":"order.created","data":{"orderId":"j-%d","userId":"u","totalAmount":-5,"currency":"USD"}}',
    b'{"type":"order.created","orderId":"j-%d","userId":"u","totalAmount":"1.234","currency":"USD"}',
    b'{"type":"order.created","orderId":"j-%d","userId":"u","totalAmount":5,"currency":"XXQ"}',
    b'{"topic":"order.cancelled","userId":"u"}',
)  # fmt: skip
BURSTS = 5
SKIPPED = (b'{"topic":"order.shipped","orderId":"s"}', b'{"hello":"world"}', b"{}", None)
"""Not for us: no dead letter, no payment."""


@dataclass(frozen=True, slots=True)
class OrderEvent:
    at_s: float
    kind: str
    """created, cancelled, junk or skipped."""
    partition: int
    value: bytes | None
    order_id: str = ""
    user_id: str = ""
    amount_minor: int = 0
    currency: str = "USD"
    method: str | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing a shopper does: `op` with a share of the amount, after a pause. `beside`: at the same time."""

    op: str
    token: str | None = None
    share: float | None = None
    pause_s: float = 0.0
    beside: "Ask | None" = None


@dataclass(frozen=True, slots=True)
class Shopper:
    at_s: float
    order_id: str
    user_id: str
    amount_minor: int
    currency: str
    manual: bool
    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Traffic:
    events: tuple[OrderEvent, ...]
    """By time."""
    shoppers: tuple[Shopper, ...]


def major(amount_minor: int, currency: str) -> str:
    digits = DIGITS[currency]
    text = str(amount_minor).zfill(digits + 1)
    return f"{text[:-digits]}.{text[-digits:]}" if digits else text


def plan_traffic(
    seed: int, seconds: float, orders: int, shoppers: int, *, beside_us: bool, provider: str = "mock"
) -> Traffic:
    """Spread over `seconds`. `beside_us`: what is done in the provider's dashboard is told by webhooks."""
    chance = random.Random(f"traffic {seed}")
    money = [it for it in CURRENCIES if it != NOT_TAKEN.get(provider)]
    events: list[OrderEvent] = []
    bursts = [chance.random() * seconds for _ in range(BURSTS)]
    for number in range(orders):
        # A shop's queue comes in bursts: then there is work in flight when something dies.
        at_s = chance.choice(bursts) if chance.random() < 0.6 else chance.random() * seconds
        events += _order_story(chance, f"o{seed}-{number}", at_s, money)
    for number in range(max(4, orders // 8)):
        events.append(_noise(chance, number, chance.random() * seconds))
    shop: list[Shopper] = []
    for number in range(shoppers):
        order_id, at_s = f"r{seed}-{number}", chance.random() * seconds
        shopper = _shopper(chance, order_id, at_s, money, beside_us)
        shop.append(shopper)
        if chance.random() < 0.4:  # the order service says the same, at about the same time
            events.append(_created(chance, shopper, at_s + chance.uniform(-1, 2), chance.randrange(PARTITIONS)))
        if chance.random() < 0.1:
            events.append(_cancelled(shopper, at_s + chance.uniform(0, 4), chance.randrange(PARTITIONS)))
    return Traffic(tuple(sorted(events, key=lambda it: it.at_s)), tuple(sorted(shop, key=lambda it: it.at_s)))


def _amount(chance: random.Random, money: list[str]) -> tuple[int, str]:
    currency = chance.choice(money)
    return chance.randrange(10, 2_000) * 10, currency  # three-decimal amounts are multiples of 10 at some providers


def _order_story(chance: random.Random, order_id: str, at_s: float, money: list[str]) -> Iterator[OrderEvent]:
    """An order as the shop tells it: once or often, corrected, cancelled before or after, in or out of order."""
    amount, currency = _amount(chance, money)
    who = Shopper(at_s, order_id, f"user-{chance.randrange(30)}", amount, currency, False, ())
    partition = chance.randrange(PARTITIONS)
    token = chance.choice(ORDER_TOKENS)
    created = _created(chance, who, at_s, partition, token)
    story = chance.choices(
        ("plain", "again", "elsewhere", "corrected", "cancelled", "cancelled first", "cancelled beside"),
        (5, 2, 1, 1.5, 2, 1, 1),
    )[0]
    yield created
    match story:
        case "again":
            for _ in range(chance.randrange(1, 4)):
                yield _later(created, at_s + chance.random() * 10, partition)
        case "elsewhere":
            yield _later(created, at_s + chance.random(), (partition + 1) % PARTITIONS)
        case "corrected":
            corrected = Shopper(at_s, order_id, who.user_id, amount + 10, currency, False, ())
            yield _created(chance, corrected, at_s + 0.05 + chance.random() * 4, partition, token)
        case "cancelled":
            yield _cancelled(who, at_s + 0.05 + chance.random() * 6, partition)
        case "cancelled first":
            yield _cancelled(who, at_s - 0.05 - chance.random() * 3, partition)
        case "cancelled beside":
            yield _cancelled(who, at_s + chance.uniform(-0.3, 0.3), (partition + 2) % PARTITIONS)


def _later(event: OrderEvent, at_s: float, partition: int) -> OrderEvent:
    return OrderEvent(
        at_s, event.kind, partition, event.value, event.order_id, event.user_id, event.amount_minor, event.currency,
        event.method, event.key, event.headers,
    )  # fmt: skip


def _created(chance: random.Random, who: Shopper, at_s: float, partition: int, token: str | None = None) -> OrderEvent:
    amount: Any = major(who.amount_minor, who.currency)
    fields = {"orderId": who.order_id, "userId": who.user_id, "currency": who.currency, "totalAmount": amount}
    if token is not None:
        fields["paymentMethodId"] = token
    value, headers = _envelope(chance.randrange(4), "order.created", fields)
    return OrderEvent(
        at_s, "created", partition, value, who.order_id, who.user_id, who.amount_minor, who.currency, token,
        chance.choice((None, b"order.created", who.order_id.encode())), headers,
    )  # fmt: skip


def _cancelled(who: Shopper, at_s: float, partition: int) -> OrderEvent:
    value, headers = _envelope(0, "order.cancelled", {"orderId": who.order_id, "userId": who.user_id})
    return OrderEvent(
        at_s, "cancelled", partition, value, who.order_id, who.user_id, who.amount_minor, who.currency,
        None, b"order.cancelled", headers,
    )  # fmt: skip


def _envelope(form: int, kind: str, fields: dict[str, Any]) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """Every envelope of the contract."""
    match form:
        case 0:
            return json.dumps({"topic": kind, **fields}).encode(), ()
        case 1:
            return json.dumps({"eventType": kind, "data": fields}).encode(), ()
        case 2:
            whole = {"specversion": "1.0", "id": "e", "source": "shop", "type": kind, "data": fields}
            return json.dumps(whole).encode(), ()
        case _:
            return json.dumps(fields).encode(), (("ce_specversion", b"1.0"), ("ce_type", kind.encode()))


def _noise(chance: random.Random, number: int, at_s: float) -> OrderEvent:
    if chance.random() < 0.3:
        return OrderEvent(at_s, "skipped", chance.randrange(PARTITIONS), chance.choice(SKIPPED), key=b"k")
    value = chance.choice(JUNK)
    return OrderEvent(at_s, "junk", chance.randrange(PARTITIONS), value % number if b"%d" in value else value, key=b"k")


def _shopper(chance: random.Random, order_id: str, at_s: float, money: list[str], beside_us: bool) -> Shopper:
    amount, currency = _amount(chance, money)
    manual = chance.random() < 0.3
    asks: list[Ask] = []
    for token in _cards(chance):
        asks += _paying(chance, token)
    if manual:
        share = chance.choice((None, None, 0.5))
        asks.append(chance.choice((Ask("capture", share=share), Ask("capture"), Ask("cancel"), Ask("get"))))
    asks += _after_paying(chance, beside_us)
    return Shopper(at_s, order_id, f"shopper-{chance.randrange(30)}", amount, currency, manual, tuple(asks))


def _cards(chance: random.Random) -> list[str | None]:
    """A card that is refused is followed by another one, mostly."""
    cards: list[str | None] = [chance.choice(TOKENS)]
    if cards[0] != "tok_visa" and chance.random() < 0.7:
        cards.append("tok_visa")
    return cards


def _paying(chance: random.Random, token: str | None) -> list[Ask]:
    beside = chance.choices((None, Ask("process", token), Ask("cancel", pause_s=chance.random() * 0.2)), (7, 2, 1))[0]
    asks = [Ask("process", token, pause_s=chance.random(), beside=beside)]
    if token in (None, "tok_threeDSecure"):  # without a card the shopper pays on the provider's own page
        others = (Ask("cancel"), Ask("get"), Ask("deny"))
        asks.append(chance.choice((Ask("approve", pause_s=chance.random()),) * 3 + others))
    return asks


def _after_paying(chance: random.Random, beside_us: bool) -> list[Ask]:
    share = chance.choice((None, 0.3, 0.6))
    most = Ask("refund", share=0.6)
    choices: list[list[Ask]] = [
        [], [Ask("get")], *([Ask("refund", share=share)],) * 3, *([Ask("refund", share=0.6, beside=most)],) * 2,
        [Ask("refund", share=0.4), Ask("refund", share=0.4), Ask("refund", share=0.4)], [Ask("create"), Ask("get")],
        [Ask("cancel")],
    ]  # fmt: skip
    if beside_us:
        choices += [
            [Ask("dashboard refund", share=0.3, pause_s=1)], [Ask("dashboard refund", share=0.5, beside=most)],
            [Ask("dispute", pause_s=1)], [Ask("dispute", pause_s=1), Ask("dispute won", pause_s=1)],
            [Ask("dispute", pause_s=1), Ask("dispute lost")], [Ask("expire", pause_s=1)],
            [Ask("refund", share=0.4), Ask("refund fails", pause_s=1)],
        ]  # fmt: skip
    return chance.choice(choices)
