"""`/_sim/...`: the shopper, the merchant's dashboard, the bank and the tester. No authentication: tests only.

Room: cli/provider_sim. What a dashboard or a bank does differs by provider: each registers it in `World.dashboard`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from payment_service.cli.provider_sim.faults import BadFaults
from payment_service.cli.provider_sim.world import Impossible, World, shown

Handler = Callable[[web.Request], Awaitable[web.Response]]


def register(app: web.Application, world: World) -> None:
    control = Control(world)
    add = app.router
    add.add_get("/_sim/health", control.health)
    add.add_get("/_sim/movements", control.movements)
    add.add_get("/_sim/objects/{object_id}", control.show)
    add.add_get("/_sim/approve/{object_id}", control.page)
    add.add_post("/_sim/approve/{object_id}", control.approve)
    add.add_post("/_sim/deny/{object_id}", control.done_to("deny"))
    add.add_post("/_sim/refunds", control.made("refund"))
    add.add_post("/_sim/refunds/{object_id}/fail", control.done_to("fail"))
    add.add_post("/_sim/disputes", control.made("dispute"))
    add.add_post("/_sim/disputes/{object_id}/won", control.done_to("won"))
    add.add_post("/_sim/disputes/{object_id}/lost", control.done_to("lost"))
    add.add_post("/_sim/expire/{object_id}", control.done_to("expire"))
    add.add_post("/_sim/settle", control.settle)
    add.add_post("/_sim/prune", control.prune)
    add.add_post("/_sim/faults", control.faults)
    add.add_post("/_sim/timing", control.timing)


class Control:
    def __init__(self, world: World) -> None:
        self._world = world

    async def health(self, _: web.Request) -> web.Response:
        """`webhooks_waiting` and `settling` are both 0 once everything that was to happen has."""
        world = self._world
        return await self._say(
            {
                "status": "ok", "movements": len(world.movements), "webhooks_waiting": world.webhooks.waiting,
                "settling": world.settling, "ledger": str(world.ledger.path),
            }
        )  # fmt: skip

    async def movements(self, request: web.Request) -> web.Response:
        payment_id = request.query.get("payment_id")
        return await self._say(
            {"movements": [one for one in self._world.movements if payment_id in (None, one["payment_id"])]}
        )

    async def show(self, request: web.Request) -> web.Response:
        thing = self._find(request.match_info["object_id"])[1]
        return await self._say(shown(thing))

    async def approve(self, request: web.Request) -> web.Response:
        kind, thing = self._find(request.match_info["object_id"])
        approved = self._world.on_approved.get(kind)
        if approved is None:
            raise web.HTTPConflict(text=f"nobody approves a {kind}")
        if "with" in request.query:  # a test token: what becomes of it then
            thing["_approved_with"] = request.query["with"]
        approved(thing)
        return await self._say(shown(thing))

    async def page(self, request: web.Request) -> web.Response:
        """Where `nextAction.url` leads: opening it is the shopper's yes; then back to the shop, if it said where."""
        answer = await self.approve(request)
        return_url = self._find(request.match_info["object_id"])[1].get("_return_url")
        if return_url:
            raise web.HTTPFound(return_url)
        return web.Response(text="Approved. You may close this page.") if answer.status == 200 else answer

    def done_to(self, what: str) -> Handler:
        """What happens to the object that the path names."""

        async def handler(request: web.Request) -> web.Response:
            kind, thing = self._find(request.match_info["object_id"])
            return await self._do(kind, what, thing, await self._given(request))

        return handler

    def made(self, what: str) -> Handler:
        """What is made of the object that the body names: `{object_id, amount_minor?, ...}`."""

        async def handler(request: web.Request) -> web.Response:
            given = await self._given(request)
            kind, thing = self._find(str(given.get("object_id")))
            if given.get("amount_minor") is not None and _number(given, "amount_minor", 0) == 0:
                raise web.HTTPBadRequest(text="amount_minor is 1 or more")
            return await self._do(kind, what, thing, given)

        return handler

    async def settle(self, _: web.Request) -> web.Response:
        self._world.webhooks.hurry()
        return await self._say({"settled": self._world.settle()})

    async def prune(self, request: web.Request) -> web.Response:
        """`{older_than_ms}`, 0: every key is forgotten, as Stripe may after 24 h."""
        given = await self._given(request)
        return await self._say({"pruned": self._world.answers.prune(_number(given, "older_than_ms", 0))})

    async def faults(self, request: web.Request) -> web.Response:
        given = await self._given(request)
        try:
            self._world.faults.set(given)
        except BadFaults as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return await self._say(given)

    async def timing(self, request: web.Request) -> web.Response:
        """`{latency_ms?, settle_ms?, paypal_token_s?}` from now on; a restart is as its command line says again."""
        given = await self._given(request)
        settings = self._world.settings
        settings.latency_ms = _number(given, "latency_ms", settings.latency_ms)
        settings.settle_ms = _number(given, "settle_ms", settings.settle_ms)
        settings.paypal_token_s = _number(given, "paypal_token_s", settings.paypal_token_s)
        return await self._say({"latency_ms": settings.latency_ms, "settle_ms": settings.settle_ms})

    def _find(self, object_id: str) -> tuple[str, dict[str, Any]]:
        kind = self._world.kind_of(object_id)
        thing = self._world.get(kind, object_id) if kind is not None else None
        if kind is None or thing is None:
            raise web.HTTPNotFound(text=f"no object {object_id}")
        return kind, thing

    async def _do(self, kind: str, what: str, thing: dict[str, Any], given: dict[str, Any]) -> web.Response:
        action = self._world.dashboard.get((kind, what))
        if action is None:
            raise web.HTTPConflict(text=f"{what} is nothing that can be done to a {kind}")
        try:
            return await self._say(shown(action(thing, given)))
        except Impossible as error:
            raise web.HTTPConflict(text=str(error)) from error

    async def _given(self, request: web.Request) -> dict[str, Any]:
        body = await request.read()
        try:
            given = orjson.loads(body) if body else {}
        except orjson.JSONDecodeError as error:
            raise web.HTTPBadRequest(text="not JSON") from error
        if not isinstance(given, dict):
            raise web.HTTPBadRequest(text="not a JSON object")
        return given

    async def _say(self, body: Any) -> web.Response:
        await self._world.ledger.written()
        return web.Response(body=orjson.dumps(body), content_type="application/json")


def _number(given: dict[str, Any], name: str, default: int) -> int:
    value = given.get(name, default)
    if type(value) is not int or value < 0:
        raise web.HTTPBadRequest(text=f"{name} is a whole number, 0 or more")
    return value
