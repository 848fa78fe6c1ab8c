"""What is sealed of a saved method, and what REST shows of it.

Room: codecs. Exactly the documented fields: what is not named here is never shown.
"""

from typing import Any

import orjson

from payment_service.codecs.rest import next_action_view
from payment_service.codecs.times import rfc3339
from payment_service.core.errors import Malformed
from payment_service.core.payment_method import Method, MethodSecrets
from payment_service.core.ports import NextAction


def encode_method_secrets(secrets: MethodSecrets) -> bytes:
    """Plain bytes: the caller seals them before they go anywhere. What is not there is not written, so that a worker
    that is older than a field reads all that does not need it."""
    fields = {name: getattr(secrets, name) for name in MethodSecrets.__slots__}
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})


def decode_method_secrets(data: bytes) -> MethodSecrets:
    """Raises Malformed when it is not what encode_method_secrets wrote."""
    try:
        return MethodSecrets(**orjson.loads(data))
    except (ValueError, TypeError) as error:
        raise Malformed(f"stored secrets cannot be read: {type(error).__name__}") from None


def method_view(method: Method, next_action: NextAction | None = None) -> dict[str, Any]:
    """`next_action` is for its user alone, as all of this is."""
    card = method.card
    return {
        "id": method.method_id,
        "type": method.type,
        "provider": method.provider,
        "status": method.status,
        "isDefault": method.is_default,
        "brand": card.brand,
        "last4": card.last4,
        "expMonth": card.exp_month,
        "expYear": card.exp_year,
        "nextAction": next_action_view(next_action) if next_action is not None else None,
        "createdAt": rfc3339(method.created_at_ms),
    }
