"""Every call of the API: what it takes, what it answers, who may make it, and what a caller has to know.

Room: web. api_document.py writes them down as OpenAPI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pydantic import BaseModel

from payment_service.web import shapes
from payment_service.web.bodies import (
    CancelBody,
    CaptureBody,
    CreateBody,
    ListQuery,
    ProcessBody,
    RefundBody,
    RefundOfBody,
)
from payment_service.web.method_bodies import MethodBody

Answers = Mapping[int, type[BaseModel] | list[type[BaseModel]]]


class Who(Enum):
    """Each with the names of the security schemes that let one in."""

    USER = ("token",)
    USER_OR_SERVICE = ("token", "internal", "internalKey")
    ANYBODY = ()
    SCRAPER = ("metrics",)
    """Anybody, or the bearer of METRICS_TOKEN."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation. `answers`: the shape of `data` by status; without any it answers plain text. `errors`: the words
    it may fail with, beside those of every call."""

    method: str
    path: str
    summary: str
    tag: str
    who: Who
    answers: Answers
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    flags: Mapping[str, str] | None = None
    """true/false query parameters: name -> what it does."""
    errors: Sequence[str] = ()
    about: str = ""
    """What the summary does not say (Markdown)."""

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_keyed(self) -> bool:
        """It takes an Idempotency-Key."""
        return self.method == "post" and self.who is not Who.ANYBODY

    @property
    def is_counted(self) -> bool:
        """It has the limits of a caller."""
        return self.who in (Who.USER, Who.USER_OR_SERVICE)


_BODY = ("VALIDATION_ERROR", "MALFORMED_JSON", "PAYLOAD_TOO_LARGE", "REQUEST_TIMEOUT")
_READ = ("PAYMENT_NOT_FOUND",)
_CHANGE = ("PAYMENT_NOT_FOUND", "INVALID_STATE", "IDEMPOTENCY_IN_PROGRESS", "IDEMPOTENCY_MISMATCH", *_BODY)
_PROVIDER = ("PROVIDER_NOT_CONFIGURED", "PROVIDER_UNAVAILABLE")
_WEBHOOK = (
    "INVALID_SIGNATURE", "IP_NOT_ALLOWED", "RATE_LIMITED", "PAYLOAD_TOO_LARGE", "REQUEST_TIMEOUT", "NOT_FOUND",
    "SERVICE_UNAVAILABLE", "MALFORMED_JSON", "PROVIDER_NOT_CONFIGURED",
)  # fmt: skip
_SIGNED = (
    "The body as the provider sends it, signed by its headers: `Stripe-Signature`; `PayPal-Transmission-Id`, `-Time`, "
    "`-Sig`, `PayPal-Cert-Url`, `PayPal-Auth-Algo`. 200 means that the event is kept for good; anything else asks the "
    "provider to send it again."
)

PAYMENTS: tuple[Call, ...] = (
    Call(
        "post", "/api/v1/payments", "Create the payment of an order", "Payments", Who.USER,
        {201: shapes.Payment, 200: shapes.Payment, 202: shapes.Payment}, CreateBody,
        errors=("PAYMENT_EXISTS", *_CHANGE, "AMOUNT_MISMATCH", "PROVIDER_NOT_CONFIGURED", "NOT_FOUND"),
        about="No money moves yet. An order has one payment: the same order with the same amount and currency again is "
        "200 and that payment; with others 409. After a cancellation the same call opens the payment again (201).",
    ),
    Call(
        "get", "/api/v1/payments", "List payments", "Payments", Who.USER, {200: shapes.PaymentPage}, query=ListQuery,
        errors=("VALIDATION_ERROR",),
        about="A user's own; the role `admin` sees everybody's, or those of `userId`.",
    ),
    Call(
        "get", "/api/v1/payments/{payment_id}", "Read a payment", "Payments", Who.USER,
        {200: shapes.PaymentWithHistory}, errors=(*_READ, "VALIDATION_ERROR"),
        flags={"sync": "Ask the provider first about whatever is not known yet: after a shopper came back, or a 202."},
        about="For its owner and the role `admin`. `nextAction` is shown to the owner alone.",
    ),
    Call(
        "get", "/api/v1/payments/{payment_id}/timeline", "What happened, in order", "Payments", Who.USER,
        {200: [shapes.TimelineRow]}, errors=_READ,
        about="For its owner and the role `admin`: every step with who and why, refused and late ones too.",
    ),
    Call(
        "post", "/api/v1/payments/{payment_id}/process", "Charge, or authorize", "Payments", Who.USER,
        {200: shapes.Payment, 202: shapes.Payment}, ProcessBody,
        errors=(*_CHANGE, *_PROVIDER, "CARD_DECLINED", "ORDER_UNCONFIRMED", "NOT_FOUND"),
        about="By its owner. What happens depends on `status`:\n"
        "- `PENDING`, `FAILED`: a new attempt, with the method given, else the one given at creation. Without any, the "
        "provider's object is made for the front end to go on with: `REQUIRES_ACTION`.\n"
        "- `REQUIRES_ACTION`: the same object and `nextAction` again; with a method, that object is confirmed with it; "
        "with `paymentIntentId`, the provider is asked how it stands.\n"
        "- `PROCESSING`, `UNKNOWN`: 202, and no second attempt.\n"
        "- `AUTHORIZED`, `SUCCEEDED`, `PARTIALLY_REFUNDED`, `REFUNDED`: 200 and the payment as it is.\n"
        "- `CANCELLED`: 409.\n\n"
        "It answers within about 25 seconds. **Look at `status`**: 200 is also the answer when the shopper has to act.",
    ),
    Call(
        "post", "/api/v1/payments/{payment_id}/capture", "Capture what was authorized", "Payments",
        Who.USER_OR_SERVICE, {200: shapes.Payment, 202: shapes.Payment}, CaptureBody,
        errors=(*_CHANGE, *_PROVIDER, "CARD_DECLINED"),
        about="By its owner, a service, or the roles `admin` and `service`. Once: a part is final, and the rest is let "
        "go.",
    ),
    Call(
        "post", "/api/v1/payments/{payment_id}/cancel", "Cancel before money was taken", "Payments",
        Who.USER_OR_SERVICE, {200: shapes.Payment}, CancelBody, errors=_CHANGE,
        about="By its owner, a service, or the roles `admin` and `service`. While a call to the provider is under way "
        "the answer has `cancelRequested: true`, and what was taken is given back when that call is answered. After a "
        "success: 409, refund instead.",
    ),
    Call(
        "get", "/api/v1/orders/{order_id}/payment", "Read the payment of an order", "Payments", Who.USER,
        {200: shapes.PaymentWithHistory}, errors=_READ, about="For its owner and the role `admin`.",
    ),
)  # fmt: skip

REFUNDS: tuple[Call, ...] = (
    Call(
        "post", "/api/v1/payments/{payment_id}/refund", "Give money back", "Refunds", Who.USER_OR_SERVICE,
        {200: shapes.RefundAndPayment}, RefundBody, errors=(*_CHANGE, *_PROVIDER, "REFUND_EXCEEDS"),
        about="By a service, or the roles that this installation allows (its owner among them, perhaps). Without an "
        "`amount`: all that is left. **Send an `Idempotency-Key`**: without one a repeated request is a second refund. "
        "A refund that is `PENDING` or `PROCESSING` completes, or fails, later: `payment.refunded`, "
        "`payment.refund_failed`.",
    ),
    Call(
        "post", "/api/v1/refunds", "Give money back, by payment id in the body", "Refunds", Who.USER_OR_SERVICE,
        {200: shapes.Refund}, RefundOfBody, errors=(*_CHANGE, *_PROVIDER, "REFUND_EXCEEDS"),
        about="The same for other services.",
    ),
)  # fmt: skip

METHODS: tuple[Call, ...] = (
    Call(
        "post", "/api/v1/payment-methods", "Save a way to pay", "Payment methods", Who.USER,
        {201: shapes.Method, 200: shapes.Method, 202: shapes.Method}, MethodBody,
        errors=("INVALID_STATE", "IDEMPOTENCY_IN_PROGRESS", "IDEMPOTENCY_MISMATCH", *_BODY, *_PROVIDER,
                "CARD_DECLINED"),
        about="The token comes from the provider's own elements and is never shown again. `REQUIRES_ACTION`: the bank "
        "wants to see the shopper; do `nextAction`, then read the list.",
    ),
    Call("get", "/api/v1/payment-methods", "List the user's saved ways to pay", "Payment methods", Who.USER,
         {200: [shapes.Method]}),
    Call("delete", "/api/v1/payment-methods/{method_id}", "Remove one", "Payment methods", Who.USER,
         {200: shapes.RemovedMethod}, errors=("NOT_FOUND", "INVALID_STATE"),
         about="It is also detached at the provider."),
    Call("put", "/api/v1/payment-methods/{method_id}/default", "Make it the user's default", "Payment methods",
         Who.USER, {200: shapes.Method}, errors=("NOT_FOUND", "INVALID_STATE")),
)  # fmt: skip

WEBHOOKS: tuple[Call, ...] = (
    Call("post", "/api/v1/webhooks", "A provider's event, told by its headers", "Webhooks", Who.ANYBODY,
         {200: shapes.Received}, shapes.ProviderEvent, errors=_WEBHOOK, about=_SIGNED),
    Call("post", "/api/v1/webhooks/{provider}", "A provider's event", "Webhooks", Who.ANYBODY, {200: shapes.Received},
         shapes.ProviderEvent, errors=_WEBHOOK, about=_SIGNED),
)  # fmt: skip

OPERATION: tuple[Call, ...] = (
    Call("get", "/health", "The process is up", "Operation", Who.ANYBODY, {200: shapes.Health}),
    Call("get", "/ready", "Whether REST can take payments", "Operation", Who.ANYBODY, {200: shapes.Readiness},
         errors=("SERVICE_UNAVAILABLE",), about="A 503 has the same fields in `data`."),
    Call("get", "/metrics", "What is counted, for Prometheus", "Operation", Who.SCRAPER, {}, errors=("UNAUTHORIZED",)),
    Call("get", "/tables/payments/{payment_id}", "A payment as it was last published", "Operation", Who.USER,
         {200: shapes.TableRow}, errors=("NOT_FOUND", "PAYMENT_NOT_FOUND"),
         about="For the role `admin`: this worker's copy of the table, late by nature; 404 if another worker has it."),
)  # fmt: skip

CALLS: tuple[Call, ...] = (*PAYMENTS, *REFUNDS, *METHODS, *WEBHOOKS, *OPERATION)
