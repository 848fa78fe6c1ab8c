"""The errors of the service, by what the caller must do about them.

PaymentError
├── Refused          final: a rule says no. 4xx; the same request again gets the same answer. Nothing happened.
├── Malformed        cannot be read as what it claims to be. 400, or the dead letters. Nothing happened.
├── Unavailable      nothing happened, and the same request with the same key may be sent again. 503 + Retry-After.
└── OutcomeUnknown   it may have happened. 202; only the reconciler and the provider's truth settle it.

A failed `assert` is our own bug: the worker stops, and no event is acknowledged.
Drivers' exceptions never leave adapters/: each adapter translates its own at one edge.
"""

from collections.abc import Mapping, Sequence


class PaymentError(Exception):
    """What every deliberate error of this service is. `code` is one of the contract's words."""

    default_code = "INTERNAL_ERROR"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code


class Refused(PaymentError):
    """A rule of the payment, of the caller's rights or of the input says no.

    `fields` names each bad field with its reasons; values are never in it.
    """

    default_code = "INVALID_STATE"

    def __init__(
        self, message: str, *, code: str | None = None, fields: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.fields = fields


class Malformed(PaymentError):
    """Bytes that are not what they should be. A stream puts them into the dead letters, REST answers 400."""

    default_code = "MALFORMED_JSON"


class Unavailable(PaymentError):
    """Something we need is away or busy; certainly nothing happened. Try the same again after `retry_after_s`."""

    default_code = "SERVICE_UNAVAILABLE"

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class OutcomeUnknown(PaymentError):
    """It may or may not have happened. Never repeat it under another key; ask for the truth."""

    default_code = "OUTCOME_UNKNOWN"


def invalid_field(field: str, reason: str) -> Refused:
    """A 422 for one field of an input."""
    return Refused(f"{field}: {reason}", code="VALIDATION_ERROR", fields={field: [reason]})
