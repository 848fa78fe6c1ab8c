"""What PayPal's answers mean: recorded bodies against the verdict table, row by row; and whatever else may come."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs.paypal_recorded import names, recorded, recorded_call

from payment_service.adapters.providers.paypal_answers import (
    VERDICTS,
    created_answer,
    error_answer,
    order_answer,
    wants_another_look,
)
from payment_service.adapters.providers.paypal_api import Reply
from payment_service.adapters.providers.registration import TROUBLE
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import TAKES_MONEY, CaptureMethod, Kind, Verdict

ORDERS = """
order_created                          | CHARGE    | PENDING go
order_saved                            | CHARGE    | PENDING go
order_payer_action_required            | CHARGE    | PENDING go
order_payer_action_required            | VOID      | UNKNOWN NOT_FOUND
order_payer_action_required            | REFUND    | UNKNOWN NOT_FOUND
order_payer_action_required            | AUTHORIZE | DECLINED OBJECT_CANCELLED closed
order_approved                         | CHARGE    | UNKNOWN NOT_FOUND approved
order_approved                         | AUTHORIZE | DECLINED OBJECT_CANCELLED closed
order_approved                         | VOID      | UNKNOWN NOT_FOUND
order_for_authorize_approved           | AUTHORIZE | UNKNOWN NOT_FOUND approved
order_for_authorize_approved           | CHARGE    | DECLINED OBJECT_CANCELLED closed
order_for_authorize_approved           | VOID      | APPROVED
order_voided                           | CHARGE    | DECLINED OBJECT_CANCELLED closed
order_voided                           | VOID      | APPROVED
order_status_of_tomorrow               | CHARGE    | UNKNOWN ANSWER_NOT_UNDERSTOOD
order_status_of_tomorrow               | VOID      | UNKNOWN ANSWER_NOT_UNDERSTOOD
order_completed_without_payments       | CHARGE    | UNKNOWN ANSWER_NOT_UNDERSTOOD
order_completed_without_payments       | VOID      | UNKNOWN ANSWER_NOT_UNDERSTOOD
order_completed_without_payments       | CAPTURE   | UNKNOWN ANSWER_NOT_UNDERSTOOD
order_of_another_payment               | CHARGE    | UNKNOWN NOT_FOUND approved ?OBJECT_NOT_OURS
order_for_another_amount               | CHARGE    | UNKNOWN NOT_FOUND approved ?AMOUNT_DIFFERS
order_capture_completed                | CHARGE    | APPROVED 1000 USD 3C679366HH908993F
order_capture_completed                | VOID      | DECLINED INVALID_STATE
order_capture_completed                | AUTHORIZE | UNKNOWN CAPTURE_METHOD_DIFFERS ?CAPTURE_METHOD_DIFFERS
order_capture_partially_refunded       | CHARGE    | APPROVED 1000 USD 3C679366HH908993F
order_capture_refunded                 | CHARGE    | APPROVED 1000 USD 3C679366HH908993F
order_capture_pending                  | CHARGE    | PENDING PENDING_REVIEW 1000 USD 3C679366HH908993F
order_capture_pending_echeck           | CHARGE    | PENDING ECHECK 1000 USD 3C679366HH908993F
order_capture_pending                  | VOID      | UNKNOWN NOT_FOUND
order_capture_declined                 | CHARGE    | DECLINED CARD_DECLINED 5120 1000 USD 3C679366HH908993F closed
order_capture_declined                 | VOID      | APPROVED
order_capture_failed                   | CHARGE    | DECLINED PAYMENT_FAILED 1000 USD 3C679366HH908993F closed
order_capture_of_tomorrow              | CHARGE    | UNKNOWN ANSWER_NOT_UNDERSTOOD 1000 USD 3C679366HH908993F
order_capture_of_tomorrow              | VOID      | UNKNOWN ANSWER_NOT_UNDERSTOOD
order_capture_of_another_payment       | CHARGE    | APPROVED 1000 USD 3C679366HH908993F ?OBJECT_NOT_OURS
order_authorization_created            | AUTHORIZE | APPROVED 1000 USD 0VF52814937998046
order_authorization_created            | CAPTURE   | UNKNOWN NOT_FOUND
order_authorization_created            | VOID      | UNKNOWN NOT_FOUND
order_authorization_created            | CHARGE    | UNKNOWN CAPTURE_METHOD_DIFFERS ?CAPTURE_METHOD_DIFFERS
order_authorization_pending            | AUTHORIZE | PENDING 1000 USD 0VF52814937998046
order_authorization_pending            | CAPTURE   | UNKNOWN NOT_FOUND
order_authorization_pending            | VOID      | UNKNOWN NOT_FOUND
order_authorization_denied             | AUTHORIZE | DECLINED CARD_DECLINED 1000 USD 0VF52814937998046 closed
order_authorization_denied             | CAPTURE   | DECLINED OBJECT_CANCELLED closed
order_authorization_denied             | VOID      | APPROVED
order_authorization_voided             | AUTHORIZE | DECLINED OBJECT_CANCELLED 1000 USD 0VF52814937998046 closed
order_authorization_voided             | CAPTURE   | DECLINED OBJECT_CANCELLED closed
order_authorization_voided             | VOID      | APPROVED
order_authorization_of_tomorrow        | AUTHORIZE | UNKNOWN ANSWER_NOT_UNDERSTOOD 1000 USD 0VF52814937998046
order_authorization_of_tomorrow        | CAPTURE   | UNKNOWN ANSWER_NOT_UNDERSTOOD
order_authorization_of_tomorrow        | VOID      | UNKNOWN ANSWER_NOT_UNDERSTOOD
order_authorization_captured           | AUTHORIZE | APPROVED 1000 USD 0VF52814937998046
order_authorization_captured           | CAPTURE   | APPROVED 700 USD 2GG279541U471931P
order_authorization_captured           | VOID      | DECLINED INVALID_STATE
order_authorization_captured_otherwise | CAPTURE   | APPROVED 700 USD 2GG279541U471931P
order_authorization_partially_captured | AUTHORIZE | APPROVED 1000 USD 0VF52814937998046
order_authorization_partially_captured | CAPTURE   | UNKNOWN NOT_FOUND
order_authorization_partially_captured | VOID      | DECLINED INVALID_STATE
order_authorization_capture_declined   | CAPTURE   | DECLINED CARD_DECLINED 700 USD 2GG279541U471931P
order_authorization_earlier_declined   | CAPTURE   | UNKNOWN NOT_FOUND
order_authorization_capture_missing    | CAPTURE   | UNKNOWN ANSWER_NOT_UNDERSTOOD
order_refund_completed                 | REFUND    | APPROVED 400 USD 1JU08902781691411
order_refund_pending                   | REFUND    | PENDING ECHECK 400 USD 1JU08902781691411
order_refund_failed                    | REFUND    | DECLINED REFUND_FAILED 400 USD 1JU08902781691411
order_refund_cancelled                 | REFUND    | DECLINED REFUND_CANCELLED 400 USD 1JU08902781691411
order_refund_of_tomorrow               | REFUND    | UNKNOWN ANSWER_NOT_UNDERSTOOD 400 USD 1JU08902781691411
order_refund_of_another_call           | REFUND    | UNKNOWN NOT_FOUND
"""

ERRORS = """
error_instrument_declined               | CHARGE  | DECLINED CARD_DECLINED INSTRUMENT_DECLINED
error_transaction_refused               | CAPTURE | DECLINED CARD_DECLINED TRANSACTION_REFUSED
error_payer_cannot_pay                  | CHARGE  | DECLINED CARD_DECLINED PAYER_CANNOT_PAY
error_too_many_attempts                 | CHARGE | DECLINED CARD_DECLINED MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED closed
error_duplicate_invoice_id              | CHARGE  | DECLINED DUPLICATE_INVOICE_ID ?DUPLICATE_INVOICE_ID
error_paypal_request_id_previously_used | CHARGE  | UNKNOWN IDEMPOTENCY_MISMATCH
error_token_id_not_found                | CHARGE  | DECLINED INVALID_REQUEST
error_decimals_not_supported            | CHARGE  | DECLINED INVALID_REQUEST
error_refund_amount_exceeded            | REFUND  | DECLINED INVALID_REQUEST
error_capture_fully_refunded            | REFUND  | DECLINED INVALID_REQUEST
error_pending_capture                   | REFUND  | DECLINED INVALID_REQUEST
error_max_capture_amount_exceeded       | CAPTURE | DECLINED INVALID_REQUEST
error_issue_of_tomorrow                 | CHARGE  | DECLINED INVALID_REQUEST
error_invalid_value                     | CHARGE  | DECLINED INVALID_REQUEST
error_token_invalid                     | CHARGE  | NOT_SENT PROVIDER_KEY_REFUSED
error_may_not                           | REFUND  | NOT_SENT PROVIDER_KEY_REFUSED
error_no_such_object                    | REFUND  | UNKNOWN OBJECT_MISSING ?OBJECT_MISSING
error_in_progress                       | CAPTURE | UNKNOWN IDEMPOTENCY_IN_USE
error_order_completion_in_progress      | CHARGE  | UNKNOWN IDEMPOTENCY_IN_USE
error_rate_limit                        | CHARGE  | NOT_SENT RATE_LIMITED
error_internal                          | CHARGE  | UNKNOWN PROVIDER_ERROR
error_unavailable_html                  | VOID    | UNKNOWN PROVIDER_ERROR
error_of_tomorrow                       | CHARGE  | UNKNOWN ANSWER_NOT_UNDERSTOOD
error_order_already_captured            | CHARGE  | again
error_order_completed_or_voided         | AUTHORIZE | again
error_order_not_approved                | CHARGE  | again
error_action_does_not_match_intent      | CHARGE  | again
error_payer_action_required             | CHARGE  | again
error_authorization_voided              | CAPTURE | again
error_previously_voided                 | VOID    | again
"""


def rows(table: str) -> list[tuple[str, Kind, str]]:
    cells = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return [(name, Kind(kind), said) for name, kind, said in cells]


def told(answer: Answer) -> str:
    """An answer in the words of the tables."""
    amount = "" if answer.amount_minor is None else str(answer.amount_minor)
    words = [answer.verdict, answer.code, answer.decline_code or "", amount, answer.currency or ""]
    words += [answer.provider_id or "", "closed" if answer.object_closed else "", "approved" if answer.approved else ""]
    words += ["go" if answer.next_action else "", *(f"?{it}" for it in answer.review)]
    return " ".join(word for word in words if word)


@pytest.mark.parametrize(("name", "kind", "said"), rows(ORDERS))
def test_an_order_as_it_stands(name: str, kind: Kind, said: str) -> None:
    assert told(order_answer(recorded_call(kind), recorded(name).body)) == said


@pytest.mark.parametrize(("name", "kind", "said"), rows(ERRORS))
def test_an_error(name: str, kind: Kind, said: str) -> None:
    reply = recorded(name)
    assert ("again" if wants_another_look(reply) else told(error_answer(recorded_call(kind), reply))) == said


def test_the_tables_name_every_recorded_body_and_every_known_status() -> None:
    named = {name for name, _, _ in [*rows(ORDERS), *rows(ERRORS)]}
    assert named == {*names("order_"), *names("error_")}
    seen: set[object] = set()
    for name in named:
        for unit in recorded(name).body.get("purchase_units", []):
            for movements in unit.get("payments", {}).values():
                seen |= {movement["status"] for movement in movements}
    assert {status for by_kind in VERDICTS.values() for status in by_kind} <= seen


def test_an_order_that_is_completed_is_not_paid_by_that() -> None:
    for name in [*names("order_capture_"), "order_completed_without_payments"]:
        body = recorded(name).body
        assert body["status"] == "COMPLETED"
        captures = body["purchase_units"][0].get("payments", {}).get("captures", [])
        paid = bool(captures) and captures[0]["status"] in ("COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED")
        assert (order_answer(recorded_call(), body).verdict is Verdict.APPROVED) is paid, name


def test_what_is_refused_by_its_state_and_not_done_is_a_no_unless_the_shopper_has_approved_it() -> None:
    for name, kind in (("order_created", Kind.VOID), ("order_authorization_created", Kind.CAPTURE)):
        answer = order_answer(recorded_call(kind), recorded(name).body, refused=True)
        assert told(answer) == "DECLINED INVALID_STATE"
    done = order_answer(recorded_call(), recorded("order_capture_completed").body, refused=True)
    assert done.verdict is Verdict.APPROVED
    approved = order_answer(recorded_call(), recorded("order_approved").body, refused=True)
    assert (approved.verdict, approved.approved) == (Verdict.UNKNOWN, True)


def test_with_a_saved_wallet_an_order_that_nobody_approved_is_not_done() -> None:
    call = recorded_call(token="8kk8451t")
    assert told(order_answer(call, recorded("order_created").body)) == "UNKNOWN NOT_FOUND"
    asked = order_answer(call, recorded("order_payer_action_required").body)
    assert told(asked) == "PENDING go", "it is the wallet that wants its shopper"


def test_the_shopper_is_sent_to_paypal_and_the_address_is_not_shown() -> None:
    answer = order_answer(recorded_call(), recorded("order_payer_action_required").body)
    assert answer.next_action is not None
    assert (answer.next_action.url or "").startswith("https://www.sandbox.paypal.com/checkoutnow?token=")
    assert "checkoutnow" not in repr(answer)
    for href in ("javascript:alert(1)", "https://x/" + "y" * 5000, "https://x/\ud800", None, 7):
        body = {**recorded("order_created").body, "links": [{"href": href, "rel": "approve"}]}
        assert told(order_answer(recorded_call(), body)) == "UNKNOWN NOT_FOUND"


def test_a_made_order_has_an_id_and_where_to_approve_it() -> None:
    reply = recorded("order_payer_action_required")
    made = created_answer(recorded_call(object_id=None), Reply(201, reply.body))
    assert (made.verdict, made.object_id, made.review) == (Verdict.APPROVED, "5O190127TN364715T", ())
    assert made.next_action is not None
    saved = created_answer(recorded_call(token="8kk8451t"), recorded("order_created"))
    assert (saved.verdict, saved.next_action) == (Verdict.APPROVED, None)
    for body in (recorded("order_approved").body, {"status": "CREATED"}, {"id": "../x"}):
        assert created_answer(recorded_call(), Reply(201, body)).verdict is Verdict.UNKNOWN
    for name in ("amount_minor", "currency"):
        other = replace(recorded_call(), **{name: 999 if name == "amount_minor" else "EUR"})
        assert created_answer(other, reply).code == "IDEMPOTENCY_MISMATCH", "a repeat shows the first one's order"
    assert created_answer(recorded_call(), recorded("error_invalid_value")).verdict is Verdict.DECLINED


# --- an order that a front end names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("order_capture_completed", "APPROVED 1000 USD 3C679366HH908993F"),
        ("order_approved", "UNKNOWN NOT_FOUND approved"),
        ("order_of_another_payment", "DECLINED OBJECT_NOT_OURS closed ?OBJECT_NOT_OURS"),
        ("order_capture_of_another_payment", "DECLINED OBJECT_NOT_OURS closed ?OBJECT_NOT_OURS"),
        ("order_for_another_amount", "DECLINED OBJECT_DIFFERS closed ?AMOUNT_DIFFERS"),
        ("order_for_authorize_approved", "DECLINED OBJECT_DIFFERS closed"),
    ],
)
def test_a_named_order_must_be_this_payments(name: str, said: str) -> None:
    call = replace(recorded_call(), adopted=True)
    assert told(order_answer(call, recorded(name).body)) == said


def test_a_named_order_that_is_not_there_is_not_ours() -> None:
    call = replace(recorded_call(), adopted=True)
    assert error_answer(call, recorded("error_no_such_object")).code == "OBJECT_NOT_OURS"


# --- whatever else ---------------------------------------------------------------------------------------------------


def test_amounts_come_back_in_our_units_or_not_at_all() -> None:
    body = recorded("order_capture_completed").body
    capture = body["purchase_units"][0]["payments"]["captures"][0]
    for amount, expected in (
        ({"currency_code": "JPY", "value": "1500"}, (1500, "JPY", ())),
        ({"currency_code": "HUF", "value": "1500"}, (150_000, "HUF", ())),
        ({"currency_code": "JPY", "value": "15.50"}, (None, None, ("AMOUNT_DIFFERS",))),
        ({"currency_code": "USD", "value": 10.0}, (None, None, ("AMOUNT_DIFFERS",))),
        ({"currency_code": "USD", "value": "9" * 40}, (None, None, ("AMOUNT_DIFFERS",))),
        ({"currency_code": "USDX", "value": "1"}, (None, None, ("AMOUNT_DIFFERS",))),
    ):
        capture["amount"] = amount
        answer = order_answer(recorded_call(), body)
        assert answer.verdict is Verdict.APPROVED
        assert (answer.amount_minor, answer.currency, answer.review) == expected


def test_every_text_is_storable() -> None:
    details = [{"issue": "INSTRUMENT_\ud800DECLINED\0" + "x" * 500, "description": "secret"}]
    answer = error_answer(recorded_call(), Reply(422, {"name": "UNPROCESSABLE_ENTITY", "details": details}))
    answer.message.encode()
    assert "\0" not in answer.message
    assert "secret" not in answer.message
    assert len(answer.message) <= 300


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["id", "intent", "status", "purchase_units", "links", "payments", "captures", "authorizations", "refunds",
          "amount", "details", "name", "invoice_id", "custom_id", "status_details", "processor_response"]  # fmt: skip


def _changed(thing: Any, changed: dict[str, Any]) -> Any:
    """The same fields changed wherever they are."""
    if isinstance(thing, dict):
        return {name: changed[name] if name in changed else _changed(it, changed) for name, it in thing.items()}
    return [_changed(it, changed) for it in thing] if isinstance(thing, list) else thing


@given(
    st.sampled_from([*names("order_"), *names("error_")]),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
    st.sampled_from(list(Kind)),
    st.sampled_from([200, 201, 302, 400, 404, 418, 422, 500]),
    st.booleans(),
)
def test_whatever_comes_is_a_verdict_and_never_an_exception(
    name: str, changed: dict[str, Any], kind: Kind, status: int, adopted: bool
) -> None:
    body = _changed(dict(recorded(name).body), changed)
    call: ProviderCall = replace(recorded_call(kind), adopted=adopted)
    reply = Reply(status, body)
    answer = order_answer(call, body) if status < 300 else error_answer(call, reply)
    created_answer(call, reply)
    wants_another_look(reply)
    order_answer(replace(call, capture_method=CaptureMethod.MANUAL), body, refused=True)
    told(answer).encode()
    if status >= 500:
        assert answer.verdict is Verdict.UNKNOWN
        assert answer.code in TROUBLE
    if answer.verdict is Verdict.APPROVED and kind in TAKES_MONEY:
        assert name.startswith("order_")
        assert answer.provider_id
