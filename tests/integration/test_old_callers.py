"""The callers of the service that this one replaces, unchanged: its `.env`, the gateway's paths, the return service.

A whole worker, started as `make run` does, that finds nothing but the old names in its working directory.
"""

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rigs.order_service import OrderService
from rigs.worker import ENCRYPTION_KEY, JWT_SECRET, Worker

pytestmark = pytest.mark.long

PAYMENT = {
    "id", "orderId", "userId", "status", "paymentProvider", "paymentMethodId", "amount", "amountMinor", "currency",
    "amounts", "description", "metadata", "cancelRequested", "disputed", "needsReview", "unconfirmed", "nextAction",
    "failure", "providerPaymentId", "version", "createdAt", "updatedAt", "processedAt",
}  # fmt: skip
REFUND = {"id", "paymentId", "status", "amount", "amountMinor", "currency", "reason", "createdAt"}
LIST = (
    "status=SUCCEEDED&provider=MOCK&limit=5&offset=0&sortBy=createdAt&sortOrder=desc"
    "&startDate=2020-01-01&endDate=2099-12-31T00:00:00Z&minAmount=1&maxAmount=500"
)
STRIPE_HOOK = "whsec_old1"
RETURN_SERVICE = "token-of-the-return-service-0001"
OLD_ENV = """\
DATABASE_URL="{database_url}{separator}schema=public&connection_limit=5&pool_timeout=10"
ORDER_SERVICE_URL={order_service_url}
JWT_SECRET='{jwt_secret}'
ENCRYPTION_KEY={encryption_key}
STRIPE_SECRET_KEY={stripe_key}
STRIPE_PUBLISHABLE_KEY=pk_test_old
STRIPE_WEBHOOK_SECRET={stripe_hook}
PAYPAL_CLIENT_ID=
PAYPAL_CLIENT_SECRET=
PAYPAL_MODE=sandbox
PAYPAL_WEBHOOK_ID=
NODE_ENV=development
PORT=1
LOG_LEVEL=http
REDIS_URL=
OCI_STREAM_ID=ocid1.stream.oc1..old
OCI_QUEUE_ID=ocid1.queue.oc1..old
OCI_COMPARTMENT_ID=ocid1.compartment.oc1..old
OCI_REGION=IN-HYDERABAD-1
EVENT_PUBLISHER_TYPE=mock
EVENT_CONSUMER_TYPE=mock
ALLOWED_ORIGINS=http://localhost:3000,https://shop.example
"""


@pytest.fixture
async def orders() -> AsyncIterator[OrderService]:
    async with OrderService() as service:
        yield service


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=40)) as opened:
        yield opened


async def started(
    folder: Path, database_url: str, orders: OrderService, session: aiohttp.ClientSession, stripe_key: str = "",
    **new: str,
) -> Worker:  # fmt: skip
    """`new`: settings that the old service did not have."""
    worker = Worker(folder / "old", "dev", new, session)
    (worker.data.parent / ".env").write_text(
        OLD_ENV.format(
            database_url=database_url, separator="&" if "?" in database_url else "?", order_service_url=orders.url,
            jwt_secret=JWT_SECRET, encryption_key=ENCRYPTION_KEY, stripe_key=stripe_key, stripe_hook=STRIPE_HOOK,
        )
    )  # fmt: skip
    worker.start()
    await worker.ready()
    return worker


async def asked(worker: Worker, method: str, path: str, body: Any = None, user: str = "ann", **headers: str) -> Any:
    """`data` of a good answer."""
    answer = await worker.call(method, f"/api/v1/{path}", body, user=user, **headers)
    assert answer.status in (200, 201), (path, answer)
    return answer.data


