"""X-Request-ID: the caller's, if it is short and harmless, else ours; always in the answer and in every log line.

Room: web.
"""

import itertools
import re
import secrets

import structlog
from aiohttp import web
from multidict import istr

from payment_service.core.card_data import has_card_number
from payment_service.web.middleware.signature import Behaviour
from payment_service.web.services import NO_ROUTE, OUR_PAYMENT, Asked, WebServices

HEADER = istr("X-Request-ID")
_SAFE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}", re.ASCII)

_DIGITS = re.compile(r"[0-9-]{13,40}", re.ASCII)


def _is_harmless(given: str) -> bool:
    """Whoever names a request by a card number has it named anew: it would stand in every log line."""
    return _SAFE.fullmatch(given) is not None and not (_DIGITS.fullmatch(given) and has_card_number(given))


class RequestId(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        # Unique by worker and count: ten times cheaper than a random one for each, and nobody gains by guessing it.
        self._prefix, self._numbers = f"req-{secrets.token_hex(8)}-", itertools.count(1)

    def arrives(self, request: web.Request, asked: Asked) -> None:
        given = request.headers.get(HEADER)
        name = given if given is not None and _is_harmless(given) else self._prefix + f"{next(self._numbers):x}"
        asked.request_id = name
        structlog.contextvars.bind_contextvars(request_id=name)
        payment_id = None if asked.route is NO_ROUTE else request.match_info.get("payment_id")
        if payment_id is not None and OUR_PAYMENT.fullmatch(payment_id):
            structlog.contextvars.bind_contextvars(payment_id=payment_id)

    def leaves(self, request: web.Request, asked: Asked, response: web.StreamResponse | None) -> None:
        if response is not None and not response.prepared:
            response.headers[HEADER] = asked.request_id
        # The next request of this connection comes in the same context, and so do lines about one that is none.
        structlog.contextvars.unbind_contextvars("request_id", "payment_id")
