"""Every route of the site on the real use cases, over memory and the mock provider: for what is true of all of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from rigs.counted import CountedMetrics
from rigs.method_rig import Rig, method_rig
from rigs.settable_clock import SettableClock
from rigs.web_site import ANN, NOW_S, Client, ask, opened, services_with

from payment_service.adapters.providers.mock_webhooks import MockWebhooks, signature_of
from payment_service.core.audit import AuditEntry
from payment_service.core.ids import payment_id_of
from payment_service.core.use_cases.receive_webhook import WebhookInbox
from payment_service.core.webhooks import ReceivedWebhook
from payment_service.web.rate_limits import Quota, Windows
from payment_service.web.webhook_gate import QUOTA, WINDOW_S, WebhookGate

WEBHOOK_SECRET = "whsec_of_this_test"
VISA = {"type": "card", "provider": "mock", "token": "tok_visa"}


@dataclass
class WebhooksInAList:
    """A WebhookLog."""

    kept: list[ReceivedWebhook] = field(default_factory=list)

    async def append(self, webhook: ReceivedWebhook) -> str:
        self.kept.append(webhook)
        return "kafka"


@dataclass
class WholeSite:
    rig: Rig
    client: Client
    audited: list[AuditEntry]
    webhooks: WebhooksInAList
    clock: SettableClock
    metrics: CountedMetrics

    async def ask(self, method: str, path: str, body: Any = None, who: Any = ANN, **headers: str) -> tuple[int, Any]:
        return await ask(self.client, method, path, body, **{**who, **headers})

    async def created(self, order_id: str, who: Any = ANN, **fields: Any) -> str:
        """The path of a new payment of 99.99 USD."""
        body = {"orderId": order_id, "amount": 99.99, **fields}
        status, envelope = await self.ask("POST", "/api/v1/payments", body, who)
        assert status == 201, envelope
        return f"/api/v1/payments/{payment_id_of(order_id)}"

    async def charged(self, order_id: str, **fields: Any) -> str:
        path = await self.created(order_id, **fields)
        status, envelope = await self.ask("POST", f"{path}/process", {"paymentMethodId": "tok_visa"})
        assert status == 200, envelope
        return path

    async def saved(self, who: Any = ANN) -> str:
        """The path of a saved method."""
        status, envelope = await self.ask("POST", "/api/v1/payment-methods", VISA, who)
        assert status in (200, 201), envelope
        return f"/api/v1/payment-methods/{envelope['data']['id']}"

    async def now(self, path: str) -> Any:
        return (await self.ask("GET", path))[1]["data"]


def signed(body: bytes, at_s: float = NOW_S, secret: str = WEBHOOK_SECRET) -> dict[str, str]:
    return {"Mock-Signature": signature_of(secret, body, int(at_s))}


@asynccontextmanager
async def whole_site(**more: Any) -> AsyncIterator[WholeSite]:
    """`more`: fields of WebServices."""
    clock, metrics, kept, audited = SettableClock(NOW_S), CountedMetrics(), WebhooksInAList(), list[AuditEntry]()
    inbox = WebhookInbox({"MOCK": MockWebhooks(WEBHOOK_SECRET)}, kept, clock, metrics)
    gate = WebhookGate(inbox, Windows(Quota(QUOTA, 1000, WINDOW_S)), clock)
    async with method_rig() as rig:
        fields = {
            "methods": rig.methods, "keys": rig.store.keys, "audit": audited.append, "webhooks": gate,
            "table_row": lambda payment_id: {"id": payment_id}, "approve_mock": rig.provider.approve, **more,
        }  # fmt: skip
        client = await opened(services_with(rig.desk, clock=clock, metrics=metrics, **fields))
        try:
            yield WholeSite(rig, client, audited, kept, clock, metrics)
        finally:
            await client.close()
