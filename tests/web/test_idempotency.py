"""Reading Idempotency-Keys, and what is the same however often it is done (`answer_same`)."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from rigs.web_site import Client, services_with

from payment_service.adapters.memory.idempotency import MemoryKeys
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.use_cases.payment_requests import Caller
from payment_service.web.envelope import success
from payment_service.web.idempotency import answer_same, read_key
from payment_service.web.middleware.errors import Errors
from payment_service.web.middleware.signature import Behaviour, in_one
from payment_service.web.services import Asked, WebServices


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ('"8e03978e"', "8e03978e"), ('"a b"', "a b"), (r'"a\"b\\c"', 'a"b\\c'), ("  k ", "k"),
        ("x" * 255, "x" * 255), ('"' + "x" * 255 + '"', "x" * 255), ('a"b', 'a"b'), ("!~", "!~"),
    ],
)  # fmt: skip
def test_a_key(value: str, key: str) -> None:
    assert read_key([value]) == key


@pytest.mark.parametrize(
    "values",
    [[""], [" "], ['""'], ['"'], ['"a'], ['"a"b'], [r'"a\b"'], ["a b"], ["a\tb"], ["é"], ["\udce9"], ["x" * 256],
     ['"' + "x" * 256 + '"'], ["a", "a"], ["k\x7f"]],
)  # fmt: skip
def test_no_key(values: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        read_key(values)
    assert refused.value.code == "VALIDATION_ERROR" and list(refused.value.fields or {}) == ["Idempotency-Key"]


class Page(Behaviour):
    """Counts what it did; `error` is what it raises instead."""

    def __init__(self, services: WebServices) -> None:
        self.services, self.done = services, 0
        self.error: Exception | None = None

    def arrives(self, request: web.Request, asked: Asked) -> None:
        asked.caller = Caller(request.headers.get("X-User", "ann"))

    async def post(self, request: web.Request) -> web.Response:
        await request.read()
        return await answer_same(request, self.services, self._do)

    async def _do(self) -> web.Response:
        self.done += 1
        if self.error is not None:
            raise self.error
        return success({"done": self.done}, 201)


@pytest.fixture
def page() -> Page:
    return Page(services_with(None, keys=MemoryKeys()))


@pytest.fixture
async def client(page: Page) -> AsyncIterator[Client]:
    site = web.Application(middlewares=[in_one([Errors(page.services, frozenset()), page])])
    site.router.add_post("/things", page.post)
    async with TestClient(TestServer(site)) as opened:
        yield opened


async def post(client: Client, key: str | None, body: bytes = b'{"a":1}', user: str = "ann") -> tuple[int, bytes, bool]:
    headers = {"X-User": user} | ({"Idempotency-Key": key} if key is not None else {})
    answer = await client.post("/things", data=body, headers=headers)
    return answer.status, await answer.read(), answer.headers.get("Idempotent-Replayed") == "true"


async def test_the_same_is_answered_once(client: Client, page: Page) -> None:
    status, body, replayed = await post(client, "k")
    assert (status, replayed, page.done) == (201, False, 1)
    assert await post(client, "k", b'{ "a": 1 }') == (201, body, True)
    assert (await post(client, "k", b'{"a":2}'))[0] == 422
    assert page.done == 1
    assert (await post(client, "k", user="bob"))[2] is False and (await post(client, "k2"))[2] is False
    assert (await post(client, None))[2] is False and page.done == 4


async def test_a_refusal_is_kept_and_our_own_failures_are_not(client: Client, page: Page) -> None:
    page.error = Unavailable("away")
    assert [(await post(client, "k"))[0] for _ in range(2)] == [503, 503] and page.done == 2
    page.error = Refused("no", code="FORBIDDEN")
    assert [(await post(client, "k"))[0] for _ in range(2)] == [403, 403] and page.done == 4
    page.error = Refused("no such thing", code="NOT_FOUND")
    status, body, _ = await post(client, "k")
    page.error = None
    assert await post(client, "k") == (status, body, True) and status == 404 and page.done == 5
