"""The words of the field, one per idea. Every other file of core/ uses these.

Room: core. Enumerations only; what they mean for one another is in payment.py and decide.py.
"""

from enum import StrEnum


class Status(StrEnum):
    """What the world sees of a payment: a view over its totals and attempts, never stored as a decision."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    AUTHORIZED = "AUTHORIZED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"
    CANCELLED = "CANCELLED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"


class Kind(StrEnum):
    """What a provider is asked to do; also the contract's transaction types."""

    CHARGE = "CHARGE"
    AUTHORIZE = "AUTHORIZE"
    CAPTURE = "CAPTURE"
    VOID = "VOID"
    REFUND = "REFUND"


TAKES_MONEY = frozenset({Kind.CHARGE, Kind.AUTHORIZE})
"""The attempts that start from the shopper's means of payment."""


class Verdict(StrEnum):
    """The five answers of a provider. A word that is not in the provider's own table is UNKNOWN."""

    APPROVED = "APPROVED"
    DECLINED = "DECLINED"
    NOT_SENT = "NOT_SENT"
    """Certainly nothing reached the provider. Final."""
    PENDING = "PENDING"
    """The provider has it and will say later. Stays open."""
    UNKNOWN = "UNKNOWN"
    """It may or may not have happened. Stays open until the provider or an operator says."""


class AttemptState(StrEnum):
    OPEN = "OPEN"
    """A call is scheduled, in flight, or accepted and not settled."""
    UNKNOWN = "UNKNOWN"
    ACTION = "ACTION"
    """Waiting for the shopper (3-D Secure, PayPal approval)."""
    DISPLACED = "DISPLACED"
    """Was waiting for the shopper, or for an answer that did not come; a void or another charge of its provider object
    is in flight and decides what becomes of it."""
    APPROVED = "APPROVED"
    DECLINED = "DECLINED"
    NOT_SENT = "NOT_SENT"
    SUPERSEDED = "SUPERSEDED"
    """A later attempt confirms the same provider object, or the object was cancelled."""


IN_THE_WAY = frozenset({AttemptState.OPEN, AttemptState.UNKNOWN, AttemptState.ACTION})
"""States of the one attempt that excludes another."""

UNSETTLED = IN_THE_WAY | {AttemptState.DISPLACED}


class RefundStatus(StrEnum):
    PENDING = "PENDING"
    """Reserved; the call is scheduled or in flight."""
    PROCESSING = "PROCESSING"
    """The provider has it and will say later."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    """Certainly never sent; the reservation is released."""
    UNKNOWN = "UNKNOWN"


REFUND_OPEN = frozenset({RefundStatus.PENDING, RefundStatus.PROCESSING, RefundStatus.UNKNOWN})


class DisputeState(StrEnum):
    OPEN = "OPEN"
    WON = "WON"
    LOST = "LOST"


class CaptureMethod(StrEnum):
    AUTOMATIC = "automatic"
    MANUAL = "manual"


class Source(StrEnum):
    """Who said what we record."""

    LIVE = "live"
    """The answer to the call itself."""
    LOOKUP = "lookup"
    WEBHOOK = "webhook"
    OPERATOR = "operator"


class Topic(StrEnum):
    """What is published. The value is both the topic's name and the event type."""

    CREATED = "payment.created"
    PROCESSED = "payment.processed"
    FAILED = "payment.failed"
    REFUNDED = "payment.refunded"
    REQUIRES_ACTION = "payment.requires_action"
    CANCELLED = "payment.cancelled"
    UNKNOWN = "payment.unknown"
    DISPUTED = "payment.disputed"
    REFUND_FAILED = "payment.refund_failed"