async def test_the_gateway_finds_every_path_and_field(
    tmp_path: Path, database_url: str, orders: OrderService, session: aiohttp.ClientSession
) -> None:
    worker = await started(tmp_path, database_url, orders, session)
    try:
        orders.has("order-1", "ann", 99.99)
        create = {
            "orderId": "order-1", "amount": 99.99, "currency": "USD", "provider": "MOCK", "description": "two chairs",
            "metadata": {"basket": "b-1"},
        }  # fmt: skip
        made = await asked(worker, "POST", "payments", create, **{"X-Request-ID": "gateway-1"})
        assert set(made) == PAYMENT and made["status"] == "PENDING"
        assert (made["amount"], made["amountMinor"], made["unconfirmed"]) == (99.99, 9999, False)
        path = f"payments/{made['id']}"
        old_card = {
            "type": "CREDIT_CARD", "provider": "MOCK", "providerToken": "tok_visa", "isDefault": True,
            "last4": "0000", "cardType": "amex", "expiryMonth": "01", "expiryYear": "1999",
        }  # fmt: skip
        method = await asked(worker, "POST", "payment-methods", old_card)
        assert (method["last4"], method["brand"], method["expYear"] > 2026) == ("4242", "visa", True), "as it really is"
        assert [it["id"] for it in await asked(worker, "GET", "payment-methods")] == [method["id"]]
        assert (await asked(worker, "PUT", f"payment-methods/{method['id']}/default"))["isDefault"] is True
        old_words = {"paymentMethodId": method["id"], "savePaymentMethod": True, "paymentData": {"source": "web"}}
        paid = await asked(worker, "POST", f"{path}/process", old_words)
        assert set(paid) == PAYMENT and paid["status"] == "SUCCEEDED"
        told = await asked(worker, "POST", f"{path}/refund", {"amount": 9.99, "reason": "worn", "metadata": {"by": 1}})
        assert set(told) == {"refund", "payment"} and set(told["refund"]) == REFUND
        for read in (path, f"{path}?sync=true", "orders/order-1/payment"):
            now = await asked(worker, "GET", read)
            assert set(now) == PAYMENT | {"transactions", "refunds"}
            assert (now["status"], now["amounts"]["refunded"]) == ("PARTIALLY_REFUNDED", 999)
        assert (await asked(worker, "GET", f"{path}/timeline"))[0]["sequence"] == 1
        page = await asked(worker, "GET", f"payments?{LIST.replace('SUCCEEDED', 'PARTIALLY_REFUNDED')}")
        assert set(page) == {"payments", "total", "totalCapped", "limit", "offset", "hasMore"}
        assert [it["id"] for it in page["payments"]] == [made["id"]]
        orders.has("order-2", "ann", 5)
        held = await asked(worker, "POST", "payments", {"orderId": "order-2", "amount": "5", "captureMethod": "manual"})
        await asked(worker, "POST", f"payments/{held['id']}/process", {})
        assert (await asked(worker, "POST", f"payments/{held['id']}/capture", {}))["status"] == "SUCCEEDED"
        assert (await asked(worker, "DELETE", f"payment-methods/{method['id']}"))["deleted"] is True
        for page_path in ("/health", "/ready", "/metrics", "/api-docs", "/api-docs/", "/api-docs/openapi.yaml"):
            async with session.get(worker.url + page_path) as answer:
                assert answer.status == 200, page_path
        async with session.options(
            f"{worker.url}/api/v1/payments",
            headers={"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"},
        ) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        refused = await worker.call("GET", "/api/v1/payments/pay_0", user="ann", **{"X-Request-ID": "gateway-2"})
        assert (refused.status, refused.code, refused.body["requestId"]) == (404, "PAYMENT_NOT_FOUND", "gateway-2")
    finally:
        await worker.stop()


async def test_the_return_service_gives_money_back(
    tmp_path: Path, database_url: str, orders: OrderService, session: aiohttp.ClientSession
) -> None:
    digest = hashlib.sha256(RETURN_SERVICE.encode()).hexdigest()
    worker = await started(tmp_path, database_url, orders, session, INTERNAL_TOKENS=f"sha256:{digest};exp=2099-01-01")
    try:
        orders.has("order-1", "ann", 50)
        made = await asked(worker, "POST", "payments", {"orderId": "order-1", "amount": 50})
        await asked(worker, "POST", f"payments/{made['id']}/process", {"paymentMethodId": "tok_visa"})
        body = {"paymentId": made["id"], "amount": 12.5, "reason": "RETURN", "metadata": {"returnId": "ret-1"}}
        answer = await worker.call("POST", "/api/v1/refunds", body, **{"X-Internal-Token": RETURN_SERVICE})
        assert answer.status == 200 and set(answer.data) == REFUND
        assert answer.data | {"id": "", "createdAt": ""} == {
            "id": "", "paymentId": made["id"], "status": "COMPLETED", "amount": 12.5, "amountMinor": 1250,
            "currency": "USD", "reason": "RETURN", "createdAt": "",
        }  # fmt: skip
        rest = await worker.call("POST", "/api/v1/refunds", {"paymentId": made["id"]}, **{"X-API-Key": RETURN_SERVICE})
        assert (rest.status, rest.data["amount"]) == (200, 37.5)
        more = await worker.call("POST", "/api/v1/refunds", body, **{"X-Internal-Token": RETURN_SERVICE})
        assert (more.status, more.code) == (422, "REFUND_EXCEEDS")
        for wrong in (RETURN_SERVICE + "x", digest, ""):
            told = await worker.call("POST", "/api/v1/refunds", body, **{"X-Internal-Token": wrong})
            assert (told.status, told.code) == (401, "UNAUTHORIZED")
    finally:
        await worker.stop()


async def test_stripes_keys_and_secret_are_read_from_it(
    tmp_path: Path, database_url: str, orders: OrderService, session: aiohttp.ClientSession
) -> None:
    """With them Stripe is the default provider, and its webhooks are verified."""
    worker = await started(tmp_path, database_url, orders, session, stripe_key="sk_test_old")
    try:
        orders.has("order-1", "ann", 10)
        made = await asked(worker, "POST", "payments", {"orderId": "order-1", "amount": 10})
        assert made["paymentProvider"] == "STRIPE"
        event = json.dumps(
            {"id": "evt_1", "object": "event", "type": "customer.updated", "created": int(time.time()),
             "livemode": False, "data": {"object": {"id": "cus_1", "object": "customer"}}}
        ).encode()  # fmt: skip
        at = int(time.time())
        good = hmac.new(STRIPE_HOOK.encode(), f"{at}.".encode() + event, "sha256").hexdigest()
        for path in ("webhooks", "webhooks/stripe"):
            for signature, status in ((good, 200), ("0" * 64, 400), (None, 400)):
                headers = {"Stripe-Signature": f"t={at},v1={signature}"} if signature else {}
                async with session.post(f"{worker.url}/api/v1/{path}", data=event, headers=headers) as answer:
                    assert answer.status == status, await answer.text()
    finally:
        await worker.stop()
