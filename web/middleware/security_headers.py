"""What tells browsers and intermediaries to be careful with every answer.

Room: web. OWASP's HTTP headers cheat sheet; ASVS 5.0, 3.4. A page that needs another policy sets its own (docs.py).
"""

from aiohttp import hdrs, web
from multidict import istr

from payment_service.web.middleware.signature import Behaviour
from payment_service.web.services import Asked, WebServices

NAME = "payment-service"
"""Instead of aiohttp's and Python's versions."""
POLICY = istr("Content-Security-Policy")
NO_SNIFFING = istr("X-Content-Type-Options")
REFERRER = istr("Referrer-Policy")
HSTS = istr("Strict-Transport-Security")
NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""An answer of the API is data: nothing in it is to be run or framed."""
HTTPS_FOR_S = 63_072_000
"""Two years, as browsers' preload lists ask."""


class SecurityHeaders(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._hsts = f"max-age={HTTPS_FOR_S}; includeSubDomains" if services.https_only else None

    def leaves(self, request: web.Request, asked: Asked, response: web.StreamResponse | None) -> None:
        if response is None or response.prepared:
            return
        headers = response.headers
        headers[hdrs.SERVER] = NAME
        headers[NO_SNIFFING] = "nosniff"
        if REFERRER not in headers:
            headers[REFERRER] = "no-referrer"
        if POLICY not in headers:
            headers[POLICY] = NOTHING
        if hdrs.CACHE_CONTROL not in headers:
            headers[hdrs.CACHE_CONTROL] = "no-store"
        if self._hsts is not None:
            headers[HSTS] = self._hsts
