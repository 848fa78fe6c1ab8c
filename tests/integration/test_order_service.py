"""The whole service beside an order service: asked before a payment, told afterwards, whoever of the two dies."""

import json
from pathlib import Path

import pytest
from rigs.order_service import OrderService
from rigs.worker import Installation, Message

pytestmark = pytest.mark.long

SERVICE_TOKEN = "the-token-that-the-order-service-knows"
WAITING = "select count(*) from payment_service.order_updates"
ORDERS = 30


async def test_outcomes_outlive_both_sides(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with (
        OrderService() as service,
        Installation(
            tmp_path, tansu_broker, database_url, ORDER_SERVICE_URL=service.url, ORDER_SERVICE_TOKEN=SERVICE_TOKEN,
            LOG_LEVEL="DEBUG",
        ) as site,
    ):  # fmt: skip
        worker = await site.started()
        orders = [f"order-{number}" for number in range(ORDERS)]
        for order_id in orders:
            service.has(order_id, "user-1", 99.99)
        assert (await worker.call("GET", "/ready")).data["orderService"] == "up"
        made = [
            await worker.call("POST", "/api/v1/payments", {"orderId": order, "amount": 99.99}, user="user-1")
            for order in orders
        ]
        assert {(one.status, one.data["unconfirmed"]) for one in made} == {(201, False)}
        await service.go()
        tokens = ["tok_visa", "tok_chargeDeclined"]
        for number, one in enumerate(made):
            body = {"paymentMethodId": tokens[number % 2]}
            answer = await worker.call("POST", f"/api/v1/payments/{one.data['id']}/process", body, user="user-1")
            assert answer.status == (200, 402)[number % 2], "nobody waits for the order service"
        refused = await worker.call("POST", "/api/v1/payments", {"orderId": "order-99", "amount": 1}, user="user-1")
        assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE")
        assert site.rows(WAITING) == [(ORDERS,)]
        worker.kill()
        await service.come()
        worker.start()
        await worker.ready()
        await site.until(lambda: site.rows(WAITING) == [(0,)], "every outcome is told")
        words = ["paid", "failed"]
        assert [service.words(order)[-1] for order in orders] == [words[number % 2] for number in range(ORDERS)]
        patches = [headers for method, _, headers in service.requests if method == "PATCH"]
        assert {headers["X-Internal-Token"] for headers in patches} == {SERVICE_TOKEN}
        log = (tmp_path / "worker-0" / "log").read_text()
        assert SERVICE_TOKEN not in log
        assert "eyJhbGciOi" not in log, "nobody's token is in the log"


async def test_what_the_topic_brought_is_told_too(tansu_broker: str, database_url: str, tmp_path: Path) -> None:
    async with (
        OrderService() as service,
        Installation(
            tmp_path, tansu_broker, database_url, ORDER_SERVICE_URL=service.url, AUTO_PROCESS_ORDERS="true"
        ) as site,
    ):
        await site.make_order_topic()
        await site.started()
        body = {"eventType": "order.created", "orderId": "o1", "userId": "u", "totalAmount": 5, "currency": "USD"}
        await site.produce(Message(json.dumps(body | {"paymentMethodId": "tok_visa"}).encode(), 0))
        await site.until(lambda: service.words("o1") == ["paid"], "the order service hears of it")
