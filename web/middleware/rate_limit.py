"""How often a caller may ask: by user, another service by its own measure; nobody is counted by what they write.

Room: web. Inside auth, so that it knows the caller. `RateLimit` and `RateLimit-Policy` (draft 10 of the IETF's
ratelimit headers) tell on every answer what is left.
"""

from aiohttp import web
from multidict import istr

from payment_service.core.errors import Unavailable
from payment_service.web.middleware.signature import Behaviour
from payment_service.web.rate_limits import Quota
from payment_service.web.services import CALLER, WebServices

LIMIT = istr("RateLimit")
POLICY = istr("RateLimit-Policy")
SERVICE_FACTOR = 100
"""A service asks for many users: so much more than one of them it may ask in a window."""
_TOLD = web.RequestKey("rate_limit", tuple)


class RateLimit(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._now_s = services.clock.monotonic_s
        user = Quota("user", services.rate_limit_max, services.rate_limit_window_s)
        service = Quota("service", user.hits_max * SERVICE_FACTOR, user.window_s)
        make = services.make_windows
        self._users, self._services = (make(user), user.policy), (make(service), service.policy)
        self._metrics = services.metrics

    def arrives(self, request: web.Request) -> None:
        """Raises Unavailable RATE_LIMITED (429)."""
        caller = request.get(CALLER)
        if caller is None:  # probes and webhooks have limits of their own
            return
        windows, policy = self._users if caller.user_id is not None else self._services
        left = windows.hit(caller.by, self._now_s())
        request[_TOLD] = (windows.quota.told(left), policy)
        if left.exceeded:
            self._metrics.count("rate_limited", who=windows.quota.name)
            raise Unavailable("too many requests", code="RATE_LIMITED", retry_after_s=left.resets_s)

    def leaves(self, request: web.Request, response: web.StreamResponse | None) -> None:
        told = request.get(_TOLD)
        if told is not None and response is not None and not response.prepared:
            response.headers[LIMIT], response.headers[POLICY] = told
