"""From an HTTP request to an operation and back, with the faults and the latency between.

Room: cli/provider_sim. An operation is a plain function: it never waits, so what it does is whole. It is in the
ledger before its answer leaves; the latency comes after that, and holds nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from aiohttp import web

from payment_service.cli.provider_sim.faults import Picked
from payment_service.cli.provider_sim.world import World

SILENCE_S = 120.0
"""How long a request that is never answered keeps its connection."""
FAULT_HEADER = "X-Sim-Fault"
ASKED_FOR = "the simulator goes wrong, as it was asked to"


class BadRequest(ValueError):
    """The request cannot be read; nothing was done. Answered with a 400 that says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    match: Mapping[str, str]
    query_string: str
    headers: Mapping[str, str]
    body: bytes
    fails_after: bool = False
    """It is to be done and answered with a 500; a provider that keeps answers keeps that one."""


@dataclass(slots=True)
class Reply:
    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    moves_money: bool = False
    """The latency is put before it."""
    silent: bool = False
    """Never answered."""
    sent: Callable[[], None] | None = None
    """Called when it has left, or will never."""


Operation = Callable[[Asked], Reply]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a provider speaks of trouble that no operation of its made."""

    provider: str
    trouble: Callable[[int, str], Reply]
    """The answer with this status (400, 429, 500), and why."""
    key_of: Callable[[Asked], str | None]
    """The idempotency key a request names, for the ledger's lines about faults."""


class Door:
    def __init__(self, world: World, dialect: Dialect) -> None:
        self._world = world
        self._dialect = dialect

    def to(self, operation: Operation) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, operation)

        return handler

    async def _answer(self, request: web.Request, operation: Operation) -> web.StreamResponse:
        world = self._world
        asked, picked = self._look(request, await request.read())
        if picked.delay:
            await asyncio.sleep(world.faults.plan.delay_ms / 1000)
        if picked.outcome == "drop_request":
            await world.ledger.written()
            return _hang_up(request)
        if picked.outcome in ("status_429", "status_500"):
            reply = self._dialect.trouble(int(picked.outcome[-3:]), ASKED_FOR)
        else:
            try:
                reply = operation(asked)
            except BadRequest as error:
                reply = self._dialect.trouble(400, str(error))
            if asked.fails_after and reply.status < 500:
                reply.status, reply.body = 500, self._dialect.trouble(500, ASKED_FOR).body
        try:
            await world.ledger.written()
            await self._wait(reply, picked)
            return await _send(request, reply, picked.outcome)
        finally:
            if reply.sent is not None:
                reply.sent()

    def _look(self, request: web.Request, body: bytes) -> tuple[Asked, Picked]:
        asked = Asked(request.method, request.path, request.match_info, request.query_string, request.headers, body)
        faults, header = self._world.faults, request.headers.get(FAULT_HEADER)
        if header is None and not faults.plan.rates and not faults.plan.next:
            return asked, Picked()
        picked = faults.pick(asked.method, request.path_qs, body, header, self._dialect.key_of(asked))
        if picked.outcome == "status_500_after":
            asked = replace(asked, fails_after=True)
        return asked, picked

    async def _wait(self, reply: Reply, picked: Picked) -> None:
        wait_ms = self._world.settings.latency_ms if reply.moves_money else 0
        if picked.delay_response:
            wait_ms += self._world.faults.plan.delay_ms
        if reply.silent:
            await asyncio.sleep(SILENCE_S)
        elif wait_ms and picked.outcome != "drop_response":
            await asyncio.sleep(wait_ms / 1000)


async def _send(request: web.Request, reply: Reply, outcome: str | None) -> web.StreamResponse:
    if reply.silent or outcome == "drop_response":
        return _hang_up(request)
    body = reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body) if reply.body is not None else b""
    headers = {"Content-Type": "application/json", **reply.headers}
    if outcome == "cut_body":
        return await _cut(request, reply.status, headers, body)
    return web.Response(status=reply.status, body=body, headers=headers)


async def _cut(request: web.Request, status: int, headers: dict[str, str], body: bytes) -> web.StreamResponse:
    """Half of it, and then the connection ends."""
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def _hang_up(request: web.Request) -> web.Response:
    """The connection ends without an answer; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()
