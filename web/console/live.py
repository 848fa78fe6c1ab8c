"""How it is going right now: a page that reads well without a script, and a stream of numbers for its charts.

Room: web.
"""

import orjson
from aiohttp import hdrs, web

from payment_service.core.errors import Unavailable
from payment_service.web.console.live_windows import STREAM_S_MAX, Point
from payment_service.web.console.pages import ConsolePage, console_pages
from payment_service.web.console.rendering import POLICY
from payment_service.web.services import ASKED

RETRY_MS = 3000
"""How soon a browser asks again when the stream ends."""
STREAM_HEADERS = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
}
"""Of an answer whose head is out before the behaviours around it could add theirs."""


@console_pages.route("/console/live", name="live")
class Live(ConsolePage):
    async def get(self, request: web.Request) -> web.Response:
        session = self.session(request)
        health = await self.console.health()
        return self.shown(request, session, "live.html", here="live", now=self.console.live.now, health=health)


@console_pages.route("/console/live/events", name="events")
class Events(ConsolePage):
    async def get(self, request: web.Request) -> web.StreamResponse:
        """What there was (`history`), then every new point, until the session ends or STREAM_S_MAX is over."""
        session, live = self.session(request), self.console.live
        if live.full:
            raise Unavailable("too many browsers watch this worker", retry_after_s=30.0)
        clock = self.services.clock
        response = web.StreamResponse(headers=STREAM_HEADERS)
        response.headers["X-Request-ID"] = request[ASKED].request_id
        began_s = clock.monotonic_s()
        try:
            await response.prepare(request)
            await response.write(f"retry: {RETRY_MS}\n".encode() + _event("history", list(live.points)))
            async for point in live.stream(min(STREAM_S_MAX, session.left_s(clock.now_ms() / 1000))):
                if self.console.ended.is_ended(session.digest):
                    break
                await response.write(_event("point", point))
        except ConnectionError:
            pass  # the browser went away, as browsers do
        finally:
            # It was answered when its head was out: what follows is no time that somebody waited.
            request[ASKED].started_s += clock.monotonic_s() - began_s
        return response


def _event(name: str, data: Point | list[Point]) -> bytes:
    return f"event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"
