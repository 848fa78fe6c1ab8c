"""413 for a body that is announced as too large.

Room: web. One that does not announce its length is cut off while it is read, by aiohttp's `client_max_size`
(site.py gives it the same number).
"""

from aiohttp import web

from payment_service.core.errors import Refused
from payment_service.web.middleware.signature import Behaviour
from payment_service.web.services import Asked, WebServices


class BodyLimit(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        self._bytes_max = services.body_bytes_max

    def arrives(self, request: web.Request, asked: Asked) -> None:
        length = request.content_length
        if length is not None and length > self._bytes_max:
            raise Refused(f"the body is larger than {self._bytes_max} bytes", code="PAYLOAD_TOO_LARGE")
