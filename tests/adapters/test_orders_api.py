"""The order service's client against a real server: what each answer means, and what never happens."""

from collections.abc import AsyncIterator

import pytest
from rigs.counted import CountedMetrics
from rigs.order_service import OrderService
from rigs.settable_clock import SettableClock

from payment_service.adapters import orders_api as module
from payment_service.adapters.orders_api import OrdersApi
from payment_service.adapters.outbound import Outbound
from payment_service.codecs.orders import decode_order
from payment_service.core.errors import Malformed, OutcomeUnknown, Refused, Unavailable
from payment_service.core.orders import Order, OrderWord

TOKEN, SERVICE_TOKEN = "the-users-own-token", "the-token-of-this-service"
WORD = OrderWord("o1", "pay_1", 3, "paid", "SUCCEEDED")


@pytest.fixture
async def service() -> AsyncIterator[OrderService]:
    async with OrderService() as service:
        service.has("o1")
        yield service


class Api(OrdersApi):
    clock: SettableClock


@pytest.fixture
async def api(service: OrderService) -> AsyncIterator[Api]:
    outbound = Outbound()
    clock = SettableClock()
    api = Api(service.url, SERVICE_TOKEN, outbound.session, clock, CountedMetrics())
    api.clock = clock
    yield api
    await outbound.close()


async def test_an_order_is_found_with_the_users_own_token(service: OrderService, api: Api) -> None:
    assert await api.find("o1", TOKEN) == Order("o1", "ann", 1050, "USD")
    service.nested = False
    assert await api.find("o1", None) == Order("o1", "ann", 1050, "USD")
    headers = [headers for _, _, headers in service.requests]
    assert headers[0]["Authorization"] == f"Bearer {TOKEN}"
    assert "X-Internal-Token" not in headers[0]
    assert headers[1]["X-Internal-Token"] == SERVICE_TOKEN
    assert "Authorization" not in headers[1]


@pytest.mark.parametrize(
    ("mood", "error", "code"),
    [
        ("error", Unavailable, "SERVICE_UNAVAILABLE"),
        ("unavailable", Unavailable, "SERVICE_UNAVAILABLE"),
        ("busy", Unavailable, "SERVICE_UNAVAILABLE"),
        ("cut", Unavailable, "SERVICE_UNAVAILABLE"),
        ("odd", Unavailable, "SERVICE_UNAVAILABLE"),
        ("denies", Unavailable, "SERVICE_UNAVAILABLE"),
        ("huge", Unavailable, "SERVICE_UNAVAILABLE"),
        ("redirect", Unavailable, "SERVICE_UNAVAILABLE"),
        ("unknown_user", Unavailable, "SERVICE_UNAVAILABLE"),
        ("forbidden", Refused, "PAYMENT_NOT_FOUND"),
    ],
)
async def test_only_an_order_is_an_order(
    service: OrderService, api: Api, mood: str, error: type[Refused], code: str
) -> None:
    service.mood = mood
    with pytest.raises(error) as raised:
        await api.find("o1", TOKEN)
    assert raised.value.code == code
    assert all(path == "/api/v1/orders/o1" for _, path, _ in service.requests), "no redirect is followed"


async def test_an_unknown_order_is_not_found(api: Api) -> None:
    for order_id in ("o2", ".", "..", "../../admin", "o1?x=1", "o1#x", "ö/1"):
        with pytest.raises(Refused) as raised:
            await api.find(order_id, TOKEN)
        assert raised.value.code == "NOT_FOUND"


async def test_whatever_an_id_contains_it_is_one_part_of_the_path(service: OrderService, api: Api) -> None:
    for order_id in ("a/b", "a b", "ä?#%2F", "..x"):
        service.has(order_id)
        assert (await api.find(order_id, TOKEN)).order_id == order_id


