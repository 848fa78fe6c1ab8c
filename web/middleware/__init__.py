"""What happens around every request: one behaviour a file, one ordered list.

Room: web. Outermost first:
1. RequestId  everything that follows, log lines and errors too, can name the request.
2. AccessLog  tells of every answer as it leaves, so it stands outside whatever may still change it.
3. Audit      keeps who tried what, with the code of the answer: refusals of everything further in too.
4. SecurityHeaders  every answer carries them, errors too.
5. Errors     whatever is raised becomes the contract's envelope; nothing raised passes it.
6. Cors       a browser asks beforehand without a token, so it is answered before anybody asks for one.
7. Https      before a token is looked at: one that came in the clear must not work.
8. BodyLimit  a body that is announced as too large is refused before anyone is asked who sends it: it costs nothing.
9. Guessing   outside Auth: it counts whom Auth refuses.
10. Auth      pages run for known callers only.
11. RateLimit innermost: it counts callers, so they must be known.
"""

from collections.abc import Callable

from payment_service.web.middleware.access_log import AccessLog
from payment_service.web.middleware.audit import Audit
from payment_service.web.middleware.auth import Auth
from payment_service.web.middleware.body_limit import BodyLimit
from payment_service.web.middleware.cors import Cors
from payment_service.web.middleware.errors import Errors
from payment_service.web.middleware.guessing import Guessing
from payment_service.web.middleware.https import Https
from payment_service.web.middleware.rate_limit import RateLimit
from payment_service.web.middleware.request_id import RequestId
from payment_service.web.middleware.security_headers import SecurityHeaders
from payment_service.web.middleware.signature import Behaviour, Middleware, in_one
from payment_service.web.services import WebServices

MIDDLEWARE: tuple[Callable[[WebServices, frozenset[str]], Behaviour], ...] = (
    RequestId,
    AccessLog,
    Audit,
    SecurityHeaders,
    Errors,
    Cors,
    Https,
    BodyLimit,
    Guessing,
    Auth,
    RateLimit,
)


def build_middlewares(services: WebServices, open_routes: frozenset[str]) -> list[Middleware]:
    """`open_routes`: the registered paths that ask for no token."""
    return [in_one([make(services, open_routes) for make in MIDDLEWARE])]
