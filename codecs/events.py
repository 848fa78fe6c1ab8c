"""Stored facts: event <-> bytes of `payment_events`.

Room: codecs. The bytes are JSON with the event's own field names; they are written once and hashed, so what was
written must stay readable for ever: unknown fields are an error, missing ones take their default.
"""

from enum import StrEnum
from typing import Any

import orjson

from payment_service.core.errors import Malformed
from payment_service.core.events import EVENT_TYPES, Event
from payment_service.core.terms import CaptureMethod, DisputeState, Kind, RefundStatus, Source

_ENUM_FIELDS: dict[str, type[StrEnum]] = {
    "source": Source,
    "kind": Kind,
    "capture_method": CaptureMethod,
}
_ENUM_FIELDS_BY_TYPE: dict[str, dict[str, type[StrEnum]]] = {
    "ExternalRefund": {"status": RefundStatus},
    "DisputeChanged": {"state": DisputeState},
}


def encode_event(event: Event) -> bytes:
    """orjson writes dataclasses and text enumerations natively: about 1 us."""
    return orjson.dumps(event)


def decode_event(type_name: str, data: bytes) -> Event:
    """Raises Malformed for a type or fields that no version of ours has written."""
    cls = EVENT_TYPES.get(type_name)
    if cls is None:
        raise Malformed(f"unknown event type {type_name[:40]!r}")
    try:
        fields: dict[str, Any] = orjson.loads(data)
        enums = {**_ENUM_FIELDS, **_ENUM_FIELDS_BY_TYPE.get(type_name, {})}
        for name, enum in enums.items():
            if name in fields:
                fields[name] = enum(fields[name])
        event: Event = cls(**fields)
    except (ValueError, TypeError, AttributeError) as error:
        raise Malformed(f"stored {type_name} cannot be read: {type(error).__name__}") from None
    return event
