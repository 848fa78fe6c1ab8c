"""The words of the API's description: how to pay with it, and what each state and failure means and asks of the caller.

Room: web.
"""

from collections.abc import Mapping

from payment_service.core.terms import Status
from payment_service.web.envelope import STATUS_BY_CODE

DESCRIPTION = """\
Payments for the orders of a shop: one order has one payment. It is created, then processed (charged, or authorized and
captured later), and may be refunded.

## A payment from start to end

1. `POST /api/v1/payments` with `orderId`, `amount`, `currency`: 201, `PENDING`. Keep `data.id`.
2. `POST /api/v1/payments/{id}/process` with `paymentMethodId`, a token of the provider's own elements or a saved method
   (`pmt_…`), and with `returnUrl`, where the shopper comes back to. Then look at `data.status`:
   - `SUCCEEDED` (or `AUTHORIZED` with `captureMethod: manual`): done.
   - `REQUIRES_ACTION`: the bank (3-D Secure) or PayPal wants to see the shopper; go on with 3.
   - 202 with `PROCESSING` or `UNKNOWN`: go on with 4.
   - 402 `CARD_DECLINED`: the payment is `FAILED`; process it again with another method.
3. Do `data.nextAction`:
   - `type: redirect`: send the browser to `url`. It comes back to `returnUrl`; go on with 4.
   - `type: use_client_secret`: give `clientSecret` to the provider's own library in the page (Stripe.js:
     `stripe.confirmPayment({elements, clientSecret, …})` or `stripe.handleNextAction({clientSecret})`); when it is
     done, process again with `paymentIntentId`, the id that the library tells (`data.providerPaymentId`).
4. `GET /api/v1/payments/{id}?sync=true` asks the provider and says how it stands; every few seconds until `status` is
   none of `PROCESSING`, `UNKNOWN` and `REQUIRES_ACTION`. What the provider told the browser is no proof; this is.
5. `POST /api/v1/payments/{id}/refund` with an `Idempotency-Key`, and an `amount` for a part of it.

**Collecting the card in the page**: process with an empty body right after 1. The answer is `REQUIRES_ACTION` with what
the provider's elements need; go on with 3. Card numbers never come here: a body with one in it is refused.

**Trying it out**: the provider `MOCK` (the default outside production) decides by the token, as Stripe's test tokens
do: `tok_visa` yes, `tok_chargeDeclined` and `tok_chargeDeclinedInsufficientFunds` no, `tok_threeDSecure` has to be
approved by opening `nextAction.url` (which does not lead back), `tok_pending` succeeds after some seconds,
`tok_timeout` never answers, `tok_error` fails without saying whether it charged; without a method it says yes.

## What holds for every call

**Who calls**: a user's token in `Authorization: Bearer …` (a JWT; the user is its `sub`), or another service's in
`X-Internal-Token`. Somebody else's payment does not exist for a user: 404.

**Answers** are `{"success": true, "data": …}` or `{"success": false, "code", "message", "requestId", "timestamp"}`,
with `errors` by field where some are not valid. Program with `code`; `requestId` (also the header `X-Request-ID`, which
you may send) is what to tell us.

**Try again safely.** A payment is never charged twice: creating is idempotent by its order, processing by the payment's
state. With an `Idempotency-Key` the very same answer comes again (`Idempotent-Replayed: true`) for 24 hours; a refund
without one is always a new refund.

**202 means "not known yet".** Nothing is to be repeated: see 4, or wait for its `payment.*` event.

**503 means "certainly nothing happened".** Send the same request again after `Retry-After` seconds.

**How often**: `RateLimit-Policy` and `RateLimit` tell what a user may do in a window and what is left of it; what moves
money (process, capture, refund) has a quota of its own, `money`, which is smaller. Beyond: 429 with `Retry-After`.

**Amounts** go in as `amount` in major units (a number or a decimal string, never rounded) and come out as `amount` and
`amountMinor`, an integer in minor units to calculate with.

Bodies are JSON, not compressed; unknown fields are refused.
"""

TAGS: Mapping[str, str] = {
    "Payments": "Create, process, capture, cancel, read.",
    "Refunds": "Give money back, whole or in parts.",
    "Payment methods": "Saved ways to pay. Card numbers never come here: the provider's own elements make a token.",
    "Webhooks": "What providers tell us.",
    "Operation": "For probes and operators.",
}

_STATES: Mapping[Status, str] = {
    Status.PENDING: "created, nothing tried",
    Status.PROCESSING: "a call to the provider is under way",
    Status.REQUIRES_ACTION: "the shopper has to do `nextAction`, within an hour",
    Status.AUTHORIZED: "the money is held, and waits to be captured",
    Status.SUCCEEDED: "the money is taken",
    Status.FAILED: "a definite no, see `failure`; it may be processed again",
    Status.UNKNOWN: "the provider may or may not have done it; it is being asked",
    Status.CANCELLED: "no money is taken or held",
    Status.PARTIALLY_REFUNDED: "a part is given back",
    Status.REFUNDED: "all of it is given back",
}
STATES = "\n".join(f"- `{status}`: {_STATES[status]}" for status in Status)

HEADERS: Mapping[str, tuple[str, str]] = {
    "X-Request-ID": ("Yours, if it is at most 128 harmless characters, else ours.", "req-96c639652e57d6ea-7"),
    "RateLimit-Policy": ("What may be done in a window: requests and seconds, by quota.", '"user";q=100;w=900'),
    "RateLimit": ("What is left of it, and the seconds until it starts anew.", '"user";r=99;t=900'),
    "Retry-After": ("Seconds to wait before the same request is sent again.", "1"),
    "Idempotent-Replayed": ("`true`: this is the answer of an earlier request with the same key.", "true"),
}
"""Name -> (what it says, an example)."""

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
    "REQUEST_TIMEOUT": "The body did not come in time; nothing happened.",
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
