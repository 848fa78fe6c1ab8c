"""One trace from door to door, as a collector sees it: HTTP or Kafka in, commit, provider, Kafka out and in again."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rigs.books import read_all
from rigs.worker import Installation, Message, Worker
from servers.otlp import Collector, Span, collecting

pytestmark = pytest.mark.long

SHOP, ORDER = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "b7ad6b7169203331"
SEEN_S = 30.0


async def seen(collector: Collector, trace: str, *names: str) -> list[Span]:
    """Until there are spans of all these names; those of the trace."""
    try:
        async with asyncio.timeout(SEEN_S):
            while not set(names) <= set(collector.names(trace)):  # noqa: ASYNC110 it has no event of its own
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(
            f"missing {set(names) - set(collector.names(trace))} of {collector.names(trace)}"
        ) from None
    return collector.of(trace)


def path_to(spans: list[Span], name: str) -> list[str]:
    """The names from the root to the last span of this name; the caller's own is no span of ours."""
    by_id = {span.span: span for span in spans}
    span: Span | None = [span for span in spans if span.name == name][-1]
    names = []
    while span is not None:
        names.append(span.name)
        assert span.parent == CALLER or span.parent in by_id, f"{span.name} hangs on a span that nobody sent"
        span = by_id.get(span.parent)
    return names[::-1]


async def paid(worker: Worker) -> str:
    header = {"traceparent": f"00-{SHOP}-{CALLER}-01"}
    body = {"orderId": "by-rest", "amount": 99.99}
    made = await worker.call("POST", "/api/v1/payments", body, user="user-1", **header)
    path = f"/api/v1/payments/{made.data['id']}/process"
    answer = await worker.call("POST", path, {"paymentMethodId": "tok_visa"}, user="user-1", **header)
    assert (answer.status, answer.data["status"]) == (200, "SUCCEEDED")
    return str(made.data["id"])


def an_order(order_id: str, **more: Any) -> Message:
    body = {"eventType": "order.created", "orderId": order_id, "userId": "user-1", "totalAmount": 5, "currency": "USD"}
    header = ("traceparent", f"00-{ORDER}-{CALLER}-01".encode())
    return Message(json.dumps(body | more).encode(), 0, b"order.created", (header,))


async def test_a_trace_goes_through_every_door(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with collecting() as collector:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret"}
        async with Installation(tmp_path, tansu_broker, database_url, AUTO_PROCESS_ORDERS="true", **traced) as site:
            await site.make_order_topic()
            worker = await site.started(OTEL_SERVICE_NAME="shop-payments")
            prefix = site.prefix
            payment_id = await paid(worker)
            told, sent = f"publish {prefix}payment.processed", f"process {prefix}payment.processed"
            spans = await seen(collector, SHOP, told, sent, f"publish {prefix}payment.created")
            process = "POST /api/v1/payments/{payment_id}/process"
            assert path_to(spans, "MOCK CHARGE") == [process, "MOCK CHARGE"]
            assert path_to(spans, told) == [process, "commit", told]
            assert path_to(spans, sent) == [process, "commit", sent], "what came back from the topic belongs to it"
            created = f"publish {prefix}payment.created"
            assert path_to(spans, created) == ["POST /api/v1/payments", "commit", created]
            (door,) = [span for span in spans if span.name == process]
            assert (door.kind, door.failed, door.service) == (2, False, "shop-payments")
            assert door.attributes["payment.id"] == payment_id
            assert door.attributes["http.response.status_code"] == 200
            (charge,) = [span for span in spans if span.name == "MOCK CHARGE"]
            assert charge.attributes["payment.verdict"] == "APPROVED"
            assert {span.attributes["payment.id"] for span in spans if span.name == "commit"} == {payment_id}

            await site.produce(an_order("by-order", paymentMethodId="tok_chargeDeclined"))
            failed = f"publish {prefix}payment.failed"
            spans = await seen(collector, ORDER, failed, f"process {prefix}payment.failed")
            taken = f"process {prefix}orders"
            assert path_to(spans, "MOCK CHARGE") == [taken, "commit", "MOCK CHARGE"], "the runner found it in the table"
            assert path_to(spans, failed) == [taken, "commit", "commit", failed]

            assert collector.headers[0]["x-key"] == "secret"
            secrets = ("tok_visa", "tok_chargeDeclined", "secret")
            assert not [span for span in collector.spans if any(it in repr(span) for it in secrets)]
            messages = await read_all(site, ["payment.created", "payment.processed", "payment.failed"], 4)
            heads = {dict(it.headers)["traceparent"].decode()[3:35] for it in messages}
            assert heads == {SHOP, ORDER}
            await worker.stop()


async def test_a_call_that_another_worker_takes_over_stays_in_its_trace(
    tansu_broker: str, database_url: str, tmp_path: Path
) -> None:
    """kill -9 between the commit and the provider: what is left of the trace is sealed with the request."""
    async with collecting() as collector:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "LEASE_S": "3", "PROVIDER_DEADLINE_S": "2"}
        async with Installation(tmp_path, tansu_broker, database_url, **traced) as site:
            worker = await site.started(MOCK_LATENCY_MS="60000")
            made = await worker.call("POST", "/api/v1/payments", {"orderId": "o", "amount": 5}, user="user-1")
            path = f"/api/v1/payments/{made.data['id']}/process"
            header = {"traceparent": f"00-{SHOP}-{CALLER}-01"}
            body = {"paymentMethodId": "tok_visa"}
            asking = asyncio.create_task(worker.call("POST", path, body, user="user-1", **header))
            await site.until(lambda: site.count("transactions") == 1, "the intent is committed")
            await asyncio.sleep(0.5)
            worker.kill()
            await asyncio.gather(asking, return_exceptions=True)
            collector.spans.clear()
            await site.started()
            found = await seen(collector, SHOP, "MOCK LOOKUP", "commit")
            assert next(span.parent for span in found if span.name == "MOCK LOOKUP")


async def test_a_share_is_kept_whatever_the_caller_says(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with collecting() as collector:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_SAMPLER_ARG": "0"}
        async with Installation(tmp_path, tansu_broker, database_url, **traced) as site:
            worker = await site.started()
            await paid(worker)
            await site.until_told(1)
            await worker.stop()
        assert collector.spans == []


async def test_without_a_collector_nothing_is_traced(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with Installation(tmp_path, tansu_broker, database_url) as site:
        worker = await site.started()
        await paid(worker)
        await site.until_told(1)
        messages = await read_all(site, ["payment.created", "payment.processed"], 2)
        assert [dict(it.headers).get("traceparent") for it in messages] == [None, None]


async def test_a_collector_that_is_away_costs_nothing(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with Installation(
        tmp_path, tansu_broker, database_url, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9"
    ) as site:
        worker = await site.started()
        await paid(worker)
        await site.until_told(1)
        code, seconds = await worker.stop()
        assert code == 0
        assert seconds < 20


def test_nothing_of_opentelemetry_is_imported_where_it_is_off() -> None:
    said = "import sys, payment_service.worker; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
