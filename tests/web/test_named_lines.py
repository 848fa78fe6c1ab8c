"""Log lines name the request, the payment and the trace they belong to, and no other."""

import io
import json
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rigs.log_lines import logged
from rigs.web_site import ANN, ID, PATH, RecordedRequests, ask, failing_with, opened, services_with

from payment_service.adapters.tracing import Tracing, add_trace_ids

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@pytest.fixture
def lines() -> io.StringIO:
    return logged(add_ids=add_trace_ids)


def said(lines: io.StringIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == event]


async def test_a_line_names_request_payment_and_trace(lines: io.StringIO) -> None:
    tracing = Tracing(InMemorySpanExporter(), service="s", version="1", worker="w", share=1)
    client = await opened(services_with(failing_with(RuntimeError("a bug")), trace=tracing.request))
    try:
        status, _ = await ask(client, "GET", PATH, **ANN, **TRACEPARENT, **{"X-Request-ID": "mine"})
        assert status == 500
        await ask(client, "GET", "/api/v1/payments", **ANN)
    finally:
        await client.close()
        await tracing.close()
    (bug,), (answered, other) = said(lines, "request failed"), said(lines, "request")
    for line in (bug, answered):
        assert (line["request_id"], line["payment_id"], line["trace_id"]) == ("mine", ID, TRACE), line
    assert len(bug["span_id"]) == 16
    assert "payment_id" not in other
    assert other["trace_id"] != TRACE, "one of our own, for who brings none"


async def test_a_created_payment_is_named_though_no_path_names_it(lines: io.StringIO) -> None:
    client = await opened(services_with(RecordedRequests()))
    try:
        assert (await ask(client, "POST", "/api/v1/payments", {"orderId": "order-1", "amount": 1}, **ANN))[0] == 201
        assert (await ask(client, "GET", "/api/v1/payments/whatever", **ANN))[0] == 200
        assert (await ask(client, "POST", "/api/v1/payments", {"orderId": "order-1", "amount": -1}, **ANN))[0] == 422
    finally:
        await client.close()
    assert [line.get("payment_id") for line in said(lines, "request")] == [ID, None, None]
    assert all("trace_id" not in line for line in said(lines, "request"))


async def test_what_comes_after_a_request_on_its_connection_is_not_of_it(lines: io.StringIO) -> None:
    found: list[dict[str, Any]] = []

    class Listening(RecordedRequests):
        async def find(self, *given: Any) -> Any:
            found.append(structlog.contextvars.get_contextvars())
            return await super().find(*given)

    client = await opened(services_with(Listening()))
    try:
        await ask(client, "GET", PATH, **ANN, **{"X-Request-ID": "first"})
        await ask(client, "GET", "/api/v1/payments", **ANN, **{"X-Request-ID": "second"})
    finally:
        await client.close()
    assert found == [{"request_id": "second"}]
