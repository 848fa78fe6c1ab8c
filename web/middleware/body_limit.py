"""413 for a body that is announced as too large.

Room: web. One that does not announce its length is cut off while it is read, by aiohttp's `client_max_size`
(site.py gives it the same number).
"""

from aiohttp import web
from aiohttp.typedefs import Handler

from payment_service.core.errors import Refused
from payment_service.web.middleware.signature import Middleware
from payment_service.web.services import WebServices


def body_limit(services: WebServices, open_routes: frozenset[str]) -> Middleware:
    bytes_max = services.body_bytes_max

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        length = request.content_length
        if length is not None and length > bytes_max:
            raise Refused(f"the body is larger than {bytes_max} bytes", code="PAYLOAD_TOO_LARGE")
        return await handler(request)

    return middleware
