"""Each middleware alone, around a page of the test's own."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from rigs.web_site import SERVICE_TOKEN, RecordedRequests, bearer, services_with

from payment_service.core.errors import Malformed, OutcomeUnknown, PaymentError, Refused, Unavailable, invalid_field
from payment_service.web import middleware
from payment_service.web.middleware import MIDDLEWARE
from payment_service.web.middleware.access_log import AccessLog
from payment_service.web.middleware.auth import Auth
from payment_service.web.middleware.body_limit import BodyLimit
from payment_service.web.middleware.errors import Errors
from payment_service.web.middleware.request_id import RequestId
from payment_service.web.middleware.signature import Behaviour, in_one
from payment_service.web.services import ASKED, Asked, WebServices
from payment_service.web.tokens import TokenRules

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]
Client = TestClient[web.Request, web.Application]


def around(
    page: Page, *behaviours: Any, services: WebServices | None = None, open_routes: frozenset[str] = frozenset()
) -> AbstractAsyncContextManager[Client]:
    chosen = services or services_with(RecordedRequests())

    @asynccontextmanager
    async def opened() -> AsyncIterator[Client]:
        app = web.Application(middlewares=[in_one([make(chosen, open_routes) for make in behaviours])])
        app.router.add_route("*", "/page/{id}", page)
        async with TestClient(TestServer(app)) as client:
            yield client

    return opened()


def raising(error: BaseException) -> Page:
    async def page(request: web.Request) -> web.StreamResponse:
        raise error

    return page


async def hello(request: web.Request) -> web.StreamResponse:
    asked = request[ASKED]
    return web.json_response({"id": asked.request_id, "by": asked.caller.by if asked.caller else None})


def test_the_order_is_the_documented_one() -> None:
    documented = re.findall(r"^\d+\. (\w+)", middleware.__doc__ or "", re.MULTILINE)
    assert [getattr(it, "__name__", it) for it in MIDDLEWARE] == documented


class Noted(Behaviour):
    """Notes what it is asked; raises or answers as it is told."""

    def __init__(self, name: str, notes: list[str], *, raises: bool = False, answer: int = 0) -> None:
        self.name, self.notes, self.raises, self.answer = name, notes, raises, answer

    def arrives(self, request: web.Request, asked: Asked) -> None:
        self.notes.append(f"{self.name} arrives")
        if self.raises:
            raise KeyError(self.name)

    def answers(self, request: web.Request, error: Exception) -> web.StreamResponse | None:
        return web.Response(status=self.answer) if self.answer else None

    def leaves(self, request: web.Request, asked: Asked, response: web.StreamResponse | None) -> None:
        self.notes.append(f"{self.name} leaves {None if response is None else response.status}")


async def test_what_a_behaviour_raises_is_answered_further_in_first_and_seen_by_all() -> None:
    notes: list[str] = []
    chain = in_one([
        Noted("a", notes, answer=501), Noted("b", notes, answer=502), Noted("c", notes, raises=True), Noted("d", notes)
    ])  # fmt: skip
    answer = await chain(make_mocked_request("GET", "/"), hello)
    assert answer.status == 502
    assert notes == ["a arrives", "b arrives", "c arrives", *(f"{name} leaves 502" for name in "dcba")]


async def test_a_caller_that_goes_away_is_seen_by_all_and_answered_by_none() -> None:
    notes: list[str] = []
    started = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        started.set()
        await asyncio.sleep(60)
        raise AssertionError

    chain = in_one([Noted("a", notes, answer=501), Noted("b", notes)])
    request = asyncio.ensure_future(chain(make_mocked_request("GET", "/"), slow))
    await started.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert notes == ["a arrives", "b arrives", "b leaves None", "a leaves None"]


# --- request_id ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "A-1_b.c~:/+=@", "x" * 128, "4242424242424241", "a4242424242424242"])
async def test_a_harmless_request_id_is_kept(given: str) -> None:
    async with around(hello, RequestId) as client:
        answer = await client.get("/page/1", headers={"X-Request-ID": given})
        assert answer.headers["X-Request-ID"] == (await answer.json())["id"] == given


@pytest.mark.parametrize(
    "given", ["", " ", "x" * 129, "a b", "a;b", 'a"b', "é", "a\tb", "4242424242424242", "5555-5555-5555-4444"]
)
async def test_any_other_is_replaced(given: str) -> None:
    async with around(hello, RequestId) as client:
        answer = await client.get("/page/1", headers={"X-Request-ID": given})
        made = answer.headers["X-Request-ID"]
        assert made.startswith("req-") and made != given and len(made) <= 128
        again = await client.get("/page/1")
        assert again.headers["X-Request-ID"] not in ("", made)


async def test_the_request_id_is_in_every_log_line() -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.json_response(structlog.contextvars.get_contextvars())

    async with around(page, RequestId) as client:
        answer = await client.get("/page/1", headers={"X-Request-ID": "mine"})
        assert await answer.json() == {"request_id": "mine"}


# --- access_log ------------------------------------------------------------------------------------------------


async def test_one_line_and_two_numbers(caplog: pytest.LogCaptureFixture) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        request[ASKED].error_code = "SOME_WORD"
        return web.Response(status=418)

    services = services_with(RecordedRequests())
    with caplog.at_level(logging.INFO):
        async with around(page, RequestId, AccessLog, Auth, services=services) as client:
            headers = {**bearer("ann"), "X-Request-ID": "mine", "Cookie": "session=secret"}
            await client.post("/page/1%0Aforged?token=secret", headers=headers, data=b"secret")
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("access_log")]
    assert lines == [
        "request method=POST path=/page/1%0Aforged status=418 ms=0.0 by=user:ann code=SOME_WORD request_id=mine"
    ]
    assert services.metrics.counts == {
        ("http_requests_total", "POST", "/page/{id}", "418"): 1,
        ("http_request_errors_total", "POST", "/page/{id}", "SOME_WORD"): 1,
    }
    assert services.metrics.observed == {("http_request_duration_seconds", "POST", "/page/{id}"): [0.0]}


async def test_a_users_name_cannot_look_like_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with around(hello, AccessLog, Auth) as client:
            await client.get("/page/1", headers=bearer("ann status=200"))
    assert "by='user:ann status=200' " in caplog.text


async def test_probes_are_quiet_and_unknown_paths_share_a_label(caplog: pytest.LogCaptureFixture) -> None:
    services = services_with(RecordedRequests())
    app = web.Application(middlewares=[in_one([make(services, frozenset()) for make in (AccessLog, Errors)])])
    app.router.add_get("/health", hello)
    with caplog.at_level(logging.INFO):
        async with TestClient(TestServer(app)) as client:
            await client.get("/health")
            await client.get("/wp-login.php")
            await client.get("/.env")
    assert [record.args["status"] for record in caplog.records if isinstance(record.args, dict)] == [404, 404]
    assert services.metrics.counts["http_requests_total", "GET", "none", "404"] == 2


async def test_methods_that_nobody_knows_share_a_label() -> None:
    services = services_with(RecordedRequests())
    app = web.Application(middlewares=[in_one([make(services, frozenset()) for make in (AccessLog, Errors)])])
    app.router.add_get("/health", hello)
    async with TestClient(TestServer(app)) as client:
        for method in ("PROPFIND", "MKCOL", "REPORT"):
            await client.request(method, "/health")
    assert services.metrics.counts == {
        ("http_requests_total", "other", "none", "405"): 3,
        ("http_request_errors_total", "other", "none", "METHOD_NOT_ALLOWED"): 3,
    }


# --- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (Refused("no"), 409, "INVALID_STATE", None),
        (Refused("no", code="PAYMENT_NOT_FOUND"), 404, "PAYMENT_NOT_FOUND", None),
        (Refused("no", code="PAYMENT_EXISTS"), 409, "PAYMENT_EXISTS", None),
        (Refused("no", code="ORDER_UNCONFIRMED"), 409, "ORDER_UNCONFIRMED", None),
        (Refused("no", code="REFUND_EXCEEDS"), 422, "REFUND_EXCEEDS", None),
        (Refused("no", code="PROVIDER_NOT_CONFIGURED"), 422, "PROVIDER_NOT_CONFIGURED", None),
        (Refused("no", code="FORBIDDEN"), 403, "FORBIDDEN", None),
        (Refused("no", code="IDEMPOTENCY_IN_PROGRESS"), 409, "IDEMPOTENCY_IN_PROGRESS", "1"),
        (Refused("no", code="A_NEW_WORD"), 409, "A_NEW_WORD", None),
        (Malformed("no"), 400, "MALFORMED_JSON", None),
        (Unavailable("no"), 503, "SERVICE_UNAVAILABLE", "1"),
        (Unavailable("no", code="PROVIDER_UNAVAILABLE", retry_after_s=4.2), 503, "PROVIDER_UNAVAILABLE", "5"),
        (Unavailable("no", code="A_NEW_WORD", retry_after_s=0.1), 503, "A_NEW_WORD", "1"),
        (OutcomeUnknown("perhaps"), 202, "OUTCOME_UNKNOWN", None),
        (PaymentError("odd"), 500, "INTERNAL_ERROR", None),
    ],
    ids=lambda value: value.code if isinstance(value, PaymentError) else None,
)
async def test_our_errors(error: PaymentError, status: int, code: str, retry_after: str | None) -> None:
    async with around(raising(error), RequestId, Errors) as client:
        answer = await client.get("/page/1", headers={"X-Request-ID": "mine"})
        assert answer.status == status
        assert answer.headers.get("Retry-After") == retry_after
        assert await answer.json() == {
            "success": False,
            "code": code,
            "message": error.message,
            "requestId": "mine",
            "timestamp": "2027-01-15T08:00:00.000Z",
        }
        assert answer.headers["Cache-Control"] == "no-store"


async def test_fields_are_named() -> None:
    async with around(raising(invalid_field("amount", "is odd")), Errors) as client:
        answer = await client.get("/page/1")
        assert answer.status == 422
        assert (await answer.json())["errors"] == {"amount": ["is odd"]}


async def test_a_bug_tells_the_log_everything_and_the_caller_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    try:
        async with around(raising(KeyError("password=hunter2")), RequestId, Errors) as client:
            answer = await client.get("/page/1", headers={"X-Request-ID": "mine"})
            body = await answer.text()
    finally:
        structlog.reset_defaults()
    assert answer.status == 500
    assert '"INTERNAL_ERROR"' in body and '"mine"' in body
    assert "hunter2" not in body and "KeyError" not in body and "Traceback" not in body
    assert [record.levelname for record in caplog.records if record.message == "request failed"] == ["ERROR"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (web.HTTPNotFound(), 404, "NOT_FOUND"),
        (web.HTTPRequestEntityTooLarge(10, 20), 413, "PAYLOAD_TOO_LARGE"),
        (web.HTTPRequestTimeout(), 408, "REQUEST_TIMEOUT"),
        (web.HTTPMethodNotAllowed("GET", ["PUT", "POST"]), 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_errors_of_aiohttp(error: web.HTTPException, status: int, code: str) -> None:
    async with around(raising(error), Errors) as client:
        answer = await client.get("/page/1")
        assert answer.status == status
        assert (await answer.json())["code"] == code
        assert answer.headers.get("Allow") == error.headers.get("Allow")


async def test_a_redirect_stays_one() -> None:
    async with around(raising(web.HTTPFound("/elsewhere")), Errors) as client:
        answer = await client.get("/page/1", allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (302, "/elsewhere")


# --- body_limit ------------------------------------------------------------------------------------------------


async def test_an_announced_body_is_refused_before_it_is_read() -> None:
    seen: list[bytes] = []

    async def page(request: web.Request) -> web.StreamResponse:
        seen.append(await request.read())
        return web.Response()

    services = services_with(RecordedRequests(), body_bytes_max=100)
    async with around(page, Errors, BodyLimit, services=services) as client:
        assert (await client.post("/page/1", data=b"x" * 100)).status == 200
        refused = await client.post("/page/1", data=b"x" * 101)
        assert (refused.status, (await refused.json())["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert seen == [b"x" * 100]


# --- auth ------------------------------------------------------------------------------------------------------

NO_SERVICES = services_with(RecordedRequests(), TokenRules(secret="a-secret-of-more-than-32-characters!"))


async def who(headers: dict[str, str], services: WebServices | None = None) -> str | int:
    async with around(hello, Errors, Auth, services=services) as client:
        answer = await client.get("/page/1", headers=headers)
        if answer.status != 200:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            return answer.status
        return (await answer.json())["by"]


async def test_who_calls() -> None:
    ann = dict(bearer("ann"))
    token = ann["Authorization"].removeprefix("Bearer ")
    service, wrong = {"X-Internal-Token": SERVICE_TOKEN}, {"X-Internal-Token": "wrong"}
    assert await who(ann) == "user:ann"
    assert await who({"Authorization": f"bearer  {token} "}) == "user:ann"
    assert await who(service) == "service"
    assert await who({"X-API-Key": SERVICE_TOKEN}) == "service"
    assert await who({**ann, **service}) == "service"
    assert await who({}) == 401
    assert await who({"Authorization": token}) == 401
    assert await who({"Authorization": f"Basic {token}"}) == 401
    assert await who({"Authorization": "Bearer"}) == 401
    assert await who({"Authorization": "Bearer "}) == 401
    assert await who(wrong) == 401
    assert await who({**ann, **wrong}) == 401
    assert await who({"X-Internal-Token": ""}) == 401


async def test_with_an_empty_list_a_service_token_means_nothing() -> None:
    ann = dict(bearer("ann"))
    for given in ("", "x", SERVICE_TOKEN):
        assert await who({"X-Internal-Token": given}, NO_SERVICES) == 401
        assert await who({**ann, "X-API-Key": given}, NO_SERVICES) == "user:ann"


async def test_open_pages_ask_for_nothing_and_unknown_ones_are_unknown() -> None:
    async with around(hello, Errors, Auth, open_routes=frozenset({"/page/{id}"})) as client:
        assert (await client.get("/page/1")).status == 200
        assert (await client.get("/elsewhere")).status == 404
