"""Every route of the site: who gets in, what a body may be, and what the probes say."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from rigs.web_site import (
    ADMIN,
    ANN,
    BOB,
    ID,
    PATH,
    SERVICE,
    Client,
    RecordedRequests,
    ask,
    opened,
    services_with,
)

from payment_service.web.services import Readiness

CREATE = {"orderId": "order-1", "amount": 99.99}

CLOSED: list[tuple[str, str, Any]] = [
    ("POST", "/api/v1/payments", CREATE),
    ("POST", f"{PATH}/process", {}),
    ("POST", f"{PATH}/capture", {}),
    ("POST", f"{PATH}/cancel", {}),
    ("POST", f"{PATH}/refund", {}),
    ("POST", "/api/v1/refunds", {"paymentId": ID}),
    ("GET", PATH, None),
    ("GET", f"{PATH}/timeline", None),
    ("GET", "/api/v1/orders/order-1/payment", None),
    ("GET", "/api/v1/payments", None),
]
ABOUT_ONE = [route for route in CLOSED if route[1] != "/api/v1/payments"]
WITH_BODY = [route for route in CLOSED if route[0] == "POST"]
OPEN = ["/health", "/ready", "/metrics"]


# --- every route -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "body"), CLOSED)
async def test_nobody_gets_in(client: Client, requests: RecordedRequests, method: str, path: str, body: Any) -> None:
    for headers in ({}, {"Authorization": "Bearer x.y.z"}, {"X-API-Key": "wrong"}, {**ANN, "X-Internal-Token": "no"}):
        status, envelope = await ask(client, method, path, body, **headers)
        assert (status, envelope["code"]) == (401, "UNAUTHORIZED")
    assert requests.calls == []


@pytest.mark.parametrize(("method", "path", "body"), ABOUT_ONE)
async def test_another_users_payment_is_not_found(client: Client, method: str, path: str, body: Any) -> None:
    status, envelope = await ask(client, method, path, body, **BOB)
    assert (status, envelope["code"]) == (404, "PAYMENT_NOT_FOUND")
    for headers in (ANN, ADMIN, SERVICE):
        assert (await ask(client, method, path, body, **headers))[0] == 200


@pytest.mark.parametrize(("method", "path", "body"), WITH_BODY)
@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"{", 400, "MALFORMED_JSON"),
        (b"\xff", 400, "MALFORMED_JSON"),
        (b'{"a": NaN}', 400, "MALFORMED_JSON"),
        (b"[" * 100_000, 400, "MALFORMED_JSON"),
        (b"[]", 422, "VALIDATION_ERROR"),
        (b"null", 422, "VALIDATION_ERROR"),
        (b'{"reason": "a\\u0000b"}', 422, "VALIDATION_ERROR"),
        (b'{"metadata": {"a": [{"\\u0000": 1}]}}', 422, "VALIDATION_ERROR"),
        (b'{"reason": "\\ud800"}', 422, "VALIDATION_ERROR"),
        (b'{"reason": "\\udc00\\ud800"}', 422, "VALIDATION_ERROR"),
        (b"x" * 262_145, 413, "PAYLOAD_TOO_LARGE"),
    ],
    ids=lambda value: repr(value)[:24],
)
async def test_bad_bodies(
    client: Client, requests: RecordedRequests, method: str, path: str, body: Any, sent: bytes, status: int, code: str
) -> None:
    got, envelope = await ask(client, method, path, sent, **ANN)
    assert (got, envelope["code"]) == (status, code)
    assert requests.calls == []


@pytest.mark.parametrize(("method", "path", "body"), [r for r in WITH_BODY if not r[1].endswith("/process")])
async def test_unknown_fields_are_refused(client: Client, method: str, path: str, body: Any) -> None:
    status, envelope = await ask(client, method, path, {**body, "status": "SUCCEEDED", "capturedAmount": 1}, **ANN)
    assert (status, envelope["code"]) == (422, "VALIDATION_ERROR")
    assert set(envelope["errors"]) == {"status", "capturedAmount"}


async def test_unknown_routes_and_methods(client: Client) -> None:
    for path in ("/", "/api/v1/nothing", "/table/", "/router/", f"{PATH}/nothing", "/api/v1/payments/"):
        assert (await ask(client, "GET", path))[1]["code"] == "NOT_FOUND"
    for method, path in (
        ("DELETE", PATH),
        ("PUT", "/api/v1/payments"),
        ("POST", "/health"),
        ("GET", f"{PATH}/process"),
    ):
        status, envelope = await ask(client, method, path)
        assert (status, envelope["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert (await client.request("TRACE", "/health")).status == 405
    refused = await client.get(f"{PATH}/process")
    assert refused.headers["Allow"] == "POST"
    assert (await client.head("/health")).status == 200


async def test_a_bug_behind_the_site_is_500(client: Client, requests: RecordedRequests) -> None:
    requests.error = RuntimeError("secret detail")
    status, envelope = await ask(client, "GET", PATH, **ANN)
    assert (status, envelope["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in str(envelope)


async def test_ids_that_cannot_be_ours_are_not_asked_for(client: Client, requests: RecordedRequests) -> None:
    for path in (f"/api/v1/payments/{'x' * 65}", "/api/v1/payments/a%00b", f"/api/v1/orders/{'x' * 129}/payment"):
        assert (await ask(client, "GET", path, **ANN))[1]["code"] == "PAYMENT_NOT_FOUND"
    assert requests.calls == []


# --- probes ----------------------------------------------------------------------------------------------------


async def test_health_and_ready(client: Client, requests: RecordedRequests) -> None:
    assert (await ask(client, "GET", "/health"))[1]["data"]["status"] == "UP"
    status, envelope = await ask(client, "GET", "/ready")
    assert (status, envelope["data"]) == (200, {"ready": True, "draining": False, "reasons": [], "broker": "up"})
    not_ready = Readiness(False, draining=True, reasons=("draining",), details={"broker": "away"})
    other = await opened(services_with(requests, readiness=not_ready))
    try:
        status, envelope = await ask(other, "GET", "/ready")
        assert (status, envelope["code"], envelope["message"]) == (503, "SERVICE_UNAVAILABLE", "draining")
        assert envelope["data"] == {"ready": False, "draining": True, "reasons": ["draining"], "broker": "away"}
        assert (await ask(other, "GET", "/health"))[0] == 200
    finally:
        await other.close()


async def test_metrics(client: Client, requests: RecordedRequests) -> None:
    answer = await client.get("/metrics")
    assert (answer.status, await answer.read()) == (200, b"http_requests_total 1\n")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    closed = await opened(services_with(requests, metrics_token="scrape-me"))
    try:
        assert (await closed.get("/metrics", headers={"Authorization": "Bearer scrape-me"})).status == 200
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "scrape-me"}, ADMIN, SERVICE):
            assert (await ask(closed, "GET", "/metrics", **headers))[0] == 401
    finally:
        await closed.close()


# --- bodies on the wire ----------------------------------------------------------------------------------------


async def test_a_body_without_a_length_is_cut_off(client: Client, requests: RecordedRequests) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 16_384

    answer = await client.post("/api/v1/payments", data=pieces(), headers=ANN)
    assert (answer.status, (await answer.json())["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert requests.calls == []


async def test_a_body_that_does_not_come_ends_the_request(requests: RecordedRequests) -> None:
    slow = await opened(services_with(requests, body_timeout_s=0.05))

    async def nothing() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)

    try:
        answer = await slow.post("/api/v1/payments", data=nothing(), headers=ANN)
        assert (answer.status, (await answer.json())["code"]) == (408, "REQUEST_TIMEOUT")
    finally:
        await slow.close()
    assert requests.calls == []


async def test_a_caller_that_goes_away_is_no_bug(client: Client, requests: RecordedRequests) -> None:
    server = client.server
    assert isinstance(server, TestServer) and server.port is not None
    _, writer = await asyncio.open_connection(server.host, server.port)
    head = f"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\nAuthorization: {ANN['Authorization']}\r\n"
    head += "Content-Length: 50\r\n\r\n"
    writer.write(head.encode() + b'{"orderId":')
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert requests.calls == []
    assert (await ask(client, "GET", "/health"))[0] == 200
