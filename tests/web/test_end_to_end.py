"""HTTP to the store and back: the site over the desk, the memory store and the mock provider. Nothing is patched."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from rigs.counted import CountedMetrics
from rigs.web_site import RULES, SERVICE_TOKEN, services_with

from payment_service.adapters.clock import SystemClock
from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.providers import find_providers
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.payment_desk import DeskRules, PaymentDesk
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.web.site import build_site
from payment_service.web.tokens import issue_token

Client = TestClient[web.Request, web.Application]
SERVICE = {"X-Internal-Token": SERVICE_TOKEN}
WORKER = "test"
LEASE_S = 5.0


def token_of(user_id: str, *roles: str) -> dict[str, str]:
    token = issue_token(RULES, user_id, roles, now_ms=SystemClock().now_ms())
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    clock, metrics, store = SystemClock(), CountedMetrics(), MemoryPaymentStore()
    settings = SimpleNamespace(
        mock_settle_ms=5000, mock_latency_ms=0, public_url=None, port=3005, mock_provider_url=None
    )  # fmt: skip
    providers = {"MOCK": find_providers()["MOCK"].build(settings, clock, lambda: None)}
    execute = Execute(store, clock, WORKER, LEASE_S)
    effects = Effects(execute, store, providers, clock, metrics, WORKER, LEASE_S, 4.0, 3_600_000, 100)
    execute.on_scheduled = effects.wake
    rules = DeskRules("MOCK", 0.3, False, frozenset({"owner", "service"}))
    desk = PaymentDesk(execute, effects, store, providers, clock, rules)
    running = asyncio.create_task(effects.run())
    try:
        async with TestClient(TestServer(build_site(services_with(desk, clock=clock, metrics=metrics)))) as opened:
            yield opened
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def post(client: Client, path: str, headers: dict[str, str], **body: Any) -> tuple[int, Any]:
    answer = await client.post(f"/api/v1{path}", json=body, headers=headers)
    envelope = await answer.json()
    return answer.status, envelope["data"] if envelope["success"] else envelope


async def get(client: Client, path: str, headers: dict[str, str]) -> tuple[int, Any]:
    answer = await client.get(f"/api/v1{path}", headers=headers)
    envelope = await answer.json()
    return answer.status, envelope["data"] if envelope["success"] else envelope


async def test_a_payment_from_creation_to_refund(client: Client) -> None:
    ann, bob = token_of("ann"), token_of("bob")
    status, payment = await post(client, "/payments", ann, orderId="o1", amount=99.99)
    assert (status, payment["status"]) == (201, "PENDING")
    path = f"/payments/{payment['id']}"
    assert (await post(client, "/payments", ann, orderId="o1", amount="99.99"))[0] == 200
    assert (await post(client, "/payments", ann, orderId="o1", amount=1))[1]["code"] == "PAYMENT_EXISTS"
    assert (await post(client, "/payments", SERVICE, orderId="o2", amount=1))[1]["code"] == "FORBIDDEN"
    assert (await post(client, f"{path}/process", bob))[1]["code"] == "PAYMENT_NOT_FOUND"

    status, envelope = await post(client, f"{path}/process", ann, paymentMethodId="tok_chargeDeclined")
    assert (status, envelope["code"]) == (402, "CARD_DECLINED")
    assert envelope["declineCode"]
    status, payment = await post(client, f"{path}/process", ann, paymentMethodId="tok_visa")
    assert (status, payment["status"], payment["amounts"]["captured"]) == (200, "SUCCEEDED", 9999)

    status, data = await post(client, f"{path}/refund", ann, amount=10.5, reason="broken")
    assert (status, data["refund"]["status"], data["payment"]["status"]) == (200, "COMPLETED", "PARTIALLY_REFUNDED")
    assert (await post(client, f"{path}/refund", ann, amount=90))[1]["code"] == "REFUND_EXCEEDS"
    status, refund = await post(client, "/refunds", SERVICE, paymentId=payment["id"])
    assert (status, refund["amountMinor"]) == (200, 9999 - 1050)

    _, payment = await get(client, "/orders/o1/payment", ann)
    assert payment["status"] == "REFUNDED"
    assert [(t["type"], t["status"]) for t in payment["transactions"]] == [
        ("CHARGE", "FAILED"), ("CHARGE", "SUCCEEDED"), ("REFUND", "SUCCEEDED"), ("REFUND", "SUCCEEDED"),
    ]  # fmt: skip
    _, timeline = await get(client, f"{path}/timeline", ann)
    assert [row["version"] for row in timeline] == list(range(1, payment["version"] + 1))
    published = [row["sequence"] for row in timeline if row["sequence"] is not None]
    assert published == list(range(1, len(published) + 1))
    assert (await get(client, "/payments", ann))[1]["total"] == 1
    assert (await get(client, "/payments", bob))[1]["total"] == 0
    assert (await get(client, "/payments?userId=ann", token_of("root", "admin")))[1]["total"] == 1


async def test_outcomes_that_are_not_known_yet(client: Client) -> None:
    ann = token_of("ann")
    _, payment = await post(client, "/payments", ann, orderId="o1", amount=5)
    status, payment = await post(client, f"/payments/{payment['id']}/process", ann, paymentMethodId="tok_pending")
    assert (status, payment["status"]) == (202, "PROCESSING")
    _, payment = await post(client, "/payments", ann, orderId="o2", amount=5)
    status, payment = await post(client, f"/payments/{payment['id']}/process", ann, paymentMethodId="tok_threeDSecure")
    assert (status, payment["status"], payment["nextAction"]["type"]) == (200, "REQUIRES_ACTION", "redirect")
    status, payment = await post(client, f"/payments/{payment['id']}/cancel", ann)
    assert (status, payment["status"], payment["nextAction"]) == (200, "CANCELLED", None)


async def test_authorize_then_capture_a_part(client: Client) -> None:
    ann = token_of("ann")
    _, payment = await post(client, "/payments", ann, orderId="o1", amount=5, captureMethod="manual")
    path = f"/payments/{payment['id']}"
    status, payment = await post(client, f"{path}/process", ann, paymentMethodId="tok_visa")
    assert (status, payment["status"]) == (200, "AUTHORIZED")
    status, payment = await post(client, f"{path}/capture", ann, amount="2.50")
    assert (status, payment["status"], payment["amounts"]["captured"]) == (200, "SUCCEEDED", 250)
