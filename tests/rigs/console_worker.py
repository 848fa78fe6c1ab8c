"""A real worker with something of everything to look at: payments in many states, a dead letter, a parked webhook."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigs.console_site import EVIL
from rigs.worker import Installation, Message, Worker

from payment_service.adapters.providers.mock_webhooks import signature_of
from payment_service.core.ids import payment_id_of

WEBHOOK_SECRET = "whsec_of_this_console"
SHOPPER = "shopper-7"
AMOUNTS = {"paid": 99.99, "declined": 12.5, "waiting": 1499, "refunded": 250.25, "new": 7, "unknown": 80, "held": 320}
TOKENS = {"paid": "tok_visa", "declined": "tok_chargeDeclinedInsufficientFunds", "waiting": "tok_threeDSecure",
          "refunded": "tok_visa", "unknown": "tok_timeout", "held": "tok_visa"}  # fmt: skip
FILLERS = 30


@dataclass
class ConsoleWorker:
    site: Installation
    worker: Worker

    def id(self, order: str) -> str:
        return payment_id_of(order)

    async def shopper(self, method: str, path: str, body: Any = None) -> Any:
        return await self.worker.call(method, f"/api/v1{path}", body, user=SHOPPER)

    async def seed(self) -> None:
        for order, amount in AMOUNTS.items():
            body: dict[str, Any] = {"orderId": order, "amount": amount, "currency": "USD"}
            body |= {"description": f"Two mugs {EVIL}", "metadata": {"basket": EVIL}}
            if order == "held":
                body["captureMethod"] = "manual"
            await self.shopper("POST", "/payments", body)
        processing = [
            self.shopper("POST", f"/payments/{self.id(order)}/process", {"paymentMethodId": token})
            for order, token in TOKENS.items()
        ]
        await asyncio.gather(*processing)
        for amount, reason in ((10, "damaged"), (None, f"lost {EVIL}")):
            body = {"reason": reason} | ({"amount": amount} if amount else {})
            await self.shopper("POST", f"/payments/{self.id('refunded')}/refund", body)
        for number in range(FILLERS):
            await self.shopper("POST", "/payments", {"orderId": f"filler-{number}", "amount": number + 1})
        await self.site.produce(Message(b'{"type": "order.created", "orderId": "o-bad", "email": "ann@shop.test"}', 0))
        await self.parked("evt_early", "no-such-order")
        await self.site.until(lambda: self.site.count("payment_webhooks") == 1, "the webhook is kept")

    async def parked(self, event_id: str, order: str) -> None:
        """A provider event about a payment that is not there yet."""
        body = {
            "id": event_id, "type": "charge.succeeded", "created": int(time.time()),
            "data": {"payment_id": payment_id_of(order), "object_id": f"mock_pi_{EVIL}", "amount_minor": 100,
                     "currency": "USD", "provider_id": "mock_ch_early"},
        }  # fmt: skip
        raw = json.dumps(body).encode()
        signature = signature_of(WEBHOOK_SECRET, raw, int(time.time()))
        session = self.worker._session
        headers = {"Mock-Signature": signature, "Content-Type": "application/json"}
        async with session.post(f"{self.worker.url}/api/v1/webhooks/mock", data=raw, headers=headers) as response:
            assert response.status == 200, await response.text()


@asynccontextmanager
async def console_worker(folder: Path, broker: str, database_url: str, **env: str) -> AsyncIterator[ConsoleWorker]:
    settings = {
        "REFUND_ROLES": "admin,owner", "MOCK_WEBHOOK_SECRET": WEBHOOK_SECRET, "PROVIDER_DEADLINE_S": "2",
        "LEASE_S": "4", "PROCESS_WAIT_S": "4", **env,
    }  # fmt: skip
    async with Installation(folder, broker, database_url, **settings) as site:
        await site.make_order_topic()
        worker = await site.started()
        await worker.streaming()
        opened = ConsoleWorker(site, worker)
        await opened.seed()
        yield opened
