"""X-Request-ID: the caller's, if it is short and harmless, else ours; always in the answer and in every log line.

Room: web.
"""

import itertools
import re
import secrets

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import istr

from payment_service.web.middleware.signature import Middleware
from payment_service.web.services import REQUEST_ID, WebServices

HEADER = istr("X-Request-ID")
_SAFE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}", re.ASCII)


def request_id(services: WebServices, open_routes: frozenset[str]) -> Middleware:
    # Unique by worker and count: ten times cheaper than a random one for each, and nobody gains by guessing it.
    prefix, numbers = f"req-{secrets.token_hex(8)}-", itertools.count(1)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(HEADER)
        name = given if given is not None and _SAFE.fullmatch(given) else prefix + format(next(numbers), "x")
        request[REQUEST_ID] = name
        structlog.contextvars.bind_contextvars(request_id=name)
        response = await handler(request)
        if not response.prepared:
            response.headers[HEADER] = name
        return response

    return middleware
