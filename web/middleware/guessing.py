"""Who fails to say who they are, too often, is not listened to for a while: tokens cannot be guessed by trying.

Room: web. Outside auth, by the address that our own proxies saw. Failures alone are counted, so that callers behind
one address do not use up each other's share.
"""

from aiohttp import web

from payment_service.core.errors import Unavailable
from payment_service.web.client_address import client_address, subscriber
from payment_service.web.middleware.signature import Behaviour, route_of
from payment_service.web.rate_limits import Quota, Windows
from payment_service.web.services import ERROR_CODE, WebServices

FAILURES_MAX = 100
"""Refused tokens of one address in a window."""
WINDOW_S = 60.0


class Guessing(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._now_s = services.clock.monotonic_s
        self._trusted = services.trusted_proxies
        self._open_routes = open_routes
        self._failures = Windows(Quota("failures", FAILURES_MAX, WINDOW_S))
        self._metrics = services.metrics

    def arrives(self, request: web.Request) -> None:
        """Raises Unavailable RATE_LIMITED (429)."""
        if not self._failures.empty and route_of(request) not in self._open_routes:
            left = self._failures.look(subscriber(client_address(request, self._trusted)), self._now_s())
            if left.remaining <= 0:
                self._metrics.count("rate_limited", who="failures")
                message = "too many requests without a valid token"
                raise Unavailable(message, code="RATE_LIMITED", retry_after_s=left.resets_s)

    def leaves(self, request: web.Request, response: web.StreamResponse | None) -> None:
        if response is not None and response.status == 401 and request.get(ERROR_CODE) == "UNAUTHORIZED":
            self._failures.hit(subscriber(client_address(request, self._trusted)), self._now_s())
