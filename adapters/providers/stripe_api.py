"""The one door to Stripe's HTTP API: a Request in, the status and JSON body out. Nothing else here uses the SDK.

Room: adapters/providers, beside stripe.py. The SDK encodes, signs and pins the version; retries are the guard's, and
the connections are the process's own, so that there is one place that opens and closes them. The answer goes past
the SDK: it would write the body into logs, read it with json into ordered dictionaries and make exceptions of what is
no 200, which took half the time of a call.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import orjson
import stripe
from stripe import _api_requestor

from payment_service.adapters.providers.registration import PROVIDER_TIMEOUT, PROVIDER_UNAVAILABLE, Sessions
from payment_service.adapters.providers.stripe_requests import Request
from payment_service.core.ports import Answer
from payment_service.core.terms import Verdict

API_VERSION = "2026-10-28.endive"
"""Named by every request: an upgrade of the account's default changes nothing here (docs.stripe.com/api/versioning)."""
CONNECT_S = 3.0
TIMEOUT_SHARE = 0.9
"""Of the guard's deadline: an answer that is late is told apart here, and a second question may still fit."""
KEYS_MAX = 4
"""Of one request that moves no money. Everybody takes them in the same order, so two workers come to one object."""
BODY_MAX = 2_000_000
"""Bytes of an answer: a page of 100 refunds is about 100 KB."""

stripe.enable_telemetry = False
logging.getLogger("stripe").setLevel(logging.WARNING)


def _unsaid(message: str, **params: object) -> None:
    """Instead of the SDK's logging of requests, with tokens: it makes the text of every line whether or not anybody
    reads it, and STRIPE_LOG=debug in the environment writes it to stderr, past the level above."""


for _name in ("log_debug", "log_info"):
    setattr(_api_requestor, _name, _unsaid)


@dataclass(frozen=True, slots=True)
class Reply:
    """`body` is empty when it was no JSON object."""

    status: int
    body: Mapping[str, Any]
    replayed: bool = False
    """Stripe has kept it under the key, and gives it to whoever asks with that key."""


class StripeApi:
    """For one event loop. Opens nothing before the first request, and has nothing of its own to close."""

    def __init__(self, secret_key: str, base: str, deadline_s: float, sessions: Sessions) -> None:
        self._client = stripe.StripeClient(
            secret_key,
            stripe_version=API_VERSION,
            base_addresses={"api": base},
            http_client=_Connections(sessions, deadline_s * TIMEOUT_SHARE),
            max_network_retries=0,
        )
        requestor = self._client._requestor
        requestor.request_headers = _made_once(requestor.request_headers)  # type: ignore[method-assign]

    async def ask(self, request: Request) -> Reply | Answer:
        """What Stripe answered, or what its silence means: NOT_SENT when there was no connection, else UNKNOWN."""
        options = {} if request.key is None else {"idempotency_key": request.key}
        try:
            response = await self._client.raw_request_async(request.method, request.path, **request.params, **options)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return Answer(Verdict.NOT_SENT, code=PROVIDER_UNAVAILABLE, message="Stripe cannot be reached")
        except (aiohttp.ClientError, TimeoutError):
            return Answer(Verdict.UNKNOWN, code=PROVIDER_TIMEOUT, message="Stripe gave no whole answer")
        assert isinstance(response.headers, _Heard), "the SDK hands on what its transport gave it"
        return response.headers.reply

    async def ask_on(self, request: Request) -> Reply | Answer:
        """For what moves no money: past keys that have kept a 500, of which KEYS_MAX are tried."""
        reply = await self.ask(request)
        for number in range(2, KEYS_MAX + 1):
            if isinstance(reply, Answer) or reply.status < 500 or not reply.replayed:
                break
            reply = await self.ask(replace(request, key=f"{request.key}:{number}"))
        return reply


def _made_once(make: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    """The SDK's headers, which are the same but for the key: it looks through the environment for each request."""
    made: dict[tuple[str, str], dict[str, str]] = {}

    def headers(method: str, api_mode: str, options: Mapping[str, Any]) -> dict[str, str]:
        key: str | None = options.get("idempotency_key")
        if key is None:
            return make(method, api_mode, options)  # a POST gets a key of chance from the SDK: never the same twice
        if (method, api_mode) not in made:
            made[method, api_mode] = make(method, api_mode, options)
        return {**made[method, api_mode], "Idempotency-Key": key}

    return headers


def _object(body: bytes) -> Mapping[str, Any]:
    """Empty when it is none. What only a strict reader refuses (a byte that is no UTF-8, half a surrogate) costs no
    answer: the text that it is in is cleaned where it is used."""
    data: object = None
    try:
        data = orjson.loads(body)
    except ValueError:
        with contextlib.suppress(ValueError, RecursionError):
            data = json.loads(body.decode("utf-8", "replace"))
    return data if isinstance(data, dict) else {}


class _Heard(dict[str, str]):
    """The headers that the SDK is shown, none: it hands them on unread."""

    __slots__ = ("reply",)

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class _Connections(stripe.HTTPClient):
    """The SDK's transport over the process's session. Its exceptions come out of the SDK as they are, and it is shown
    the same empty 200 whatever the answer was."""

    name = "aiohttp"

    def __init__(self, sessions: Sessions, timeout_s: float) -> None:
        super().__init__()
        self._sessions = sessions
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_S, timeout_s))

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        async with self._sessions().request(
            method, url, headers=headers, data=post_data, timeout=self._timeout, allow_redirects=False
        ) as response:
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > BODY_MAX:
                    raise aiohttp.ClientPayloadError("too long")
            replayed = response.headers.get("Idempotent-Replayed") == "true"
            return b"{}", 200, _Heard(Reply(response.status, _object(bytes(body)), replayed))
