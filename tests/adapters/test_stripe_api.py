"""The wire under Stripe: what a connection that fails, stalls or is cut means. A real server goes wrong here."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import stripe as sdk
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from rigs.stripe_recorded import names, recorded, recorded_call

from payment_service.adapters.providers.stripe import StripeProvider
from payment_service.adapters.providers.stripe_api import API_VERSION, StripeApi
from payment_service.adapters.providers.stripe_requests import Request
from payment_service.core.ports import Answer
from payment_service.core.terms import Kind, Verdict

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def stripe_that(handler: Handler, *, deadline_s: float = 5.0) -> AsyncIterator[StripeProvider]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server, ClientSession() as session:
        base = f"http://127.0.0.1:{server.port}"
        yield StripeProvider(StripeApi("sk_test_secret", base, deadline_s, lambda: session), live=False)


def said(answer: Answer) -> tuple[Verdict, str]:
    return answer.verdict, answer.code


async def test_a_request_names_its_version_its_key_and_no_telemetry() -> None:
    seen: list[web.Request] = []
    forms: list[dict[str, object]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        forms.append(dict(await request.post()))
        return web.json_response(recorded("intent_succeeded").body)

    async with stripe_that(handler) as provider:
        for _ in range(2):
            assert (await provider.send(recorded_call())).verdict is Verdict.APPROVED
    headers = seen[1].headers
    assert headers["Stripe-Version"] == API_VERSION
    assert headers["Idempotency-Key"] == "pay_recorded:charge:1"
    assert headers["Authorization"] == "Bearer sk_test_secret"
    assert "X-Stripe-Client-Telemetry" not in headers
    assert "platform" not in headers["X-Stripe-Client-User-Agent"]
    assert forms[0] == forms[1]
    assert forms[0]["payment_method_data[card][token]"] == "tok_visa"


async def test_each_request_has_its_own_key_and_a_question_has_none() -> None:
    keys: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        keys.append(request.headers.get("Idempotency-Key"))
        assert request.headers["Authorization"] == "Bearer sk_test_secret"
        return web.json_response(recorded("intent_succeeded").body)

    async with stripe_that(handler) as provider:
        for kind, number in ((Kind.CHARGE, 1), (Kind.CHARGE, 2), (Kind.CAPTURE, 3)):
            await provider.send(recorded_call(kind, number=number))
        await provider.lookup(recorded_call())
        for _ in range(2):  # we never ask so; what was made once must not be everybody's key
            await provider._api.ask(Request("post", "/v1/refunds"))
    *ours, none, first, second = keys
    assert ours == ["pay_recorded:charge:1", "pay_recorded:charge:2", "pay_recorded:capture:3"]
    assert none is None
    assert first and second and first != second


async def test_no_connection_means_not_sent() -> None:
    async with ClientSession() as session:
        provider = StripeProvider(StripeApi("sk_test_secret", "http://127.0.0.1:1", 5, lambda: session), live=False)
        assert said(await provider.send(recorded_call())) == (Verdict.NOT_SENT, "PROVIDER_UNAVAILABLE")


async def test_no_answer_a_stalled_body_and_a_cut_one_are_unknown() -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async def stalls(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"id": "pi_3Rec')
        await asyncio.sleep(5)
        return response

    async def cuts(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"id": "pi_3Rec')
        assert request.transport is not None
        request.transport.abort()
        return response

    async def hangs_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def never_ends(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(400):
            await response.write(b" " * 10_000)
        return response

    for handler in (silent, stalls, cuts, hangs_up, never_ends):
        async with stripe_that(handler, deadline_s=0.5) as provider:
            assert said(await provider.send(recorded_call())) == (Verdict.UNKNOWN, "PROVIDER_TIMEOUT"), handler
            assert (await provider.lookup(recorded_call(Kind.REFUND))).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"not json", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (200, b"[]", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (200, b"\xff\xfe", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (200, b"[" * 100_000, (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (400, b'{"error": "invalid_client", "error_description": "x"}', (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (503, b"<html>", (Verdict.UNKNOWN, "PROVIDER_ERROR")),
        (307, b"", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
    ],
)
async def test_a_body_that_is_none_is_unknown(status: int, body: bytes, expected: tuple[Verdict, str]) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, body=body, headers={"Location": "/elsewhere"})

    async with stripe_that(handler) as provider:
        assert said(await provider.send(recorded_call())) == expected
    assert asked == ["/v1/payment_intents/pi_3Recorded/confirm"], "asked once, and no redirect is followed"


@pytest.mark.parametrize("odd", [b"\xff", b"\\ud800"])
async def test_an_odd_text_in_an_answer_does_not_make_it_unknown(odd: bytes) -> None:
    body = json.dumps({**recorded("intent_succeeded").body, "description": "ODD"}).encode().replace(b"ODD", odd)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with stripe_that(handler) as provider:
        assert said(await provider.send(recorded_call())) == (Verdict.APPROVED, "")


async def test_refused_by_its_state_it_is_read_again_and_that_is_the_answer() -> None:
    standing = {"name": "intent_succeeded"}
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.method)
        reply = recorded("error_unexpected_state" if request.method == "POST" else standing["name"])
        return web.json_response(reply.body, status=reply.status)

    async with stripe_that(handler) as provider:
        assert said(await provider.send(recorded_call())) == (Verdict.APPROVED, "")
        assert said(await provider.send(recorded_call(Kind.VOID))) == (Verdict.DECLINED, "INVALID_STATE")
        standing["name"] = "intent_canceled"
        assert (await provider.send(recorded_call(Kind.CAPTURE))).object_closed
        assert said(await provider.send(recorded_call(Kind.VOID))) == (Verdict.APPROVED, "")
        standing["name"] = "intent_requires_payment_method"
        assert said(await provider.send(recorded_call(Kind.CAPTURE))) == (Verdict.DECLINED, "INVALID_STATE")
        for trouble in ("error_internal", "error_rate_limit", "error_key_invalid"):
            standing["name"] = trouble
            assert (await provider.send(recorded_call())).verdict is Verdict.UNKNOWN
    assert asked == ["POST", "GET"] * 8


@pytest.mark.parametrize("name", names("error_"))
async def test_a_question_that_is_refused_never_makes_a_call_a_no(name: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        reply = recorded(name)
        return web.json_response(reply.body, status=reply.status)

    async with stripe_that(handler) as provider:
        for kind in Kind:
            assert (await provider.lookup(recorded_call(kind))).verdict in (Verdict.UNKNOWN, Verdict.NOT_SENT)
        assert (await provider.send(recorded_call(token=None))).verdict in (Verdict.UNKNOWN, Verdict.NOT_SENT)


async def test_refunds_are_looked_up_page_by_page() -> None:
    pages: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        pages.append(request.query.get("starting_after"))
        if len(pages) < 3:
            entries = [{"id": f"re_{len(pages)}_{n}", "object": "refund", "metadata": {}} for n in range(100)]
            return web.json_response({"object": "list", "data": entries, "has_more": True})
        return web.json_response(recorded("refund_list").body)

    async with stripe_that(handler) as provider:
        found = await provider.lookup(recorded_call(Kind.REFUND))
    assert (found.verdict, found.provider_id) == (Verdict.APPROVED, "re_3Recorded")
    assert pages == [None, "re_1_99", "re_2_99"]


async def test_a_refund_that_is_not_there_is_unknown_after_a_bounded_number_of_pages() -> None:
    pages: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        pages.append(request.path_qs)
        entries = [{"id": f"re_{n}", "object": "refund", "metadata": {}} for n in range(100)]
        return web.json_response({"object": "list", "data": entries, "has_more": True})

    async with stripe_that(handler) as provider:
        assert said(await provider.lookup(recorded_call(Kind.REFUND))) == (Verdict.UNKNOWN, "NOT_FOUND")
    assert 1 < len(pages) <= 11


async def test_nothing_secret_is_logged_however_loud(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(request: web.Request) -> web.Response:
        reply = recorded("error_key_invalid")
        return web.json_response(reply.body, status=reply.status)

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(sdk, "log", "debug")  # as STRIPE_LOG=debug: to stderr, past every level
    async with stripe_that(handler) as provider:
        await provider.send(recorded_call(token="tok_verysecret"))
    printed = capsys.readouterr()
    text = caplog.text + repr(provider) + printed.err + printed.out
    assert "stripe_key_refused status=401" in text
    assert "verysecret" not in text and "sk_test" not in text
