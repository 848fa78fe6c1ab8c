"""How often a caller may ask: a user, another service by its own measure, and whoever is neither by the address that
our own proxies saw; nobody is counted by what they write.

Room: web. Inside auth, so that it knows the caller. What moves money, or asks a provider about a card, has a quota of
its own beside that of everything: fewer cards can be tried than pages read. Whoever is refused for their token is
counted by address, like everybody without one; a good token is heard from there all the same, or one guest of a network
could keep all its others from paying, while tokens of 32 random characters cannot be guessed in any number of tries.
`RateLimit` and `RateLimit-Policy` (draft 10 of the IETF's ratelimit headers) tell on every answer what is left.
"""

from collections.abc import Callable

from aiohttp import web
from multidict import istr

from payment_service.core.errors import Refused, Unavailable
from payment_service.web.client_address import client_address, subscriber
from payment_service.web.envelope import failure_of
from payment_service.web.middleware.signature import PROBES, Behaviour
from payment_service.web.rate_limits import Quota, Windows
from payment_service.web.services import ASKED, Asked, WebServices

LIMIT = istr("RateLimit")
POLICY = istr("RateLimit-Policy")
OPERATOR_FACTOR = 10
"""Somebody who looks for a fault opens more pages than a shopper. Of what moves money they may do no more."""
SERVICE_FACTOR = 100
"""A service asks for many users: so much more than one of them it may ask in a window."""
MONEY_SHARE = 0.6
"""Of what a caller may ask at all."""
MONEY_ROUTES = frozenset({
    "/api/v1/payments/{payment_id}/process", "/api/v1/payments/{payment_id}/capture",
    "/api/v1/payments/{payment_id}/refund", "/api/v1/refunds", "/api/v1/payment-methods",
    "/console/payments/{payment_id}/refund", "/console/payments/{payment_id}/cancel",
    "/console/payments/{payment_id}/resolve",
})  # fmt: skip
"""Of POST."""
UNCOUNTED = PROBES | {"/api/v1/webhooks", "/api/v1/webhooks/{provider}", "/console/assets/{name}"}
"""Of those without a caller; webhooks have limits of their own (webhook_gate.py)."""


class _Limits:
    """Of one kind of caller."""

    def __init__(
        self, make: Callable[[Quota], Windows], name: str, hits_max: int, window_s: float, factor: int = 1
    ) -> None:
        """`factor`: how much more often this kind may ask for what moves no money."""
        whole = Quota(name, hits_max * factor, window_s)
        money = Quota("money" if name == "user" else f"{name}-money", max(1, int(hits_max * MONEY_SHARE)), window_s)
        self.whole, self.policy = make(whole), whole.policy
        self.money, self.money_policy = make(money), f"{whole.policy}, {money.policy}"


class RateLimit(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._now_s, self._now_ms = services.clock.monotonic_s, services.clock.now_ms
        self._trusted = services.trusted_proxies
        self._metrics = services.metrics
        make, hits_max, window_s = services.make_windows, services.rate_limit_max, services.rate_limit_window_s
        self._users = _Limits(make, "user", hits_max, window_s)
        self._services = _Limits(make, "service", hits_max * SERVICE_FACTOR, window_s)
        self._operators = _Limits(make, "operator", hits_max, window_s, OPERATOR_FACTOR)
        self._addresses = make(Quota("address", hits_max, window_s))

    def arrives(self, request: web.Request, asked: Asked) -> None:
        """Raises Unavailable RATE_LIMITED (429)."""
        caller = asked.caller
        if caller is None:
            if asked.route not in UNCOUNTED:
                self._count_address(request, asked)
            return
        limits = self._services if caller.user_id is None else self._operators if caller.operator else self._users
        self._count(limits.whole, caller.by, asked, limits.policy)
        if asked.route in MONEY_ROUTES and request.method == "POST":
            whole = asked.limit
            self._count(limits.money, caller.by, asked, limits.money_policy, whole)

    def answers(self, request: web.Request, error: Exception) -> web.StreamResponse | None:
        """Instead of a 401 that is one too many."""
        if not isinstance(error, Refused) or error.code != "UNAUTHORIZED":
            return None
        try:
            self._count_address(request, request[ASKED])
        except Unavailable as exceeded:
            return failure_of(request, self._now_ms(), exceeded)
        return None

    def leaves(self, request: web.Request, asked: Asked, response: web.StreamResponse | None) -> None:
        if asked.limit is not None and response is not None and not response.prepared:
            headers = response.headers
            headers[LIMIT], headers[POLICY] = asked.limit

    def _count_address(self, request: web.Request, asked: Asked) -> None:
        address = subscriber(client_address(request, self._trusted))
        self._count(self._addresses, address, asked, self._addresses.quota.policy)

    def _count(
        self, windows: Windows, key: str, asked: Asked, policy: str, beside: tuple[str, str] | None = None
    ) -> None:
        """`beside`: what is told already of another quota."""
        quota, left = windows.quota, windows.hit(key, self._now_s())
        told = quota.told(left)
        asked.limit = (told if beside is None else f"{beside[0]}, {told}", policy)
        if left.exceeded:
            self._metrics.count("rate_limited", who=quota.name)
            raise Unavailable("too many requests", code="RATE_LIMITED", retry_after_s=left.resets_s)
