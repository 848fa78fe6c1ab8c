"""The service over PayPal: a worker, a simulator of PayPal's API that also sends its webhooks, and a shopper."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, encode_basic_auth
from rigs.worker import Answer, Installation, Message, Worker
from servers.provider_sim import ProviderSim

pytestmark = pytest.mark.long

WEBHOOK_ID = "WEBHOOKOFTHETEST1"
USER = "user-1"
WAIT_S = 30.0
BACK = "https://shop.test/back"
PAYMENTS = 24


class Shop:
    def __init__(self, site: Installation, worker: Worker, sim: ProviderSim, session: ClientSession) -> None:
        self.site, self.worker, self.sim, self.session = site, worker, sim, session

    async def made(self, order: str, **more: Any) -> str:
        body = {"orderId": order, "amount": 99.99, **more}
        answer = await self.worker.call("POST", "/api/v1/payments", body, user=USER)
        assert answer.data["paymentProvider"] == "PAYPAL"
        return str(answer.data["id"])

    async def post(self, payment_id: str, what: str, **body: Any) -> Answer:
        return await self.worker.call("POST", f"/api/v1/payments/{payment_id}/{what}", body, user=USER)

    async def asked(self, payment_id: str) -> str:
        """The order, which waits for its shopper."""
        asked = (await self.post(payment_id, "process", returnUrl=BACK)).data
        assert (asked["status"], asked["nextAction"]["type"]) == ("REQUIRES_ACTION", "redirect")
        assert asked["nextAction"]["url"].endswith(asked["providerPaymentId"])
        return str(asked["providerPaymentId"])

    async def sim_does(self, path: str, body: Any = None) -> Any:
        async with self.session.post(f"{self.sim.url}/_sim/{path}", json=body or {}) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def at_paypal(self, method: str, path: str, body: Any = None) -> Any:
        """As PayPal's dashboard."""
        url, form = f"{self.sim.url}/v1/oauth2/token", {"grant_type": "client_credentials"}
        basic = {"Authorization": encode_basic_auth("client", "secret")}
        async with self.session.post(url, data=form, headers=basic) as response:
            bearer = (await response.json())["access_token"]
        headers = {"Authorization": f"Bearer {bearer}", "Prefer": "return=representation"}
        async with self.session.request(method, self.sim.url + path, json=body, headers=headers) as response:
            assert response.status < 300, await response.text()
            return await response.json() if response.status != 204 else None

    async def until(self, payment_id: str, wait_s: float = WAIT_S, **expected: Any) -> Any:
        """The payment, once it shows this; the webhooks tell it."""
        path = payment_id if payment_id.startswith("/") else f"/api/v1/payments/{payment_id}"
        deadline = time.monotonic() + wait_s
        while True:
            answer = await self.worker.call("GET", path, user=USER)
            shown = answer.data if answer.status == 200 else {}
            if all(shown.get(name) == value for name, value in expected.items()):
                return shown
            assert time.monotonic() < deadline, f"{path} never showed {expected}: {shown}\n{self.worker.log}"
            await asyncio.sleep(0.05)

    async def until_no(self, path: str) -> None:
        """The list is empty."""
        deadline = time.monotonic() + WAIT_S
        while (await self.worker.call("GET", path, user=USER)).data:
            assert time.monotonic() < deadline, f"{path} is not empty\n{self.worker.log}"
            await asyncio.sleep(0.05)

    def moved(self, payment_id: str) -> list[tuple[str, int]]:
        return [(line["kind"], line["amount_minor"]) for line in self.sim.movements(payment_id)]


