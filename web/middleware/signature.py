"""What a behaviour around every request is, how all of them run, and how they see the route.

Room: web. One coroutine runs them all: a frame for each, entered again at every wake-up, is paid by every request.
"""

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler

from payment_service.web.services import ASKED, NO_ROUTE, Asked

Middleware = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Routes that machines inside ask every few seconds."""


class Behaviour:
    """Override what it does. Nothing here waits; what must wait is an aiohttp middleware of its own, behind these."""

    def arrives(self, request: web.Request, asked: Asked) -> None:
        """Before the page, outermost first. What it raises keeps the request from everything further in."""

    def answers(self, request: web.Request, error: Exception) -> web.StreamResponse | None:
        """The answer to what was raised, by a behaviour or by the page; the innermost one that has any is asked."""

    def leaves(self, request: web.Request, asked: Asked, response: web.StreamResponse | None) -> None:
        """Whatever happened, innermost first. None: there is no answer, the caller went away."""


def in_one(behaviours: Sequence[Behaviour]) -> Middleware:
    """One aiohttp middleware of all of them, outermost first."""
    arrivals = [it.arrives for it in behaviours if _does(it, "arrives")]
    answers = [it.answers for it in reversed(behaviours) if _does(it, "answers")]
    leaving = [it.leaves for it in reversed(behaviours) if _does(it, "leaves")]

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        asked = request[ASKED] = Asked(route_of(request))
        try:
            for arrives in arrivals:
                arrives(request, asked)
            response = await handler(request)
        except Exception as error:
            for answer in answers:
                response = answer(request, error)
                if response is not None:
                    break
            else:
                raise
        finally:
            for leaves in leaving:
                leaves(request, asked, response)
        return response

    return middleware


def _does(behaviour: Behaviour, name: str) -> bool:
    return getattr(type(behaviour), name) is not getattr(Behaviour, name)


def route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return NO_ROUTE if resource is None else resource.canonical
