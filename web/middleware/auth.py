"""Who calls. Closed unless a page says that it is open: a page that forgets to say anything is safe.

Room: web. A service's token is looked at first. With an empty list it means nothing, whatever is sent; with a list, a
wrong one is refused even beside a good bearer token, so that nobody acts as a user where a service was meant.
"""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import istr

from payment_service.core.use_cases.payment_requests import Caller
from payment_service.web.middleware.signature import Middleware, route_of
from payment_service.web.services import CALLER, WebServices
from payment_service.web.tokens import TokenVerifier, unauthorized

SERVICE_HEADERS = (istr("X-Internal-Token"), istr("X-API-Key"))
SCHEME = "bearer "


def auth(services: WebServices, open_routes: frozenset[str]) -> Middleware:
    tokens = services.tokens

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        # What is registered nowhere goes on to its 404 or 405; it has no page that could tell anything.
        if request.match_info.http_exception is None and route_of(request) not in open_routes:
            request[CALLER] = _caller(request, tokens)
        return await handler(request)

    return middleware


def _caller(request: web.Request, tokens: TokenVerifier) -> Caller:
    headers = request.headers
    if tokens.takes_internal:
        for name in SERVICE_HEADERS:
            given = headers.get(name)
            if given is not None:
                return tokens.internal(given)
    value = headers.get(hdrs.AUTHORIZATION)
    if value is None or value[: len(SCHEME)].lower() != SCHEME:
        raise unauthorized()
    return tokens.bearer(value[len(SCHEME) :].strip())
