"""One line and two numbers for every answer. No body, no query string, no header: nothing secret can be in it but what
somebody writes into a path, which is taken out.

Room: web. Log line and metrics in one pass, since both need the same status and time. The line goes to the standard
library's logger, its fields as one dictionary of arguments: a formatter that wants JSON finds them apart, any other
gets key=value. Through structlog a line costs 30–45 µs, as much as the whole way through our middlewares.
"""

import logging
from collections.abc import Callable
from urllib.parse import quote

from aiohttp import hdrs, web

from payment_service.core.card_data import without_card_data_in_path
from payment_service.web.middleware.signature import PROBES, Behaviour
from payment_service.web.services import Asked, WebServices

PATH_LENGTH_MAX = 256
"""Of a path in a log line."""
GONE = 499
"""The caller went away before there was an answer."""
_LINE = (
    "request method=%(method)s path=%(path)s status=%(status)d ms=%(ms).1f by=%(by)s code=%(code)s"
    " request_id=%(request_id)s"
)

_Numbers = tuple[Callable[[], None], Callable[[float], None]]
"""What counts an answer, and what its time is told to."""

_log = logging.getLogger(__name__)


class AccessLog(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._now_s = services.clock.monotonic_s
        self._metrics = services.metrics
        self._numbers: dict[tuple[str, str, int], _Numbers] = {}

    def arrives(self, request: web.Request, asked: Asked) -> None:
        asked.started_s = self._now_s()

    def leaves(self, request: web.Request, asked: Asked, response: web.StreamResponse | None) -> None:
        elapsed_s = self._now_s() - asked.started_s
        status = GONE if response is None else response.status
        method, route = request.method, asked.route
        counted, observed = self._numbers.get((method, route, status)) or self._numbers_of(method, route, status)
        counted()
        observed(elapsed_s)
        if status >= 400:
            self._metrics.count(
                "http_request_errors_total", method=_known(method), route=route, code=asked.error_code or "-"
            )
        if (status >= 400 or route not in PROBES) and _log.isEnabledFor(logging.INFO):
            _tell(request, asked, status, elapsed_s)

    def _numbers_of(self, method: str, route: str, status: int) -> _Numbers:
        """Kept by what we have: our routes, our statuses, and the methods that there are."""
        word = _known(method)
        numbers = (
            self._metrics.counting("http_requests_total", method=word, route=route, status=str(status)),
            self._metrics.observing("http_request_duration_seconds", method=word, route=route),
        )
        if word is method:
            self._numbers[method, route, status] = numbers
        return numbers


def _known(method: str) -> str:
    """Anybody may send any word as its method: metrics must not have a label for each."""
    return method if method in hdrs.METH_ALL else "other"


def _tell(request: web.Request, asked: Asked, status: int, elapsed_s: float) -> None:
    caller = asked.caller
    fields = {
        "method": request.method,
        "path": (request.rel_url.raw_path if status < 400 else _refused_path(request))[:PATH_LENGTH_MAX],
        "status": status,
        "ms": round(elapsed_s * 1000, 1),
        "by": _one_word(caller.by) if caller is not None else "-",
        "code": asked.error_code or "-",
        "request_id": asked.request_id or "-",
    }
    payment_id = asked.payment_id(request)
    if payment_id:
        fields["payment_id"] = payment_id
    if asked.span is not None:
        fields["trace_id"] = asked.span.trace_id
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