async def test_an_answer_that_is_late_is_not_waited_for(
    service: OrderService, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_S", 0.1)
    monkeypatch.setattr(module, "TELL_S", 0.1)
    service.mood, service.late_s = "late", 1.0
    with pytest.raises(Unavailable):
        await api.find("o1", TOKEN)
    with pytest.raises(OutcomeUnknown):
        await api.tell(WORD)


async def test_a_word_is_told_with_our_token(service: OrderService, api: Api) -> None:
    await api.tell(WORD)
    assert service.told == [("o1", "paid", "SUCCEEDED")]
    ((method, path, headers),) = service.requests
    assert (method, path) == ("PATCH", "/api/v1/orders/o1/payment-status")
    assert headers["X-Internal-Token"] == SERVICE_TOKEN
    assert headers["Idempotency-Key"] == "pay_1:3"


@pytest.mark.parametrize(
    ("mood", "error"),
    [
        ("error", OutcomeUnknown),
        ("cut", OutcomeUnknown),
        ("huge", OutcomeUnknown),
        ("busy", Unavailable),
        ("redirect", Unavailable),
        ("denies", Unavailable),
        ("refuse", Refused),
        ("unknown_user", Refused),
    ],
)
async def test_what_is_not_a_yes_is_not_taken_for_one(
    service: OrderService, api: Api, mood: str, error: type[Exception]
) -> None:
    service.mood = mood
    with pytest.raises(error):
        await api.tell(WORD)


async def test_a_service_that_is_away_is_left_alone_and_asked_once_whether_it_is_back(
    service: OrderService, api: Api
) -> None:
    await service.go()
    for _ in range(module.BREAKER.failures_max):
        with pytest.raises(Unavailable):
            await api.tell(WORD)
    assert (api.room(50), api.available) == (0, False)
    await service.come()
    with pytest.raises(Unavailable):
        await api.tell(WORD)
    assert service.requests == [], "it was not asked"
    assert (await api.find("o1", TOKEN)).user_id == "ann", "asking for an order has a breaker of its own"
    api.clock.pass_s(module.BREAKER.open_s)
    assert api.room(50) == 1, "one finds out"
    await api.tell(WORD)
    assert (api.room(50), api.available) == (50, True)


async def test_tokens_are_nowhere_but_in_headers(
    service: OrderService, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    for mood in ("odd", "error", "unknown_user", "refuse"):
        service.mood = mood
        with pytest.raises((Unavailable, OutcomeUnknown)) as raised:
            await api.find("o1", TOKEN)
        assert TOKEN not in repr(raised.value)
    assert caplog.text
    for secret in (TOKEN, SERVICE_TOKEN):
        assert secret not in caplog.text
        assert secret not in repr(api)
    assert all(TOKEN not in path for _, path, _ in service.requests)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{}", b'{"data":null}', b'{"data":{"order":7}}', b"\xff",
        b'{"data":{"id":"o1","userId":"ann","totalAmount":10.5}}',
        b'{"data":{"id":"o1","userId":"ann","totalAmount":10.555,"currency":"USD"}}',
        b'{"data":{"id":"o1","userId":"ann","totalAmount":-1,"currency":"USD"}}',
        b'{"data":{"id":"o1","userId":"","totalAmount":1,"currency":"USD"}}',
        b'{"data":{"id":"o1","userId":true,"totalAmount":1,"currency":"USD"}}',
        b'{"data":{"id":"o2","userId":"ann","totalAmount":1,"currency":"USD"}}',
        b'{"success":false,"data":{"id":"o1","userId":"ann","totalAmount":1,"currency":"USD"}}',
    ],
)  # fmt: skip
def test_what_is_no_order_decides_nothing(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_order(body, "o1")


def test_ids_may_be_numbers_and_amounts_text() -> None:
    body = b'{"success":true,"data":{"id":7,"userId":12,"totalAmount":"10.50","currency":"usd","items":[]}}'
    assert decode_order(body, "7") == Order("7", "12", 1050, "USD")
