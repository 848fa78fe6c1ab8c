"""The one door to Stripe's HTTP API: a Request in, the status and JSON body out. Nothing else here uses the SDK.

Room: adapters/providers, beside stripe.py. The SDK encodes, signs and pins the version; retries are the guard's, and
the connections are the process's own, so that there is one place that opens and closes them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import stripe

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

# The SDK writes requests, with tokens, at level DEBUG and every answer at INFO.
logging.getLogger("stripe").setLevel(logging.WARNING)
stripe.enable_telemetry = False


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

    async def ask(self, request: Request) -> Reply | Answer:
        """What Stripe answered, or what its silence means: NOT_SENT when there was no connection, else UNKNOWN."""
        options = {} if request.key is None else {"idempotency_key": request.key}
        try:
            response = await self._client.raw_request_async(request.method, request.path, **request.params, **options)
        except stripe.StripeError as error:
            return Reply(error.http_status or 0, _object(error.json_body), _is_replayed(error.headers))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return Answer(Verdict.NOT_SENT, code=PROVIDER_UNAVAILABLE, message="Stripe cannot be reached")
        except (aiohttp.ClientError, TimeoutError):
            return Answer(Verdict.UNKNOWN, code=PROVIDER_TIMEOUT, message="Stripe gave no whole answer")
        return Reply(response.code, _object(response.data))

    async def ask_on(self, request: Request) -> Reply | Answer:
        """For what moves no money: past keys that have kept a 500, of which KEYS_MAX are tried."""
        reply = await self.ask(request)
        for number in range(2, KEYS_MAX + 1):
            if isinstance(reply, Answer) or reply.status < 500 or not reply.replayed:
                break
            reply = await self.ask(replace(request, key=f"{request.key}:{number}"))
        return reply


def _is_replayed(headers: Mapping[str, str] | None) -> bool:
    return any(name.lower() == "idempotent-replayed" and value == "true" for name, value in (headers or {}).items())


def _object(data: object) -> Mapping[str, Any]:
    return data if isinstance(data, dict) else {}


class _Connections(stripe.HTTPClient):
    """The SDK's transport over the process's session. Its exceptions come out of the SDK as they are."""

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
            # The SDK decodes what it logs outside its own error handling: nothing that is no UTF-8 may get there.
            return body.decode("utf-8", "replace").encode(), response.status, response.headers
