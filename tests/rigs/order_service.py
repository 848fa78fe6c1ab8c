"""An order service, for tests: a real HTTP server in this process that can go away, answer late, fail or cut."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web

from payment_service.adapters.embedded_process import free_port

HUGE = 400_000
"""Bytes of an answer that is too long."""


class Told(NamedTuple):
    order_id: str
    word: str
    reason: str


@dataclass
class OrderService:
    """`mood`: how it treats every request; what it is told in a mood that fails after doing is in `told` all the same.

    fine · late (answers, and does what was asked, after `late_s`) · error (500) · error_after (500, but done) · cut
    (done, then the connection ends) · refuse (422) · unavailable (503) · busy (429) · odd (not an order) · redirect ·
    huge · forbidden (403) · unknown_user (401) · denies (200, success: false)
    """

    orders: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    mood: str = "fine"
    late_s: float = 0.0
    nested: bool = True
    """The order stands under `data.order`, else it is `data`."""
    told: list[Told] = field(default_factory=list)
    """In the order in which it was done."""
    requests: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    """(method, raw path, headers), in the order in which they came."""
    port: int = field(default_factory=free_port)
    at_once_max: int = 0
    """Of one order."""
    _runner: web.AppRunner | None = None
    _inside: dict[str, int] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def has(self, order_id: str, user_id: str = "ann", total: object = 10.5, currency: str = "USD") -> None:
        self.orders[order_id] = {"id": order_id, "userId": user_id, "totalAmount": total, "currency": currency}

    def words(self, order_id: str) -> list[str]:
        return [it.word for it in self.told if it.order_id == order_id]

    async def come(self) -> None:
        app = web.Application()
        app.router.add_get("/api/v1/orders/{order_id}", self._get)
        app.router.add_patch("/api/v1/orders/{order_id}/payment-status", self._patch)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def go(self) -> None:
        """Nobody listens any more, and its connections end."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.come()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self.go()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(("GET", request.raw_path, dict(request.headers)))
        order = self.orders.get(request.match_info["order_id"])
        moody = await self._moody(request)
        if moody is not None:
            return moody
        if order is None:
            return web.json_response({"success": False, "message": "no such order"}, status=404)
        return web.json_response({"success": True, "data": {"order": order} if self.nested else order})

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        order_id, body = request.match_info["order_id"], await request.json()
        self.requests.append(("PATCH", request.raw_path, dict(request.headers)))
        self._inside[order_id] = self._inside.get(order_id, 0) + 1
        self.at_once_max = max(self.at_once_max, self._inside[order_id])
        told = Told(order_id, body["paymentStatus"], body["reason"])
        try:
            if self.mood in ("fine", "cut", "error_after"):
                self.told.append(told)
            elif self.mood == "late":
                self._later(told)
            moody = await self._moody(request)
            return moody if moody is not None else web.json_response({"success": True, "data": {}})
        finally:
            self._inside[order_id] -= 1

    def _later(self, told: Told) -> None:
        """Done at its time also when whoever asked has gone."""

        async def do() -> None:
            await asyncio.sleep(self.late_s)
            self.told.append(told)

        task = asyncio.get_running_loop().create_task(do())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _moody(self, request: web.Request) -> web.StreamResponse | None:
        mood = self.mood
        if mood == "late":
            await asyncio.sleep(self.late_s)
        elif mood == "cut":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        elif mood == "redirect":
            return web.Response(status=302, headers={"Location": f"{self.url}/elsewhere"})
        elif mood == "odd":
            return web.json_response({"success": True, "data": {"order": {"id": "another", "userId": 7}}})
        elif mood == "huge":
            return web.Response(text='{"data":"' + "x" * HUGE + '"}')
        elif mood == "denies":
            return web.json_response({"success": False})
        status = {
            "error": 500, "error_after": 500, "unavailable": 503, "refuse": 422, "busy": 429, "forbidden": 403,
            "unknown_user": 401,
        }.get(mood)  # fmt: skip
        return web.json_response({"success": False}, status=status) if status is not None else None
