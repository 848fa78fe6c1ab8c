"""What happens around every request: one behaviour a file, one ordered list.

Room: web. Outermost first:
1. RequestId  everything that follows, log lines and errors too, can name the request.
2. Trace      outside AccessLog, whose line names the trace; not there at all where no traces are collected.
3. AccessLog  tells of every answer as it leaves, so it stands outside whatever may still change it.
4. Audit      keeps who tried what, with the code of the answer: refusals of everything further in too.
5. SecurityHeaders  every answer carries them, errors too.
6. Errors     whatever is raised becomes the contract's envelope; nothing raised passes it.
7. Cors       a browser asks beforehand without a token, so it is answered before anybody asks for one.
8. Https      before a token is looked at: one that came in the clear must not work.
9. BodyLimit  a body that is announced as too large is refused before anyone is asked who sends it: it costs nothing.
10. Auth       pages run for known callers only.
11. ConsoleDoor asks for the console's own session instead, and turns what goes wrong there into a page.
12. RateLimit innermost: it counts callers, so they must be known; and whom Auth refused, when that is answered.
"""

from collections.abc import Callable

from payment_service.web.middleware.access_log import AccessLog
from payment_service.web.middleware.audit import Audit
from payment_service.web.middleware.auth import Auth
from payment_service.web.middleware.body_limit import BodyLimit
from payment_service.web.middleware.console_door import ConsoleDoor
from payment_service.web.middleware.cors import Cors
from payment_service.web.middleware.errors import Errors
from payment_service.web.middleware.https import Https
from payment_service.web.middleware.rate_limit import RateLimit
from payment_service.web.middleware.request_id import RequestId
from payment_service.web.middleware.security_headers import SecurityHeaders
from payment_service.web.middleware.signature import Behaviour, Middleware, in_one
from payment_service.web.middleware.trace import Trace
from payment_service.web.services import WebServices

MIDDLEWARE: tuple[Callable[[WebServices, frozenset[str]], Behaviour], ...] = (
    RequestId,
    Trace,
    AccessLog,
    Audit,
    SecurityHeaders,
    Errors,
    Cors,
    Https,
    BodyLimit,
    Auth,
    ConsoleDoor,
    RateLimit,
)


def build_middlewares(services: WebServices, open_routes: frozenset[str]) -> list[Middleware]:
    """`open_routes`: the registered paths that ask for no token."""
    there: dict[object, bool] = {Trace: services.trace is not None, ConsoleDoor: services.console is not None}
    ordered = [it for it in MIDDLEWARE if there.get(it, True)]
    return [in_one([make(services, open_routes) for make in ordered])]
