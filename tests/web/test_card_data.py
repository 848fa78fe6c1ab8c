"""A card number or security code is refused before anything is done with it, and never comes back."""

from typing import Any

import pytest
from rigs.web_site import ANN, ID, PATH, Client, RecordedRequests, ask

CARD = "4242 4242 4242 4242"
CREATE = {"orderId": "order-1", "amount": 99.99}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("/api/v1/payments", {**CREATE, "description": f"card {CARD}"}, "description"),
    ("/api/v1/payments", {**CREATE, "metadata": {"note": "5555-5555-5555-4444"}}, "metadata"),
    ("/api/v1/payments", {**CREATE, "metadata": {"n": [{"deep": 378282246310005}]}}, "metadata"),
    ("/api/v1/payments", {**CREATE, "metadata": {"cvc": "123"}}, "metadata"),
    ("/api/v1/payments", {**CREATE, "metadata": {"c-v-c": "123"}}, "metadata"),
    ("/api/v1/payments", {**CREATE, "4242424242424242": 1}, "body"),
    ("/api/v1/payments", {**CREATE, "cvv": "123"}, "cvv"),
    (f"{PATH}/process", {"cardNumber": "4242424242424242"}, "cardNumber"),
    (f"{PATH}/process", {"whatever": {"pan": "4242424242424242"}}, "whatever"),
    (f"{PATH}/cancel", {"reason": f"wrong card {CARD}"}, "reason"),
    (f"{PATH}/refund", {"reason": f"back to {CARD}"}, "reason"),
    ("/api/v1/refunds", {"paymentId": ID, "metadata": {"track1": "x"}}, "metadata"),
]


@pytest.mark.parametrize(("path", "body", "field"), BAD)
async def test_it_is_refused_by_field_and_not_echoed(
    client: Client, requests: RecordedRequests, path: str, body: dict[str, Any], field: str
) -> None:
    status, envelope = await ask(client, "POST", path, body, **ANN)
    assert (status, envelope["code"]) == (422, "VALIDATION_ERROR")
    assert list(envelope["errors"]) == [field]
    assert "4242" not in str(envelope) and "5555" not in str(envelope) and "378282" not in str(envelope)
    assert requests.calls == []


async def test_escapes_hide_nothing(client: Client, requests: RecordedRequests) -> None:
    body = b'{"orderId":"o","amount":1,"description":"\\u0034242\\u0034242\\u0034242\\u0034242"}'
    async with client.post(
        "/api/v1/payments", data=body, headers={**ANN, "Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 422
    assert requests.calls == []


async def test_ids_and_amounts_may_be_any_digits(client: Client) -> None:
    body = {"orderId": "4242424242424242", "amount": 99.99, "metadata": {"shelf": "1234567890123452"}}
    assert (await ask(client, "POST", "/api/v1/payments", body, **ANN))[0] in (200, 201)
