"""Points 1-5 of the security check-list: card data, secrets in logs, forged lines, other people's payments.

PCI DSS 4.0.1 (P), OWASP API Security 2023 (A), ASVS 5.0 (V).
"""

import io
import json
import logging
from typing import Any

import pytest
from rigs.keyed_site import VISA, shop_on
from rigs.log_lines import logged
from rigs.web_site import ANN, BOB, RULES, bearer, failing_with, opened, services_with
from rigs.whole_site import whole_site
from servers.postgres import execute

from payment_service.adapters.metrics import PrometheusMetrics
from payment_service.core.ids import payment_id_of
from payment_service.web.api_calls import CALLS
from payment_service.web.tokens import issue_token

PANS = ("4242424242424242", "4242 4242 4242 4242", "378282246310005", "5555-5555-5555-4444", "6011111111111117")
WITH_BODY = [call for call in CALLS if call.body is not None and "/webhooks" not in call.path]
ORDER = "order-1"


def path_of(call: Any, method_path: str = "/api/v1/payment-methods/pmt_0") -> str:
    path: str = call.path.replace("{payment_id}", payment_id_of(ORDER)).replace("{order_id}", ORDER)
    return path.replace("/api/v1/payment-methods/{method_id}", method_path).replace("{provider}", "mock")


@pytest.fixture
def log_lines() -> io.StringIO:
    return logged("DEBUG")


@pytest.mark.parametrize("call", WITH_BODY, ids=lambda call: call.path)
async def test_01_card_numbers_are_refused(call: Any) -> None:
    """P 3.3.1, 3.5.1: on every route with a body, in any field, neither stored nor echoed."""
    async with whole_site() as site:
        path = await site.created(ORDER)
        before = await site.now(f"{path}/timeline")
        for pan in PANS:
            for body in (
                {"metadata": {"deep": [{"note": f"my card is {pan}."}]}}, {"description": pan}, {"reason": pan},
                {"surprise": int(pan) if pan.isdigit() else pan}, {f"n{pan}": 1}, {"cvc": "123"}, {"track2": "x"},
                {"card": {"CVV": 123}},
            ):  # fmt: skip
                full = {"orderId": "order-2", "amount": 1, "paymentId": payment_id_of(ORDER), **body}
                status, envelope = await site.ask(call.method.upper(), path_of(call), full)
                assert (status, envelope["code"]) == (422, "VALIDATION_ERROR"), (body, envelope)
                assert pan not in json.dumps(envelope)
        assert await site.now(f"{path}/timeline") == before
        assert (await site.now("/api/v1/payments"))["total"] == 1


async def test_01_a_card_number_is_no_token() -> None:
    async with whole_site() as site:
        body = {"type": "card", "provider": "mock", "token": PANS[0]}
        status, envelope = await site.ask("POST", "/api/v1/payment-methods", body)
        assert status == 422 and PANS[0] not in json.dumps(envelope)
        assert await site.rig.kept.listed("user-1") == []


async def test_02_the_database_holds_no_token_in_the_clear(database_url: str) -> None:
    """P 3.2.1, 3.4.1: every row of every table after payments, keys and refunds, text and bytes alike."""
    async with shop_on(database_url) as shop:
        path = await shop.created("o1", metadata={"note": "shown"})
        assert (await shop.a.post(f"{path}/process", VISA, key="k-charge")).status == 200
        assert (await shop.a.post(f"{path}/refund", {"amount": 1}, key="k-refund")).status == 200
        other = await shop.created("o2")
        assert (await shop.a.post(f"{other}/process", {"paymentMethodId": "tok_3ds"}, key="k-3ds")).status == 200
    tables = [
        name
        for (name,) in execute(
            database_url,
            "select table_name from information_schema.tables where table_schema = 'payment_service'"
            " and table_type = 'BASE TABLE'",
        )
    ]
    dump = "\n".join(
        str(row)
        for table in tables
        for (row,) in execute(database_url, f"select t::text from payment_service.{table} t")
    )
    assert {"payments", "payment_events", "inbox", "outbox"} <= set(tables)
    assert "shown" in dump or b"shown".hex() in dump, "the dump shows what is in the clear"
    for secret in ("tok_visa", "tok_3ds", "https://bank.example/secret", "k-charge"):
        assert secret not in dump and secret.encode().hex() not in dump, secret


