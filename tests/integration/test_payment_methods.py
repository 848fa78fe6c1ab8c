"""Saved methods in the whole service: a worker on PostgreSQL, a simulator of Stripe with webhooks, and a shopper."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from rigs.worker import Answer, Installation, Message, Worker
from servers.provider_sim import ProviderSim

SECRET = "whsec_of_the_integration_test"
KEY = "sk_test_integration"
PATH = "/api/v1/payment-methods"
ANN, BOB = "ann", "bob"
WAIT_S = 30.0
TABLES = (
    "payments", "payment_events", "transactions", "inbox", "outbox", "payment_webhooks", "audit_log",
    "payment_methods", "provider_customers", "idempotency_keys",
)  # fmt: skip
SECRETS = re.compile(r"\b(?:tok|pm|cus|seti)_[A-Za-z0-9]{6,}")


class Shop:
    def __init__(self, site: Installation, worker: Worker, sim: ProviderSim, session: ClientSession) -> None:
        self.site, self.worker, self.sim, self.session = site, worker, sim, session

    async def call(self, method: str, path: str, body: Any = None, user: str = ANN, **headers: str) -> Answer:
        return await self.worker.call(method, path, body, user=user, **headers)

    async def saved(self, token: str, user: str = ANN, **more: Any) -> Any:
        body = {"type": "card", "provider": "stripe", "token": token, **more}
        answer = await self.call("POST", PATH, body, user)
        assert answer.status == 201, answer
        return answer.data

    async def paid(self, order: str, method: str, **more: Any) -> Answer:
        made = await self.call("POST", "/api/v1/payments", {"orderId": order, "amount": 99.99, **more})
        return await self.call("POST", f"/api/v1/payments/{made.data['id']}/process", {"paymentMethodId": method})

    async def ordered(self, order: str, **fields: Any) -> None:
        body = {"eventType": "order.created", "orderId": order, "userId": ANN, "totalAmount": 12.5, **fields}
        await self.site.produce(Message(json.dumps(body).encode(), 0, order.encode()))

    async def at_stripe(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {KEY}"} if path.startswith("/v1/") else {}
        async with self.session.request(method, self.sim.url + path, json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def kept_there(self, user: str = ANN) -> list[str]:
        """The methods that Stripe has for this user."""
        found: dict[str, Any] = {}
        for line in self.sim.lines("object"):
            if line["kind"] in ("stripe.customer", "stripe.payment_method"):
                found[line["id"]] = line["value"]
        customers = [one["id"] for one in found.values() if one.get("metadata", {}).get("user_id") == user]
        return [name for name, one in found.items() if name.startswith("pm_") and one["customer"] in customers]

    async def until(self, path: str, is_so: Any, user: str = ANN) -> Any:
        deadline = time.monotonic() + WAIT_S
        while True:
            answer = await self.call("GET", path, user=user)
            if answer.status == 200 and is_so(answer.data):
                return answer.data
            assert time.monotonic() < deadline, f"{path} never became so: {answer.body}\n{self.worker.log}"
            await asyncio.sleep(0.05)

    async def until_there(self, count: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while len(await self.kept_there()) != count:
            assert time.monotonic() < deadline, f"Stripe still keeps {await self.kept_there()}\n{self.worker.log}"
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def shop(tansu_broker: str, database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    sim = ProviderSim(tmp_path, webhook_secret=SECRET, settle_ms=200)
    async with Installation(
        tmp_path / "site", tansu_broker, database_url, AUTO_PROCESS_ORDERS="true", PAYMENT_PROVIDER="stripe",
        STRIPE_SECRET_KEY=KEY, STRIPE_API_BASE=sim.url, STRIPE_WEBHOOK_SECRET=SECRET,
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


@pytest.mark.long
async def test_a_methods_life(shop: Shop) -> None:
    await saved_and_declined(shop)
    await confirmed_by_the_shopper(shop)
    await charged(shop)
    await ordered(shop)
    await removed(shop)
    await detached_at_stripe(shop)
    nothing_is_in_the_clear(shop)


@pytest.mark.long
async def test_a_saving_that_a_crash_cut_off_is_finished_once(shop: Shop) -> None:
    await shop.at_stripe("POST", "/_sim/faults", {"rates": {"delay_response": 1.0}, "delay_ms": 1500})
    body = {"type": "card", "provider": "stripe", "token": "tok_visa", "isDefault": True}
    asking = asyncio.create_task(shop.call("POST", PATH, body))
    await shop.site.until(lambda: "stripe.setup_intent" in shop.sim.ledger.read_text(), "it is at work at Stripe")
    shop.worker.kill()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.exception() is not None, "nobody was answered"
    ((status,),) = shop.site.rows("select status from payment_service.payment_methods")
    assert status == "PENDING"
    await shop.at_stripe("POST", "/_sim/faults", {})
    shop.site.rows("update payment_service.payment_methods set due_at = now()")  # as if its lease had run out
    shop.worker.start()
    await shop.worker.ready()
    (method,) = await shop.until(PATH, lambda data: [one["status"] for one in data] == ["ACTIVE"])
    assert (method["isDefault"], method["last4"]) == (True, "4242")
    again = await shop.call("POST", PATH, body)
    assert (again.status, again.data["id"]) == (200, method["id"])
    assert len(await shop.kept_there()) == 1


async def saved_and_declined(shop: Shop) -> None:
    body = {"type": "card", "provider": "stripe", "token": "tok_mastercard"}
    key = {"Idempotency-Key": "save-1"}
    first, again = await shop.call("POST", PATH, body, **key), await shop.call("POST", PATH, body, **key)
    assert (first.status, first.data["last4"], first.data["brand"]) == (201, "4444", "mastercard")
    assert (again.status, again.data, again.headers["Idempotent-Replayed"]) == (201, first.data, "true")
    assert (await shop.call("POST", PATH, body)).data["id"] == first.data["id"]
    declined = await shop.call("POST", PATH, body | {"token": "tok_chargeDeclinedInsufficientFunds"})
    assert (declined.status, declined.code, declined.body["declineCode"]) == (
        402, "CARD_DECLINED", "insufficient_funds",
    )  # fmt: skip
    unknown = await shop.call("POST", PATH, body | {"token": "tok_unheardOf"})
    assert (unknown.status, list(unknown.body["errors"])) == (422, ["token"])
    await shop.call("DELETE", f"{PATH}/{first.data['id']}")
    assert (await shop.call("GET", PATH)).data == []


async def confirmed_by_the_shopper(shop: Shop) -> None:
    method = await shop.saved("tok_threeDSecure", returnUrl="https://shop.test/back")
    assert (method["status"], method["nextAction"]["type"]) == ("REQUIRES_ACTION", "redirect")
    refused = await shop.paid("o-too-early", method["id"])
    assert (refused.status, refused.code) == (409, "INVALID_STATE")
    await shop.at_stripe("POST", f"/_sim/approve/{method['nextAction']['url'].rsplit('/', 1)[1]}")
    (confirmed,) = (await shop.call("GET", PATH)).data
    assert (confirmed["status"], confirmed["nextAction"], confirmed["last4"]) == ("ACTIVE", None, "3220")
    await shop.call("DELETE", f"{PATH}/{method['id']}")


async def charged(shop: Shop) -> None:
    method = await shop.saved("tok_visa")
    paid = await shop.paid("o-saved", method["id"])
    assert (paid.status, paid.data["status"], paid.data["paymentMethodId"]) == (200, "SUCCEEDED", method["id"])
    declined = await shop.paid("o-second", "tok_chargeDeclined")
    assert declined.status == 402
    again = await shop.paid("o-second", method["id"])
    assert (again.data["status"], again.data["paymentMethodId"]) == ("SUCCEEDED", method["id"])
    made = await shop.call(
        "POST", "/api/v1/payments", {"orderId": "o-made", "amount": 5, "paymentMethodId": method["id"]}
    )
    processed = await shop.call("POST", f"/api/v1/payments/{made.data['id']}/process", {})
    assert processed.data["status"] == "SUCCEEDED"
    mock = await shop.saved("tok_amex", provider="mock")
    mismatch = await shop.paid("o-mismatch", mock["id"], provider="STRIPE")
    assert (mismatch.status, list(mismatch.body["errors"])) == (422, ["paymentMethodId"])
    assert (await shop.paid("o-mock", mock["id"], provider="MOCK")).data["status"] == "SUCCEEDED"
    bobs = await shop.call(
        "POST", "/api/v1/payments", {"orderId": "o-bob", "amount": 5, "paymentMethodId": method["id"]}, BOB
    )
    assert (bobs.status, bobs.code) == (404, "NOT_FOUND")
    await shop.call("DELETE", f"{PATH}/{mock['id']}")


async def ordered(shop: Shop) -> None:
    (method,) = (await shop.call("GET", PATH)).data
    path = "/api/v1/orders/{}/payment"
    await shop.ordered("o-none")
    waiting = await shop.until(path.format("o-none"), lambda data: data["amountMinor"] == 1250)
    assert (waiting["status"], waiting["transactions"], waiting["paymentMethodId"]) == ("PENDING", [], None)
    await shop.ordered("o-named", paymentMethodId=method["id"])
    named = await shop.until(path.format("o-named"), lambda data: data["status"] == "SUCCEEDED")
    assert named["paymentMethodId"] == method["id"]
    await shop.call("PUT", f"{PATH}/{method['id']}/default")
    await shop.ordered("o-default")
    default = await shop.until(path.format("o-default"), lambda data: data["status"] == "SUCCEEDED")
    assert default["paymentMethodId"] == method["id"]
    await shop.ordered("o-unheard", paymentMethodId="pmt_unheardof")
    failed = await shop.until(path.format("o-unheard"), lambda data: data["status"] == "FAILED")
    assert failed["failure"]["code"] == "INVALID_PAYMENT_METHOD"
    assert {line["amount_minor"] for line in shop.sim.movements(named["id"])} == {1250}
    assert shop.sim.movements(failed["id"]) == shop.sim.movements(waiting["id"]) == []


async def removed(shop: Shop) -> None:
    (method,) = (await shop.call("GET", PATH)).data
    await shop.until_there(1)
    assert (await shop.call("DELETE", f"{PATH}/{method['id']}", user=BOB)).status == 404
    assert (await shop.call("DELETE", f"{PATH}/{method['id']}")).data["deleted"] is True
    refused = await shop.paid("o-gone", method["id"])
    assert (refused.status, refused.code) == (404, "NOT_FOUND")
    await shop.until_there(0)
    await shop.site.until(lambda: shop.site.count("payment_methods") == 0, "the rows of removed methods leave")


async def detached_at_stripe(shop: Shop) -> None:
    method = await shop.saved("tok_visa", isDefault=True)
    (there,) = await shop.kept_there()
    assert method["isDefault"] and there not in str(method)
    await shop.at_stripe("POST", f"/v1/payment_methods/{there}/detach")
    await shop.until(PATH, lambda data: data == [])
    await shop.ordered("o-no-default")
    waiting = await shop.until("/api/v1/orders/o-no-default/payment", lambda data: data["amountMinor"] == 1250)
    assert (waiting["status"], waiting["transactions"]) == ("PENDING", [])
    await shop.saved("tok_jcb", isDefault=True)


def nothing_is_in_the_clear(shop: Shop) -> None:
    (kept,) = shop.site.rows("select length(secrets), brand from payment_service.payment_methods")
    assert kept[0] > 50 and kept[1] == "jcb"
    texts = {}
    for table in TABLES:
        rows = str(shop.site.rows(f"select t::text from payment_service.{table} t"))
        raw = "\n".join(bytes.fromhex(one).decode("latin-1") for one in re.findall(r"\\\\x((?:[0-9a-f]{2})+)", rows))
        texts[table] = f"{rows}\n{raw}"
    assert "payment_method_id" in texts["payment_events"], "bytes are looked into"
    assert {table: SECRETS.findall(text) for table, text in texts.items() if SECRETS.search(text)} == {}
