"""X-Request-ID: the caller's, if it is short and harmless, else ours; always in the answer and in every log line.

Room: web.
"""

import itertools
import re
import secrets

import structlog
from aiohttp import web
from multidict import istr

from payment_service.web.middleware.signature import Behaviour
from payment_service.web.services import REQUEST_ID, WebServices

HEADER = istr("X-Request-ID")
_SAFE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}", re.ASCII)


class RequestId(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        # Unique by worker and count: ten times cheaper than a random one for each, and nobody gains by guessing it.
        self._prefix, self._numbers = f"req-{secrets.token_hex(8)}-", itertools.count(1)

    def arrives(self, request: web.Request) -> None:
        given = request.headers.get(HEADER)
        name = given if given is not None and _SAFE.fullmatch(given) else self._prefix + f"{next(self._numbers):x}"
        request[REQUEST_ID] = name
        structlog.contextvars.bind_contextvars(request_id=name)

    def leaves(self, request: web.Request, response: web.StreamResponse | None) -> None:
        if response is not None and not response.prepared:
            response.headers[HEADER] = request[REQUEST_ID]
