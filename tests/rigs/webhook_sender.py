"""A provider's signed events, sent to whole workers, and the payments they are about."""

import asyncio
import json
import time
from typing import Any

import aiohttp
from rigs.worker import Installation, Worker

from payment_service.adapters.providers.mock import object_id_of
from payment_service.adapters.providers.mock_webhooks import signature_of
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import ProviderCall
from payment_service.core.terms import CaptureMethod, Kind

SECRET = "whsec_of_these_tests"
ENV = {"MOCK_WEBHOOK_SECRET": SECRET, "MOCK_SETTLE_MS": "86400000"}
"""tok_pending stays open: what settles it is a webhook."""
USER = "user-1"
JOINED_S = 12.0
"""The sweep looks every 5 s."""
LEASE_S = 60.0


def object_of(order_id: str) -> str:
    """The provider object that the first attempt of an order makes."""
    payment_id = payment_id_of(order_id)
    call = ProviderCall(
        "", Kind.CHARGE, 1, payment_id, order_id, "MOCK", 9999, "USD", CaptureMethod.AUTOMATIC,
        object_key=f"{payment_id}:object:1",
    )  # fmt: skip
    return object_id_of(call)


def event(event_id: str, kind: str, order_id: str, **data: Any) -> bytes:
    charge_id = object_of(order_id).replace("mock_pi_", "mock_ch_")
    fields = {
        "payment_id": payment_id_of(order_id), "object_id": object_of(order_id), "provider_id": charge_id,
        "amount_minor": 9999, "currency": "USD", **data,
    }  # fmt: skip
    return json.dumps({"id": event_id, "type": kind, "created": int(time.time()), "data": fields}).encode()


async def send(worker: Worker, body: bytes, *, age_s: int = 0, secret: str = SECRET) -> int:
    headers = {"Mock-Signature": signature_of(secret, body, int(time.time()) - age_s)}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.post(f"{worker.url}/api/v1/webhooks", data=body, headers=headers) as answer,
    ):
        return answer.status


async def pay(worker: Worker, order_id: str, token: str = "tok_pending") -> None:
    body = {"orderId": order_id, "amount": 99.99, "currency": "USD"}
    made = await worker.call("POST", "/api/v1/payments", body, user=USER)
    assert made.status == 201, made
    path = f"/api/v1/payments/{made.data['id']}"
    assert (await worker.call("POST", f"{path}/process", {"paymentMethodId": token}, user=USER)).status in (200, 202)
    deadline = time.monotonic() + JOINED_S
    while (now := (await worker.call("GET", path, user=USER)).data)["providerPaymentId"] != object_of(order_id):
        assert time.monotonic() < deadline, now
        await asyncio.sleep(0.02)


def status(site: Installation, order_id: str) -> str:
    rows = site.rows(f"select status from payment_service.payments where order_id = '{order_id}'")
    return str(rows[0][0]) if rows else "none"


def webhooks(site: Installation) -> dict[str, tuple[str, str]]:
    rows = site.rows("select event_id, status, reason from payment_service.payment_webhooks")
    return {event_id: (word, reason) for event_id, word, reason in rows}
