"""The mock in another process: what `payment-service provider-sim` speaks under /mock, as the Provider port.

Amounts: integer minor units, as everywhere inside. Retry rule: the same key gives the same answer and moves money
once. What the answers mean is said by the simulator itself, in our own words; a word that is not one of them is
UNKNOWN. NOT_SENT only where nothing can have been written: no connection was made, or the answer was a 429.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import orjson
from aiohttp import ClientConnectorError, ClientError, ClientPayloadError, ConnectionTimeoutError

from payment_service.adapters.providers.registration import (
    PROVIDER_ERROR,
    PROVIDER_TIMEOUT,
    PROVIDER_UNAVAILABLE,
    RATE_LIMITED,
    Sessions,
)
from payment_service.core.ports import Answer, NextAction, ProviderCall
from payment_service.core.terms import Verdict

BODY_MAX_BYTES = 64 * 1024
"""Of an answer; ours are under 1 KB."""
_FIELDS = tuple(field.name for field in fields(ProviderCall))


def to_request(call: ProviderCall) -> bytes:
    return orjson.dumps({name: getattr(call, name) for name in _FIELDS})


def to_answer(status: int, body: bytes) -> Answer:
    """Raises nothing: what cannot be understood is UNKNOWN."""
    if status == 429:
        return Answer(Verdict.NOT_SENT, code=RATE_LIMITED, message="the provider asks to slow down")
    if status != 200:
        return Answer(Verdict.UNKNOWN, code=PROVIDER_ERROR, message=f"the provider answered {status}")
    try:
        return _answer(orjson.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError):
        return Answer(Verdict.UNKNOWN, code=PROVIDER_ERROR, message="the answer could not be read")


class RemoteMock:
    """The Provider port over HTTP. Deadline, retries and the breaker are its guard's."""

    name = "MOCK"

    def __init__(self, url: str, sessions: Sessions) -> None:
        self._url = url.rstrip("/")
        self._sessions = sessions

    async def create_object(self, call: ProviderCall) -> Answer:
        return await self._ask("create_object", call)

    async def send(self, call: ProviderCall) -> Answer:
        return await self._ask("send", call)

    async def lookup(self, call: ProviderCall) -> Answer:
        return await self._ask("lookup", call)

    async def _ask(self, operation: str, call: ProviderCall) -> Answer:
        """aiohttp itself sends a POST once: on a stale connection it repeats idempotent methods only."""
        try:
            async with self._sessions().post(
                f"{self._url}/mock/{operation}",
                data=to_request(call),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                body = await response.content.read(BODY_MAX_BYTES + 1) if response.status == 200 else b""
                while response.status == 200 and not response.content.at_eof() and len(body) <= BODY_MAX_BYTES:
                    body += await response.content.read(BODY_MAX_BYTES)
                return to_answer(response.status, body)
        except (ClientConnectorError, ConnectionTimeoutError):
            # Both end the making of the connection; whatever breaks after it has another class.
            return Answer(Verdict.NOT_SENT, code=PROVIDER_UNAVAILABLE, message="no connection to the provider")
        except TimeoutError:
            return Answer(Verdict.UNKNOWN, code=PROVIDER_TIMEOUT, message="no answer in time")
        except ClientPayloadError:
            return Answer(Verdict.UNKNOWN, code=PROVIDER_ERROR, message="the answer was cut off")
        except (ClientError, OSError):
            return Answer(Verdict.UNKNOWN, code=PROVIDER_TIMEOUT, message="the connection broke before an answer")


def _answer(said: Mapping[str, Any]) -> Answer:
    action = said.get("next_action")
    amount_minor = said.get("amount_minor")
    if amount_minor is not None and type(amount_minor) is not int:
        raise TypeError("an amount is a whole number")
    return Answer(
        Verdict(said["verdict"]),
        provider_id=_text(said, "provider_id"),
        object_id=_text(said, "object_id"),
        amount_minor=amount_minor,
        currency=_text(said, "currency"),
        code=_text(said, "code") or "",
        message=_text(said, "message") or "",
        decline_code=_text(said, "decline_code"),
        next_action=NextAction(action["type"], url=_text(action, "url")) if action is not None else None,
        object_closed=said.get("object_closed") is True,
    )


def _text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is text")
    return value
