"""Who sits at the console: a sealed cookie, made from a bearer token that the operator pasted once.

Room: web. The token itself is not in it: whoever steals the cookie cannot call the API. It is made anew at every
sign-in (nothing that a browser brought is kept), readable by nobody but us, and ends with the token at the latest.
Signing out ends it at every worker, so that a copy of the cookie is worth nothing any more.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field, replace

import orjson
from aiohttp import web

from payment_service.core.errors import Malformed
from payment_service.core.ports import Cipher
from payment_service.core.use_cases.payment_requests import Caller
from payment_service.web.client_address import FORWARDED_PROTO, is_in, parse_address
from payment_service.web.console.parts import Console
from payment_service.web.services import WebServices

COOKIE = "console"
COOKIE_OVER_HTTPS = "__Host-console"
"""A browser takes this name only over https and for exactly this host: no neighbour can plant one."""
COOKIE_LENGTH_MAX = 4096
PLACE = "console.session"
IDLE_S = 30 * 60
"""Without a page in so long, it is over."""
LENGTH_S_MAX = 8 * 3600
RENEW_S = 60
"""A cookie older than this is written anew when a page is shown."""
NAME_BYTES = 32


@dataclass(frozen=True, slots=True)
class Session:
    """Times in seconds since 1970."""

    user_id: str
    roles: frozenset[str]
    name: str = field(repr=False)
    """Random; nobody but us can read it."""
    seen_s: float
    ends_s: float

    @property
    def form_token(self) -> str:
        """In every form of this session, and good in no other."""
        return hashlib.sha256(b"console form\0" + self.name.encode()).hexdigest()

    @property
    def digest(self) -> str:
        """What is kept of it once its operator has signed out."""
        return hashlib.sha256(b"console session\0" + self.name.encode()).hexdigest()

    def takes(self, form_token: str) -> bool:
        return hmac.compare_digest(self.form_token.encode(), form_token.encode("utf-8", "surrogateescape"))

    @property
    def caller(self) -> Caller:
        return Caller(self.user_id, self.roles, operator=True)

    def left_s(self, now_s: float) -> float:
        return min(self.ends_s, self.seen_s + IDLE_S) - now_s


SESSION = web.RequestKey("console_session", Session)


def begin(user_id: str, roles: frozenset[str], token_ends_s: float, now_s: float) -> Session:
    name = secrets.token_urlsafe(NAME_BYTES)
    return Session(user_id, roles, name, now_s, min(token_ends_s, now_s + LENGTH_S_MAX))


def read_session(request: web.Request, services: WebServices, console: Console) -> Session | None:
    """None: there is none, or it is over, or its operator has signed out, or it is not one of ours."""
    text = request.cookies.get(_cookie_name(request, services), "")
    if not 0 < len(text) <= COOKIE_LENGTH_MAX or not text.isascii():
        return None
    try:
        plain = console.cipher.unseal(base64.b64decode(text, altchars=b"-_", validate=True), PLACE)
    except (Malformed, binascii.Error, ValueError):
        return None
    user_id, roles, name, seen_s, ends_s = orjson.loads(plain)
    session = Session(user_id, frozenset(roles), name, seen_s, ends_s)
    if session.left_s(services.clock.now_ms() / 1000) <= 0 or console.ended.is_ended(session.digest):
        return None
    return session


def keep(
    response: web.StreamResponse, request: web.Request, services: WebServices, cipher: Cipher, session: Session
) -> None:
    """As seen now."""
    now_s = services.clock.now_ms() / 1000
    session = replace(session, seen_s=now_s)
    fields = [session.user_id, sorted(session.roles), session.name, session.seen_s, session.ends_s]
    value = base64.urlsafe_b64encode(cipher.seal(orjson.dumps(fields), PLACE)).decode()
    over_https = is_https(request, services)
    response.set_cookie(
        _cookie_name(request, services), value, max_age=max(0, int(session.left_s(now_s))),
        path="/" if over_https else "/console", secure=over_https, httponly=True, samesite="Strict",
    )  # fmt: skip


def forget(response: web.StreamResponse, request: web.Request, services: WebServices) -> None:
    over_https = is_https(request, services)
    response.del_cookie(
        _cookie_name(request, services), path="/" if over_https else "/console", secure=over_https, httponly=True,
        samesite="Strict",
    )  # fmt: skip


def is_https(request: web.Request, services: WebServices) -> bool:
    """As the browser sees it. Where https is enforced nothing else is believed."""
    if services.https_only or request.secure:
        return True
    told = request.headers.get(FORWARDED_PROTO)
    if told is None or told.rpartition(",")[2].strip().lower() != "https":
        return False
    address = parse_address(request.remote or "")
    return address is not None and is_in(address, services.trusted_proxies)


def _cookie_name(request: web.Request, services: WebServices) -> str:
    return COOKIE_OVER_HTTPS if is_https(request, services) else COOKIE
