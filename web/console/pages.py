"""What every page of the console is: an endpoint with a session and a role, that answers with HTML and takes forms.

Room: web.
"""

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from aiohttp import hdrs, web
from faust.web import Blueprint

from payment_service.core.errors import Malformed, Refused, invalid_field
from payment_service.web.bodies import read_bytes, refuse_card_data
from payment_service.web.console.parts import ADMIN, READERS, Console
from payment_service.web.console.rendering import HEADERS, render
from payment_service.web.console.session import RENEW_S, SESSION, Session, keep
from payment_service.web.endpoint import Endpoint

FORM_TYPE = "application/x-www-form-urlencoded"
FORM_BYTES_MAX = 32_768
FORM_FIELDS_MAX = 20
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field

console_pages = Blueprint("console")


class ConsolePage(Endpoint):
    """`session` is what lets somebody in: a page that forgets to ask for it cannot show anything."""

    open_to_all = True
    """Of a bearer token; middleware/console_door.py asks for the session."""
    readers: ClassVar[frozenset[str]] = READERS

    @property
    def console(self) -> Console:
        if self.services.console is None:
            raise Refused("there is no console here", code="NOT_FOUND")
        return self.services.console

    def session(self, request: web.Request) -> Session:
        """Raises Refused FORBIDDEN for a role that may not read this."""
        session = request[SESSION]
        if session.roles.isdisjoint(self.readers):
            raise Refused("your role may not see this", code="FORBIDDEN")
        return session

    def shown(
        self, request: web.Request, session: Session, template: str, *, status: int = 200, **values: Any
    ) -> web.Response:
        response = render(
            template, status=status, session=session, console=self.console, is_admin=ADMIN in session.roles, **values
        )
        now_s = self.services.clock.now_ms() / 1000
        if now_s - session.seen_s >= RENEW_S:
            keep(response, request, self.services, self.console.cipher, session)
        return response

    async def form(
        self, request: web.Request, roles: frozenset[str], why: str = "your role may not do this"
    ) -> tuple[Session, Mapping[str, str]]:
        """What was sent, by somebody who may, from a form of this very session. Raises Refused, Malformed."""
        session = self.session(request)
        fields = await read_form(request, self)
        if not session.takes(fields.get(FORM_TOKEN, "")):
            raise Refused("this form is not of your session: open the page again", code="FORBIDDEN")
        if session.roles.isdisjoint(roles):
            raise Refused(why, code="FORBIDDEN")
        texts = {name: text for name, text in fields.items() if name != FORM_TOKEN}
        for name, text in texts.items():
            if not text.isprintable():
                raise invalid_field(name, "must not contain control characters")
        refuse_card_data({name: text for name, text in texts.items() if name in ("reason", "provider_id")})
        return session, texts


async def read_form(request: web.Request, page: Endpoint) -> Mapping[str, str]:
    """Each field once, without spaces around it. Raises Malformed, Refused."""
    if request.content_type != FORM_TYPE:
        raise Malformed("this is not a form")
    data = await read_bytes(request, page.services)
    if len(data) > FORM_BYTES_MAX:
        raise Refused("the form is too large", code="PAYLOAD_TOO_LARGE")
    try:
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX, errors="strict")
    except ValueError:
        raise Malformed("the form cannot be read") from None
    fields = {name: text.strip() for name, text in pairs}
    if len(fields) != len(pairs):
        raise Malformed("a field of the form is there twice")
    return fields


def gone_to(address: str) -> web.Response:
    """After something was done: a page that may be loaded again without doing it again."""
    return web.Response(status=303, headers={**HEADERS, hdrs.LOCATION: address})
