"""Which web pages may call from a browser: exactly those of ALLOWED_ORIGINS, never "*".

Room: web. Outside auth: a browser asks beforehand (OPTIONS) without a token. https://fetch.spec.whatwg.org/#cors-protocol
"""

from aiohttp import hdrs, web

from payment_service.web.middleware.signature import Behaviour
from payment_service.web.services import Asked, WebServices

METHODS = "GET, POST, PUT, DELETE"
HEADERS = "Authorization, Content-Type, Idempotency-Key, X-Request-ID, traceparent"
EXPOSED = "X-Request-ID, Idempotent-Replayed, RateLimit, RateLimit-Policy, Retry-After"
ASK_AGAIN_S = 600
"""How long a browser may keep the answer; shorter than it takes to notice a wrong setting."""


class _Preflight(Exception):
    """Not an error: the way past the pages."""


class Cors(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._origins = services.allowed_origins

    def arrives(self, request: web.Request, asked: Asked) -> None:
        asks = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if asks and request.headers.get(hdrs.ORIGIN) in self._origins:
            raise _Preflight

    def answers(self, request: web.Request, error: Exception) -> web.StreamResponse | None:
        if not isinstance(error, _Preflight):
            return None
        headers = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(ASK_AGAIN_S),
        }
        return web.Response(status=204, headers=headers)

    def leaves(self, request: web.Request, asked: Asked, response: web.StreamResponse | None) -> None:
        if not self._origins or response is None or response.prepared:
            return
        response.headers[hdrs.VARY] = hdrs.ORIGIN
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin in self._origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED
