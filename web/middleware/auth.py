"""Who calls. Closed unless a page says that it is open: a page that forgets to say anything is safe.

Room: web. A service's token is looked at first. With an empty list it means nothing, whatever is sent; with a list, a
wrong one is refused even beside a good bearer token, so that nobody acts as a user where a service was meant.
"""

from dataclasses import replace

from aiohttp import hdrs, web
from multidict import istr

from payment_service.core.use_cases.payment_requests import Caller
from payment_service.web.middleware.signature import Behaviour
from payment_service.web.services import Asked, WebServices
from payment_service.web.tokens import TokenVerifier, unauthorized

SERVICE_HEADERS = (istr("X-Internal-Token"), istr("X-API-Key"))
SCHEME = "bearer "


class Auth(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._tokens = services.tokens
        self._open_routes = open_routes

    def arrives(self, request: web.Request, asked: Asked) -> None:
        # What is registered nowhere goes on to its 404 or 405; it has no page that could tell anything.
        if asked.route not in self._open_routes and request.match_info.http_exception is None:
            asked.caller = _caller(request, self._tokens)


def _caller(request: web.Request, tokens: TokenVerifier) -> Caller:
    headers = request.headers
    if tokens.takes_internal:
        for name in SERVICE_HEADERS:
            given = headers.get(name)
            if given is not None:
                return tokens.internal(given)
    bearer = _bearer(request)
    if bearer is None:
        raise unauthorized()
    return tokens.bearer(bearer)


def _bearer(request: web.Request) -> str | None:
    value = request.headers.get(hdrs.AUTHORIZATION)
    return value[len(SCHEME) :].strip() if value is not None and value[: len(SCHEME)].lower() == SCHEME else None


def with_bearer(request: web.Request, caller: Caller) -> Caller:
    """Of this request alone: the callers that are remembered between requests never hold a token."""
    return replace(caller, bearer=_bearer(request))
