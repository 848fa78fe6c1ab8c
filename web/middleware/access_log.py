"""One line and two numbers for every answer. No body, no query string, no header: nothing secret can be in it but what
somebody writes into a path, which is taken out.

Room: web. Log line and metrics in one pass, since both need the same status and time. The line goes to the standard
library's logger, its fields as one dictionary of arguments: a formatter that wants JSON finds them apart, any other
gets key=value. Through structlog a line costs 30–45 µs, as much as the whole way through our middlewares.
"""

import logging
from urllib.parse import quote

from aiohttp import web

from payment_service.core.card_data import without_card_data_in_path
from payment_service.web.middleware.signature import Behaviour, route_of
from payment_service.web.services import CALLER, ERROR_CODE, REQUEST_ID, WebServices

PATH_LENGTH_MAX = 256
"""Of a path in a log line."""
QUIET_ROUTES = frozenset({"/health", "/ready", "/metrics"})
"""Asked every few seconds by machines: logged only when the answer is an error."""
GONE = 499
"""The caller went away before there was an answer."""
_STARTED_S = web.RequestKey("started_s", float)
_LINE = (
    "request method=%(method)s path=%(path)s status=%(status)d ms=%(ms).1f by=%(by)s code=%(code)s"
    " request_id=%(request_id)s"
)

_log = logging.getLogger(__name__)


class AccessLog(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._now_s = services.clock.monotonic_s
        self._metrics = services.metrics

    def arrives(self, request: web.Request) -> None:
        request[_STARTED_S] = self._now_s()

    def leaves(self, request: web.Request, response: web.StreamResponse | None) -> None:
        elapsed_s = self._now_s() - request[_STARTED_S]
        status = GONE if response is None else response.status
        method, route = request.method, route_of(request)
        self._metrics.count("http_requests_total", method=method, route=route, status=str(status))
        self._metrics.observe("http_request_duration_seconds", elapsed_s, method=method, route=route)
        if (status >= 400 or route not in QUIET_ROUTES) and _log.isEnabledFor(logging.INFO):
            _tell(request, status, elapsed_s)


def _tell(request: web.Request, status: int, elapsed_s: float) -> None:
    caller = request.get(CALLER)
    fields = {
        "method": request.method,
        "path": (request.rel_url.raw_path if status < 400 else _refused_path(request))[:PATH_LENGTH_MAX],
        "status": status,
        "ms": round(elapsed_s * 1000, 1),
        "by": _one_word(caller.by) if caller is not None else "-",
        "code": request.get(ERROR_CODE, "-"),
        "request_id": request.get(REQUEST_ID, "-"),
    }
    _log.info(_LINE, fields)


def _refused_path(request: web.Request) -> str:
    """As it came, percent-encoded: no line break can be in it. But whoever writes a card number or a token into a path
    has it refused, and not logged; an order's id may be any digits, and is found."""
    plain = request.rel_url.path
    shown = without_card_data_in_path(plain)
    return request.rel_url.raw_path if shown == plain else quote(shown)


def _one_word(text: str) -> str:
    """A user's id comes from a token of somebody else's making: it must not look like further fields."""
    return repr(text) if " " in text or "=" in text or not text.isprintable() else text
