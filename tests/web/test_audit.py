"""What the site tells the audit log: every change that is asked for, every read that is denied, and nothing secret."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from rigs.web_site import (
    ADMIN,
    ANN,
    BOB,
    ID,
    NOW_S,
    PATH,
    SERVICE,
    Client,
    RecordedRequests,
    ask,
    opened,
    services_with,
)

from payment_service.core.audit import AuditEntry
from payment_service.core.errors import Unavailable
from payment_service.core.use_cases.payment_requests import Answered

CREATE = {"orderId": "order-1", "amount": 5, "currency": "USD"}


@pytest.fixture
def entries() -> list[AuditEntry]:
    return []


@pytest.fixture
async def client(requests: RecordedRequests, entries: list[AuditEntry]) -> AsyncIterator[Client]:
    client = await opened(services_with(requests, audit=entries.append))
    yield client
    await client.close()


def told(entries: list[AuditEntry]) -> list[tuple[str, str, str]]:
    return [(it.action, it.result, it.actor) for it in entries]


async def test_a_creation_names_the_order_and_who_from_where(client: Client, entries: list[AuditEntry]) -> None:
    await ask(client, "POST", "/api/v1/payments", CREATE, **ANN, **{"X-Request-ID": "r-1"})
    (entry,) = entries
    assert entry == AuditEntry(
        int(NOW_S * 1000), "payment.create", "OK", "user:user-1", frozenset(), "127.0.0.1", "r-1", order_id="order-1"
    )


async def test_every_change_is_told(client: Client, entries: list[AuditEntry]) -> None:
    for action in ("process", "capture", "cancel", "refund"):
        assert (await ask(client, "POST", f"{PATH}/{action}", {}, **ANN))[0] == 200
    await ask(client, "POST", "/api/v1/refunds", {"paymentId": ID}, **SERVICE)
    assert told(entries) == [
        *((f"payment.{action}", "OK", "user:user-1") for action in ("process", "capture", "cancel", "refund")),
        ("payment.refund", "OK", "service"),
    ]
    assert {it.payment_id for it in entries} == {ID}
    assert [bool(it.refund_id) for it in entries] == [False, False, False, True, True]


async def test_denied_and_failed_attempts_are_told_with_their_code(
    client: Client, requests: RecordedRequests, entries: list[AuditEntry]
) -> None:
    await ask(client, "POST", "/api/v1/payments", CREATE)
    await ask(client, "POST", "/api/v1/payments", CREATE | {"amount": -1}, **ANN)
    await ask(client, "POST", "/api/v1/payments", b"{", **ANN)
    await ask(client, "POST", f"{PATH}/cancel", {}, **BOB)
    requests.error = Unavailable("away")
    await ask(client, "POST", f"{PATH}/cancel", {}, **ADMIN)
    requests.error = RuntimeError("a bug")
    await ask(client, "POST", f"{PATH}/cancel", {}, **ANN)
    assert told(entries) == [
        ("payment.create", "UNAUTHORIZED", "anonymous"), ("payment.create", "VALIDATION_ERROR", "user:user-1"),
        ("payment.create", "MALFORMED_JSON", "user:user-1"), ("payment.cancel", "PAYMENT_NOT_FOUND", "user:user-2"),
        ("payment.cancel", "SERVICE_UNAVAILABLE", "user:root"), ("payment.cancel", "INTERNAL_ERROR", "user:user-1"),
    ]  # fmt: skip
    assert entries[4].roles == frozenset({"admin"})


async def test_an_outcome_that_is_not_known_yet_is_told_as_accepted(
    client: Client, requests: RecordedRequests, entries: list[AuditEntry]
) -> None:
    requests.answer = Answered(requests.answer.payment, pending=True)
    await ask(client, "POST", f"{PATH}/process", {}, **ANN)
    assert told(entries) == [("payment.process", "ACCEPTED", "user:user-1")]


async def test_reads_are_told_only_when_they_are_denied(client: Client, entries: list[AuditEntry]) -> None:
    await ask(client, "GET", PATH, **ANN)
    await ask(client, "GET", "/api/v1/payments", **ANN)
    await ask(client, "GET", "/nowhere", **ANN)
    await ask(client, "POST", "/nowhere", {}, **ANN)
    assert entries == []
    await ask(client, "GET", PATH, **BOB)
    await ask(client, "GET", "/api/v1/orders/order-1/payment")
    assert told(entries) == [
        ("payment.read", "PAYMENT_NOT_FOUND", "user:user-2"), ("payment.read", "UNAUTHORIZED", "anonymous"),
    ]  # fmt: skip
    assert (entries[0].payment_id, entries[1].order_id) == (ID, "order-1")


async def test_nothing_secret_is_told(client: Client, entries: list[AuditEntry]) -> None:
    token = "tok_very_secret"
    await ask(client, "POST", "/api/v1/payments", CREATE | {"paymentMethodId": token, "description": token}, **ANN)
    await ask(client, "POST", f"{PATH}/process?secret={token}", {"paymentMethodId": token}, **ANN)
    await ask(client, "POST", f"{PATH}/refund", {"reason": token}, **ANN)
    text = str(entries)
    assert len(entries) == 3
    assert token not in text
    assert ANN["Authorization"].removeprefix("Bearer ") not in text


async def test_a_caller_who_went_away_is_told(
    client: Client, requests: RecordedRequests, entries: list[AuditEntry]
) -> None:
    requests.error = asyncio.CancelledError()
    with pytest.raises(Exception):  # noqa: B017 - the connection ends, however this client words it
        await ask(client, "POST", f"{PATH}/cancel", {}, **ANN)
    assert told(entries) == [("payment.cancel", "GONE", "user:user-1")]
