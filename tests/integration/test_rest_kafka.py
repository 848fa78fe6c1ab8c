"""REST on a whole worker with Apache Kafka: what callers are told, what the world hears; also while Kafka is away."""

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from rigs.books import Books, audit, until_table_agrees
from rigs.worker import Answer, Installation, Worker
from servers import KafkaServer

from payment_service.core.ids import payment_id_of

pytestmark = pytest.mark.kafka

USER = "user-1"
OUTAGE_S = 15.0
CALLS = 30
BUSY_MAX = 10
APPROVED_WAIT_S = 20.0
"""The provider is asked when the lease is over."""
CREATED = ("payment.created", "PENDING")
PAID = ("payment.processed", "SUCCEEDED")


async def create(worker: Worker, order_id: str, amount: Any = 99.99, user: str = USER, **more: Any) -> dict[str, Any]:
    body = {"orderId": order_id, "amount": amount, "currency": "USD", **more}
    answer = await worker.call("POST", "/api/v1/payments", body, user=user)
    assert answer.status == 201, answer
    return dict(answer.data)


async def process(worker: Worker, order_id: str, token: str, user: str = USER, **more: Any) -> Answer:
    path = f"/api/v1/payments/{payment_id_of(order_id)}/process"
    return await worker.call("POST", path, {"paymentMethodId": token, **more}, user=user)


async def act(worker: Worker, order_id: str, what: str, body: Any = None, user: str = USER) -> Answer:
    return await worker.call("POST", f"/api/v1/payments/{payment_id_of(order_id)}/{what}", body, user=user)


async def act_when_free(worker: Worker, order_id: str, what: str, body: Any) -> Answer:
    """As a client does whose payment is changed by many at once: 503 says that nothing was done."""
    for _ in range(BUSY_MAX):
        answer = await act(worker, order_id, what, body)
        if answer.status != 503:
            break
        await asyncio.sleep(float(answer.headers["Retry-After"]))
    return answer


async def pay_and_refund(worker: Worker) -> None:
    made = await create(worker, "paid", metadata={"cart": 7}, description="two books")
    assert (made["status"], made["amount"], made["amountMinor"], made["unconfirmed"]) == ("PENDING", 99.99, 9999, True)
    again = await worker.call("POST", "/api/v1/payments", {"orderId": "paid", "amount": "99.99"}, user=USER)
    assert (again.status, again.data["id"], again.data["version"]) == (200, made["id"], made["version"])
    other = await worker.call("POST", "/api/v1/payments", {"orderId": "paid", "amount": 1}, user=USER)
    assert (other.status, other.code) == (409, "PAYMENT_EXISTS")
    paid = await process(worker, "paid", "tok_visa")
    assert (paid.status, paid.data["status"], paid.data["amounts"]["captured"]) == (200, "SUCCEEDED", 9999)
    repeated = await process(worker, "paid", "tok_visa")
    assert (repeated.status, repeated.data["version"]) == (200, paid.data["version"])
    part = await act(worker, "paid", "refund", {"amount": 40, "reason": "one came late"})
    assert part.data["refund"]["status"] == "COMPLETED" and part.data["refund"]["amountMinor"] == 4000
    assert part.data["payment"]["status"] == "PARTIALLY_REFUNDED"
    too_much = await act(worker, "paid", "refund", {"amount": 60})
    assert (too_much.status, too_much.code) == (422, "REFUND_EXCEEDS")
    rest = await act(worker, "paid", "refund")
    assert (rest.data["refund"]["amountMinor"], rest.data["payment"]["status"]) == (5999, "REFUNDED")


async def decline_and_try_again(worker: Worker) -> None:
    await create(worker, "declined")
    declined = await process(worker, "declined", "tok_chargeDeclinedInsufficientFunds")
    assert (declined.status, declined.code) == (402, "CARD_DECLINED")
    assert declined.body["declineCode"] == "insufficient_funds"
    path = f"/api/v1/payments/{payment_id_of('declined')}"
    failed = (await worker.call("GET", path, user=USER)).data
    assert failed["status"] == "FAILED" and failed["failure"]["declineCode"] == "insufficient_funds"
    paid = await process(worker, "declined", "tok_visa")
    assert (paid.status, paid.data["status"]) == (200, "SUCCEEDED")


