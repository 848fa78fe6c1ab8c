"""What comes in on the order topics: bytes and headers -> a command, or nothing for us (contract §4).

Room: codecs. Three envelopes are accepted: flat `{"topic"|"eventType"|"type"|"detail-type": …, …}`, the same with
the fields under `data` (or `detail`), and CloudEvents, binary or structured. Null values and objects of another or
no type are nothing for us; anything else that cannot be read is Malformed.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import field
from typing import Any

import orjson

from payment_service.core.card_data import hide_card_numbers
from payment_service.core.commands import Cancel, CreatePayment
from payment_service.core.errors import Malformed, Refused
from payment_service.core.frozen import dataclass
from payment_service.core.ids import payment_id_of
from payment_service.core.money import currency_code, to_minor
from payment_service.core.payment_method import is_saved, own_method_id

ORDER_CREATED = "order.created"
ORDER_CANCELLED = "order.cancelled"
PROVIDERS = frozenset({"STRIPE", "PAYPAL", "MOCK"})
ID_LENGTH_MAX = 128
TEXT_LENGTH_MAX = 500
_TYPE_FIELDS = ("topic", "eventType", "type", "detail-type")


@dataclass(frozen=True, slots=True)
class OrderRules:
    """Settings that an order event is read with."""

    default_provider: str
    auto_process: bool
    cancel_refunds_succeeded: bool


@dataclass(frozen=True, slots=True)
class OrderCommand:
    """A command and the one-time token that came with it, which is too secret for the command."""

    command: CreatePayment | Cancel
    token: str | None = field(repr=False)
    names_provider: bool = True
    """False: the provider in the command is the default one."""


def decode_order_event(
    value: bytes | None, headers: Iterable[tuple[str, bytes]], rules: OrderRules, now_ms: int
) -> OrderCommand | None:
    """None: nothing for us. Raises Malformed, never with a value in its text."""
    if value is None:
        return None
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise Malformed("not JSON", code="MALFORMED_JSON") from None
    if not isinstance(body, dict):
        raise Malformed("not a JSON object", code="VALIDATION_ERROR")
    kind = _type_of(body, headers)
    if kind is None:
        return None
    fields = body.get("data", body.get("detail"))
    fields = fields if isinstance(fields, dict) else body
    try:
        order_id = _id(fields, "orderId")
        if kind == ORDER_CANCELLED:
            return _cancelled(order_id, fields, rules, now_ms)
        return _created(order_id, fields, rules, now_ms)
    except Refused as error:
        raise Malformed(error.message, code="VALIDATION_ERROR") from None


def _type_of(body: dict[str, Any], headers: Iterable[tuple[str, bytes]]) -> str | None:
    """The type of an event that is for us. A CloudEvents header outranks what the body says."""
    for name, text in headers:
        if name == "ce_type" and text:
            kind = text.decode(errors="replace")
            return kind if kind in (ORDER_CREATED, ORDER_CANCELLED) else None
    for name in _TYPE_FIELDS:
        said = body.get(name)
        if said in (ORDER_CREATED, ORDER_CANCELLED):
            return str(said)
    return None


def _text(fields: dict[str, Any], name: str, length_max: int) -> str | None:
    """A text as it is; numbers are taken as text, since some shops' ids are numbers."""
    value = fields.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > length_max or "\x00" in value:
        raise Malformed(f"{name}: must be text of at most {length_max} characters", code="VALIDATION_ERROR")
    return value


def _reason(fields: dict[str, Any]) -> str | None:
    """Without a card number that somebody typed: an event cannot be refused for it, and its reason is kept."""
    reason = _text(fields, "reason", TEXT_LENGTH_MAX)
    return hide_card_numbers(reason) if reason is not None else None


def _id(fields: dict[str, Any], name: str) -> str:
    value = _text(fields, name, ID_LENGTH_MAX)
    if value is None:
        raise Malformed(f"{name}: is missing", code="VALIDATION_ERROR")
    return value


def _provider(fields: dict[str, Any], rules: OrderRules) -> str:
    name = _text(fields, "paymentProvider", ID_LENGTH_MAX)
    if name is None:
        return rules.default_provider
    if name.upper() not in PROVIDERS:
        raise Malformed("paymentProvider: is none of ours", code="VALIDATION_ERROR")
    return name.upper()


def _command_id(kind: str, order_id: str, *counting: object) -> str:
    """Outlives offsets: the same event sent again is one, a corrected one is another (design §3)."""
    digest = hashlib.blake2b(repr(counting).encode(), digest_size=16).hexdigest()
    return f"{kind}:{order_id}:{digest}"


def _created(order_id: str, fields: dict[str, Any], rules: OrderRules, now_ms: int) -> OrderCommand:
    user_id = _id(fields, "userId")
    currency = currency_code(fields.get("currency", "USD"))
    amount_minor = to_minor(fields.get("totalAmount"), currency, "totalAmount")
    method = _text(fields, "paymentMethodId", ID_LENGTH_MAX)
    provider = _provider(fields, rules)
    saved = own_method_id(method) if is_saved(method) else None
    command = CreatePayment(
        payment_id_of(order_id),
        _command_id(ORDER_CREATED, order_id, user_id, amount_minor, currency, method, provider),
        now_ms, "order", order_id, user_id, amount_minor, currency, provider, saved,
        by_order=True, charge=rules.auto_process,
    )  # fmt: skip
    named = _text(fields, "paymentProvider", ID_LENGTH_MAX) is not None
    return OrderCommand(command, method if saved is None else None, named)


def _cancelled(order_id: str, fields: dict[str, Any], rules: OrderRules, now_ms: int) -> OrderCommand:
    user_id = _text(fields, "userId", ID_LENGTH_MAX) or ""
    command = Cancel(
        payment_id_of(order_id),
        _command_id(ORDER_CANCELLED, order_id, user_id),
        now_ms, "order", reason=_reason(fields), by_order=True, order_id=order_id,
        user_id=user_id, provider=rules.default_provider, refund_succeeded=rules.cancel_refunds_succeeded,
    )  # fmt: skip
    return OrderCommand(command, None)
