"""Signing in with a bearer token, and out; and the console's own files.

Room: web.
"""

import re

from aiohttp import hdrs, web

from payment_service.core.errors import PaymentError, Refused
from payment_service.web.console import rendering
from payment_service.web.console.pages import FORM_TOKEN, ConsolePage, console_pages, gone_to, read_form
from payment_service.web.console.parts import READERS
from payment_service.web.console.session import begin, forget, keep, read_session
from payment_service.web.middleware.console_door import PREFIX, SIGN_IN
from payment_service.web.services import ASKED

NEXT_LENGTH_MAX = 500
_OURS = re.compile(r"/console(?:/[A-Za-z0-9_~-]+)*(?:\?[A-Za-z0-9_.~%&=+:@/-]*)?", re.ASCII)
"""A page of the console and nothing else: no host, no backslash, no second slash, no dots that lead elsewhere."""
ASSETS_KEPT_S = 365 * 24 * 3600


def wanted_page(text: str) -> str:
    """Where to go after signing in; the first page for anything odd."""
    fits = len(text) <= NEXT_LENGTH_MAX and _OURS.fullmatch(text) and not text.startswith(f"{PREFIX}/sign-")
    return text if fits else PREFIX


@console_pages.route("/console/sign-in", name="sign_in")
class SignIn(ConsolePage):
    async def get(self, request: web.Request) -> web.Response:
        return self._page(request, wanted_page(request.query.get("next", "")))

    async def post(self, request: web.Request) -> web.Response:
        """Whatever cookie came with it is never looked at: the session is a new one."""
        fields = await read_form(request, self)
        after = wanted_page(fields.get("next", ""))
        try:
            caller, ends_s = self.services.tokens.bearer_until(fields.get("token", "").removeprefix("Bearer ").strip())
        except Refused as error:
            request[ASKED].error_code = error.code
            return self._page(request, after, 401, "This token is not valid, or it has ended.")
        except PaymentError as error:
            request[ASKED].error_code = error.code
            return self._page(request, after, 503, "Tokens cannot be checked right now. Try again in a moment.")
        assert caller.user_id is not None, "a bearer token is a user's"
        session = begin(caller.user_id, caller.roles & self.console.roles, ends_s, self.services.clock.now_ms() / 1000)
        request[ASKED].caller = session.caller
        if session.roles.isdisjoint(READERS):
            request[ASKED].error_code = "FORBIDDEN"
            roles = " or ".join(sorted(READERS))
            return self._page(request, after, 403, f"This token has none of the roles that may come in: {roles}.")
        response = gone_to(after)
        keep(response, request, self.services, self.console.cipher, session)
        return response

    def _page(self, request: web.Request, after: str, status: int = 200, problem: str = "") -> web.Response:
        return rendering.render(
            "sign_in.html", status=status, session=None, console=self.console, after=after, problem=problem, here=""
        )


@console_pages.route("/console/sign-out", name="sign_out")
class SignOut(ConsolePage):
    async def post(self, request: web.Request) -> web.Response:
        session = read_session(request, self.services, self.console)
        if session is not None:
            request[ASKED].caller = session.caller
            if not session.takes((await read_form(request, self)).get(FORM_TOKEN, "")):
                raise Refused("this form is not of your session: open the page again", code="FORBIDDEN")
            await self.console.ended.end(session.digest, session.ends_s)
        response = gone_to(SIGN_IN)
        forget(response, request, self.services)
        return response


@console_pages.route("/console/assets/{name}", name="asset")
class Asset(ConsolePage):
    async def get(self, request: web.Request, name: str) -> web.Response:
        kind = rendering.ASSETS.get(name)
        if kind is None:
            raise Refused("there is no such file", code="NOT_FOUND")
        headers = {hdrs.CONTENT_TYPE: kind, hdrs.CACHE_CONTROL: f"public, max-age={ASSETS_KEPT_S}, immutable"}
        return web.Response(body=rendering.asset(name), headers=headers)
