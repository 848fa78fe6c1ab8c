"""What PayPal is asked: amounts, keys, bodies."""

from dataclasses import replace

import pytest
from rigs.paypal_recorded import ORDER_ID, recorded_call

from payment_service.adapters.providers.paypal_amounts import CURRENCIES, from_paypal, to_paypal
from payment_service.adapters.providers.paypal_requests import (
    KEY_LENGTH_MAX,
    Request,
    capture_request,
    close_request,
    create_request,
    pay_request,
    paypal_id,
    refund_request,
)
from payment_service.core.ids import payment_id_of
from payment_service.core.money import AMOUNT_MINOR_MAX
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import CaptureMethod, Kind, Verdict

AMOUNTS = """
1000         USD 10.00
1            USD 0.01
1            EUR 0.01
1500         JPY 1500
150000       HUF 1500
100          TWD 1
150050       HUF -
1            TWD -
1000         KWD -
1000         XXX -
999999999999 USD 9999999999.99
"""


@pytest.mark.parametrize("row", AMOUNTS.strip().splitlines())
def test_an_amount_in_paypals_words_and_back(row: str) -> None:
    minor, currency, value = row.split()
    written = to_paypal(int(minor), currency)
    assert (written or {"value": "-"})["value"] == value
    if written is not None:
        assert written["currency_code"] == currency
        assert from_paypal(currency, value) == (int(minor), currency)


def test_the_largest_amount_is_not_too_long_for_paypal() -> None:
    assert all(len((to_paypal(AMOUNT_MINOR_MAX // 100 * 100, code) or {})["value"]) <= 32 for code in CURRENCIES)


@pytest.mark.parametrize("value", ["", "1e3", "-1", "+1", "1,0", "1.", ".5", "1.005", "١", "1" * 40, " 1", None, 1.5])
def test_what_is_no_amount(value: object) -> None:
    assert from_paypal("USD", value) is None


def created(call: ProviderCall) -> Request:
    request = create_request(call)
    assert isinstance(request, Request)
    return request


def test_an_order_carries_our_ids_and_where_to_come_back() -> None:
    call = replace(recorded_call(object_id=None), return_url="https://shop.test/back", description="d" * 500)
    request = created(call)
    unit = request.body["purchase_units"][0]
    assert (request.method, request.path, request.body["intent"]) == ("POST", "/v2/checkout/orders", "CAPTURE")
    assert (unit["custom_id"], unit["reference_id"]) == ("pay_recorded", "order-of-pay_recorded")
    assert (unit["invoice_id"], len(unit["description"])) == ("pay_recorded:object:1", 127)
    context = request.body["payment_source"]["paypal"]["experience_context"]
    assert context["return_url"] == context["cancel_url"] == "https://shop.test/back"
    assert created(replace(call, capture_method=CaptureMethod.MANUAL)).body["intent"] == "AUTHORIZE"
    assert "payment_source" not in created(replace(call, method_token="8kk8451t")).body


def test_a_key_is_the_same_for_the_same_and_another_for_another_order() -> None:
    call = recorded_call(object_id=None)
    assert created(call) == created(call)
    others = (
        replace(call, return_url="https://shop.test/a"), replace(call, return_url="https://shop.test/b"),
        replace(call, method_token="8kk8451t"), replace(call, capture_method=CaptureMethod.MANUAL),
        replace(call, description="x"), replace(call, object_key="pay_recorded:object:2"),
    )  # fmt: skip
    assert len({created(other).key for other in (call, *others)}) == 7


def test_no_key_is_too_long_for_paypal() -> None:
    payment_id = payment_id_of("o" * 200)
    call = replace(recorded_call(), payment_id=payment_id, object_key=f"{payment_id}:object:99")
    assert len(created(call).key or "") <= KEY_LENGTH_MAX
    assert len(f"{payment_id}:authorize:99") <= KEY_LENGTH_MAX


def test_the_wallet_is_named_only_when_it_pays() -> None:
    call = recorded_call(token="8kk8451t")
    paid = pay_request(call, ORDER_ID, with_token=True)
    approved = pay_request(call, ORDER_ID, with_token=False)
    assert isinstance(paid, Request)
    assert isinstance(approved, Request)
    assert paid.path == f"/v2/checkout/orders/{ORDER_ID}/capture"
    assert (paid.body, approved.body) == ({"payment_source": {"paypal": {"vault_id": "8kk8451t"}}}, {})
    assert paid.key == approved.key == "pay_recorded:charge:1"
    assert "8kk8451t" not in repr(paid)
    held = pay_request(recorded_call(Kind.AUTHORIZE), ORDER_ID, with_token=True)
    assert isinstance(held, Request)
    assert held.path.endswith("/authorize")
    hostile = pay_request(replace(call, method_token="a/../b"), ORDER_ID, with_token=True)
    assert isinstance(hostile, Answer)
    assert hostile.verdict is Verdict.DECLINED


def test_captures_and_refunds_are_found_again_by_their_keys() -> None:
    capture = capture_request(recorded_call(Kind.CAPTURE, 2), "0VF52814937998046")
    refund = refund_request(recorded_call(Kind.REFUND, 3), "2GG279541U471931P")
    assert isinstance(capture, Request)
    assert isinstance(refund, Request)
    assert capture.body["invoice_id"] == capture.key == "pay_recorded:capture:2"
    assert capture.body["final_capture"] is True
    assert refund.body["invoice_id"] == refund.key == "pay_recorded:refund:3"
    assert refund.body["custom_id"] == "pay_recorded"


def test_an_unpaid_order_is_closed_by_the_other_intent() -> None:
    for call, other in ((recorded_call(Kind.VOID), "AUTHORIZE"), (recorded_call(Kind.VOID, manual=True), "CAPTURE")):
        request = close_request(call, ORDER_ID)
        assert request.method == "PATCH"
        assert request.body == [{"op": "replace", "path": "/intent", "value": other}]


@pytest.mark.parametrize(("amount", "currency"), [(1000, "KWD"), (150_050, "HUF"), (1000, "INR")])
def test_what_paypal_cannot_take_is_refused_before_anything_is_sent(amount: int, currency: str) -> None:
    call = replace(recorded_call(), amount_minor=amount, currency=currency)
    for answer in (create_request(call), capture_request(call, "A"), refund_request(call, "A")):
        assert isinstance(answer, Answer)
        assert (answer.verdict, answer.code) == (Verdict.DECLINED, "AMOUNT_NOT_POSSIBLE")


@pytest.mark.parametrize("text", ["", "../x", "a/b", "a b", "é", "x" * 65, None, 7])
def test_what_is_no_id_of_paypal(text: object) -> None:
    assert paypal_id(text) is None