async def act_in_the_browser(worker: Worker) -> None:
    await create(worker, "secure")
    asked = await process(worker, "secure", "tok_threeDSecure", returnUrl="https://shop.example/back")
    assert (asked.status, asked.data["status"]) == (200, "REQUIRES_ACTION")
    assert asked.data["nextAction"]["type"] == "redirect" and asked.data["nextAction"]["url"].startswith("http")
    path = f"/api/v1/payments/{payment_id_of('secure')}"
    assert (await worker.call("GET", path, user=USER)).data["nextAction"] == asked.data["nextAction"]
    again = await act(worker, "secure", "process")
    assert (again.status, again.data["nextAction"]) == (200, asked.data["nextAction"])
    page = urlsplit(asked.data["nextAction"]["url"]).path
    assert (await worker.call("GET", page)).status == 200
    deadline = time.monotonic() + APPROVED_WAIT_S
    while (now := (await worker.call("GET", path, user=USER)).data)["status"] != "SUCCEEDED":
        assert time.monotonic() < deadline, now
        await asyncio.sleep(0.2)
    assert now["nextAction"] is None


async def capture_by_hand(worker: Worker) -> None:
    await create(worker, "manual", captureMethod="manual")
    held = await process(worker, "manual", "tok_visa")
    assert (held.data["status"], held.data["amounts"]["authorized"]) == ("AUTHORIZED", 9999)
    taken = await act(worker, "manual", "capture", {"amount": 50.25})
    assert (taken.data["status"], taken.data["amounts"]["captured"]) == ("SUCCEEDED", 5025)
    await create(worker, "voided", captureMethod="manual")
    await process(worker, "voided", "tok_visa")
    voided = await act(worker, "voided", "cancel", {"reason": "out of stock"})
    assert (voided.status, voided.data["status"]) == (200, "CANCELLED")


async def cancel_and_open_again(worker: Worker) -> None:
    await create(worker, "reopened")
    gone = await act(worker, "reopened", "cancel")
    assert (gone.status, gone.data["status"]) == (200, "CANCELLED")
    refused = await process(worker, "reopened", "tok_visa")
    assert (refused.status, refused.code) == (409, "INVALID_STATE")
    opened = await worker.call("POST", "/api/v1/payments", {"orderId": "reopened", "amount": 99.99}, user=USER)
    assert (opened.status, opened.data["status"]) == (201, "PENDING")


async def read(worker: Worker) -> None:
    by_order = await worker.call("GET", "/api/v1/orders/paid/payment", user=USER)
    assert by_order.data["id"] == payment_id_of("paid")
    calls = [(call["type"], call["status"]) for call in by_order.data["transactions"]]
    assert calls == [("CHARGE", "SUCCEEDED"), ("REFUND", "SUCCEEDED"), ("REFUND", "SUCCEEDED")]
    assert [one["amountMinor"] for one in by_order.data["refunds"]] == [4000, 5999]
    listed = await worker.call("GET", "/api/v1/payments?limit=2&sortBy=createdAt&sortOrder=asc", user=USER)
    assert (listed.data["total"], listed.data["hasMore"], len(listed.data["payments"])) == (6, True, 2)
    assert [one["orderId"] for one in listed.data["payments"]] == ["paid", "declined"]
    refunded = await worker.call("GET", "/api/v1/payments?status=refunded", user=USER)
    assert [one["orderId"] for one in refunded.data["payments"]] == ["paid"]
    timeline = await worker.call("GET", f"/api/v1/payments/{payment_id_of('paid')}/timeline", user=USER)
    assert [one["version"] for one in timeline.data] == list(range(1, len(timeline.data) + 1))
    assert [one["sequence"] for one in timeline.data if one["sequence"]] == [1, 2, 3, 4]


async def keep_from_others(worker: Worker) -> None:
    payment = f"/api/v1/payments/{payment_id_of('paid')}"
    for method, path, body in (
        ("GET", payment, None),
        ("GET", f"{payment}/timeline", None),
        ("GET", "/api/v1/orders/paid/payment", None),
        ("POST", f"{payment}/process", {"paymentMethodId": "tok_visa"}),
        ("POST", f"{payment}/capture", None),
        ("POST", f"{payment}/cancel", None),
        ("POST", f"{payment}/refund", None),
        ("POST", "/api/v1/refunds", {"paymentId": payment_id_of("paid")}),
    ):
        answer = await worker.call(method, path, body, user="somebody-else")
        assert (answer.status, answer.code) == (404, "PAYMENT_NOT_FOUND"), path
        assert (await worker.call(method, path, body)).status == 401, path
    assert (await worker.call("GET", "/api/v1/payments", user="somebody-else")).data["total"] == 0
    taken = await worker.call("POST", "/api/v1/payments", {"orderId": "paid", "amount": 99.99}, user="somebody-else")
    assert (taken.status, taken.code) == (409, "PAYMENT_EXISTS")
    assert (await worker.call("GET", payment, user="boss", roles=("admin",))).status == 200


