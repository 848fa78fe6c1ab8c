"""Over raw sockets: what is not HTTP, what aiohttp answers by itself, and bodies that are larger than they look."""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from rigs.web_site import ANN, RecordedRequests, services_with

from payment_service.adapters.embedded_process import free_port
from payment_service.web.serving import SiteRunner
from payment_service.web.site import build_site

WAIT_S = 10.0
TOKEN = "planted-internal-token-0001"
GET = b"GET /health HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /api/v1/payments HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    services = services_with(RecordedRequests(), https_only=True)
    runner, port = SiteRunner(build_site(services), services), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield port
    await runner.cleanup()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def said(port: int, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by their names in lower case, body."""
    async with connected(port) as (reader, writer):
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), headers, body


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"\x16\x03\x01 this is TLS\r\n\r\n", 400, "BAD_REQUEST"),
        (b"GARBAGE\r\n\r\n", 400, "BAD_REQUEST"),
        (GET + b"X-Internal-Token " + TOKEN.encode() + b"\r\n\r\n", 400, "BAD_REQUEST"),
        (GET + b"Bad header: 4242424242424242\r\n\r\n", 400, "BAD_REQUEST"),
        (GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 400, "BAD_REQUEST"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 400, "BAD_REQUEST"),
        (b"GET /health HTTP/9.1\r\nHost: a\r\n\r\n", 400, "BAD_REQUEST"),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "BAD_REQUEST"),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, "BAD_REQUEST"),
        (GET + b"Expect: " + TOKEN.encode() + b"\r\n\r\n", 417, "EXPECTATION_FAILED"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_not_http_is_answered_carefully(
    port: int, sent: bytes, status: int, code: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    got, headers, body = await said(port, sent)
    envelope = json.loads(body)
    assert (got, envelope["code"]) == (status, code)
    assert set(envelope) == {"success", "code", "message", "requestId", "timestamp"}
    assert envelope["requestId"] == headers["x-request-id"]
    assert headers["server"] == "payment-service" and headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in headers and "strict-transport-security" in headers
    told = "".join((str(headers), body.decode(), caplog.text, *capsys.readouterr()))
    told = told.replace(envelope["requestId"], "")  # made at random: any four digits may stand there
    assert not [secret for secret in (TOKEN, "4242", "aaaa", "Traceback", "aiohttp/", "Python/") if secret in told]


async def test_what_follows_a_good_request_is_no_exception(
    port: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with connected(port) as (reader, writer):
        writer.write(POST + b"Content-Length: 3\r\n\r\nabc")
        answers = await reader.readuntil(b"\r\n\r\n")
        writer.write(TOKEN.encode() + b"\x00\r\n\r\n")
        answers += await reader.read()  # until it is closed
    assert answers.startswith(b"HTTP/1.1 401") and b" 400 Bad Request" in answers
    told = "".join((answers.decode(), caplog.text, *capsys.readouterr()))
    assert "Traceback" not in told and TOKEN not in told


@pytest.mark.parametrize(("who", "status"), [({}, 401), (ANN, 400)])
async def test_a_body_is_taken_as_it_comes(port: int, who: dict[str, str], status: int) -> None:
    """Of a bomb nothing is unpacked: not for a caller, and not to get past it for the next request."""
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packing.compress(b" " * 200_000_000) + packing.flush()
    headers = "".join(f"{name}: {value}\r\n" for name, value in who.items()).encode()
    sent = POST + headers + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    started = time.process_time()
    got, _, body = await said(port, sent)
    assert got == status and json.loads(body)["code"] in ("UNAUTHORIZED", "MALFORMED_JSON")
    assert (await said(port, GET + b"\r\n"))[0] == 200
    await asyncio.sleep(0.5)
    assert time.process_time() - started < 0.15, "unpacking takes twice as long"
