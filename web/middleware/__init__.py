"""What happens around every request: one behaviour a file, one ordered list.

Room: web. Outermost first:
1. request_id  everything that follows, log lines and errors too, can name the request.
2. access_log  tells of every answer as it leaves, so it stands outside whatever may still change it.
3. errors      whatever is raised further in becomes the contract's envelope; nothing raised passes it.
4. body_limit  a body that is announced as too large is refused before anyone is asked who sends it: it costs nothing.
5. auth        innermost: pages run for known callers only.
"""

from collections.abc import Callable

from payment_service.web.middleware.access_log import access_log
from payment_service.web.middleware.auth import auth
from payment_service.web.middleware.body_limit import body_limit
from payment_service.web.middleware.errors import errors
from payment_service.web.middleware.request_id import request_id
from payment_service.web.middleware.signature import Middleware
from payment_service.web.services import WebServices

MIDDLEWARE: tuple[Callable[[WebServices, frozenset[str]], Middleware], ...] = (
    request_id,
    access_log,
    errors,
    body_limit,
    auth,
)


def build_middlewares(services: WebServices, open_routes: frozenset[str]) -> list[Middleware]:
    """`open_routes`: the registered paths that ask for no token."""
    return [make(services, open_routes) for make in MIDDLEWARE]
