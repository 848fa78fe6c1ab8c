"""The row's state: Payment <-> JSON text of `payments.state`.

Room: codecs. It is a fold of the events and can be made anew from them; the columns beside it serve queries only.
"""

from collections.abc import Callable
from dataclasses import MISSING
from dataclasses import fields as fields_of
from operator import itemgetter
from typing import Any, TypeVar

import orjson

from payment_service.core.errors import Malformed
from payment_service.core.payment import Attempt, Dispute, Payment, Refund
from payment_service.core.ports import NextAction, ProviderCall, Secrets
from payment_service.core.terms import AttemptState, CaptureMethod, DisputeState, Kind, RefundStatus, Status

ValueT = TypeVar("ValueT")


def _reader(cls: type[ValueT]) -> Callable[[dict[str, Any]], ValueT]:
    """Makes values by position: as keywords, each of the 36 names of a payment, which come from JSON, is compared with
    the names of the class one after another, a fifth of what a read costs (measured). Fields that came later take their
    defaults. Raises KeyError for one that is missing, TypeError for one that nobody knows."""
    known: Any = fields_of(cls)  # type: ignore[arg-type]
    defaults = {field.name: field.default for field in known if field.default is not MISSING}
    count, values = len(known), itemgetter(*(field.name for field in known))

    def read(fields: dict[str, Any]) -> ValueT:
        if len(fields) != count:
            fields = {**defaults, **fields}
        if len(fields) != count:
            raise TypeError("fields that nobody knows, or not all that there must be")
        return cls(*values(fields))

    return read


_read_payment, _read_attempt, _read_refund = _reader(Payment), _reader(Attempt), _reader(Refund)
_read_dispute, _read_call = _reader(Dispute), _reader(ProviderCall)


def encode_state(payment: Payment) -> bytes:
    return orjson.dumps(payment)


def decode_state(data: bytes | str) -> Payment:
    """Raises Malformed when it is not a state of ours."""
    try:
        fields: dict[str, Any] = orjson.loads(data)
        fields["capture_method"] = CaptureMethod(fields["capture_method"])
        fields["attempts"] = tuple(_attempt(a) for a in fields["attempts"])
        fields["refunds"] = tuple(_refund(r) for r in fields["refunds"])
        fields["disputes"] = tuple(_dispute(d) for d in fields["disputes"])
        fields["review"] = tuple(fields["review"])
        if fields.get("told") is not None:
            fields["told"] = Status(fields["told"])
        return _read_payment(fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Malformed(f"stored state cannot be read: {type(error).__name__}") from None


def _attempt(fields: dict[str, Any]) -> Attempt:
    fields["kind"] = Kind(fields["kind"])
    fields["state"] = AttemptState(fields["state"])
    return _read_attempt(fields)


def _refund(fields: dict[str, Any]) -> Refund:
    fields["status"] = RefundStatus(fields["status"])
    return _read_refund(fields)


def _dispute(fields: dict[str, Any]) -> Dispute:
    fields["state"] = DisputeState(fields["state"])
    return _read_dispute(fields)


def encode_secrets(secrets: Secrets) -> bytes:
    """Plain bytes: the caller seals them before they go anywhere."""
    return orjson.dumps(secrets)


def decode_secrets(data: bytes) -> Secrets:
    """Raises Malformed when it is not what encode_secrets wrote."""
    try:
        fields: dict[str, Any] = orjson.loads(data)
        action = fields["next_action"]
        return Secrets(fields["method_token"], NextAction(**action) if action is not None else None)
    except (ValueError, TypeError, KeyError) as error:
        raise Malformed(f"stored secrets cannot be read: {type(error).__name__}") from None


def encode_call(call: ProviderCall, traceparent: str | None = None) -> bytes:
    """The exact request of an attempt, with the trace in which it was decided. Plain bytes: the caller seals them
    before they go anywhere."""
    data = orjson.dumps(call)
    return data if traceparent is None else b'{"traceparent":%b,%b' % (orjson.dumps(traceparent), data[1:])


def decode_call(data: bytes) -> ProviderCall:
    """Raises Malformed when it is not what encode_call wrote."""
    return decode_traced_call(data)[0]


def decode_traced_call(data: bytes) -> tuple[ProviderCall, str | None]:
    """And the trace, where it has one. Raises Malformed, as decode_call."""
    try:
        fields: dict[str, Any] = orjson.loads(data)
        traceparent: str | None = fields.pop("traceparent", None)
        fields["kind"] = Kind(fields["kind"])
        fields["capture_method"] = CaptureMethod(fields["capture_method"])
        return _read_call(fields), traceparent
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Malformed(f"a stored request cannot be read: {type(error).__name__}") from None
