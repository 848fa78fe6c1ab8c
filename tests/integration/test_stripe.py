"""The service over Stripe: a worker, a simulator of Stripe's API that also sends its webhooks, and a shopper."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from rigs.worker import Answer, Installation, Message, Worker
from servers.provider_sim import ProviderSim

pytestmark = pytest.mark.long

SECRET = "whsec_of_the_integration_test"
KEY = "sk_test_integration"
USER = "user-1"
WAIT_S = 30.0


class Shop:
    def __init__(self, site: Installation, worker: Worker, sim: ProviderSim, session: ClientSession) -> None:
        self.site, self.worker, self.sim, self.session = site, worker, sim, session

    async def made(self, order: str, **more: Any) -> str:
        body = {"orderId": order, "amount": 99.99, **more}
        answer = await self.worker.call("POST", "/api/v1/payments", body, user=USER)
        assert answer.data["paymentProvider"] == "STRIPE"
        return str(answer.data["id"])

    async def post(self, payment_id: str, what: str, **body: Any) -> Answer:
        return await self.worker.call("POST", f"/api/v1/payments/{payment_id}/{what}", body, user=USER)

    async def shown(self, payment_id: str) -> Any:
        return (await self.worker.call("GET", f"/api/v1/payments/{payment_id}", user=USER)).data

    async def at_stripe(self, path: str, body: Any = None) -> Any:
        """As the shopper's browser, or the dashboard."""
        form = path.startswith("/v1/")
        given = {"data": body, "headers": {"Authorization": f"Bearer {KEY}"}} if form else {"json": body or {}}
        async with self.session.post(self.sim.url + path, **given) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def until(self, path: str, **expected: Any) -> Any:
        """The payment, once it shows this; the webhooks tell it."""
        deadline = time.monotonic() + WAIT_S
        while True:
            answer = await self.worker.call("GET", path, user=USER)
            shown = answer.data if answer.status == 200 else {}
            if all(shown.get(name) == value for name, value in expected.items()):
                return shown
            assert time.monotonic() < deadline, f"{path} never showed {expected}: {shown}\n{self.worker.log}"
            await asyncio.sleep(0.05)

    def moved(self, payment_id: str) -> list[tuple[str, int]]:
        return [(line["kind"], line["amount_minor"]) for line in self.sim.movements(payment_id)]


