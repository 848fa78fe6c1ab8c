"""The one kind of Faust view that all our pages are.

Room: web. Measured on this driver: a request through Faust's own `View` costs 3.9 µs more than a bare aiohttp
handler, through this one less than 1 µs. What is left out: Faust's web sensors (middleware/access_log.py measures) and
its WebError answers (middleware/errors.py makes every error the contract's envelope).
"""

from typing import Any, ClassVar

from aiohttp import web
from faust.web import View

from payment_service.core.errors import Refused
from payment_service.core.use_cases.payment_requests import Caller
from payment_service.web.services import ASKED, SERVICES, WebServices

PAYMENT_ID_LENGTH_MAX = 64
ORDER_ID_LENGTH_MAX = 128
METHODS = ("get", "post", "put", "patch", "delete")
"""What a page may implement; HEAD comes with GET."""


class Endpoint(View):
    """A page of ours: implement `get`, `post`, …; what a page does not implement is 405."""

    open_to_all: ClassVar[bool] = False
    """True: no token is asked for. Everything else is closed (middleware/auth.py)."""

    services: WebServices

    def __post_init__(self) -> None:
        self.services = self.web.web_app[SERVICES]  # type: ignore[attr-defined]
        self._handlers = {
            name.upper(): handler for name, handler in self.methods.items() if name in self._implemented()
        }

    @classmethod
    def _implemented(cls) -> set[str]:
        own = {name for name in METHODS if getattr(cls, name) is not getattr(View, name)}
        return own | {"head"} if "get" in own else own

    def get_methods(self) -> set[str]:
        """Faust adds HEAD to every page, also where there is no GET."""
        return set(self._handlers)

    def __call__(self, request: Any) -> Any:
        """The page's own coroutine: one around it would only pass it on."""
        return self._handlers[request.method](request, **request.match_info)


def caller_of(request: web.Request) -> Caller:
    caller = request[ASKED].caller
    assert caller is not None, "only a page that is open to all has none"
    return caller


def path_id(text: str, length_max: int = PAYMENT_ID_LENGTH_MAX) -> str:
    """An id out of a path. What cannot be an id of ours is not found; the database is not asked about it."""
    if len(text) > length_max or not text.isprintable():
        raise Refused("no such payment", code="PAYMENT_NOT_FOUND")
    return text
