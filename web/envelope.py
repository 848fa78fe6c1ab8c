"""The two shapes of every answer (contract §3), and which HTTP status each of the contract's words has.

Room: web.
"""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import hdrs, web

from payment_service.codecs.times import rfc3339
from payment_service.core.errors import Malformed, OutcomeUnknown, PaymentError, Refused, Unavailable
from payment_service.web.services import ASKED

STATUS_BY_CODE: dict[str, int] = {
    "MALFORMED_JSON": 400,
    "INVALID_SIGNATURE": 400,
    "UNAUTHORIZED": 401,
    "CARD_DECLINED": 402,
    "FORBIDDEN": 403,
    "IP_NOT_ALLOWED": 403,
    "PAYMENT_NOT_FOUND": 404,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "PAYMENT_EXISTS": 409,
    "INVALID_STATE": 409,
    "ORDER_UNCONFIRMED": 409,
    "IDEMPOTENCY_IN_PROGRESS": 409,
    "PAYLOAD_TOO_LARGE": 413,
    "VALIDATION_ERROR": 422,
    "IDEMPOTENCY_MISMATCH": 422,
    "AMOUNT_MISMATCH": 422,
    "REFUND_EXCEEDS": 422,
    "PROVIDER_NOT_CONFIGURED": 422,
    "RATE_LIMITED": 429,
    "INTERNAL_ERROR": 500,
    "PROVIDER_UNAVAILABLE": 503,
    "SERVICE_UNAVAILABLE": 503,
}
_STATUS_BY_FAMILY: tuple[tuple[type[PaymentError], int], ...] = (
    (Refused, 409),
    (Malformed, 400),
    (Unavailable, 503),
    # It may have happened: whoever asks again with GET learns the truth. A 5xx would invite a second try.
    (OutcomeUnknown, 202),
)
RETRY_AFTER_S = 1.0
"""For the words that ask to come again without saying when."""
_ASKS_TO_RETRY = frozenset({"IDEMPOTENCY_IN_PROGRESS", "RATE_LIMITED", "PROVIDER_UNAVAILABLE", "SERVICE_UNAVAILABLE"})
HEADERS = {hdrs.CONTENT_TYPE: "application/json; charset=utf-8", hdrs.CACHE_CONTROL: "no-store"}
"""no-store: an answer may hold what lets whoever has it pay (`nextAction`)."""


def success(data: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps({"success": True, "data": data}), status=status, headers=HEADERS)


def failure(
    request: web.Request,
    at_ms: int,
    status: int,
    code: str,
    message: str,
    *,
    fields: Mapping[str, Sequence[str]] | None = None,
    retry_after_s: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> web.Response:
    """`extra` are further members of the envelope, such as `declineCode`."""
    asked = request[ASKED]
    asked.error_code = code
    envelope: dict[str, Any] = {"success": False, "code": code, "message": message}
    if fields:
        envelope["errors"] = fields
    envelope["requestId"] = asked.request_id
    envelope["timestamp"] = rfc3339(at_ms)
    if extra:
        envelope.update(extra)
    response = web.Response(body=orjson.dumps(envelope), status=status, headers=HEADERS)
    if retry_after_s is None and code in _ASKS_TO_RETRY:
        retry_after_s = RETRY_AFTER_S
    if retry_after_s is not None:
        response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(retry_after_s)))
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return response


def failure_of(request: web.Request, at_ms: int, error: PaymentError) -> web.Response:
    return failure(
        request,
        at_ms,
        status_of_error(error),
        error.code,
        error.message,
        fields=error.fields if isinstance(error, Refused) else None,
        retry_after_s=error.retry_after_s if isinstance(error, Unavailable) else None,
    )


def status_of_error(error: PaymentError) -> int:
    status = STATUS_BY_CODE.get(error.code)
    if status is not None:
        return status
    for family, family_status in _STATUS_BY_FAMILY:
        if isinstance(error, family):
            return family_status
    return 500