@pytest_asyncio.fixture
async def shop(tansu_broker: str, database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    sim, roots = ProviderSim(tmp_path, paypal_webhook_id=WEBHOOK_ID, settle_ms=200), tmp_path / "roots.pem"
    async with Installation(
        tmp_path / "site", tansu_broker, database_url, AUTO_PROCESS_ORDERS="true", PAYMENT_PROVIDER="paypal",
        PAYPAL_CLIENT_ID="client", PAYPAL_CLIENT_SECRET="secret", PAYPAL_API_BASE=sim.url,
        PAYPAL_WEBHOOK_ID=WEBHOOK_ID, PAYPAL_WEBHOOK_ROOTS=str(roots),
    ) as site:  # fmt: skip
        await site.make_order_topic()
        worker = site.worker("worker")
        sim.options = {**sim.options, "webhook_url": f"{worker.url}/api/v1/webhooks"}
        with sim:
            async with ClientSession() as session:
                async with session.get(f"{sim.url}/_sim/paypal/root.pem") as response:
                    roots.write_bytes(await response.read())
                worker.start()
                await worker.ready()
                yield Shop(site, worker, sim, session)
            assert (await worker.stop())[0] == 0


async def test_a_payments_life_over_paypal(shop: Shop) -> None:
    await approved_and_taken_without_the_browser(shop)
    await approved_and_told_by_the_front_end(shop)
    await declined_then_asked_anew(shop)
    await held_and_captured_in_part(shop)
    await captured_in_the_dashboard_part_by_part(shop)
    await cancelled_while_the_shopper_is_asked(shop)
    await refunded_and_disputed_at_paypal(shop)
    await paid_for_less_and_named(shop)
    await changed_and_taken_by_the_page(shop)
    await ordered(shop)
    await saved_charged_ordered_and_removed(shop)


FAULTS = {
    "drop_request": 0.05, "drop_response": 0.05, "cut_body": 0.03, "status_429": 0.03, "status_500": 0.03,
    "status_500_after": 0.03, "webhook_drop": 0.2, "webhook_duplicate": 0.2, "webhook_reorder": 0.2,
}  # fmt: skip


async def test_whatever_goes_wrong_on_the_way_each_is_paid_once(shop: Shop) -> None:
    await shop.sim_does("faults", {"rates": FAULTS, "delay_ms": 300, "seed": 7})

    async def pay(number: int) -> str:
        payment = await shop.made(f"o-faults-{number}", captureMethod="manual" if number % 3 == 0 else "automatic")
        for _ in range(120):  # an order whose answer was lost is made again when the lease has ended
            shown = (await shop.post(payment, "process", returnUrl=BACK)).data or {}
            if shown.get("status") == "REQUIRES_ACTION":
                break
            await asyncio.sleep(0.5)
        await shop.sim_does(f"approve/{shown['providerPaymentId']}")
        return payment

    paid = await asyncio.gather(*(pay(number) for number in range(PAYMENTS)))
    for number, payment in enumerate(paid):
        await shop.until(payment, wait_s=90.0, status="SUCCEEDED" if number % 3 else "AUTHORIZED")
    await shop.sim_does("faults")
    for number, payment in enumerate(paid):
        assert shop.moved(payment) == [("charge" if number % 3 else "authorize", 9999)]


async def approved_and_taken_without_the_browser(shop: Shop) -> None:
    payment = await shop.made("o-approve")
    order = await shop.asked(payment)
    assert (await shop.post(payment, "process")).data["status"] == "REQUIRES_ACTION", "nobody has approved it yet"
    assert shop.moved(payment) == []
    await shop.sim_does(f"approve/{order}")
    shown = await shop.until(payment, status="SUCCEEDED", nextAction=None)
    assert (shown["providerPaymentId"], shown["amounts"]["captured"]) == (order, 9999)
    refund = await shop.post(payment, "refund", amount=40)
    assert (refund.data["refund"]["status"], refund.data["payment"]["status"]) == ("COMPLETED", "PARTIALLY_REFUNDED")
    assert shop.moved(payment) == [("charge", 9999), ("refund", 4000)]


async def approved_and_told_by_the_front_end(shop: Shop) -> None:
    """No webhook comes (they are dropped for a while): whoever asks finds it, and so does the next look-up."""
    await shop.sim_does("faults", {"rates": {"webhook_drop": 1.0}, "delay_ms": 60_000})
    payment = await shop.made("o-front")
    order = await shop.asked(payment)
    await shop.sim_does(f"approve/{order}")
    told = await shop.post(payment, "process", paymentIntentId=order)
    assert (told.status, told.data["status"]) == (200, "SUCCEEDED")
    other = await shop.made("o-looked-up")
    await shop.sim_does(f"approve/{await shop.asked(other)}")
    await shop.until(other, status="SUCCEEDED")
    await shop.sim_does("faults")
    await shop.sim_does("settle")
    assert shop.moved(payment) == shop.moved(other) == [("charge", 9999)]


async def declined_then_asked_anew(shop: Shop) -> None:
    payment = await shop.made("o-declined")
    order = await shop.asked(payment)
    await shop.sim_does(f"approve/{order}?with=tok_chargeDeclinedInsufficientFunds")
    shown = await shop.until(payment, status="FAILED")
    assert (shown["failure"]["code"], shown["failure"]["declineCode"]) == ("CARD_DECLINED", "INSTRUMENT_DECLINED")
    second = await shop.asked(payment)
    assert second != order, "the shopper approves an order of the new attempt"
    await shop.sim_does(f"approve/{second}")
    await shop.until(payment, status="SUCCEEDED")
    assert shop.moved(payment) == [("charge", 9999)]


async def held_and_captured_in_part(shop: Shop) -> None:
    payment = await shop.made("o-hold", captureMethod="manual")
    await shop.sim_does(f"approve/{await shop.asked(payment)}")
    await shop.until(payment, status="AUTHORIZED")
    captured = await shop.post(payment, "capture", amount=70)
    assert (captured.data["status"], captured.data["amounts"]["captured"]) == ("SUCCEEDED", 7000)
    void = await shop.made("o-void", captureMethod="manual")
    await shop.sim_does(f"approve/{await shop.asked(void)}")
    await shop.until(void, status="AUTHORIZED")
    assert (await shop.post(void, "cancel")).data["status"] == "CANCELLED"
    assert shop.moved(payment) == [("authorize", 9999), ("capture", 7000)]
    assert shop.moved(void) == [("authorize", 9999), ("void", 9999)]


async def captured_in_the_dashboard_part_by_part(shop: Shop) -> None:
    payment = await shop.made("o-hold-2", captureMethod="manual")
    order = await shop.asked(payment)
    await shop.sim_does(f"approve/{order}")
    await shop.until(payment, status="AUTHORIZED")
    unit = (await shop.at_paypal("GET", f"/v2/checkout/orders/{order}"))["purchase_units"][0]
    capture = f"/v2/payments/authorizations/{unit['payments']['authorizations'][0]['id']}/capture"
    for number, value in enumerate(("30.00", "40.00"), start=1):
        await shop.at_paypal("POST", capture, {"amount": {"currency_code": "USD", "value": value}})
        shown = await shop.until(payment, status="SUCCEEDED", amounts=amounts(3000 if number == 1 else 7000))
    taken = [one["amountMinor"] for one in shown["transactions"] if one["type"] == "CAPTURE"]
    assert taken == [3000, 4000]
    assert not shown["needsReview"], shown
    assert shop.moved(payment) == [("authorize", 9999), ("capture", 3000), ("capture", 4000)]


def amounts(captured: int) -> dict[str, int]:
    return {"authorized": 9999, "captured": captured, "refundPending": 0, "refunded": 0, "disputed": 0}


async def cancelled_while_the_shopper_is_asked(shop: Shop) -> None:
    payment = await shop.made("o-cancelled")
    order = await shop.asked(payment)
    assert (await shop.post(payment, "cancel")).data["status"] == "CANCELLED"
    await shop.sim_does(f"approve/{order}")
    await asyncio.sleep(1.0)
    assert (await shop.until(payment, status="CANCELLED"))["amounts"]["captured"] == 0
    assert shop.moved(payment) == []


async def refunded_and_disputed_at_paypal(shop: Shop) -> None:
    payment = await shop.made("o-dashboard")
    paid = (await shop.post(payment, "process", paymentMethodId="tok_visa")).data
    assert paid["status"] == "SUCCEEDED", "a wallet saved at PayPal needs no approval"
    order = paid["providerPaymentId"]
    await shop.sim_does("refunds", {"object_id": order, "amount_minor": 1000})
    shown = await shop.until(payment, status="PARTIALLY_REFUNDED")
    assert shown["amounts"]["refunded"] == 1000
    dispute = await shop.sim_does("disputes", {"object_id": order, "amount_minor": 500})
    assert (await shop.until(payment, disputed=True))["amounts"]["disputed"] == 500
    await shop.sim_does(f"disputes/{dispute['id']}/won")
    await shop.until(payment, disputed=False)


async def paid_for_less_and_named(shop: Shop) -> None:
    """With the client id that every page shows, anybody makes an order at PayPal that carries our payment's id."""
    for capture_method in ("automatic", "manual"):
        payment = await shop.made(f"o-for-less-{capture_method}", captureMethod=capture_method)
        unit = {"custom_id": payment, "amount": {"currency_code": "USD", "value": "0.01"}}
        made = await shop.at_paypal("POST", "/v2/checkout/orders", {"intent": "CAPTURE", "purchase_units": [unit]})
        await shop.sim_does(f"approve/{made['id']}")
        await shop.at_paypal("POST", f"/v2/checkout/orders/{made['id']}/capture", {})
        told = await shop.post(payment, "process", paymentIntentId=made["id"])
        assert (told.status, told.data["status"], told.data["needsReview"]) == (202, "UNKNOWN", True)
        await asyncio.sleep(1.0)  # its webhooks say that it was paid
        shown = await shop.until(payment, status="UNKNOWN")
        assert shown["amounts"] == {**amounts(0), "authorized": 0}
        again = await shop.post(payment, "process", paymentMethodId="tok_visa")
        assert (again.status, again.data["status"]) == (202, "UNKNOWN"), "a person looks first"
        assert shop.moved(payment) == [("charge", 1)]


async def changed_and_taken_by_the_page(shop: Shop) -> None:
    """By PayPal's script, which may change an order until it is taken, and take it."""
    payment = await shop.made("o-changed")
    order = f"/v2/checkout/orders/{await shop.asked(payment)}"
    unit = (await shop.at_paypal("GET", order))["purchase_units"][0]
    path = f"/purchase_units/@reference_id=='{unit['reference_id']}'/amount"
    cent = {"currency_code": "USD", "value": "0.01"}
    await shop.at_paypal("PATCH", order, [{"op": "replace", "path": path, "value": cent}])
    await shop.sim_does("faults", {"rates": {"webhook_drop": 1.0}, "delay_ms": 1000})  # or we are faster, and close it
    await shop.sim_does(f"approve/{order.rpartition('/')[2]}")
    await shop.at_paypal("POST", f"{order}/capture", {})
    await shop.sim_does("faults")
    shown = await shop.until(payment, needsReview=True)
    assert (shown["status"], shown["amounts"]["captured"]) in (("REQUIRES_ACTION", 0), ("UNKNOWN", 0))
    told = (await shop.post(payment, "process", paymentIntentId=shown["providerPaymentId"])).data
    assert (told["status"] in ("REQUIRES_ACTION", "UNKNOWN"), told["amounts"]["captured"]) == (True, 0)
    assert shop.moved(payment) == [("charge", 1)]


async def ordered(shop: Shop) -> None:
    """With a saved wallet that wants its shopper all the same."""
    body = {
        "eventType": "order.created", "orderId": "o-topic", "userId": USER, "totalAmount": 99.99, "currency": "USD",
        "paymentProvider": "PAYPAL", "paymentMethodId": "tok_threeDSecure",
    }  # fmt: skip
    await shop.site.produce(Message(json.dumps(body).encode(), 0, b"order.created"))
    shown = await shop.until("/api/v1/orders/o-topic/payment", status="REQUIRES_ACTION", paymentProvider="PAYPAL")
    await shop.sim_does(f"approve/{shown['providerPaymentId']}?with=tok_pending")
    await shop.until(shown["id"], status="SUCCEEDED")
    assert shop.moved(shown["id"]) == [("charge", 9999)]


async def saved_charged_ordered_and_removed(shop: Shop) -> None:
    """A wallet that its shopper lets us keep, charged by REST and by an order, then taken back on either side."""
    methods = "/api/v1/payment-methods"

    async def save(**more: Any) -> Any:
        body = {"type": "paypal", "provider": "PAYPAL", "returnUrl": BACK, **more}
        asked = await shop.worker.call("POST", methods, body, user=USER)
        assert (asked.status, asked.data["status"], asked.data["brand"]) == (201, "REQUIRES_ACTION", "paypal")
        await shop.sim_does(f"approve/{asked.data['nextAction']['url'].rpartition('/')[2]}")
        kept = (await shop.worker.call("GET", methods, user=USER)).data
        return next(one for one in kept if one["id"] == asked.data["id"])

    method = await save(isDefault=True)
    assert (method["status"], method["isDefault"], method["nextAction"]) == ("ACTIVE", True, None)
    payment = await shop.made("o-wallet")
    paid = (await shop.post(payment, "process", paymentMethodId=method["id"])).data
    assert (paid["status"], paid["paymentMethodId"]) == ("SUCCEEDED", method["id"])
    body = {"eventType": "order.created", "orderId": "o-default", "userId": USER, "totalAmount": 99.99}
    await shop.site.produce(Message(json.dumps(body).encode(), 0, b"order.created"))
    ordered = await shop.until("/api/v1/orders/o-default/payment", status="SUCCEEDED", paymentMethodId=method["id"])
    assert shop.moved(payment) == shop.moved(ordered["id"]) == [("charge", 9999)]

    (there,) = wallets(shop)
    await nobody_else_pays_with_it(shop, there)
    assert there not in str(method) + str(paid) + str(ordered)
    await shop.at_paypal("DELETE", f"/v3/vault/payment-tokens/{there}")  # its owner, in their PayPal account
    await shop.until_no(methods)
    second = await save()
    assert (await shop.worker.call("DELETE", f"{methods}/{second['id']}", user=USER)).status == 200
    await shop.site.until(lambda: not wallets(shop), "PayPal keeps none of the wallets")
    refused = await shop.post(await shop.made("o-wallet-gone"), "process", paymentMethodId=method["id"])
    assert (refused.status, refused.code) == (404, "NOT_FOUND")


async def nobody_else_pays_with_it(shop: Shop, wallet: str) -> None:
    """PayPal charges a saved wallet without asking its owner, whoever names its id."""

    async def as_stranger(path: str, **body: Any) -> Answer:
        return await shop.worker.call("POST", f"/api/v1/payments{path}", body, user="user-2")

    payment = (await as_stranger("", orderId="o-stranger", amount=99.99)).data["id"]
    refused = await as_stranger(f"/{payment}/process", paymentMethodId=wallet)
    assert (refused.status, refused.code) == (402, "CARD_DECLINED"), refused
    second = (await as_stranger("", orderId="o-stranger-2", amount=99.99, paymentMethodId=wallet)).data["id"]
    assert (await as_stranger(f"/{second}/process")).status == 402
    assert shop.moved(payment) == shop.moved(second) == []


def wallets(shop: Shop) -> list[str]:
    """The ids of those that PayPal still has."""
    found = {line["id"]: line["value"] for line in shop.sim.lines("object") if line["kind"] == "paypal.payment_token"}
    return [name for name, token in found.items() if not token["_gone"]]
