"""Payments and refunds over HTTP: what is asked of PaymentRequests, and what is shown of its answers."""

from dataclasses import replace
from typing import Any

import pytest
from rigs.web_site import (
    ADMIN,
    ANN,
    AT,
    ID,
    NOW_S,
    PATH,
    SERVICE,
    Client,
    RecordedRequests,
    a_payment,
    a_refund,
    ask,
)

from payment_service.core import events as e
from payment_service.core.errors import Unavailable
from payment_service.core.payment import Attempt
from payment_service.core.ports import NextAction, PaymentFilter, StoredEvent
from payment_service.core.terms import AttemptState, CaptureMethod, Kind, Source
from payment_service.core.use_cases.payment_requests import Answered, Caller

CREATE = {"orderId": "order-1", "amount": 99.99}


# --- creation --------------------------------------------------------------------------------------------------


async def test_create(client: Client, requests: RecordedRequests) -> None:
    status, envelope = await ask(client, "POST", "/api/v1/payments", CREATE, **ANN)
    assert status == 201
    assert envelope["data"] == {
        "id": ID, "orderId": "order-1", "userId": "user-1", "status": "PENDING", "paymentProvider": "MOCK",
        "paymentMethodId": None, "amount": 99.99, "amountMinor": 9999, "currency": "USD",
        "amounts": {"authorized": 0, "captured": 0, "refundPending": 0, "refunded": 0, "disputed": 0},
        "description": None, "metadata": {}, "cancelRequested": False, "disputed": False, "needsReview": False,
        "unconfirmed": False, "nextAction": None, "failure": None, "providerPaymentId": None, "version": 1,
        "createdAt": AT, "updatedAt": AT, "processedAt": None,
    }  # fmt: skip
    assert requests.calls == [
        (
            "create",
            Caller("user-1"),
            (),
            {
                "order_id": "order-1", "amount": 99.99, "currency": "USD", "provider": None, "method": None,
                "capture_method": CaptureMethod.AUTOMATIC, "description": None, "metadata": {},
            },
        )
    ]  # fmt: skip


async def test_create_with_everything(client: Client, requests: RecordedRequests) -> None:
    body = {
        "orderId": "o/2 ü", "amount": "12.50", "currency": "USD", "provider": "stripe", "paymentMethodId": "tok_visa",
        "description": "a\nb", "captureMethod": "manual", "metadata": {"a": [1, {"b": None}], "text": "back\\\\u0000"},
    }  # fmt: skip
    status, _ = await ask(client, "POST", "/api/v1/payments", body, **ANN)
    assert status == 201
    assert requests.calls[0][3] == {
        "order_id": "o/2 ü", "amount": "12.50", "currency": "USD", "provider": "STRIPE", "method": "tok_visa",
        "capture_method": CaptureMethod.MANUAL, "description": "a\nb", "metadata": body["metadata"],
    }  # fmt: skip


