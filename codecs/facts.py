"""What one side told of a payment <-> the message of the topic payment-facts, sealed; key = order id.

Room: codecs. Ids, amounts and states alone: no token, nothing of a person.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from payment_service.core.errors import Malformed
from payment_service.core.ports import Cipher
from payment_service.core.reconciliation import Fact, Side

TOPIC = "payment-facts"


class Told(NamedTuple):
    """Some words about one payment, in the order in which they were told."""

    payment_id: str
    order_id: str
    facts: Sequence[Fact]


def encode_told(told: Told, cipher: Cipher) -> bytes:
    plain = {"paymentId": told.payment_id, "orderId": told.order_id, "facts": list(told.facts)}
    return cipher.seal(orjson.dumps(plain), _place(told.order_id.encode()))


def decode_told(key: bytes | None, value: bytes, cipher: Cipher) -> Told:
    """Raises Malformed for what none of our workers wrote."""
    try:
        body: dict[str, Any] = orjson.loads(cipher.unseal(value, _place(key or b"")))
        told = Told(str(body["paymentId"]), str(body["orderId"]), [_fact(it) for it in body["facts"]])
    except (KeyError, TypeError, ValueError):
        raise Malformed("not a fact of a payment") from None
    if told.order_id.encode() != key:
        raise Malformed("a fact under another key than its order's")
    return told


def _fact(body: dict[str, Any]) -> Fact:
    """Raises KeyError, ValueError, TypeError."""
    side = Side(body["side"])
    needed = {Side.OURS: ("payment",), Side.ORDER: ("amountMinor", "currency")}
    for name in needed.get(side, ("call", "amountMinor", "currency")):
        body[name]
    return {**body, "side": side, "atMs": int(body["atMs"])}


def _place(key: bytes) -> str:
    return f"{TOPIC}:{key.decode(errors='replace')}"
