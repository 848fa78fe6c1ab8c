"""What PayPal says to each issue, word for word: its OpenAPI documents allow nothing else.

Room: cli/provider_sim. github.com/paypal/paypal-rest-api-specifications, of 2024-02.
"""

MESSAGES: dict[int, str] = {
    400: "Request is not well-formed, syntactically incorrect, or violates schema.",
    404: "The specified resource does not exist.",
    422: "The requested action could not be performed, semantically incorrect, or failed business validation.",
    500: "An internal server error has occurred.",
}
DESCRIPTIONS: dict[str, str] = {
    "REFUND_AMOUNT_EXCEEDED": (
        "The refund amount must be less than or equal to the capture amount that has not yet been refunded."
    ),
    "CAPTURE_FULLY_REFUNDED": "The capture has already been fully refunded",
    "PENDING_CAPTURE": (
        "Cannot initiate a refund as the capture is pending. Capture is typically pending when the "
        "payer has funded the transaction using e-check/bank funded."
    ),
    "TRANSACTION_DISPUTED": (
        "Partial refunds cannot be offered at this time because there is an open case on this "
        "transaction. Visit the PayPal Resolution Center to review this case."
    ),
    "REFUND_NOT_ALLOWED": "Capture cannot be refunded.",
    "AUTHORIZATION_VOIDED": "A voided authorization cannot be captured or reauthorized. ",
    "AUTHORIZATION_ALREADY_CAPTURED": "Authorization has previously been captured.",
    "AUTHORIZATION_DENIED": "An denied authorization cannot be captured.",
    "MAX_CAPTURE_AMOUNT_EXCEEDED": (
        "Capture amount exceeds allowable limit. Please contact customer service or your account "
        "manager to request the change to your overage limit. The default overage limit is 115%, which "
        "allows the sum of all captures to be up to 115% of the order amount. The ability to over "
        "capture is subjected to regulatory approvals."
    ),
    "PREVIOUSLY_VOIDED": "Authorization has been previously voided and hence cannot be voided again.",
    "PREVIOUSLY_CAPTURED": "Authorization has been previously captured and hence cannot be voided.",
    "ORDER_ALREADY_CAPTURED": "Order already captured. If 'intent=CAPTURE' only one capture per order is allowed.",
    "ORDER_ALREADY_AUTHORIZED": (
        "Order already authorized.If 'intent=AUTHORIZE' only one authorization per order is allowed."
    ),
    "ACTION_DOES_NOT_MATCH_INTENT": (
        "Order was created with an intent to 'CAPTURE'. Please use v2/checkout/orders/order_id/capture "
        "to complete the transaction or alternately Create an order with an intent of 'AUTHORIZE'."
    ),
    "INSTRUMENT_DECLINED": (
        "The instrument presented  was either declined by the processor or bank, or it can't be used for this payment."
    ),
    "PAYER_ACTION_REQUIRED": "Transaction cannot complete successfully, instruct the buyer to return to PayPal.",
    "ORDER_NOT_APPROVED": (
        "Payer has not yet approved the Order for payment. Please redirect the payer to the "
        "'rel':'approve' url returned as part of the HATEOAS links within the Create Order call or "
        "provide a valid `payment_source` in the request."
    ),
    "ORDER_ALREADY_COMPLETED": "The order cannot be patched after it is completed.",
    "INVALID_RESOURCE_ID": "Specified resource ID does not exist. Please check the resource ID and try again.",
    "TOKEN_ID_NOT_FOUND": "Specified token was not found. Verify the token and try the request again.",
    "PREVIOUS_REQUEST_IN_PROGRESS": (
        "A previous request on this resource is currently in progress. Please wait for sometime and try "
        "again. It is best to space out the initial and the subsequent request(s) to avoid receiving "
        "this error."
    ),
    "NOT_PATCHABLE": "Cannot be patched.",
    "DECIMALS_NOT_SUPPORTED": (
        "Currency does not support decimals. Please refer to "
        "https://developer.paypal.com/docs/api/reference/currency-codes/ for more information."
    ),
    "DECIMAL_PRECISION": "If the currency supports decimals, only two decimal place precision is supported.",
    "CANNOT_BE_ZERO_OR_NEGATIVE": (
        "Must be greater than zero. If the currency supports decimals, only two decimal place precision is supported."
    ),
}
