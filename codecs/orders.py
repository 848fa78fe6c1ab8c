"""The order service's JSON: an order as it answers, a payment's outcome as it is told (contract §3).

Room: codecs.
"""

from typing import Any

import orjson

from payment_service.core.errors import Malformed, Refused
from payment_service.core.money import currency_code, to_minor
from payment_service.core.orders import Order, OrderWord

ID_LENGTH_MAX = 128


def decode_order(body: bytes, order_id: str) -> Order:
    """`{success, data: {order: O}}` or `{success, data: O}`. Raises Malformed, also for another order than the one
    that was asked for: whatever cannot be understood decides nothing."""
    try:
        envelope: Any = orjson.loads(body)
        data = envelope["data"]
        fields = data["order"] if isinstance(data.get("order"), dict) else data
        if envelope.get("success") is False or _id(fields["id"]) != order_id:
            raise Malformed("the order service answered something else")
        currency = currency_code(fields["currency"])
        amount_minor = to_minor(fields["totalAmount"], currency, "totalAmount")
        return Order(order_id, _id(fields["userId"]), amount_minor, currency)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Malformed("the order service's answer is no order") from None
    except Refused as error:
        raise Malformed(f"the order service's answer: {error.message}") from None


def _id(value: object) -> str:
    """Some shops' ids are numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= ID_LENGTH_MAX:
        raise ValueError
    return value


def encode_word(word: OrderWord) -> bytes:
    return orjson.dumps({"paymentStatus": word.word, "reason": word.reason})


def says_no(body: bytes) -> bool:
    """A success that its own body denies. An answer without a body, or with any other, is taken by its status."""
    try:
        envelope: Any = orjson.loads(body) if body else None
    except ValueError:
        return False
    return isinstance(envelope, dict) and envelope.get("success") is False
