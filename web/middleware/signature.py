"""What every middleware is, and how it sees the route.

Room: web.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler

Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
NO_ROUTE = "none"
"""Of a request that no page is registered for: metrics must not have a label per guessed path."""


def route_of(request: web.Request) -> str:
    """The registered path, such as `/api/v1/payments/{payment_id}`."""
    resource = request.match_info.route.resource
    return NO_ROUTE if resource is None else resource.canonical
