"""Who is let into the console, and how a failure looks there.

Room: web. A behaviour around every request, beside Auth: here a session's cookie is believed and nothing else, and
nowhere else is a cookie believed. What changes something must also come from a page of ours (by what the browser says
of its origin, which no page can write), beside the token in the form.
"""

from urllib.parse import quote, urlsplit

from aiohttp import hdrs, web

from payment_service.core.errors import PaymentError, Refused
from payment_service.web.console.rendering import render
from payment_service.web.console.session import SESSION, read_session
from payment_service.web.middleware.errors import Errors
from payment_service.web.middleware.signature import Behaviour
from payment_service.web.services import ASKED, Asked, WebServices

PREFIX = "/console"
SIGN_IN = "/console/sign-in"
SIGN_OUT = "/console/sign-out"
ASSET = "/console/assets/{name}"
EVENTS = "/console/live/events"
OPEN = frozenset({SIGN_IN, SIGN_OUT, ASSET})
"""Without a session. Signing out of none is signing out."""
READING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
TITLES = {401: "Please sign in", 403: "Not allowed", 404: "Not found", 429: "Too often", 503: "Not now"}


class ConsoleDoor(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        assert services.console is not None, "there is no console"
        self._services = services
        self._console = services.console
        self._errors = Errors(services, open_routes)

    def arrives(self, request: web.Request, asked: Asked) -> None:
        if not asked.route.startswith(PREFIX) or request.match_info.http_exception is not None:
            return
        if request.method not in READING and not comes_from_us(request):
            raise Refused("this was not sent by a page of this console", code="FORBIDDEN")
        if asked.route in OPEN:
            return
        session = read_session(request, self._services, self._console)
        if session is not None:
            asked.caller, request[SESSION] = session.caller, session
        elif request.method in READING and asked.route != EVENTS:
            raise web.HTTPSeeOther(f"{SIGN_IN}?next={quote(request.rel_url.raw_path_qs, safe='')}")
        else:
            raise Refused("your session is over: sign in, and do it again", code="UNAUTHORIZED")

    def answers(self, request: web.Request, error: Exception) -> web.StreamResponse | None:
        """The envelope's status, code and headers, as a page."""
        if not request.path.startswith(PREFIX):
            return None
        response = self._errors.answers(request, error)
        if response.status < 400:
            return response
        page = render(
            "failed.html", status=response.status, session=request.get(SESSION), console=self._services.console,
            title=TITLES.get(response.status, "That did not work"), message=message_of(error),
            code=request[ASKED].error_code, request_id=request[ASKED].request_id, here="",
        )  # fmt: skip
        for name in (hdrs.RETRY_AFTER, hdrs.ALLOW):
            if name in response.headers:
                page.headers[name] = response.headers[name]
        return page


def message_of(error: Exception) -> str:
    if isinstance(error, PaymentError):
        return error.message
    if isinstance(error, web.HTTPNotFound):
        return "There is no such page."
    return "Something went wrong on our side."


def comes_from_us(request: web.Request) -> bool:
    """Browsers say where a request comes from, in one of two headers; one that says nothing is no browser."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get(hdrs.ORIGIN)
    return origin is None or urlsplit(origin).netloc == request.host
