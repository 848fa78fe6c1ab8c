"""The wire under PayPal: its access token, and what a connection that fails, stalls or is cut means. A real server."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from rigs.paypal_recorded import recorded, recorded_call
from rigs.provider_paypal import api_on
from rigs.settable_clock import SettableClock

from payment_service.adapters.providers.paypal import PaypalProvider
from payment_service.adapters.providers.paypal_api import PaypalApi
from payment_service.core.ports import Answer
from payment_service.core.terms import Kind, Verdict

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LASTS_S = 1000
WALLET = recorded_call(token="8kk8451t")


class Paypal:
    """Gives tokens access-1, access-2, …; takes the last one alone, until it is taken back."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.given = 0
        self.good = ""
        self.token_status = 200
        self.token_wait_s = 0.0
        self.seen: Counter[str] = Counter()
        self.requests: list[web.Request] = []

    async def token(self, request: web.Request) -> web.Response:
        self.seen["token"] += 1
        assert request.headers["Authorization"] == "Basic Y2xpZW50OnNpbXVsYXRlZA=="
        assert await request.text() == "grant_type=client_credentials"
        await asyncio.sleep(self.token_wait_s)
        if self.token_status != 200:
            return web.json_response({"error": "invalid_client"}, status=self.token_status)
        self.given += 1
        self.good = f"access-{self.given}"
        return web.json_response({"access_token": self.good, "token_type": "Bearer", "expires_in": LASTS_S})

    async def rest(self, request: web.Request) -> web.StreamResponse:
        self.seen[request.method] += 1
        self.requests.append(request)
        if request.headers["Authorization"] != f"Bearer {self.good}":
            return web.json_response(recorded("error_token_invalid").body, status=401)
        return await self.handler(request)


@asynccontextmanager
async def paypal_that(
    handler: Handler, *, deadline_s: float = 5.0, clock: SettableClock | None = None
) -> AsyncIterator[tuple[PaypalProvider, Paypal]]:
    paypal, app = Paypal(handler), web.Application()
    app.router.add_post("/v1/oauth2/token", paypal.token)
    app.router.add_route("*", "/{path:.*}", paypal.rest)
    async with TestServer(app) as server, ClientSession() as session:
        base = f"http://127.0.0.1:{server.port}"
        api = PaypalApi("client", "simulated", base, deadline_s, lambda: session, clock or SettableClock())
        yield PaypalProvider(api), paypal


async def paid(request: web.Request) -> web.Response:
    return web.json_response(recorded("order_capture_completed").body, status=201)


def said(answer: Answer) -> tuple[Verdict, str]:
    return answer.verdict, answer.code


async def test_a_request_carries_its_key_and_asks_for_the_whole_answer() -> None:
    async with paypal_that(paid) as (provider, paypal):
        assert (await provider.send(WALLET)).verdict is Verdict.APPROVED
    headers = paypal.requests[0].headers
    assert headers["PayPal-Request-Id"] == "pay_recorded:charge:1"
    assert headers["Prefer"] == "return=representation"
    assert headers["Content-Type"] == "application/json"


# --- the token -------------------------------------------------------------------------------------------------------


async def test_one_token_serves_all_and_is_renewed_before_it_ends() -> None:
    clock = SettableClock()
    async with paypal_that(paid, clock=clock) as (provider, paypal):
        paypal.token_wait_s = 0.1
        await asyncio.gather(*(provider.send(WALLET) for _ in range(50)))
        assert paypal.seen["token"] == 1, "fifty wait for one"
        clock.pass_s(LASTS_S * 0.79)
        await provider.send(WALLET)
        assert paypal.seen["token"] == 1
        clock.pass_s(LASTS_S * 0.02)
        assert (await provider.send(WALLET)).verdict is Verdict.APPROVED, "with the old one, which is still good"
        await asyncio.sleep(0.2)
        assert paypal.seen["token"] == 2
        assert (await provider.send(WALLET)).verdict is Verdict.APPROVED
        assert paypal.requests[-1].headers["Authorization"] == "Bearer access-2"


async def test_a_good_token_is_kept_while_no_new_one_can_be_had() -> None:
    clock = SettableClock()
    async with paypal_that(paid, clock=clock) as (provider, paypal):
        await provider.send(WALLET)
        paypal.token_status = 503
        clock.pass_s(LASTS_S * 0.85)
        for _ in range(5):
            assert (await provider.send(WALLET)).verdict is Verdict.APPROVED
            await asyncio.sleep(0.02)
        assert paypal.seen["token"] == 2, "it is not asked for with every request"
        clock.pass_s(LASTS_S * 0.2)
        assert said(await provider.send(WALLET)) == (Verdict.NOT_SENT, "PROVIDER_UNAVAILABLE")
        paypal.token_status = 200
        assert (await provider.send(WALLET)).verdict is Verdict.APPROVED


