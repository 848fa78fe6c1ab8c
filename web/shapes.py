# ruff: noqa: N815 - field names are as in JSON
"""The shapes of what REST answers, for the API's description. Rendered by codecs/rest.py; the tests hold both together.

Room: web.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from payment_service.core.terms import Kind, RefundStatus, Status
from payment_service.web.api_words import STATES

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""UTC, RFC 3339 with milliseconds."""
Minor = Annotated[int, Field(description="Integer in minor units of the currency (cents; yen for JPY).")]
Major = Annotated[float, Field(description="In major units, as `99.99`. Use the minor units to calculate.")]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217 code.")]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Amounts(Shape):
    """Cumulative, in minor units. Refundable = captured - refunded - refundPending - disputed."""

    authorized: int
    captured: int
    refundPending: int
    refunded: int
    disputed: int


class NextAction(Shape):
    """What the shopper must do. Shown to the payment's own user alone."""

    type: Literal["redirect", "use_client_secret"]
    url: str | None = Field(None, description="With `redirect`: where the browser has to go.")
    clientSecret: str | None = Field(None, description="With `use_client_secret`: for the provider's own library.")


class Failure(Shape):
    code: str | None
    message: str | None
    declineCode: str | None


class Payment(Shape):
    id: str
    orderId: str
    userId: str
    status: Status = Field(description=STATES)
    paymentProvider: str = Field(description="STRIPE, PAYPAL or MOCK.")
    paymentMethodId: str | None
    amount: Major
    amountMinor: Minor
    currency: Currency
    amounts: Amounts
    description: str | None
    metadata: dict[str, Any]
    cancelRequested: bool = Field(description="It will be voided or refunded when the provider's truth lands.")
    disputed: bool
    needsReview: bool = Field(description="What the provider says differs from ours; a person looks at it.")
    unconfirmed: bool = Field(description="The order has not confirmed owner and amount yet.")
    nextAction: NextAction | None
    failure: Failure | None
    providerPaymentId: str | None
    version: int
    createdAt: Time
    updatedAt: Time
    processedAt: Time | None


class Transaction(Shape):
    """One call to the provider, recorded before it was made."""

    id: str
    type: Kind
    status: Literal["PENDING", "SUCCEEDED", "FAILED", "UNKNOWN"]
    amount: Major
    amountMinor: Minor
    currency: Currency
    provider: str
    providerTransactionId: str | None
    failure: Failure | None
    createdAt: Time
    updatedAt: Time


class Refund(Shape):
    id: str
    paymentId: str
    status: RefundStatus
    amount: Major
    amountMinor: Minor
    currency: Currency
    reason: str | None
    createdAt: Time


class PaymentWithHistory(Payment):
    transactions: list[Transaction]
    refunds: list[Refund]


class RefundAndPayment(Shape):
    refund: Refund
    payment: Payment


class PaymentPage(Shape):
    payments: list[Payment]
    total: int = Field(description="Exact to 10,000.")
    totalCapped: bool
    limit: int
    offset: int
    hasMore: bool


class TimelineRow(Shape):
    version: int
    sequence: int | None = Field(description="Of the published event; null for an internal step.")
    type: str
    timestamp: Time
    by: str
    source: str | None
    reason: str | None
    details: dict[str, Any]


class Method(Shape):
    """A saved way to pay. What is charged is not shown; the rest is as the provider says it."""

    id: str = Field(description="Starts with `pmt_`; goes into `paymentMethodId`.")
    type: Literal["card", "paypal"]
    provider: str = Field(description="STRIPE, PAYPAL or MOCK.")
    status: Literal["PENDING", "REQUIRES_ACTION", "ACTIVE"] = Field(
        description="Only an ACTIVE one can be charged. REQUIRES_ACTION: the shopper has to do `nextAction`."
    )
    isDefault: bool
    brand: str | None
    last4: str | None
    expMonth: int | None
    expYear: int | None
    nextAction: NextAction | None
    createdAt: Time


class TableRow(Shape):
    """The `data` of the payment's last event, and which event that was. What an event has not is left out."""

    paymentId: str
    orderId: str
    userId: str
    status: Status
    amount: Major
    amountMinor: Minor
    currency: Currency
    paymentMethodId: str | None = None
    paymentProvider: str
    providerPaymentId: str | None = None
    amounts: Amounts
    refundId: str | None = None
    refundAmount: Major | None = None
    refundAmountMinor: Minor | None = None
    reason: str | None = None
    error: str | None = None
    sequence: int
    eventType: str
    timestamp: Time


class RemovedMethod(Shape):
    id: str
    deleted: Literal[True]


class ProviderEvent(BaseModel):
    """As the provider documents it; it is verified by its signature and kept as it came."""

    model_config = ConfigDict(extra="allow")


class Received(Shape):
    received: Literal[True]


class Health(Shape):
    status: Literal["UP"]
    service: str


class Readiness(BaseModel):
    """About REST alone; how broker, streams and providers are is told beside it."""

    model_config = ConfigDict(extra="allow")

    ready: bool
    draining: bool
    reasons: list[str]


class Error(BaseModel):
    """Every failure of every call."""

    model_config = ConfigDict(extra="forbid")

    success: Literal[False]
    code: str = Field(description="A word to program with; the message is for people.")
    message: str
    errors: dict[str, list[str]] | None = Field(None, description="What is wrong, by field.")
    requestId: str
    timestamp: Time
    declineCode: str | None = Field(None, description="With CARD_DECLINED: the provider's reason.")
    data: dict[str, Any] | None = Field(None, description="With /ready: the details.")
