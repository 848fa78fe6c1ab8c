"""A broker that has forgotten everything while PostgreSQL stays: the table is whole again all the same."""

import asyncio
import time
from pathlib import Path

import pytest
from rigs.worker import Installation, Worker

from payment_service.core.ids import payment_id_of

pytestmark = pytest.mark.long

WAIT_S = 60.0
ORDERS = [f"order-{number}" for number in range(40)]


async def until_in_table(worker: Worker, sequence: int) -> None:
    deadline = time.monotonic() + WAIT_S
    for order_id in ORDERS:
        path = f"/tables/payments/{payment_id_of(order_id)}"
        while True:
            answer = await worker.call("GET", path, user="admin", roles=("admin",))
            if answer.status == 200 and answer.data["sequence"] == sequence:
                break
            assert time.monotonic() < deadline, f"{order_id}: {answer}"
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("broker", ["tansu_broker", pytest.param("kafka_broker", marks=pytest.mark.kafka)])
async def test_new_topics_beside_an_old_database(
    request: pytest.FixtureRequest, broker: str, database_url: str, tmp_path: Path
) -> None:
    address = request.getfixturevalue(broker)
    async with Installation(tmp_path / "before", address, database_url) as site:
        worker = await site.started()
        await worker.streaming()
        for order_id in ORDERS:
            body = {"orderId": order_id, "amount": 10, "currency": "USD"}
            assert (await worker.call("POST", "/api/v1/payments", body, user="u")).status == 201
        await site.until_told(len(ORDERS))
    async with Installation(tmp_path / "after", address, database_url) as site:  # topics and group of its own
        worker = await site.started()
        await worker.streaming()
        await until_in_table(worker, 1)
        # What comes then goes on top of it.
        for order_id in ORDERS[:3]:
            path = f"/api/v1/payments/{payment_id_of(order_id)}/process"
            assert (await worker.call("POST", path, {"paymentMethodId": "tok_visa"}, user="u")).status == 200
        await site.until_told(len(ORDERS))
        deadline = time.monotonic() + WAIT_S
        path = f"/tables/payments/{payment_id_of(ORDERS[0])}"
        while (await worker.call("GET", path, user="admin", roles=("admin",))).data["status"] != "SUCCEEDED":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
