"""The server under the site: what comes in that is not HTTP, and what goes out that our middlewares never saw.

Room: web. What aiohttp cannot parse it answers by itself, in plain text that quotes what was sent and names its
versions, and logs with a traceback: a token behind a misspelt header could be read there. Here such answers are the
contract's, and the log keeps their kind alone. Bodies are taken as they come: 200 KB of gzip, which anybody may send,
held everybody up for a third of a second (measured).
"""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from payment_service.web.middleware.errors import Errors
from payment_service.web.middleware.request_id import RequestId
from payment_service.web.middleware.security_headers import SecurityHeaders
from payment_service.web.services import ASKED, Asked, WebServices

Answer = Callable[[web.BaseRequest, Exception], web.StreamResponse]

_log = structlog.get_logger(__name__)


def _careful(services: WebServices) -> Answer:
    """As if our middlewares had seen it."""
    errors, headers = Errors(services, frozenset()), SecurityHeaders(services, frozenset())
    names = RequestId(services, frozenset())

    def answer(request: Any, error: Exception) -> web.StreamResponse:
        asked = request[ASKED] = Asked()
        names.arrives(request, asked)
        response = errors.answers(request, error)
        headers.leaves(request, asked, response)
        names.leaves(request, asked, response)
        return response

    return answer


class _Connection(RequestHandler):
    __slots__ = ("_answer",)

    def __init__(self, server: web.Server, answer: Answer, **options: Any) -> None:
        super().__init__(server, **options)
        self._answer = answer

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Raises ConnectionError when a part of an answer is sent already."""
        if isinstance(exc, HttpProcessingError):
            # Never its text, which quotes what was sent.
            _log.info("what came in is not HTTP", error=type(exc).__name__)
            error: Exception = web.HTTPBadRequest()
        else:
            error = exc if isinstance(exc, Exception) else web.HTTPGatewayTimeout()
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        response = self._answer(request, error)
        response.force_close()
        return response

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """An exception is an answer that no middleware has seen: of an `Expect` that nobody knows."""
        answer = self._answer(request, resp) if isinstance(resp, web.HTTPException) else resp
        return super().finish_response(request, answer, start_time)


class _Server(web.Server):
    def __init__(self, of: web.Server, answer: Answer) -> None:
        super().__init__(of.request_handler, request_factory=of.request_factory, loop=of._loop, **of._kwargs)
        self._answer = answer

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._answer, loop=self._loop, **self._kwargs)


class SiteRunner(web.AppRunner):
    """Serves what build_site(services) made."""

    __slots__ = ("_answer",)

    def __init__(self, site: web.Application, services: WebServices, **options: Any) -> None:
        super().__init__(site, access_log=None, auto_decompress=False, **options)
        self._answer = _careful(services)

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._answer)
