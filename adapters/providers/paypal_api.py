"""The one door to PayPal's HTTP API: a Request in, the status and JSON body out; and the access token that opens it.

Room: adapters/providers, beside paypal.py. Our own client: PayPal's SDK for Python is not asynchronous. Retries are the
guard's; the one here is after a 401, which PayPal gives before it looks at anything else. Tokens:
developer.paypal.com/api/rest/authentication.
"""

import asyncio
import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from payment_service.adapters.background import serve_all
from payment_service.adapters.providers.paypal_requests import Request
from payment_service.adapters.providers.registration import (
    KEY_REFUSED,
    PROVIDER_TIMEOUT,
    PROVIDER_UNAVAILABLE,
    RATE_LIMITED,
    Sessions,
)
from payment_service.core.ports import Answer, Clock
from payment_service.core.terms import Verdict

log = logging.getLogger(__name__)

CONNECT_S = 3.0
TIMEOUT_SHARE = 0.9
"""Of the guard's deadline: an answer that is late is told apart here."""
TOKEN_SHARE = 0.5
"""Of that time, for a new token: the request must fit into the rest."""
BODY_MAX = 2_000_000
"""Bytes of an answer: an order with its payments is about 5 KB."""
RENEW_SHARE = 0.8
"""A token is renewed after this share of its life, so that none ends on the way."""
RENEW_PAUSE_S = 10.0
"""Between two tries to renew a token that is still good."""
TOKEN_LIFE_S_MAX = 32_400.0
"""What PayPal gives, nine hours; whatever it says, no token is used for longer."""
TOKEN_LENGTH_MAX = 8192


@dataclass(frozen=True, slots=True)
class Reply:
    """`body` is empty when it was no JSON object."""

    status: int
    body: Mapping[str, Any]


@dataclass(slots=True)
class _Token:
    bearer: str
    renew_at_s: float
    ends_at_s: float

    def __repr__(self) -> str:
        return "_Token(…)"


class PaypalApi:
    """For one event loop. Opens nothing before the first request, and has nothing of its own to close."""

    def __init__(
        self, client_id: str, client_secret: str, base: str, deadline_s: float, sessions: Sessions, clock: Clock
    ) -> None:
        basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._basic = {"Authorization": f"Basic {basic}", "Accept": "application/json"}
        self.base = base.rstrip("/")
        self._sessions = sessions
        self._clock = clock
        self._timeout_s = deadline_s * TIMEOUT_SHARE
        self._token: _Token | None = None
        self._fetching: asyncio.Task[_Token | Answer] | None = None

    async def ask(self, request: Request) -> Reply | Answer:
        """What PayPal answered, or what its silence means: NOT_SENT when there was no connection or no token, else
        UNKNOWN."""
        data = None if request.body is None else json.dumps(request.body, separators=(",", ":")).encode()
        return await self.ask_raw(request.method, request.path, data, request.key)

    async def ask_raw(self, method: str, path: str, data: bytes | None, key: str | None = None) -> Reply | Answer:
        """The same, of a body that is JSON already."""
        ends_at_s = self._clock.monotonic_s() + self._timeout_s
        reply = await self._with_token(method, path, data, key, ends_at_s)
        if isinstance(reply, Reply) and reply.status == 401:  # ended early, by hand or by theirs: once anew
            reply = await self._with_token(method, path, data, key, ends_at_s)
        return reply

    async def _with_token(
        self, method: str, path: str, data: bytes | None, key: str | None, ends_at_s: float
    ) -> Reply | Answer:
        token = await self._bearer()
        if isinstance(token, Answer):
            return token
        headers = {
            "Authorization": f"Bearer {token.bearer}", "Accept": "application/json",
            "Content-Type": "application/json", "Prefer": "return=representation",
        }  # fmt: skip
        if key is not None:
            headers["PayPal-Request-Id"] = key
        reply = await self._send(method, path, data, headers, ends_at_s - self._clock.monotonic_s())
        if isinstance(reply, Reply) and reply.status == 401 and self._token is token:
            self._token = None
        return reply

    async def _send(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> Reply | Answer:
        if timeout_s <= 0:
            return Answer(Verdict.NOT_SENT, code=PROVIDER_UNAVAILABLE, message="PayPal gave no token in time")
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_S, timeout_s))
        try:
            async with self._sessions().request(
                method, self.base + path, headers=headers, data=data, timeout=timeout, allow_redirects=False
            ) as response:
                body = bytearray()
                async for part in response.content.iter_any():
                    body += part
                    if len(body) > BODY_MAX:
                        raise aiohttp.ClientPayloadError("too long")
                return Reply(response.status, _object(bytes(body)))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return Answer(Verdict.NOT_SENT, code=PROVIDER_UNAVAILABLE, message="PayPal cannot be reached")
        except (aiohttp.ClientError, TimeoutError):
            return Answer(Verdict.UNKNOWN, code=PROVIDER_TIMEOUT, message="PayPal gave no whole answer")

    # --- the token -------------------------------------------------------------------------------------------------

    async def _bearer(self) -> _Token | Answer:
        """One request for all that wait for it. A good token is not given up because a new one cannot be had."""
        token, now_s = self._token, self._clock.monotonic_s()
        if token is not None and now_s < token.renew_at_s:
            return token
        if self._fetching is None:
            self._fetching = serve_all(self._fetch(), self._fetched)
        if token is not None and now_s < token.ends_at_s:
            return token  # renewed beside it
        return await asyncio.shield(self._fetching)

    def _fetched(self, task: "asyncio.Task[_Token | Answer]") -> None:
        self._fetching = None
        got = None if task.cancelled() or task.exception() is not None else task.result()
        if isinstance(got, _Token):
            self._token = got
        elif self._token is not None:
            self._token.renew_at_s = self._clock.monotonic_s() + RENEW_PAUSE_S

    async def _fetch(self) -> _Token | Answer:
        """Whatever goes wrong here, the request that wanted the token was not sent."""
        headers = {**self._basic, "Content-Type": "application/x-www-form-urlencoded"}
        asked_at_s = self._clock.monotonic_s()
        data = b"grant_type=client_credentials"
        reply = await self._send("POST", "/v1/oauth2/token", data, headers, self._timeout_s * TOKEN_SHARE)
        if isinstance(reply, Answer):
            return Answer(Verdict.NOT_SENT, code=PROVIDER_UNAVAILABLE, message="PayPal gave no token")
        bearer, lasts_s = reply.body.get("access_token"), reply.body.get("expires_in")
        good = isinstance(bearer, str) and 0 < len(bearer) <= TOKEN_LENGTH_MAX and bearer.isascii()
        if reply.status == 200 and good and isinstance(bearer, str) and bearer.isprintable() and type(lasts_s) is int:
            life_s = min(max(float(lasts_s), 0.0), TOKEN_LIFE_S_MAX)
            return _Token(bearer, asked_at_s + life_s * RENEW_SHARE, asked_at_s + life_s)
        log.error("paypal_token_refused status=%s", reply.status)
        if reply.status in (400, 401, 403):
            return Answer(Verdict.NOT_SENT, code=KEY_REFUSED, message="PayPal does not accept our credentials")
        if reply.status == 429:
            return Answer(Verdict.NOT_SENT, code=RATE_LIMITED, message="too many requests for a token")
        return Answer(Verdict.NOT_SENT, code=PROVIDER_UNAVAILABLE, message=f"no token: PayPal answered {reply.status}")


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
