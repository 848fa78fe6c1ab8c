"""Whatever is raised becomes the contract's failure envelope.

Room: web. Our own errors say what the caller must do (core/errors.py); anything else is our bug: 500 with the
request id, the traceback in the log, and nothing of it in the answer.
"""

from http import HTTPStatus

import structlog
from aiohttp import hdrs, web

from payment_service.core.errors import PaymentError
from payment_service.web.envelope import failure, failure_of
from payment_service.web.middleware.signature import Behaviour
from payment_service.web.services import WebServices

_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "PAYLOAD_TOO_LARGE"}
_MESSAGES = {404: "there is nothing here", 405: "not with this method", 413: "the body is too large"}

_log = structlog.get_logger(__name__)


class Errors(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._now_ms = services.clock.now_ms

    def answers(self, request: web.Request, error: Exception) -> web.StreamResponse:
        if isinstance(error, PaymentError):
            return failure_of(request, self._now_ms(), error)
        if isinstance(error, web.HTTPException):
            return _of_http(request, self._now_ms(), error)
        _log.exception("request failed", method=request.method, error=type(error).__name__)
        return failure(request, self._now_ms(), 500, "INTERNAL_ERROR", "something went wrong on our side")


def _of_http(request: web.Request, at_ms: int, error: web.HTTPException) -> web.StreamResponse:
    """aiohttp raises these for unknown routes, wrong methods and large bodies, and pages for redirects."""
    if error.status < HTTPStatus.BAD_REQUEST:
        return web.Response(status=error.status, headers=error.headers)
    status = HTTPStatus(error.status)
    code = _CODES.get(status, status.name)
    response = failure(request, at_ms, status, code, _MESSAGES.get(status, status.phrase.lower()))
    allowed = error.headers.get(hdrs.ALLOW)
    if allowed is not None:
        response.headers[hdrs.ALLOW] = allowed
    return response
