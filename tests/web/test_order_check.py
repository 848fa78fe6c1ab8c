"""POST /payments where there is an order service: the site, the desk and a real order service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from rigs.counted import CountedMetrics
from rigs.desk_rig import BOB, Rig, desk_over
from rigs.order_service import OrderService
from rigs.web_site import RULES, SERVICE, Client, services_with

from payment_service.adapters.clock import SystemClock
from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.orders_api import OrdersApi
from payment_service.adapters.outbound import Outbound
from payment_service.core.ids import payment_id_of
from payment_service.core.use_cases.check_order import CheckOrder
from payment_service.web.site import build_site
from payment_service.web.tokens import issue_token

ORDER = {"orderId": "o1", "amount": 10.5, "currency": "USD"}


def token_of(user_id: str) -> str:
    return issue_token(RULES, user_id, (), now_ms=SystemClock().now_ms())


class Shop:
    def __init__(self, client: Client, service: OrderService, rig: Rig) -> None:
        self.client, self.service, self.rig = client, service, rig

    async def create(self, user_id: str = "ann", key: str | None = None, **changes: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token_of(user_id)}"} | ({"Idempotency-Key": key} if key else {})
        answer = await self.client.post("/api/v1/payments", json=ORDER | changes, headers=headers)
        envelope = await answer.json()
        return answer.status, envelope["data"] if envelope["success"] else envelope["code"]

    async def stored(self, order_id: str = "o1") -> bool:
        return (await self.rig.store.load(payment_id_of(order_id))).payment is not None


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    clock, outbound, store = SystemClock(), Outbound(), MemoryPaymentStore()
    async with OrderService() as service, desk_over(store) as rig:
        orders = OrdersApi(service.url, None, outbound.session, clock, CountedMetrics())
        desk = replace(rig.desk, check_order=CheckOrder(orders, store))
        site = build_site(services_with(desk, clock=clock, keys=store.keys, forwards_bearer=True))
        async with TestClient(TestServer(site)) as client:
            yield Shop(client, service, rig)
    await outbound.close()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        shop.service.has("o1")
        yield shop


async def test_a_payment_that_the_order_agrees_with_is_confirmed(shop: Shop) -> None:
    status, payment = await shop.create()
    assert (status, payment["unconfirmed"]) == (201, False)
    assert [headers["Authorization"] for _, _, headers in shop.service.requests] == [f"Bearer {token_of('ann')}"]
    assert (await shop.create())[0] == 200


async def test_somebody_elses_order_is_not_found(shop: Shop) -> None:
    assert await shop.create("bob") == (404, "PAYMENT_NOT_FOUND")
    assert not await shop.stored()


async def test_an_order_that_says_otherwise_is_a_mismatch(shop: Shop) -> None:
    assert await shop.create(amount=10.49) == (422, "AMOUNT_MISMATCH")
    assert await shop.create(currency="EUR") == (422, "AMOUNT_MISMATCH")
    assert not await shop.stored()


async def test_an_order_that_is_not_there_is_not_found(shop: Shop) -> None:
    assert await shop.create(orderId="o2") == (404, "NOT_FOUND")
    assert not await shop.stored("o2")


@pytest.mark.parametrize("mood", ["error", "cut", "odd", "huge", "redirect", "unavailable", "busy", "away"])
async def test_an_order_service_that_does_not_say_leaves_nothing_behind(shop: Shop, mood: str) -> None:
    if mood == "away":
        await shop.service.go()
    shop.service.mood = mood
    assert await shop.create() == (503, "SERVICE_UNAVAILABLE")
    assert not await shop.stored()


async def test_a_repeated_request_hears_the_same_whatever_became_of_the_order_service(shop: Shop) -> None:
    status, first = await shop.create(key="k1")
    assert status == 201
    await shop.service.go()
    assert await shop.create(key="k1") == (201, first)
    assert await shop.create(key="k1", amount=11) == (422, "IDEMPOTENCY_MISMATCH")
    assert await shop.create(key="k2") == (503, "SERVICE_UNAVAILABLE")
    await shop.service.come()
    assert (await shop.create(key="k2"))[0] == 200, "what was not kept is carried out when it is asked again"


async def test_a_refusal_by_the_order_is_kept_under_its_key(shop: Shop) -> None:
    assert await shop.create(key="k1", amount=1) == (422, "AMOUNT_MISMATCH")
    await shop.service.go()
    assert await shop.create(key="k1", amount=1) == (422, "AMOUNT_MISMATCH")


async def test_whoever_asked_first_does_not_keep_somebody_elses_order(shop: Shop) -> None:
    """A payment that was made while nobody could say whose order it is."""
    assert (await shop.rig.create(caller=BOB, amount=99)).payment.unconfirmed
    status, payment = await shop.create()
    assert (status, payment["userId"], payment["amountMinor"], payment["unconfirmed"]) == (201, "ann", 1050, False)
    shop.service.has("o1", "bob", 99)
    assert await shop.create("bob", amount=99) == (409, "PAYMENT_EXISTS"), "what an order confirmed stays"


async def test_another_service_makes_no_payment_and_nobody_is_asked(shop: Shop) -> None:
    answer = await shop.client.post("/api/v1/payments", json=ORDER, headers=SERVICE)
    assert answer.status == 403
    assert shop.service.requests == []