HEARD = {
    "paid": [CREATED, PAID, ("payment.refunded", "PARTIALLY_REFUNDED"), ("payment.refunded", "REFUNDED")],
    "declined": [CREATED, ("payment.failed", "FAILED"), PAID],
    "secure": [CREATED, ("payment.requires_action", "REQUIRES_ACTION"), PAID],
    "manual": [CREATED, ("payment.processed", "AUTHORIZED"), PAID],
    "voided": [CREATED, ("payment.processed", "AUTHORIZED"), ("payment.cancelled", "CANCELLED")],
    "reopened": [CREATED, ("payment.cancelled", "CANCELLED"), CREATED],
}


async def test_a_shopper_s_calls_and_what_the_world_hears_of_them(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with Installation(tmp_path, kafka_broker, database_url) as site:
        worker = await site.started(LEASE_S="4", PROVIDER_DEADLINE_S="2")
        await pay_and_refund(worker)
        await decline_and_try_again(worker)
        await act_in_the_browser(worker)
        await capture_by_hand(worker)
        await cancel_and_open_again(worker)
        await read(worker)
        await keep_from_others(worker)
        await site.until_told(len(HEARD))
        books = await audit(site)
        assert {order_id: books.events(order_id) for order_id in books.payments} == HEARD
        check_refunds(books)
        await until_table_agrees(site, books)


def check_refunds(books: Books) -> None:
    first, second = books.published[payment_id_of("paid")][2:]
    assert (first["data"]["refundAmount"], first["data"]["refundAmountMinor"]) == (40, 4000)
    assert (first["data"]["reason"], first["data"]["amounts"]["refunded"]) == ("one came late", 4000)
    assert (second["data"]["refundAmount"], second["data"]["amounts"]["refunded"]) == (59.99, 9999)
    assert first["data"]["refundId"] != second["data"]["refundId"]


async def test_many_calls_at_once_at_two_workers_move_the_money_once(
    kafka_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with Installation(tmp_path, kafka_broker, database_url, MOCK_LATENCY_MS="300") as site:
        workers = [await site.started(), await site.started()]
        body = {"orderId": "same", "amount": 99.99, "currency": "USD"}
        creating = [workers[n % 2].call("POST", "/api/v1/payments", body, user=USER) for n in range(CALLS)]
        made = await asyncio.gather(*creating)
        assert sorted(one.status for one in made) == [200] * (CALLS - 1) + [201]
        processed = await asyncio.gather(*(process(workers[n % 2], "same", "tok_visa") for n in range(CALLS)))
        assert {(one.status, one.data["status"]) for one in processed} <= {(200, "SUCCEEDED"), (202, "PROCESSING")}
        assert (200, "SUCCEEDED") in {(one.status, one.data["status"]) for one in processed}
        refunding = [act_when_free(workers[n % 2], "same", "refund", {"amount": 10}) for n in range(CALLS)]
        refunded = await asyncio.gather(*refunding)
        assert sorted(one.status for one in refunded) == [200] * 9 + [422] * (CALLS - 9)
        await site.until_told(1)
        calls = site.rows("select type, status from payment_service.transactions where type = 'CHARGE'")
        assert calls == [("CHARGE", "SUCCEEDED")]
        books = await audit(site)
        assert [event for event, _ in books.events("same")] == [CREATED[0], PAID[0], *["payment.refunded"] * 9]
        assert (books.payments["same"]["captured"], books.payments["same"]["refunded"]) == (9999, 9000)
        assert books.payments["same"]["refund_pending"] == 0


async def pay(worker: Worker, order_id: str) -> None:
    await create(worker, order_id)
    paid = await process(worker, order_id, "tok_visa")
    assert (paid.status, paid.data["status"]) == (200, "SUCCEEDED")


async def test_rest_takes_payments_while_kafka_is_away(database_url: str, tmp_path: Path) -> None:
    """Started without a broker, and then through an outage: the events follow, in order, without a restart."""
    kafka = KafkaServer()
    async with Installation(tmp_path, kafka.address, database_url) as site:
        worker = await site.started()
        for number in range(5):
            await pay(worker, f"before-{number}")
        now = await worker.until_ready_says(lambda now: not now["broker"], "the broker is away")
        assert now["ready"] and not now["stream"]["running"]
        assert site.count("outbox") == 10
        with kafka:
            await worker.streaming()
            await site.until_told(5)
            kafka.kill()
            over = asyncio.ensure_future(asyncio.sleep(OUTAGE_S))
            for number in range(5):
                await pay(worker, f"during-{number}")
            await over
            assert site.count("outbox") == 10
            kafka.start()
            await pay(worker, "after")
            await site.until_told(11)
            books = await audit(site)
            assert all(books.events(order_id) == [CREATED, PAID] for order_id in books.payments)
            await worker.streaming()
            await until_table_agrees(site, books)
            code, _ = await worker.stop()
            assert code == 0