async def test_03_no_secret_is_logged_counted_or_answered(log_lines: io.StringIO) -> None:
    """V 16.2.5, 16.5.1: a library's exception quotes everything; line, metrics and answer have none of it."""
    token = bearer("user-1")["Authorization"]
    secrets = [token, "sk_live_0123456789abcdef", "pi_1_secret_0123456789abcdef", PANS[0], "tok_chargeable"]
    metrics = PrometheusMetrics()
    client = await opened(services_with(failing_with(RuntimeError(f"sent {' '.join(secrets)}")), metrics=metrics))
    try:
        body = {"orderId": "order-1", "amount": 1, "paymentMethodId": "tok_chargeable"}
        headers = {"Authorization": token, "Idempotency-Key": "tok_chargeable"}
        async with client.post("/api/v1/payments?token=tok_chargeable", json=body, headers=headers) as answer:
            assert answer.status == 500
            told = await answer.text() + str(answer.headers)
        async with client.post("/api/v1/payments", json={**body, "cvc": PANS[0]}, headers=headers) as answer:
            assert answer.status == 422
            told += await answer.text()
    finally:
        await client.close()
    lines = log_lines.getvalue()
    assert "request failed" in lines and '"event":"request"' in lines
    for place in (lines, told, metrics.text().decode()):
        assert not [secret for secret in (token[-40:], *secrets[1:]) if secret in place], place


async def test_04_no_input_forges_a_log_line(log_lines: io.StringIO) -> None:
    """V 16.4.1: each line is one JSON object, and none is the forged one."""
    forged = 'x\r\n{"event":"forged"}'
    async with whole_site() as site:
        for body in ({"orderId": forged, "amount": 1}, {"orderId": "order-9", "amount": 1, "description": forged}):
            await site.ask("POST", "/api/v1/payments", body)
        await site.ask("GET", "/api/v1/payments/x%0d%0a%7B%22event%22:%22forged%22%7D")
        await site.ask("GET", "/api/v1/payments", who=bearer(forged))
        logging.getLogger("some.library").warning("it said %s", forged)
    lines = log_lines.getvalue().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert len(events) >= 5 and "forged" not in events


ABOUT_ONE = [
    call
    for call in CALLS
    if call.path.startswith("/api/") and ("_id}" in call.path or "refunds" in call.path) and "method" not in call.path
]


@pytest.mark.parametrize("call", ABOUT_ONE, ids=lambda call: f"{call.method} {call.path}")
async def test_05_another_users_payment_does_not_exist(call: Any) -> None:
    """A 1: on every route about one, word for word as for a payment that is not there; and nothing happens to it."""
    async with whole_site() as site:
        path = await site.charged(ORDER)
        before = await site.now(path)
        body = {"paymentId": payment_id_of(ORDER)} if call.path.endswith("/refunds") else {} if call.body else None
        theirs = await site.ask(call.method.upper(), path_of(call), body, BOB)
        nobodys = await site.ask(
            call.method.upper(), path_of(call).replace(payment_id_of(ORDER), "pay_0").replace(ORDER, "order-0"),
            {"paymentId": "pay_0"} if body and "paymentId" in body else body, BOB,
        )  # fmt: skip
        assert theirs[0] == nobodys[0] == 404
        assert theirs[1]["code"] == nobodys[1]["code"] == "PAYMENT_NOT_FOUND"
        assert theirs[1]["message"] == nobodys[1]["message"]
        assert await site.now(path) == before


async def test_05_another_users_method_and_list_do_not_exist() -> None:
    async with whole_site() as site:
        await site.charged(ORDER)
        method = await site.saved()
        assert (await site.ask("GET", "/api/v1/payment-methods", who=BOB))[1]["data"] == []
        assert (await site.ask("DELETE", method, who=BOB))[0] == 404
        assert (await site.ask("PUT", f"{method}/default", who=BOB))[0] == 404
        for query in ("", "?userId=user-1"):
            assert (await site.ask("GET", f"/api/v1/payments{query}", who=BOB))[1]["data"]["payments"] == []
        assert len((await site.ask("GET", "/api/v1/payment-methods"))[1]["data"]) == 1
        # Nor does somebody else's saved method pay.
        other = await site.created("order-2", BOB)
        name = method.rpartition("/")[2]
        status, envelope = await site.ask("POST", f"{other}/process", {"paymentMethodId": name}, BOB)
        assert (status, envelope["code"]) == (404, "NOT_FOUND")


async def test_05_a_role_is_in_the_signed_token_alone() -> None:
    async with whole_site() as site:
        path = await site.charged(ORDER)
        forged = {**BOB, "X-Roles": "admin", "X-User-Id": "user-1", "roles": "admin"}
        assert (await site.ask("GET", f"{path}?roles=admin&userId=user-1", who=forged))[0] == 404
        admin = issue_token(RULES, "user-2", ["admin"], now_ms=site.clock.now_ms())
        assert (await site.ask("GET", path, who={"Authorization": f"Bearer {admin}"}))[0] == 200
        assert (await site.ask("GET", path, who=ANN))[0] == 200
