"""The simulator's PayPal as PayPal documents itself: tokens, request ids, statuses, amounts, and kill -9."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from rigs.sim_paypal import PaypalAsker, payments
from servers.provider_sim import ProviderSim

ORDERS = "/v2/checkout/orders"
Make = Callable[..., ProviderSim]


@pytest_asyncio.fixture
async def asker(shared_sim: ProviderSim) -> AsyncIterator[PaypalAsker]:
    async with ClientSession() as session:
        made = PaypalAsker(shared_sim, session)
        await made.token()
        yield made


def issue(answer: tuple[int, Any]) -> tuple[int, str]:
    status, body = answer
    return status, body["details"][0]["issue"] if body["details"] else body["name"]


def kinds(asker: PaypalAsker, payment_id: str) -> list[str]:
    return [line["kind"] for line in asker.sim.movements(payment_id)]


# --- who may ask -----------------------------------------------------------------------------------------------------


async def test_a_token_is_good_for_as_long_as_it_says(asker: PaypalAsker) -> None:
    await asker.control("timing", {"paypal_token_s": 1})
    status, body = await asker.token()
    await asker.control("timing", {"paypal_token_s": 32_400})
    assert (status, body["token_type"], body["expires_in"]) == (200, "Bearer", 1)
    assert (await asker.order())[0] == 201
    await asyncio.sleep(1.05)
    assert issue(await asker.order()) == (401, "AUTHENTICATION_FAILURE")
    assert (await asker.token("wrong secret"))[0] == 401
    assert (await asker.order())[0] == 401
    await asker.token()
    await asker.control("paypal/end_tokens")
    assert (await asker.order())[0] == 401


async def test_a_body_is_json_and_says_so(asker: PaypalAsker) -> None:
    assert (await asker.ask("POST", ORDERS, {}, **{"Content-Type": "text/plain"}))[0] == 415
    assert issue(await asker.ask("POST", ORDERS, [1])) == (400, "MALFORMED_REQUEST_JSON")
    assert issue(await asker.ask("POST", ORDERS, {"intent": "SALE"}))[0] == 400


# --- request ids -----------------------------------------------------------------------------------------------------


async def test_a_repeat_shows_the_latest_state_of_the_first_and_without_an_id_it_is_done_again(
    asker: PaypalAsker,
) -> None:
    status, first = await asker.order(key="repeat-1")
    assert (status, first["status"]) == (201, "CREATED")
    await asker.control(f"approve/{first['id']}")
    status, again = await asker.order(key="repeat-1")
    assert (status, again["id"], again["status"]) == (200, first["id"], "APPROVED")
    assert issue(await asker.order("11.00", key="repeat-1")) == (422, "PAYPAL_REQUEST_ID_PREVIOUSLY_USED")
    assert (await asker.order())[1]["id"] != (await asker.order())[1]["id"]
    assert issue(await asker.order(key="x" * 109)) == (400, "INVALID_STRING_LENGTH")


async def test_what_was_refused_keeps_nothing(asker: PaypalAsker) -> None:
    made = (await asker.order())[1]
    path = f"{ORDERS}/{made['id']}/capture"
    assert issue(await asker.ask("POST", path, {}, "refused-1")) == (422, "ORDER_NOT_APPROVED")
    await asker.control(f"approve/{made['id']}")
    assert (await asker.ask("POST", path, {}, "refused-1"))[0] == 201
    assert (await asker.ask("POST", path, {}, "refused-1"))[0] == 200
    assert issue(await asker.ask("POST", path, {}, "refused-2")) == (422, "ORDER_ALREADY_CAPTURED")


async def test_an_answer_is_short_unless_the_whole_is_asked_for(asker: PaypalAsker) -> None:
    short = (await asker.order(key="short-1"))[1]
    status, body = await asker.ask("POST", f"{ORDERS}/{short['id']}/capture", {}, Prefer="return=minimal")
    assert status == 422, body
    await asker.control(f"approve/{short['id']}")
    status, body = await asker.ask("POST", f"{ORDERS}/{short['id']}/capture", {}, Prefer="return=minimal")
    assert (status, set(body)) == (201, {"id", "status", "links"})


# --- amounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "currency", "expected"),
    [
        ("1500", "JPY", 1500), ("1500", "HUF", 150_000), ("15", "TWD", 1500), ("15.5", "EUR", 1550),
        ("15.00", "JPY", "DECIMALS_NOT_SUPPORTED"), ("15.00", "HUF", "DECIMALS_NOT_SUPPORTED"),
        ("1.005", "USD", "DECIMAL_PRECISION"), ("0.00", "USD", "CANNOT_BE_ZERO_OR_NEGATIVE"),
        ("10.00", "KWD", "INVALID_CURRENCY_CODE"), ("10,00", "USD", "INVALID_PARAMETER_SYNTAX"),
    ],
)  # fmt: skip
async def test_amounts_are_strings_in_paypals_currencies(
    asker: PaypalAsker, value: str, currency: str, expected: int | str
) -> None:
    answer = await asker.order(value, currency, unit={"custom_id": f"pay_{value}{currency}"})
    if isinstance(expected, str):
        assert issue(answer)[1] == expected
        return
    await asker.control(f"approve/{answer[1]['id']}")
    assert (await asker.ask("POST", f"{ORDERS}/{answer[1]['id']}/capture", {}))[0] == 201
    (moved,) = asker.sim.movements(f"pay_{value}{currency}")
    assert (moved["amount_minor"], moved["currency"], moved["provider"]) == (expected, currency, "paypal")


# --- what becomes of an order ----------------------------------------------------------------------------------------


async def test_the_page_is_the_shoppers_yes_and_leads_back(asker: PaypalAsker) -> None:
    context = {"return_url": "https://shop.test/back?o=1", "cancel_url": "https://shop.test/no"}
    source = {"paypal": {"experience_context": context}}
    assert issue(await asker.order(payment_source=source)) == (400, "PAYPAL_REQUEST_ID_REQUIRED")
    made = (await asker.order(payment_source=source, key="page-1"))[1]
    assert made["status"] == "PAYER_ACTION_REQUIRED"
    (page,) = [link["href"] for link in made["links"] if link["rel"] == "payer-action"]
    for _ in range(2):
        async with asker.session.get(page, allow_redirects=False) as answer:
            assert answer.status == 302
            assert answer.headers["Location"] == (
                f"https://shop.test/back?o=1&token={made['id']}&PayerID=SIMULATEDPAYR"
            )
    assert (await asker.ask("GET", f"{ORDERS}/{made['id']}"))[1]["status"] == "APPROVED"


async def test_an_order_taken_another_way_than_it_was_made_for(asker: PaypalAsker) -> None:
    made = (await asker.order())[1]
    await asker.control(f"approve/{made['id']}")
    other = f"{ORDERS}/{made['id']}/authorize"
    assert issue(await asker.ask("POST", other, {})) == (422, "ACTION_DOES_NOT_MATCH_INTENT")
    patch = [{"op": "replace", "path": "/intent", "value": "AUTHORIZE"}]
    assert await asker.ask("PATCH", f"{ORDERS}/{made['id']}", patch) == (204, None)
    assert issue(await asker.ask("POST", f"{ORDERS}/{made['id']}/capture", {}))[1] == "ACTION_DOES_NOT_MATCH_INTENT"
    assert (await asker.ask("POST", other, {}))[0] == 201
    assert issue(await asker.ask("PATCH", f"{ORDERS}/{made['id']}", patch)) == (422, "ORDER_ALREADY_COMPLETED")


async def test_a_hold_is_captured_refunded_and_never_more_than_it_is(asker: PaypalAsker) -> None:
    order = await asker.paid(payment_id="pay_hold", intent="AUTHORIZE")
    (held,) = payments(order, "authorizations")
    path = f"/v2/payments/authorizations/{held['id']}"
    too_much = {"amount": {"currency_code": "USD", "value": "10.01"}}
    assert issue(await asker.ask("POST", path + "/capture", too_much)) == (422, "MAX_CAPTURE_AMOUNT_EXCEEDED")
    part = {"amount": {"currency_code": "USD", "value": "7.00"}, "final_capture": True, "invoice_id": "inv"}
    status, capture = await asker.ask("POST", path + "/capture", part, "hold-c")
    assert (status, capture["status"], capture["invoice_id"], capture["custom_id"]) == (
        201, "COMPLETED", "inv", "pay_hold",
    )  # fmt: skip
    assert (await asker.ask("GET", path))[1]["status"] == "CAPTURED"
    assert issue(await asker.ask("POST", path + "/void")) == (422, "PREVIOUSLY_CAPTURED")
    refunds = f"/v2/payments/captures/{capture['id']}/refund"
    assert (await asker.ask("POST", refunds, {"amount": {"currency_code": "USD", "value": "2.00"}}))[0] == 201
    assert issue(await asker.ask("POST", refunds, too_much)) == (422, "REFUND_AMOUNT_EXCEEDED")
    assert (await asker.ask("GET", f"/v2/payments/captures/{capture['id']}"))[1]["status"] == "PARTIALLY_REFUNDED"
    assert (await asker.ask("POST", refunds, {}))[1]["amount"]["value"] == "5.00"
    assert issue(await asker.ask("POST", refunds, {})) == (422, "CAPTURE_FULLY_REFUNDED")
    shown = (await asker.ask("GET", f"{ORDERS}/{order['id']}"))[1]
    assert [one["amount"]["value"] for one in payments(shown, "refunds")] == ["2.00", "5.00"]
    assert kinds(asker, "pay_hold") == ["authorize", "capture", "refund", "refund"]


async def test_a_hold_is_voided_once_or_expires(asker: PaypalAsker) -> None:
    for end in ("void", "expire"):
        order = await asker.paid(payment_id=f"pay_{end}", intent="AUTHORIZE")
        path = f"/v2/payments/authorizations/{payments(order, 'authorizations')[0]['id']}"
        if end == "void":
            assert await asker.ask("POST", path + "/void", Prefer="return=minimal") == (204, None)
        else:
            await asker.control(f"expire/{order['id']}")
        assert issue(await asker.ask("POST", path + "/void")) == (422, "PREVIOUSLY_VOIDED")
        assert issue(await asker.ask("POST", path + "/capture", {})) == (422, "AUTHORIZATION_VOIDED")
        assert (await asker.ask("GET", f"{ORDERS}/{order['id']}"))[1]["status"] == "VOIDED"
        assert kinds(asker, f"pay_{end}") == ["authorize", end]


async def test_what_is_pending_settles_or_is_denied(asker: PaypalAsker) -> None:
    for end, status in (("settle", "COMPLETED"), ("deny", "DECLINED")):
        order = await asker.paid("tok_pending", f"pay_pending_{end}")
        (capture,) = payments(order, "captures")
        assert (order["status"], capture["status"], capture["status_details"]) == (
            "COMPLETED", "PENDING", {"reason": "PENDING_REVIEW"},
        )  # fmt: skip
        refund = f"/v2/payments/captures/{capture['id']}/refund"
        assert issue(await asker.ask("POST", refund, {})) == (422, "PENDING_CAPTURE")
        await asker.control("settle" if end == "settle" else f"deny/{capture['id']}")
        assert (await asker.ask("GET", f"/v2/payments/captures/{capture['id']}"))[1]["status"] == status
        assert kinds(asker, f"pay_pending_{end}") == (["charge"] if end == "settle" else [])


async def test_wallets_that_say_no(asker: PaypalAsker) -> None:
    made = (await asker.order(unit={"custom_id": "pay_no"}))[1]

    async def capture(wallet: str) -> tuple[int, Any]:
        body = {"payment_source": {"paypal": {"vault_id": wallet}}}
        return await asker.ask("POST", f"{ORDERS}/{made['id']}/capture", body)

    assert issue(await capture("tok_nobody")) == (422, "TOKEN_ID_NOT_FOUND")
    assert issue(await capture("tok_chargeDeclined")) == (422, "INSTRUMENT_DECLINED")
    assert (await capture("tok_error"))[0] == 500
    status, body = await capture("tok_threeDSecure")
    assert (issue((status, body)), body["links"][0]["rel"]) == ((422, "PAYER_ACTION_REQUIRED"), "payer-action")
    status, order = await capture("tok_chargeDeclinedFraudulent")
    assert (status, order["status"], payments(order, "captures")[0]["status"]) == (201, "COMPLETED", "DECLINED")
    assert kinds(asker, "pay_no") == []


async def test_disputes_and_refunds_without_us(asker: PaypalAsker) -> None:
    order = await asker.paid(payment_id="pay_dispute")
    await asker.control("refunds", {"object_id": order["id"], "amount_minor": 100})
    made = await asker.control("disputes", {"object_id": order["id"], "amount_minor": 500})
    path = f"/v1/customer/disputes/{made['dispute_id']}"
    status, shown = await asker.ask("GET", path)
    (about,) = shown["disputed_transactions"]
    assert (status, shown["status"], about["custom"]) == (200, "WAITING_FOR_SELLER_RESPONSE", "pay_dispute")
    assert about["seller_transaction_id"] == payments(order, "captures")[0]["id"]
    await asker.control(f"disputes/{made['dispute_id']}/lost")
    assert (await asker.ask("GET", path))[1]["dispute_outcome"]["outcome_code"] == "RESOLVED_BUYER_FAVOUR"
    assert kinds(asker, "pay_dispute") == ["charge", "refund", "dispute", "dispute_lost"]


async def test_a_kill_forgets_nothing(own_sim: Make, session: ClientSession) -> None:
    sim = own_sim()
    asker = PaypalAsker(sim, session)
    await asker.token()
    order = await asker.paid(payment_id="pay_kill")
    made = (await asker.order(key="kill-1"))[1]
    async with session.get(f"{sim.url}/_sim/paypal/root.pem") as answer:
        root = await answer.read()
    sim.kill()
    sim.start()
    assert (await asker.ask("GET", f"{ORDERS}/{order['id']}"))[1] == order
    body = {"payment_source": {"paypal": {"vault_id": "tok_visa"}}}
    again = await asker.ask("POST", f"{ORDERS}/{order['id']}/capture", body, f"{order['id']}:k")
    assert (again[0], payments(again[1], "captures")) == (200, payments(order, "captures")), "and takes no money again"
    assert (await asker.order(key="kill-1")) == (200, made)
    async with session.get(f"{sim.url}/_sim/paypal/root.pem") as answer:
        assert await answer.read() == root, "who trusted it goes on"
    assert kinds(asker, "pay_kill") == ["charge"]
