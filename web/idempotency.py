"""Idempotency-Key: one request of a caller, however often it is sent, has one answer.

Room: web. What was started is bound to the key in its own commit (core/idempotency.py); here the key is read, and the
answer is kept before it goes out, so that whoever heard a final answer hears the same bytes again. Not kept: 202 and
what may still change, which are told anew; our own 5xx; 401, 403 and 429, which are about the caller; and input that
could not be read, which starts nothing and is refused in the same way each time.
Standard: the IETF draft httpapi-idempotency-key-header-06. The value is an sf-string (RFC 8941, in quotes), or bare.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import orjson
from aiohttp import web
from multidict import istr

from payment_service.core.errors import Refused, Unavailable, invalid_field
from payment_service.core.idempotency import (
    CREATED,
    NOTHING,
    REFUSED,
    AnsweredBefore,
    RequestKey,
    check,
    request_key,
)
from payment_service.core.use_cases.payment_requests import Answered, Caller
from payment_service.web.endpoint import caller_of
from payment_service.web.envelope import HEADERS, failure_of
from payment_service.web.services import ASKED, WebServices

NAME = "Idempotency-Key"
HEADER = istr(NAME)
REPLAYED = istr("Idempotent-Replayed")
LENGTH_MAX = 255
_BARE = re.compile(r"[\x21-\x7e]+")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"')
ROUNDS_MAX = 2
"""A refusal whose key another request has bound meanwhile is looked at once more, and then told unkept."""
KEEP_WAIT_S = 3.0
"""An answer that is there goes out, kept or not: what it is about is bound to the key in any case."""
NOT_KEPT = frozenset({202, 401, 403, 429})
ABOUT_THE_KEY = frozenset({"IDEMPOTENCY_MISMATCH", "IDEMPOTENCY_IN_PROGRESS"})

Act = Callable[[Caller], Awaitable[Answered]]
Show = Callable[[Answered], web.Response]
Do = Callable[[], Awaitable[web.Response]]


async def answer_once(request: web.Request, services: WebServices, act: Act, show: Show) -> web.Response:
    """`show(await act(caller))`, once for each key. The body was read before. Raises as `act` does, and Refused for a
    key that cannot be one."""
    caller = caller_of(request)
    if HEADER not in request.headers:
        return show(await act(caller))
    key = await _key_of(request, caller)
    caller = replace(caller, key=key)
    for _ in range(ROUNDS_MAX):
        _forget_failure(request)
        try:
            answered = await act(caller)
            return await _kept(request, services, answered, show(answered))
        except AnsweredBefore as before:
            return _replayed(request, before.answer)
        except Refused as error:
            response = failure_of(request, services.clock.now_ms(), error)
            if await _kept_unbound(request, services, key, response, REFUSED):
                break
    return response


async def answer_same(request: web.Request, services: WebServices, do: Do) -> web.Response:
    """`do()`, for what is the same however often it is done, so that nothing has to be bound to the key: two at once
    may both do it. Raises as `do` does, and Refused for a key that cannot be one, or was used with another body."""
    if HEADER not in request.headers:
        return await do()
    key = await _key_of(request, caller_of(request))
    assert services.keys is not None, "a site that takes keys keeps their answers"
    for _ in range(ROUNDS_MAX):
        _forget_failure(request)
        bound, subject = await services.keys.find(key), NOTHING
        try:
            if bound is not None:
                check(key, bound)
            response = await do()
        except AnsweredBefore as before:
            return _replayed(request, before.answer)
        except Refused as error:
            response, subject = failure_of(request, services.clock.now_ms(), error), REFUSED
        if await _kept_unbound(request, services, key, response, subject):
            break
    return response


async def _kept(
    request: web.Request, services: WebServices, answered: Answered, response: web.Response
) -> web.Response:
    """The response, or the one that another request with the same key was given first."""
    bound, keys = answered.bound, services.keys
    assert bound is not None, "what was carried out with a key is bound to it"
    assert keys is not None, "a site that takes keys keeps their answers"
    final = response.status != 202 and not answered.open
    # What made the payment is told from its history, word for word.
    if bound.subject != CREATED and (final or not bound.answered):
        ours = _written(request, response) if final else None
        try:
            async with asyncio.timeout(KEEP_WAIT_S):
                first = await keys.keep(bound, ours)
        except (Unavailable, TimeoutError):
            services.metrics.count("idempotency_answers_unkept")
        else:
            if first is not None and first != ours:
                return _replayed(request, first)
    if answered.again:
        response.headers[REPLAYED] = "true"
    return response


async def _kept_unbound(
    request: web.Request, services: WebServices, key: RequestKey, response: web.Response, subject: str
) -> bool:
    """Or not to be kept. False: the key is bound to something by now."""
    status, keys = response.status, services.keys
    final = status < 500 and status not in NOT_KEPT and request[ASKED].error_code not in ABOUT_THE_KEY
    if not final:
        return True
    payment_id = request.match_info.get("payment_id") or request[ASKED].about.payment_id
    assert keys is not None, "a site that takes keys keeps their answers"
    try:
        async with asyncio.timeout(KEEP_WAIT_S):
            return await keys.keep_unbound(key, subject, payment_id, _written(request, response))
    except (Unavailable, TimeoutError):
        services.metrics.count("idempotency_answers_unkept")
        return True


def _forget_failure(request: web.Request) -> None:
    """Of a round before."""
    request[ASKED].error_code = ""


def _written(request: web.Request, response: web.Response) -> bytes:
    """Status, the contract's word for a failure, body."""
    assert isinstance(response.body, bytes), "every answer of ours is bytes"
    return f"{response.status} {request[ASKED].error_code}\n".encode() + response.body


def _replayed(request: web.Request, answer: bytes) -> web.Response:
    head, _, body = answer.partition(b"\n")
    status, _, code = head.decode().partition(" ")
    request[ASKED].error_code = code
    return web.Response(body=body, status=int(status), headers={**HEADERS, REPLAYED: "true"})


# --- the key ---------------------------------------------------------------------------------------------------


async def _key_of(request: web.Request, caller: Caller) -> RequestKey:
    key = read_key(request.headers.getall(HEADER))
    body = await request.read() or b"{}"  # aiohttp keeps what was read
    with contextlib.suppress(orjson.JSONEncodeError):  # nested deeper than it can be written: compared as it came
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    return request_key(caller.by, request.method, request.path, key, body)


def read_key(values: list[str]) -> str:
    """Raises Refused (422)."""
    value = values[0].strip()
    if len(values) > 1:
        raise invalid_field(NAME, "must be sent once")
    quoted = _QUOTED.fullmatch(value)
    if quoted is not None:
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif _BARE.fullmatch(value) is not None and not value.startswith('"'):
        key = value
    else:
        raise invalid_field(NAME, "must be printable ASCII without spaces, or such text in double quotes")
    if len(key) > LENGTH_MAX:
        raise invalid_field(NAME, f"must have at most {LENGTH_MAX} characters")
    return key