async def test_create_again_is_200_and_lost_is_202(
    client: Client, requests: RecordedRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [Answered(a_payment()), Answered(a_payment(), pending=True)]

    async def create(caller: Caller, **fields: Any) -> Answered:
        return answers.pop(0)

    monkeypatch.setattr(requests, "create", create)
    assert (await ask(client, "POST", "/api/v1/payments", CREATE, **ANN))[0] == 200
    assert (await ask(client, "POST", "/api/v1/payments", CREATE, **ANN))[0] == 202


def deep(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return {"a": value}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"orderId": ""}, "orderId"),
        ({"orderId": "x" * 129}, "orderId"),
        ({"orderId": "a\nb"}, "orderId"),
        ({"orderId": 7}, "orderId"),
        ({"orderId": None}, "orderId"),
        ({"amount": None}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"amount": 1.005}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": [1]}, "amount"),
        ({"amount": 10**30}, "amount"),
        ({"currency": 840}, "currency"),
        ({"currency": "x" * 9}, "currency"),
        ({"provider": "a b"}, "provider"),
        ({"provider": 1}, "provider"),
        ({"captureMethod": "later"}, "captureMethod"),
        ({"paymentMethodId": ""}, "paymentMethodId"),
        ({"description": "x" * 501}, "description"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {str(n): 1 for n in range(51)}}, "metadata"),
        ({"metadata": {"a": "x" * 8192}}, "metadata"),
        ({"metadata": deep(17)}, "metadata"),
        ({"metadata": deep(900)}, "metadata"),
        ({"order_id": "x"}, "order_id"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_create_refuses(client: Client, change: dict[str, Any], field: str) -> None:
    status, envelope = await ask(client, "POST", "/api/v1/payments", {**CREATE, **change}, **ANN)
    assert (status, envelope["code"]) == (422, "VALIDATION_ERROR")
    assert list(envelope["errors"]) == [field]
    assert all(isinstance(text, str) for text in envelope["errors"][field])


async def test_missing_fields_and_values_are_not_echoed(client: Client) -> None:
    _, envelope = await ask(client, "POST", "/api/v1/payments", {"currency": 4242424242424242}, **ANN)
    assert set(envelope["errors"]) == {"orderId", "amount", "currency"}
    assert "4242" not in str(envelope)
    many = {f"field{n}": n for n in range(100)}
    assert len((await ask(client, "POST", "/api/v1/payments", many, **ANN))[1]["errors"]) == 20


# --- one payment -----------------------------------------------------------------------------------------------

DECLINED = Attempt(
    1, Kind.CHARGE, 9999, AttemptState.DECLINED, "MOCK", False, int(NOW_S * 1000), int(NOW_S * 1000),
    code="CARD_DECLINED", message="Your card was declined.", decline_code="insufficient_funds",
)  # fmt: skip


async def test_process(client: Client, requests: RecordedRequests) -> None:
    body = {
        "paymentMethodId": "tok_visa", "paymentIntentId": "pi_1", "returnUrl": "https://shop.test/x?y=1", "old": [1],
    }  # fmt: skip
    assert (await ask(client, "POST", f"{PATH}/process", body, **ANN))[0] == 200
    assert requests.calls[0][3] == {
        "method": "tok_visa", "object_id": "pi_1", "return_url": "https://shop.test/x?y=1",
    }  # fmt: skip
    assert (await ask(client, "POST", f"{PATH}/process", b"", **ANN))[0] == 200
    assert requests.calls[1][3] == {"method": None, "object_id": None, "return_url": None}


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//x", "ftp://x/", "https://", "https://[", "x" * 3000, 5])
async def test_return_urls_lead_to_web_pages(client: Client, url: Any) -> None:
    status, envelope = await ask(client, "POST", f"{PATH}/process", {"returnUrl": url}, **ANN)
    assert (status, list(envelope["errors"])) == (422, ["returnUrl"])


@pytest.mark.parametrize("call", ["process", "capture"])
async def test_what_the_provider_said_of_a_call(client: Client, requests: RecordedRequests, call: str) -> None:
    payment = a_payment(attempts=(DECLINED,))
    requests.answer = Answered(payment, declined=DECLINED)
    status, envelope = await ask(client, "POST", f"{PATH}/{call}", {}, **ANN)
    assert status == 402
    assert (envelope["code"], envelope["declineCode"]) == ("CARD_DECLINED", "insufficient_funds")
    assert envelope["message"] == "Your card was declined."

    requests.answer = Answered(a_payment(attempts=(replace(DECLINED, state=AttemptState.OPEN),)), pending=True)
    status, envelope = await ask(client, "POST", f"{PATH}/{call}", {}, **ANN)
    assert (status, envelope["data"]["status"]) == (202, "PROCESSING")

    action = NextAction("redirect", url="https://bank.test/3ds")
    requests.answer = Answered(a_payment(attempts=(replace(DECLINED, state=AttemptState.ACTION),)), next_action=action)
    status, envelope = await ask(client, "POST", f"{PATH}/{call}", {}, **ANN)
    assert (status, envelope["data"]["status"]) == (200, "REQUIRES_ACTION")
    assert envelope["data"]["nextAction"] == {"type": "redirect", "url": "https://bank.test/3ds"}

    requests.error = Unavailable("away", code="PROVIDER_UNAVAILABLE", retry_after_s=5)
    answer = await client.post(f"{PATH}/{call}", headers=ANN)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


async def test_capture_cancel_and_refund_pass_on_what_was_asked(client: Client, requests: RecordedRequests) -> None:
    await ask(client, "POST", f"{PATH}/capture", {"amount": "1.50"}, **ANN)
    await ask(client, "POST", f"{PATH}/cancel", {"reason": "changed my mind"}, **ANN)
    _, envelope = await ask(
        client, "POST", f"{PATH}/refund", {"amount": 10, "reason": "r", "metadata": {"a": 1}}, **ANN
    )
    assert [(name, args, fields) for name, _, args, fields in requests.calls] == [
        ("capture", (ID,), {"amount": "1.50"}),
        ("cancel", (ID,), {"reason": "changed my mind"}),
        ("refund", (ID,), {"amount": 10, "reason": "r", "metadata": {"a": 1}}),
    ]
    refund = {
        "id": f"ref_{ID.removeprefix('pay_')}_1", "paymentId": ID, "status": "COMPLETED", "amount": 10.0,
        "amountMinor": 1000, "currency": "USD", "reason": "broken", "createdAt": AT,
    }  # fmt: skip
    assert set(envelope["data"]) == {"refund", "payment"}
    assert envelope["data"]["refund"] == refund
    assert envelope["data"]["payment"]["id"] == ID
    _, envelope = await ask(client, "POST", "/api/v1/refunds", {"paymentId": ID}, **SERVICE)
    assert envelope["data"] == refund
    assert requests.calls[-1][1:] == (
        Caller(None, frozenset({"service"})), (ID,), {"amount": None, "reason": None, "metadata": {}},
    )  # fmt: skip
    for path in (f"{PATH}/refund", f"{PATH}/cancel"):
        status, envelope = await ask(client, "POST", path, {"reason": "x" * 256}, **ANN)
        assert (status, list(envelope["errors"])) == (422, ["reason"])


async def test_get_shows_transactions_and_refunds(client: Client, requests: RecordedRequests) -> None:
    late = int(NOW_S * 1000) + 1
    own, beside = a_refund(), replace(a_refund(500), number=2, by="provider")
    own = replace(own, created_at_ms=late)
    requests.answer = Answered(a_payment(attempts=(DECLINED,), refunds=(own, beside)))
    for path in (PATH, f"{PATH}?sync=true", "/api/v1/orders/order-1/payment"):
        _, envelope = await ask(client, "GET", path, **ANN)
        data = envelope["data"]
        assert data["status"] == "FAILED"
        assert data["failure"] == {
            "code": "CARD_DECLINED", "message": "Your card was declined.", "declineCode": "insufficient_funds",
        }  # fmt: skip
        assert [(one["type"], one["status"]) for one in data["transactions"]] == [
            ("CHARGE", "FAILED"),
            ("REFUND", "SUCCEEDED"),
        ]
        assert [refund["amountMinor"] for refund in data["refunds"]] == [1000, 500]


async def test_timeline(client: Client, requests: RecordedRequests) -> None:
    at_ms = int(NOW_S * 1000)
    stored = [
        e.OrderConfirmed(at_ms, "order", "user-1", 9999, "USD", "MOCK", None, False),
        e.ActionRequired(at_ms, 1, "redirect", at_ms + 1000),
        e.AttemptDeclined(at_ms, 1, Source.WEBHOOK, "CARD_DECLINED", "no", "lost_card"),
        e.PaymentCancelled(at_ms, "user:user-1", "too late", False),
    ]
    requests.events = [
        StoredEvent(n, n if n == 3 else None, at_ms, type(event).__name__, event) for n, event in enumerate(stored, 1)
    ]
    _, envelope = await ask(client, "GET", f"{PATH}/timeline", **ANN)
    assert envelope["data"] == [
        {
            "version": 1, "sequence": None, "type": "order_confirmed", "timestamp": AT, "by": "order", "source": None,
            "reason": None, "details": {
                "userId": "user-1", "amountMinor": 9999, "currency": "USD", "provider": "MOCK", "changed": False,
            },
        },
        {
            "version": 2, "sequence": None, "type": "action_required", "timestamp": AT, "by": "provider",
            "source": None, "reason": None,
            "details": {"number": 1, "actionType": "redirect", "expiresAt": "2027-01-15T08:00:01.000Z"},
        },
        {
            "version": 3, "sequence": 3, "type": "attempt_declined", "timestamp": AT, "by": "provider",
            "source": "webhook", "reason": "CARD_DECLINED",
            "details": {"number": 1, "code": "CARD_DECLINED", "message": "no", "declineCode": "lost_card"},
        },
        {
            "version": 4, "sequence": None, "type": "payment_cancelled", "timestamp": AT, "by": "user:user-1",
            "source": None, "reason": "too late", "details": {"final": False},
        },
    ]  # fmt: skip


# --- the list --------------------------------------------------------------------------------------------------


async def test_list(client: Client, requests: RecordedRequests) -> None:
    _, envelope = await ask(client, "GET", "/api/v1/payments?status=&limit=", **ANN)
    assert requests.calls[0][2] == (PaymentFilter(),)
    data = envelope["data"]
    assert [payment["id"] for payment in data.pop("payments")] == [ID]
    assert data == {"total": 1, "totalCapped": False, "limit": 20, "offset": 0, "hasMore": False}
    query = (
        "status=succeeded&provider=mock&limit=100&offset=10000&sortBy=amount&sortOrder=ASC&startDate=2027-01-01"
        "&endDate=2027-01-31&minAmount=1.5&maxAmount=20&userId=bob"
    )
    await ask(client, "GET", f"/api/v1/payments?{query}", **ADMIN)
    assert requests.calls[1][2] == (
        PaymentFilter(
            "bob", "SUCCEEDED", "MOCK", 1_798_761_600_000, 1_801_439_999_999, 1.5, 20.0, "amount", False, 100, 10_000
        ),
    )
    await ask(client, "GET", "/api/v1/payments?startDate=2027-01-15T09:00:00%2B01:00&endDate=2027-01-15T08:00", **ANN)
    query_sent = requests.calls[2][2][0]
    assert query_sent.created_from_ms == query_sent.created_to_ms == int(NOW_S * 1000)


@pytest.mark.parametrize(
    "pair",
    ["status=DONE", "limit=0", "limit=101", "limit=x", "limit=1.5", "offset=-1", "offset=10001", "sortBy=userId",
     "sortOrder=up", "startDate=soon", "endDate=99999-01-01", "endDate=9999-12-31T23:59:59-12:00",
     "minAmount=-1", "minAmount=nan", "maxAmount=inf", "provider=a%20b", "userId=a%00b", "stauts=FAILED"],
)  # fmt: skip
async def test_list_refuses(client: Client, pair: str) -> None:
    status, envelope = await ask(client, "GET", f"/api/v1/payments?{pair}", **ANN)
    assert (status, list(envelope["errors"])) == (422, [pair.partition("=")[0]])


@pytest.mark.parametrize(("query", "asked"), [("", {}), ("?sync=false", {}), ("?sync=true", {"sync": True})])
async def test_the_provider_is_asked_first_when_that_is_wanted(
    client: Client, requests: RecordedRequests, query: str, asked: dict[str, Any]
) -> None:
    status, envelope = await ask(client, "GET", f"/api/v1/payments/{ID}{query}", **ANN)
    assert (status, envelope["data"]["id"]) == (200, ID)
    assert [call[3] for call in requests.calls] == [asked]
    status, envelope = await ask(client, "GET", f"/api/v1/payments/{ID}?sync=perhaps", **ANN)
    assert (status, envelope["code"], list(envelope["errors"])) == (422, "VALIDATION_ERROR", ["sync"])