async def test_a_token_that_ended_early_is_renewed_once() -> None:
    async with paypal_that(paid) as (provider, paypal):
        await provider.send(WALLET)
        paypal.good = "taken back"
        assert (await provider.send(WALLET)).verdict is Verdict.APPROVED
        assert (paypal.seen["token"], paypal.seen["POST"]) == (2, 3)

    async def never(request: web.Request) -> web.Response:
        return web.json_response(recorded("error_token_invalid").body, status=401)

    async with paypal_that(never) as (provider, paypal):
        assert said(await provider.send(WALLET)) == (Verdict.NOT_SENT, "PROVIDER_KEY_REFUSED")
        assert (paypal.seen["token"], paypal.seen["POST"]) == (2, 2)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "PROVIDER_KEY_REFUSED"),
        (429, "RATE_LIMITED"),
        (500, "PROVIDER_UNAVAILABLE"),
        (302, "PROVIDER_UNAVAILABLE"),
    ],
)
async def test_without_a_token_nothing_is_sent(status: int, code: str) -> None:
    async with paypal_that(paid) as (provider, paypal):
        paypal.token_status = status
        for answer in (
            await provider.send(WALLET),
            await provider.lookup(WALLET),
            await provider.create_object(WALLET),
        ):
            assert said(answer) == (Verdict.NOT_SENT, code)
        assert not paypal.requests


async def test_a_token_that_does_not_come_in_time_means_not_sent() -> None:
    async with paypal_that(paid, deadline_s=0.4) as (provider, paypal):
        paypal.token_wait_s = 1.0
        assert said(await provider.send(WALLET)) == (Verdict.NOT_SENT, "PROVIDER_UNAVAILABLE")
        assert not paypal.requests


async def test_whoever_goes_away_does_not_take_the_token_from_the_others() -> None:
    async with paypal_that(paid) as (provider, paypal):
        paypal.token_wait_s = 0.2
        first = asyncio.create_task(provider.send(WALLET))
        second = asyncio.create_task(provider.send(WALLET))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await second).verdict is Verdict.APPROVED
        assert paypal.seen["token"] == 1


async def test_neither_token_nor_secret_nor_wallet_is_ever_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def refuses(request: web.Request) -> web.Response:
        return web.json_response(recorded("error_may_not").body, status=403)

    async with paypal_that(refuses) as (provider, paypal):
        answer = await provider.send(replace(WALLET, method_token="wallet-of-ann"))
        paypal.good = "secret-token"
        await provider.lookup(WALLET)
        shown = f"{caplog.text} {answer!r} {provider._api!r} {provider._api._token!r}"
    for secret in ("access-", "wallet-of-ann", "simulated", "Y2xpZW50"):
        assert secret not in shown
    assert "paypal_key_refused" in caplog.text


# --- the connection --------------------------------------------------------------------------------------------------


async def test_no_connection_means_not_sent() -> None:
    async with api_on("http://127.0.0.1:1") as api:
        provider = PaypalProvider(api)
        for call in (WALLET, recorded_call(Kind.VOID), recorded_call(Kind.REFUND, charge_id="2GG279541U471931P")):
            assert said(await provider.send(call)) == (Verdict.NOT_SENT, "PROVIDER_UNAVAILABLE")


async def test_no_answer_a_stalled_body_and_a_cut_one_are_unknown() -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async def stalls(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"id": "5O19')
        await asyncio.sleep(5)
        return response

    async def cuts(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"id": "5O19')
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
        async with paypal_that(handler, deadline_s=1.0) as (provider, _):
            assert said(await provider.send(WALLET)) == (Verdict.UNKNOWN, "PROVIDER_TIMEOUT"), handler
            looks_first = await provider.send(recorded_call(Kind.VOID))
            assert said(looks_first) == (Verdict.NOT_SENT, "PROVIDER_UNAVAILABLE"), "it never came to the void"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (201, b"not json", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (200, b"[]", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (200, b"\xff\xfe", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (200, b"[" * 100_000, (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (204, b"", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (422, b"{}", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
        (503, b"<html>", (Verdict.UNKNOWN, "PROVIDER_ERROR")),
        (307, b"", (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")),
    ],
)
async def test_answers_that_nobody_would_expect(status: int, body: bytes, expected: tuple[Verdict, str]) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"Location": "http://127.0.0.1:1/elsewhere"})

    async with paypal_that(handler) as (provider, _):
        assert said(await provider.send(WALLET)) == expected


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("kind", list(Kind))
async def test_that_a_question_is_refused_is_no_answer_to_what_it_is_about(kind: Kind, status: int) -> None:
    """Else a capture or refund whose answer was lost would be a no, and be made anew under another key."""

    async def handler(request: web.Request) -> web.Response:
        assert request.method == "GET", "nothing is sent before it was looked"
        return web.json_response(recorded("error_invalid_value").body, status=status)

    # The second attempt; without the id of its charge a capture or refund looks for it in the order, a void always.
    call = recorded_call(kind, 2)
    async with paypal_that(handler) as (provider, _):
        for answer in (await provider.lookup(call), await provider.send(call)):
            assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, "ANSWER_NOT_UNDERSTOOD")
