"""A collector of traces, as OpenTelemetry's own takes them: OTLP over HTTP, in the test's own process."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    trace: str
    span: str
    parent: str
    """Empty: it has none."""
    name: str
    kind: int
    failed: bool
    attributes: dict[str, Any]
    service: str


@dataclass
class Collector:
    url: str
    spans: list[Span] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def names(self, trace: str) -> list[str]:
        return sorted(span.name for span in self.of(trace))

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.headers.append(dict(request.headers))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {it.key: it.value.string_value for it in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                self.spans += [
                    Span(
                        it.trace_id.hex(), it.span_id.hex(), it.parent_span_id.hex(), it.name, it.kind,
                        it.status.code == 2,
                        {one.key: one.value.string_value or one.value.int_value for one in it.attributes}, service,
                    )
                    for it in scope.spans
                ]  # fmt: skip
        return web.Response(body=ExportTraceServiceResponse().SerializeToString())


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector("")
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
