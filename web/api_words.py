"""The words of the API's description: what it is for, and what each failure means and asks of the caller.

Room: web.
"""

from collections.abc import Mapping

from payment_service.web.envelope import STATUS_BY_CODE

DESCRIPTION = """\
Payments for the orders of a shop: one order has one payment. It is created, then processed (charged, or authorized and
captured later), and may be refunded.

**Try again safely.** A payment is never charged twice: creating is idempotent by its order, processing by the payment's
state. With an `Idempotency-Key` the very same answer comes again (`Idempotent-Replayed: true`); a refund without one is
always a new refund, so send a key with it.

**202 means "not known yet".** Nothing is to be repeated; read the payment until its status is no longer `PROCESSING` or
`UNKNOWN` (`?sync=true` asks the provider at once), or wait for its `payment.*` event.

**503 means "certainly nothing happened".** Send the same request again after `Retry-After` seconds.

Amounts go in as `amount` in major units (a number or a decimal string) and come out as `amount` and `amountMinor`.
"""

TAGS: Mapping[str, str] = {
    "Payments": "Create, process, capture, cancel, read.",
    "Refunds": "Give money back, whole or in parts.",
    "Payment methods": "Saved ways to pay. Card numbers never come here: the provider's own elements make a token.",
    "Webhooks": "What providers tell us.",
    "Operation": "For probes and operators.",
}

_MEANINGS: Mapping[str, str] = {
    "MALFORMED_JSON": "The body is not JSON.",
    "INVALID_SIGNATURE": "Not signed by the provider.",
    "UNAUTHORIZED": "No token, or one that is not valid (any more).",
    "CARD_DECLINED": "The provider said no; the payment may be processed again, with another method.",
    "FORBIDDEN": "The token does not allow this.",
    "IP_NOT_ALLOWED": "Webhooks are not taken from this address.",
    "PAYMENT_NOT_FOUND": "There is none, or it is somebody else's.",
    "NOT_FOUND": "There is no such thing.",
    "METHOD_NOT_ALLOWED": "The path does not know this method.",
    "PAYMENT_EXISTS": "The order has a payment of another owner, amount or currency.",
    "INVALID_STATE": "Not possible in the payment's present state.",
    "ORDER_UNCONFIRMED": "The order has not confirmed this payment yet; try again later.",
    "IDEMPOTENCY_IN_PROGRESS": "The first request with this key is not answered yet; try again after `Retry-After`.",
    "PAYLOAD_TOO_LARGE": "The body is larger than is read.",
    "VALIDATION_ERROR": "Some fields are not valid; `errors` names them.",
    "IDEMPOTENCY_MISMATCH": "The key was used with another body.",
    "AMOUNT_MISMATCH": "The order says another amount or currency.",
    "REFUND_EXCEEDS": "More than is left to refund.",
    "PROVIDER_NOT_CONFIGURED": "This provider is not in use here.",
    "RATE_LIMITED": "Too many requests; try again after `Retry-After`.",
    "INTERNAL_ERROR": "A defect of ours. Whether something happened is told by reading the payment.",
    "PROVIDER_UNAVAILABLE": "The provider cannot be reached; certainly nothing was sent.",
    "SERVICE_UNAVAILABLE": "Something we need is away; certainly nothing happened.",
}
ERRORS: Mapping[str, tuple[int, str]] = {word: (status, _MEANINGS[word]) for word, status in STATUS_BY_CODE.items()}
"""Word -> (HTTP status, what it means)."""
