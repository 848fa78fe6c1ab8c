"""What Stripe's answers mean: recorded bodies against the verdict table, row by row; and whatever else may come."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigs.stripe_recorded import names, recorded, recorded_call

from payment_service.adapters.providers.registration import TROUBLE
from payment_service.adapters.providers.stripe_answers import (
    VERDICTS,
    created_answer,
    error_answer,
    find_refund,
    intent_answer,
    refund_answer,
    wants_another_look,
)
from payment_service.adapters.providers.stripe_api import Reply
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import CaptureMethod, Kind, Verdict

INTENTS = """
intent_requires_payment_method  | CHARGE    | UNKNOWN NOT_FOUND
intent_requires_payment_method  | CAPTURE   | UNKNOWN NOT_FOUND
intent_requires_payment_method  | VOID      | UNKNOWN NOT_FOUND
intent_declined                 | CHARGE    | DECLINED CARD_DECLINED insufficient_funds ch_3RecordedDeclined
intent_declined                 | VOID      | UNKNOWN NOT_FOUND
intent_not_authenticated        | CHARGE    | DECLINED AUTHENTICATION_FAILED payment_intent_authentication_failure
intent_requires_confirmation    | CHARGE    | UNKNOWN NOT_FOUND
intent_requires_action_redirect | CHARGE    | PENDING
intent_requires_action_sdk      | AUTHORIZE | PENDING ?CAPTURE_METHOD_DIFFERS
intent_requires_action_redirect | VOID      | UNKNOWN NOT_FOUND
intent_requires_action_redirect | CAPTURE   | UNKNOWN NOT_FOUND
intent_processing               | CHARGE    | PENDING
intent_processing               | CAPTURE   | PENDING
intent_processing               | VOID      | UNKNOWN NOT_FOUND
intent_requires_capture         | AUTHORIZE | APPROVED 1000 USD ch_3Recorded
intent_requires_capture         | CAPTURE   | UNKNOWN NOT_FOUND
intent_requires_capture         | VOID      | UNKNOWN NOT_FOUND
intent_requires_capture         | CHARGE    | UNKNOWN CAPTURE_METHOD_DIFFERS ?CAPTURE_METHOD_DIFFERS
intent_succeeded                | CHARGE    | APPROVED 1000 USD ch_3Recorded
intent_succeeded                | VOID      | DECLINED INVALID_STATE
intent_succeeded                | AUTHORIZE | APPROVED 1000 USD ch_3Recorded ?CAPTURE_METHOD_DIFFERS
intent_succeeded_in_part        | AUTHORIZE | APPROVED 1000 USD ch_3Recorded
intent_succeeded_in_part        | CAPTURE   | APPROVED 700 USD ch_3Recorded
intent_canceled                 | CHARGE    | DECLINED OBJECT_CANCELLED closed
intent_canceled                 | CAPTURE   | DECLINED OBJECT_CANCELLED closed
intent_canceled                 | VOID      | APPROVED
intent_status_of_tomorrow       | CHARGE    | UNKNOWN ANSWER_NOT_UNDERSTOOD
intent_status_of_tomorrow       | VOID      | UNKNOWN ANSWER_NOT_UNDERSTOOD
intent_of_another_payment       | CHARGE    | APPROVED 1000 USD ch_3Other ?OBJECT_NOT_OURS
intent_for_another_amount       | CHARGE    | UNKNOWN NOT_FOUND ?AMOUNT_DIFFERS
intent_in_live_mode             | CHARGE    | APPROVED 1000 USD ch_3Recorded ?ACCOUNT_DIFFERS
refund_succeeded                | REFUND    | APPROVED 400 USD re_3Recorded
refund_pending                  | REFUND    | PENDING 400 USD re_3Recorded
refund_requires_action          | REFUND    | PENDING 400 USD re_3Recorded
refund_failed                   | REFUND    | DECLINED REFUND_FAILED expired_or_canceled_card 400 USD re_3Recorded
refund_canceled                 | REFUND    | DECLINED REFUND_CANCELLED 400 USD re_3Recorded
refund_status_of_tomorrow       | REFUND    | UNKNOWN ANSWER_NOT_UNDERSTOOD 400 USD re_3Recorded
"""

ERRORS = """
error_card_declined              | CHARGE | DECLINED CARD_DECLINED insufficient_funds ch_3RecordedDeclined
error_expired_card               | CHARGE | DECLINED CARD_DECLINED expired_card ch_3RecordedDeclined
error_incorrect_cvc              | CHARGE | DECLINED CARD_DECLINED incorrect_cvc ch_3RecordedDeclined
error_card_declined_and_canceled | CHARGE | DECLINED CARD_DECLINED insufficient_funds ch_3RecordedDeclined closed
error_amount_too_large           | CHARGE | DECLINED INVALID_REQUEST
error_missing_return_url         | CHARGE | DECLINED INVALID_REQUEST
error_refund_too_large           | REFUND | DECLINED INVALID_REQUEST
error_charge_already_refunded    | REFUND | DECLINED INVALID_REQUEST
error_charge_disputed            | REFUND | DECLINED INVALID_REQUEST
error_no_such_token              | CHARGE | DECLINED INVALID_PAYMENT_METHOD
error_no_such_payment_method     | CHARGE | DECLINED INVALID_PAYMENT_METHOD
error_no_such_payment_intent     | CHARGE | UNKNOWN OBJECT_MISSING ?OBJECT_MISSING
error_no_such_payment_intent     | REFUND | UNKNOWN OBJECT_MISSING ?OBJECT_MISSING
error_key_invalid                | CHARGE | NOT_SENT PROVIDER_KEY_REFUSED
error_key_may_not                | REFUND | NOT_SENT PROVIDER_KEY_REFUSED
error_idempotency_mismatch       | CHARGE | UNKNOWN IDEMPOTENCY_MISMATCH
error_idempotency_in_use         | CHARGE | UNKNOWN IDEMPOTENCY_IN_USE
error_conflict                   | CHARGE | UNKNOWN IDEMPOTENCY_IN_USE
error_rate_limit                 | CHARGE | NOT_SENT RATE_LIMITED
error_lock_timeout               | VOID   | NOT_SENT RATE_LIMITED
error_external_dependency        | CHARGE | UNKNOWN ANSWER_NOT_UNDERSTOOD
error_internal                   | CHARGE | UNKNOWN PROVIDER_ERROR
error_unavailable_html           | VOID   | UNKNOWN PROVIDER_ERROR
error_of_tomorrow                | CHARGE | UNKNOWN ANSWER_NOT_UNDERSTOOD
error_unexpected_state           | CHARGE | again
error_unexpected_state           | VOID   | again
error_authorization_expired      | CAPTURE | again
"""


def rows(table: str) -> list[tuple[str, Kind, str]]:
    cells = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return [(name, Kind(kind), said) for name, kind, said in cells]


def told(answer: Answer) -> str:
    """An answer in the words of the tables."""
    amount = "" if answer.amount_minor is None else str(answer.amount_minor)
    words = [answer.verdict, answer.code, answer.decline_code or "", amount, answer.currency or ""]
    words += [answer.provider_id or "", "closed" if answer.object_closed else "", *(f"?{it}" for it in answer.review)]
    return " ".join(word for word in words if word)


def answer_to(call: ProviderCall, reply: Reply) -> Answer:
    if reply.status != 200:
        return error_answer(call, reply)
    read = refund_answer if call.kind is Kind.REFUND else intent_answer
    return read(call, reply.body, False)


@pytest.mark.parametrize(("name", "kind", "said"), rows(INTENTS))
def test_an_object_as_it_stands(name: str, kind: Kind, said: str) -> None:
    assert told(answer_to(recorded_call(kind), recorded(name))) == said


@pytest.mark.parametrize(("name", "kind", "said"), rows(ERRORS))
def test_an_error(name: str, kind: Kind, said: str) -> None:
    call, reply = recorded_call(kind), recorded(name)
    assert ("again" if wants_another_look(call, reply) else told(error_answer(call, reply))) == said


def test_the_tables_name_every_recorded_body_and_every_known_status() -> None:
    named = {name for name, _, _ in [*rows(INTENTS), *rows(ERRORS)]}
    assert named == {*names("intent_"), *names("refund_"), *names("error_")} - {"refund_list"}
    recorded_statuses = {recorded(name).body.get("status") for name in named}
    assert {status for by_kind in VERDICTS.values() for status in by_kind} <= recorded_statuses


def test_what_is_refused_by_its_state_and_not_done_is_a_no() -> None:
    for kind in (Kind.CHARGE, Kind.VOID, Kind.CAPTURE):
        body = recorded("intent_requires_payment_method").body
        answer = intent_answer(recorded_call(kind), body, False, refused=True)
        assert told(answer).startswith("DECLINED INVALID_STATE")
    done = intent_answer(recorded_call(), recorded("intent_succeeded").body, False, refused=True)
    assert done.verdict is Verdict.APPROVED


def test_the_decline_of_an_earlier_attempt_is_not_this_ones() -> None:
    body = recorded("intent_declined").body
    assert told(intent_answer(recorded_call(number=2), body, False)) == "UNKNOWN NOT_FOUND"
    saved = recorded_call(number=2, token="pm_1RecordedMethod")
    unnumbered = {**body, "last_payment_error": {**body["last_payment_error"], "payment_method": {"id": "pm_1Other"}}}
    assert told(intent_answer(saved, unnumbered, False)) == "UNKNOWN NOT_FOUND"
    unnumbered["last_payment_error"]["payment_method"]["id"] = "pm_1RecordedMethod"
    assert told(intent_answer(saved, unnumbered, False)).startswith("DECLINED CARD_DECLINED")


# --- what the shopper has to do --------------------------------------------------------------------------------------


def test_a_redirect_or_the_client_secret_is_the_next_action() -> None:
    redirect = intent_answer(recorded_call(), recorded("intent_requires_action_redirect").body, False)
    script = intent_answer(recorded_call(), recorded("intent_requires_action_sdk").body, False)
    assert redirect.next_action is not None
    assert script.next_action is not None
    assert (redirect.next_action.type, redirect.next_action.client_secret) == ("redirect", None)
    assert (redirect.next_action.url or "").startswith("https://hooks.stripe.com/")
    assert (script.next_action.type, script.next_action.url) == ("use_client_secret", None)
    assert script.next_action.client_secret == "pi_3Recorded_secret_Ab12Cd34"
    assert "secret_Ab12" not in repr(script) and "hooks" not in repr(redirect), "whoever has it can pay"


@pytest.mark.parametrize("name", ["intent_requires_payment_method", "intent_declined", "intent_requires_confirmation"])
def test_without_a_means_of_payment_the_front_end_goes_on(name: str) -> None:
    answer = intent_answer(recorded_call(token=None), recorded(name).body, False)
    assert answer.verdict is Verdict.PENDING
    assert answer.next_action is not None and answer.next_action.type == "use_client_secret"


def test_a_made_object_has_an_id_and_for_a_front_end_its_secret() -> None:
    reply = recorded("intent_requires_payment_method")
    with_card = created_answer(recorded_call(), reply, False)
    without = created_answer(recorded_call(token=None), reply, False)
    assert (with_card.verdict, with_card.object_id, with_card.next_action) == (Verdict.APPROVED, "pi_3Recorded", None)
    assert without.next_action is not None and without.next_action.client_secret
    assert created_answer(recorded_call(), recorded("error_amount_too_large"), False).verdict is Verdict.DECLINED
    assert created_answer(recorded_call(), Reply(200, {"object": "payment_intent"}), False).verdict is Verdict.UNKNOWN


# --- an object that a front end names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("intent_succeeded", "APPROVED 1000 USD ch_3Recorded"),
        ("intent_of_another_payment", "DECLINED OBJECT_NOT_OURS closed ?OBJECT_NOT_OURS"),
        ("intent_for_another_amount", "DECLINED OBJECT_DIFFERS closed ?OBJECT_DIFFERS"),
        ("intent_requires_payment_method", "PENDING"),
        ("error_no_such_payment_intent", "DECLINED OBJECT_NOT_OURS closed ?OBJECT_NOT_OURS"),
    ],
)
def test_a_named_object_must_be_this_payments(name: str, said: str) -> None:
    call = replace(recorded_call(token=None), adopted=True)
    assert told(answer_to(call, recorded(name))) == said


def test_money_that_moved_on_a_named_object_of_ours_counts_whatever_its_amount() -> None:
    body = {**recorded("intent_succeeded").body, "amount": 900, "amount_received": 900}
    call = replace(recorded_call(token=None), adopted=True)
    assert told(answer_to(call, Reply(200, body))) == "APPROVED 900 USD ch_3Recorded"


def test_a_named_object_for_another_capture_or_currency_is_not_used() -> None:
    body = recorded("intent_requires_payment_method").body
    call = replace(recorded_call(token=None), adopted=True)
    for other in ({**body, "capture_method": "manual"}, {**body, "currency": "eur"}):
        assert answer_to(call, Reply(200, other)).code == "OBJECT_DIFFERS"
    manual = replace(call, kind=Kind.AUTHORIZE, capture_method=CaptureMethod.MANUAL)
    assert answer_to(manual, Reply(200, {**body, "capture_method": "manual"})).verdict is Verdict.PENDING


# --- amounts, refunds, texts -----------------------------------------------------------------------------------------


def test_amounts_come_back_in_our_units() -> None:
    body = recorded("intent_succeeded").body
    iceland = {**body, "currency": "isk", "amount": 150_000, "amount_received": 150_000}
    answer = intent_answer(replace(recorded_call(), currency="ISK", amount_minor=1500), iceland, False)
    assert (answer.amount_minor, answer.currency, answer.review) == (1500, "ISK", ())
    odd = intent_answer(recorded_call(), {**iceland, "amount_received": 150_050}, False)
    assert (odd.amount_minor, odd.review) == (None, ("AMOUNT_DIFFERS",))
    huge = intent_answer(recorded_call(), {**iceland, "amount_received": float(2**64)}, False)
    assert (huge.amount_minor, huge.review) == (None, ("AMOUNT_DIFFERS",)), "more than 64 bits are read as a float"


def test_what_is_held_is_what_can_be_captured() -> None:
    body = {**recorded("intent_requires_capture").body, "amount_capturable": 900}
    assert intent_answer(recorded_call(Kind.AUTHORIZE), body, False).amount_minor == 900


def test_no_amount_is_taken_that_no_row_could_hold() -> None:
    body = {**recorded("intent_succeeded").body, "amount_received": 10**30}
    answer = intent_answer(recorded_call(), body, False)
    assert (answer.verdict, answer.amount_minor, answer.review) == (Verdict.APPROVED, None, ("AMOUNT_DIFFERS",))


def test_a_next_action_that_is_not_whole_is_none() -> None:
    action = recorded("intent_requires_action_redirect").body
    for url in ("javascript:alert(1)", "https://x/" + "y" * 5000, "https://x/\ud800", None):
        body = {**action, "next_action": {"type": "redirect_to_url", "redirect_to_url": {"url": url}}}
        answer = intent_answer(recorded_call(), body, False)
        assert answer.next_action is not None and answer.next_action.type == "use_client_secret"
        torn = intent_answer(recorded_call(), {**body, "client_secret": "s\0"}, False)
        assert (torn.verdict, torn.next_action) == (Verdict.PENDING, None)


def test_a_refund_is_found_by_its_number() -> None:
    page = recorded("refund_list").body
    for number, refund_id in ((1, "re_3Recorded"), (2, "re_3Second")):
        found = find_refund(recorded_call(Kind.REFUND, number), page)
        assert found is not None and found["id"] == refund_id
    assert find_refund(recorded_call(Kind.REFUND, 3), page) is None
    assert find_refund(replace(recorded_call(Kind.REFUND), payment_id="pay_other"), page) is None


def test_no_text_of_a_refused_request_is_kept_and_every_text_is_storable() -> None:
    for name in ("error_no_such_token", "error_no_such_payment_method", "error_key_invalid"):
        assert "secret" not in repr(answer_to(recorded_call(), recorded(name)))
    error = {"type": "card_error", "code": "card_\ud800declined", "message": "no\0 " + "x" * 5000}
    answer = error_answer(recorded_call(), Reply(402, {"error": error}))
    assert answer.decline_code == "card_declined"
    assert "\0" not in answer.message and len(answer.message) <= 300
    answer.message.encode()


@pytest.mark.parametrize("code", [[], {}, None, 7])
def test_a_code_that_is_no_text_is_no_state_error(code: Any) -> None:
    assert not wants_another_look(
        recorded_call(), Reply(400, {"error": {"type": "invalid_request_error", "code": code}})
    )


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELD_NAMES = sorted(
    {
        *recorded("intent_declined").body, *recorded("refund_failed").body, "error", "type", "code", "decline_code",
        "param", "payment_intent", "redirect_to_url", "payment_method",
    }
)  # fmt: skip
BODIES = sorted({*names("intent_"), *names("refund_"), *names("error_")})


@given(
    st.sampled_from(BODIES),
    st.dictionaries(st.sampled_from(FIELD_NAMES), JSON, max_size=6),
    st.sampled_from(list(Kind)),
    st.sampled_from([200, 201, 302, 400, 402, 404, 418, 500]),
    st.booleans(),
    st.booleans(),
)
def test_whatever_comes_is_a_verdict_and_never_an_exception(
    name: str, changed: dict[str, Any], kind: Kind, status: int, adopted: bool, nested: bool
) -> None:
    body = dict(recorded(name).body)
    if nested and isinstance(body.get("error"), dict):
        body["error"] = {**body["error"], **changed}
    else:
        body.update(changed)
    call = replace(recorded_call(kind), adopted=adopted)
    reply = Reply(status, body)
    answer = answer_to(call, reply)
    created_answer(call, reply, True)
    wants_another_look(call, reply)
    find_refund(call, body)
    told(answer).encode()
    if status == 200 and answer.verdict is Verdict.APPROVED:
        expected = "canceled" if kind is Kind.VOID else {"succeeded", "requires_capture"}
        assert body.get("status") in expected
    if status >= 500:
        assert answer.verdict is Verdict.UNKNOWN and answer.code in TROUBLE
