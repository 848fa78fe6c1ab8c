"""The whole service on its embedded parts, as `make run` starts it: every door, and out again on the topics."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import psutil
from rigs.books import audit, read_all, until_table_agrees
from rigs.worker import Installation, Message, Worker
from servers.waiting import until

from payment_service.adapters.embedded_broker import running_broker
from payment_service.core.ids import payment_id_of

ORDERS = 200
CREATED = ("payment.created", "PENDING")
PAID = ("payment.processed", "SUCCEEDED")
GONE_WAIT_S = 10.0
SHOWN_WAIT_S = 20.0


def an_order(number: int, kind: str = "created", **more: Any) -> Message:
    body = {"eventType": f"order.{kind}", "orderId": f"order-{number}", "userId": "user-1", **more}
    if kind == "created":
        body |= {"totalAmount": 99.99, "currency": "USD"}
    return Message(json.dumps(body).encode(), number % 4, body["eventType"].encode())


async def paid(worker: Worker, order_id: str) -> None:
    made = await worker.call("POST", "/api/v1/payments", {"orderId": order_id, "amount": 99.99}, user="user-1")
    path = f"/api/v1/payments/{made.data['id']}/process"
    answer = await worker.call("POST", path, {"paymentMethodId": "tok_visa"}, user="user-1")
    assert (answer.status, answer.data["status"]) == (200, "SUCCEEDED")


async def test_orders_and_calls_become_payments_and_events(
    tansu_broker: str, database_url: str, tmp_path: Path
) -> None:
    """Kills and restarts are for a real broker: the embedded one takes half a minute to see that a member is gone."""
    async with Installation(tmp_path, tansu_broker, database_url, AUTO_PROCESS_ORDERS="true") as site:
        await site.make_order_topic()
        tokens = ["tok_visa", "tok_chargeDeclined"]
        orders = [an_order(number, paymentMethodId=tokens[number % 2]) for number in range(ORDERS)]
        worker = await site.started()
        await site.produce(*orders, Message(b"{junk", 0, b"\xff"), Message(None, 1, b"tombstone"), *orders[:20])
        await paid(worker, "by-rest")
        settled = "select count(*) from payment_service.transactions where status in ('SUCCEEDED', 'FAILED')"
        await site.until(lambda: site.rows(settled) == [(ORDERS + 1,)], "every order is charged or declined")
        await site.until_told(ORDERS + 1)
        books = await audit(site)
        for number in range(ORDERS):
            heard = [event for event in books.events(f"order-{number}") if event[0] != "payment.unknown"]
            assert heard == [CREATED, PAID if number % 2 == 0 else ("payment.failed", "FAILED")]
        assert books.events("by-rest") == [CREATED, PAID]
        letters = await read_all(site, ["payment-dead-letters"], 1)
        assert {letter.value for letter in letters} == {b"{junk"}
        await until_table_agrees(site, books)
        code, _ = await worker.stop()
        assert code == 0


async def test_dev_starts_everything_and_keeps_what_was_paid(tmp_path: Path) -> None:
    async with Installation(tmp_path, "", "") as site:
        worker = site.worker("dev")
        worker.start()
        await worker.ready()
        try:
            await worker.streaming()
            site.broker = running_broker(worker.data) or ""
            await site.produce(an_order(1))
            await paid(worker, "by-rest")
            await shown(worker, "order-1", "PENDING")
            assert (await worker.stop())[0] == 0
            await until(lambda: not children_of(worker.data), "nothing is left running", GONE_WAIT_S)
            worker.start()
            await worker.ready()
            await shown(worker, "by-rest", "SUCCEEDED")
        finally:
            worker.kill()
            for process in children_of(worker.data):  # a killed owner leaves its PostgreSQL for the next start
                process.send_signal(signal.SIGQUIT)


async def shown(worker: Worker, order_id: str, status: str) -> None:
    deadline = time.monotonic() + SHOWN_WAIT_S
    while True:
        answer = await worker.call("GET", f"/api/v1/orders/{order_id}/payment", user="user-1")
        if answer.status == 200:
            break
        assert time.monotonic() < deadline, f"{order_id} has no payment\n{worker.log}"
        await asyncio.sleep(0.1)
    assert (answer.data["id"], answer.data["status"]) == (payment_id_of(order_id), status)


def children_of(data: Path) -> list[psutil.Process]:
    """What runs of the embedded services of this folder; the PostgreSQL says so in its command."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and f"{data}/" in " ".join(process.info["cmdline"] or [])
    ]
