"""A span for each request, current for all that it does: the caller's trace goes on, or one of ours begins.

Room: web. Only where traces are collected; elsewhere it is not among the behaviours at all.
"""

from aiohttp import web

from payment_service.web.middleware.signature import PROBES, Behaviour
from payment_service.web.services import Asked, WebServices

GONE = 499
"""The caller went away before there was an answer."""


class Trace(Behaviour):
    def __init__(self, services: WebServices, open_routes: frozenset[str]) -> None:
        assert services.trace is not None, "nobody collects traces"
        self._begin = services.trace

    def arrives(self, request: web.Request, asked: Asked) -> None:
        if asked.route not in PROBES:
            asked.span = self._begin(request.method, asked.route, request.headers)

    def leaves(self, request: web.Request, asked: Asked, response: web.StreamResponse | None) -> None:
        if asked.span is not None:
            ids = {"payment.id": asked.payment_id(request), "payment.request_id": asked.request_id}
            asked.span.end(GONE if response is None else response.status, **ids)