@pytest_asyncio.fixture
async def shop(tansu_broker: str, database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    sim = ProviderSim(tmp_path, webhook_secret=SECRET, settle_ms=200)
    async with Installation(
        tmp_path / "site", tansu_broker, database_url, AUTO_PROCESS_ORDERS="true", PAYMENT_PROVIDER="stripe",
        STRIPE_SECRET_KEY=KEY, STRIPE_API_BASE=sim.url, STRIPE_WEBHOOK_SECRET=f"whsec_older,{SECRET}",
    ) as site:  # fmt: skip
        await site.make_order_topic()
        worker = site.worker("worker")
        sim.options = {**sim.options, "webhook_url": f"{worker.url}/api/v1/webhooks/stripe"}
        with sim:
            worker.start()
            await worker.ready()
            async with ClientSession() as session:
                yield Shop(site, worker, sim, session)
            assert (await worker.stop())[0] == 0


async def test_a_payments_life_over_stripe(shop: Shop) -> None:
    await charged_declined_and_refunded(shop)
    await held_and_captured_in_part(shop)
    await captured_in_the_dashboard(shop)
    await authenticated_by_the_shopper(shop)
    await paid_by_the_front_end(shop)
    await refunded_and_disputed_at_stripe(shop)
    await ordered(shop)
    await ordered_although_stripe_has_kept_errors(shop)


async def test_a_provider_that_is_away_is_degraded_not_down_and_comes_back(shop: Shop) -> None:
    """503 says that certainly nothing was sent; REST goes on, and one probe finds it well again."""
    path = 'provider_breaker_open{provider="STRIPE"}'
    assert f"{path} 0" in await shop.worker.numbers()
    payment = await shop.made("o-away")
    shop.sim.stop()
    for _ in range(8):  # ten failures in a row open the breaker; each call is tried up to three times
        refused = await shop.post(payment, "process", paymentMethodId="tok_visa")
        assert (refused.status, refused.code) == (503, "PROVIDER_UNAVAILABLE")
    ready = await shop.worker.try_call("GET", "/ready")
    assert ready is not None
    assert (ready.status, ready.data["ready"], ready.data["providers"]["STRIPE"]) == (200, True, "degraded")
    assert f"{path} 1" in await shop.worker.numbers()
    assert (await shop.shown(payment))["status"] == "PENDING"
    shop.sim.start()
    deadline = time.monotonic() + WAIT_S
    while (paid := await shop.post(payment, "process", paymentMethodId="tok_visa")).status != 200:
        assert time.monotonic() < deadline, paid
        await asyncio.sleep(0.2)
    assert paid.data["status"] == "SUCCEEDED"
    assert (await shop.worker.ready())["providers"]["STRIPE"] == "up"
    assert shop.moved(payment) == [("charge", 9999)]


async def charged_declined_and_refunded(shop: Shop) -> None:
    payment = await shop.made("o-charge")
    declined = await shop.post(payment, "process", paymentMethodId="tok_chargeDeclinedInsufficientFunds")
    assert (declined.status, declined.code) == (402, "CARD_DECLINED")
    assert declined.body["declineCode"] == "insufficient_funds"
    paid = await shop.post(payment, "process", paymentMethodId="tok_visa")
    assert (paid.status, paid.data["status"]) == (200, "SUCCEEDED")
    assert str(paid.data["providerPaymentId"]).startswith("pi_")
    refund = await shop.post(payment, "refund", amount=40)
    assert (refund.data["refund"]["status"], refund.data["payment"]["status"]) == ("COMPLETED", "PARTIALLY_REFUNDED")
    assert shop.moved(payment) == [("charge", 9999), ("refund", 4000)]


async def held_and_captured_in_part(shop: Shop) -> None:
    payment = await shop.made("o-hold", captureMethod="manual")
    assert (await shop.post(payment, "process", paymentMethodId="pm_card_visa")).data["status"] == "AUTHORIZED"
    captured = await shop.post(payment, "capture", amount=70)
    assert (captured.data["status"], captured.data["amounts"]["captured"]) == ("SUCCEEDED", 7000)
    void = await shop.made("o-void", captureMethod="manual")
    await shop.post(void, "process", paymentMethodId="tok_visa")
    assert (await shop.post(void, "cancel")).data["status"] == "CANCELLED"


async def captured_in_the_dashboard(shop: Shop) -> None:
    payment = await shop.made("o-hold-2", captureMethod="manual")
    intent = (await shop.post(payment, "process", paymentMethodId="tok_visa")).data["providerPaymentId"]
    await shop.at_stripe(f"/v1/payment_intents/{intent}/capture", {"amount_to_capture": 7000})
    shown = await shop.until(f"/api/v1/payments/{payment}", status="SUCCEEDED")
    assert (shown["amounts"]["captured"], shown["needsReview"]) == (7000, False)
    assert [(one["type"], one["status"], one["amountMinor"]) for one in shown["transactions"]] == [
        ("AUTHORIZE", "SUCCEEDED", 9999), ("CAPTURE", "SUCCEEDED", 7000),
    ]  # fmt: skip
    again = await shop.post(payment, "capture")
    assert (again.status, again.data["amounts"]["captured"]) == (200, 7000), "it is so already"
    assert (await shop.post(payment, "refund", amount=70)).data["payment"]["status"] == "REFUNDED"
    assert shop.moved(payment) == [("authorize", 9999), ("capture", 7000), ("refund", 7000)]


async def authenticated_by_the_shopper(shop: Shop) -> None:
    payment = await shop.made("o-3ds")
    body = {"paymentMethodId": "tok_threeDSecure", "returnUrl": "https://shop.test/back"}
    asked = (await shop.post(payment, "process", **body)).data
    assert (asked["status"], asked["nextAction"]["type"]) == ("REQUIRES_ACTION", "redirect")
    await shop.at_stripe(f"/_sim/approve/{asked['providerPaymentId']}")
    shown = await shop.until(f"/api/v1/payments/{payment}", status="SUCCEEDED")
    assert shown["nextAction"] is None
    assert shop.moved(payment) == [("charge", 9999)]


async def paid_by_the_front_end(shop: Shop) -> None:
    payment = await shop.made("o-front")
    asked = (await shop.post(payment, "process")).data
    assert (asked["status"], asked["nextAction"]["type"]) == ("REQUIRES_ACTION", "use_client_secret")
    intent = asked["providerPaymentId"]
    assert asked["nextAction"]["clientSecret"].startswith(f"{intent}_secret_")
    await shop.at_stripe(f"/v1/payment_intents/{intent}/confirm", {"payment_method": "pm_card_visa"})
    told = await shop.post(payment, "process", paymentIntentId=intent)
    assert (told.status, told.data["status"]) == (200, "SUCCEEDED")

    other = await shop.made("o-theirs")
    refused = await shop.post(other, "process", paymentIntentId=intent)
    assert refused.status == 402
    shown = await shop.shown(other)
    assert (shown["status"], shown["failure"]["code"], shown["needsReview"]) == ("FAILED", "OBJECT_NOT_OURS", True)
    assert shop.moved(payment) == [("charge", 9999)] and shop.moved(other) == []


async def refunded_and_disputed_at_stripe(shop: Shop) -> None:
    payment = await shop.made("o-dashboard")
    intent = (await shop.post(payment, "process", paymentMethodId="tok_visa")).data["providerPaymentId"]
    await shop.at_stripe("/_sim/refunds", {"object_id": intent, "amount_minor": 1000})
    shown = await shop.until(f"/api/v1/payments/{payment}", status="PARTIALLY_REFUNDED")
    assert shown["amounts"]["refunded"] == 1000
    dispute = await shop.at_stripe("/_sim/disputes", {"object_id": intent, "amount_minor": 500})
    assert (await shop.until(f"/api/v1/payments/{payment}", disputed=True))["amounts"]["disputed"] == 500
    await shop.at_stripe(f"/_sim/disputes/{dispute['id']}/won")
    await shop.until(f"/api/v1/payments/{payment}", disputed=False)


async def ordered(shop: Shop, order: str = "o-topic") -> None:
    body = {
        "eventType": "order.created", "orderId": order, "userId": USER, "totalAmount": 99.99, "currency": "USD",
        "paymentMethodId": "tok_visa",
    }  # fmt: skip
    await shop.site.produce(Message(json.dumps(body).encode(), 0, b"order.created"))
    payment = await shop.until(f"/api/v1/orders/{order}/payment", status="SUCCEEDED", paymentProvider="STRIPE")
    assert shop.moved(payment["id"]) == [("charge", 9999)]


async def ordered_although_stripe_has_kept_errors(shop: Shop) -> None:
    faults = {"next": [{"path": "/v1/payment_intents", "fault": "status_500_after", "times": 3}]}
    await shop.at_stripe("/_sim/faults", faults)
    await ordered(shop, "o-kept")
