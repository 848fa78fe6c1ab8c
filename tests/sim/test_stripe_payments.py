"""PaymentIntents through Stripe's SDK: every state, what it says and what moved."""

import pytest
import stripe
from rigs.sim_api import Api

from payment_service.cli.provider_sim.stripe_cards import CARDS


async def test_a_charge_is_one_movement_with_our_ids(api: Api) -> None:
    metadata = {"payment_id": "pay_a", "order_id": "order-a"}
    intent = await api.pay(1234, key="pay_a:charge:1", metadata=metadata, expand=["latest_charge"])
    assert (intent.status, intent.amount_received, intent.currency) == ("succeeded", 1234, "usd")
    assert (intent.latest_charge.amount_captured, intent.latest_charge.payment_intent) == (1234, intent.id)
    assert intent.client_secret.startswith(f"{intent.id}_secret_")
    assert intent.metadata.to_dict() == metadata
    (movement,) = api.sim.movements("pay_a")
    assert (movement["kind"], movement["amount_minor"], movement["currency"], movement["key"]) == (
        "charge", 1234, "USD", "pay_a:charge:1",
    )  # fmt: skip
    assert (movement["provider"], movement["object_id"], movement["order_id"]) == ("stripe", intent.id, "order-a")
    assert (await api.v1.charges.retrieve_async(movement["id"])).captured is True


async def test_made_first_then_confirmed_with_a_one_time_token(api: Api) -> None:
    intent = await api.v1.payment_intents.create_async(
        {"amount": 500, "currency": "usd", "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}
    )
    assert (intent.status, intent.amount_received, intent.capture_method) == (
        "requires_payment_method", 0, "automatic_async",
    )  # fmt: skip
    paid = await api.v1.payment_intents.confirm_async(
        intent.id, {"payment_method_data": {"type": "card", "card": {"token": "tok_visa"}}}
    )
    assert (paid.status, paid.id) == ("succeeded", intent.id)
    with pytest.raises(stripe.InvalidRequestError) as again:
        await api.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    assert again.value.code == "payment_intent_unexpected_state"
    assert again.value.error.payment_intent.status == "succeeded"


async def test_without_a_method_or_a_way_back_it_is_not_confirmed(api: Api) -> None:
    intent = await api.v1.payment_intents.create_async({"amount": 500, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
        await api.v1.payment_intents.confirm_async(intent.id)
    with pytest.raises(stripe.InvalidRequestError, match="return_url"):
        await api.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})
    done = await api.v1.payment_intents.confirm_async(
        intent.id, {"payment_method": "pm_card_visa", "return_url": "https://shop.test/back"}
    )
    assert done.status == "succeeded"


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
    ],
)
async def test_a_decline_says_why_and_leaves_the_intent_payable(
    api: Api, card: str, code: str, decline_code: str | None
) -> None:
    with pytest.raises(stripe.CardError) as declined:
        await api.pay(card=card, metadata={"payment_id": f"pay_{card}"})
    error = declined.value
    assert (error.http_status, error.code, error.error.decline_code) == (402, code, decline_code)
    intent = error.error.payment_intent
    assert (intent.status, intent.payment_method) == ("requires_payment_method", None)
    assert (intent.last_payment_error.code, intent.last_payment_error.charge) == (code, intent.latest_charge)
    assert (await api.v1.charges.retrieve_async(intent.latest_charge)).status == "failed"
    assert api.sim.movements(f"pay_{card}") == []
    paid = await api.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_mastercard"})
    assert (paid.status, paid.last_payment_error) == ("succeeded", None)


async def test_the_shopper_authenticates_in_the_browser_once(api: Api) -> None:
    intent = await api.pay(
        card="pm_card_threeDSecure2Required", return_url="https://shop.test/back", metadata={"payment_id": "pay_3ds"}
    )
    assert (intent.status, intent.next_action.type) == ("requires_action", "redirect_to_url")
    assert intent.next_action.redirect_to_url.return_url == "https://shop.test/back"
    assert api.sim.movements("pay_3ds") == []
    for _ in range(2):
        async with api.session.get(intent.next_action.redirect_to_url.url, allow_redirects=False) as page:
            assert (page.status, page.headers["Location"]) == (302, "https://shop.test/back")
    assert (await api.v1.payment_intents.retrieve_async(intent.id)).status == "succeeded"
    (movement,) = api.sim.movements("pay_3ds")
    assert (movement["kind"], movement["key"]) == ("charge", None), "a browser has no key"


async def test_a_shopper_who_fails_to_authenticate_can_try_again(api: Api) -> None:
    intent = await api.pay(card="pm_card_threeDSecure2Required")
    assert intent.next_action.type == "use_stripe_sdk", "nowhere to come back to"
    assert (await api.post(f"/_sim/deny/{intent.id}"))[0] == 200
    denied = await api.v1.payment_intents.retrieve_async(intent.id)
    assert denied.status == "requires_payment_method"
    assert denied.last_payment_error.code == "payment_intent_authentication_failure"
    assert (await api.post(f"/_sim/deny/{intent.id}"))[0] == 409


async def test_off_session_an_authentication_is_a_decline(api: Api) -> None:
    with pytest.raises(stripe.CardError) as declined:
        await api.pay(card="pm_card_authenticationRequired", off_session=True)
    assert declined.value.code == "authentication_required"


async def test_what_is_processing_settles_later_under_the_key_of_its_call(api: Api) -> None:
    intent = await api.pay(card="pm_card_pending", key="pay_p:charge:1", metadata={"payment_id": "pay_p"})
    assert intent.status == "processing"
    with pytest.raises(stripe.InvalidRequestError) as no:
        await api.v1.payment_intents.cancel_async(intent.id)
    assert no.value.code == "payment_intent_unexpected_state"
    await api.settled(lambda: api.v1.payment_intents.retrieve_async(intent.id), lambda one: one.status == "succeeded")
    (movement,) = api.sim.movements("pay_p")
    assert (movement["kind"], movement["key"]) == ("charge", "pay_p:charge:1")


async def test_a_hold_is_captured_in_part_and_the_rest_let_go(api: Api) -> None:
    intent = await api.pay(capture_method="manual", metadata={"payment_id": "pay_h"})
    assert (intent.status, intent.amount_capturable, intent.amount_received) == ("requires_capture", 1000, 0)
    with pytest.raises(stripe.InvalidRequestError) as too_much:
        await api.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 1001})
    assert too_much.value.code == "amount_too_large"
    captured = await api.v1.payment_intents.capture_async(
        intent.id, {"amount_to_capture": 700, "expand": ["latest_charge"]}
    )
    assert (captured.status, captured.amount_received, captured.amount_capturable) == ("succeeded", 700, 0)
    charge = captured.latest_charge
    assert (charge.captured, charge.amount_captured, charge.amount_refunded) == (True, 700, 300)
    assert [one["kind"] for one in api.sim.movements("pay_h")] == ["authorize", "capture"]
    with pytest.raises(stripe.InvalidRequestError) as again:
        await api.v1.payment_intents.capture_async(intent.id)
    assert again.value.code == "payment_intent_unexpected_state"


async def test_a_hold_is_cancelled_or_runs_out(api: Api) -> None:
    voided = await api.pay(capture_method="manual", metadata={"payment_id": "pay_v"})
    cancelled = await api.v1.payment_intents.cancel_async(
        voided.id, {"cancellation_reason": "abandoned", "expand": ["latest_charge"]}
    )
    assert (cancelled.status, cancelled.latest_charge.refunded) == ("canceled", True)
    assert cancelled.latest_charge.captured is False
    assert [one["kind"] for one in api.sim.movements("pay_v")] == ["authorize", "void"]
    expired = await api.pay(capture_method="manual", metadata={"payment_id": "pay_e"})
    assert (await api.post(f"/_sim/expire/{expired.id}"))[0] == 200
    assert (await api.v1.payment_intents.retrieve_async(expired.id)).status == "canceled"
    assert [one["kind"] for one in api.sim.movements("pay_e")] == ["authorize", "expire"]


async def test_cancelled_before_anything_was_paid_moves_nothing_and_is_final(api: Api) -> None:
    intent = await api.v1.payment_intents.create_async(
        {"amount": 500, "currency": "usd", "metadata": {"payment_id": "pay_c"}}
    )
    assert (await api.v1.payment_intents.cancel_async(intent.id)).status == "canceled"
    for refused in (
        api.v1.payment_intents.cancel_async(intent.id),
        api.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"}),
    ):
        with pytest.raises(stripe.InvalidRequestError) as error:
            await refused
        assert error.value.error.payment_intent.status == "canceled"
    assert api.sim.movements("pay_c") == []


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"amount": 10, "currency": "usd"}, "amount_too_small"),
        ({"amount": 100_000_000, "currency": "usd"}, "amount_too_large"),
        ({"amount": "9.99", "currency": "usd"}, "parameter_invalid_integer"),
        ({"amount": 1234, "currency": "kwd"}, "invalid_charge_amount"),
        ({"amount": 1250, "currency": "isk"}, "invalid_charge_amount"),
        ({"currency": "usd"}, "parameter_missing"),
        ({"amount": 1000, "currency": "usd", "amonut": 1}, "parameter_unknown"),
    ],
)
async def test_wrong_parameters_are_refused(api: Api, params: dict[str, object], code: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await api.v1.payment_intents.create_async(params)
    assert (refused.value.http_status, refused.value.code) == (400, code)


@pytest.mark.parametrize(
    ("currency", "amount", "minor"), [("jpy", 500, 500), ("isk", 12300, 123), ("mga", 70, 7000), ("kwd", 1230, 1230)]
)
async def test_the_ledger_counts_in_iso_minor_units(api: Api, currency: str, amount: int, minor: int) -> None:
    intent = await api.pay(amount, currency=currency, metadata={"payment_id": f"pay_{currency}"})
    (movement,) = api.sim.movements(f"pay_{currency}")
    assert intent.amount_received == movement["provider_amount"] == amount
    assert (movement["amount_minor"], movement["currency"]) == (minor, currency.upper())


async def test_keys_and_ids_that_are_not_there(api: Api) -> None:
    with pytest.raises(stripe.InvalidRequestError) as missing:
        await api.v1.payment_intents.retrieve_async("pi_never")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")
    async with api.session.get(f"{api.sim.url}/v1/account") as nobody:
        assert nobody.status == 401
    live = stripe.StripeClient("sk_live_x", http_client=api._http, base_addresses={"api": api.sim.url})
    with pytest.raises(stripe.AuthenticationError):
        await live.v1.accounts.retrieve_current_async()


async def test_a_list_is_newest_first_and_a_search_is_late(api: Api) -> None:
    metadata = {"payment_id": "pay_found"}
    made = [(await api.pay(metadata=metadata)).id for _ in range(2)]
    listed = await api.v1.payment_intents.list_async({"limit": 2})
    assert [one.id for one in listed.data] == made[::-1]
    assert listed.has_more is True
    query = {"query": "metadata['payment_id']:'pay_found' AND status:'succeeded'"}
    assert (await api.v1.payment_intents.search_async(query)).data == []
    found = await api.settled(lambda: api.v1.payment_intents.search_async(query), lambda result: len(result.data) == 2)
    assert {one.id for one in found.data} == set(made)


async def test_it_is_updated_while_it_is_not_paid(api: Api) -> None:
    intent = await api.v1.payment_intents.create_async({"amount": 500, "currency": "usd", "metadata": {"a": "1"}})
    changed = await api.v1.payment_intents.update_async(intent.id, {"amount": 700, "metadata": {"a": "", "b": "2"}})
    assert (changed.amount, changed.metadata.to_dict()) == (700, {"b": "2"})
    paid = await api.pay()
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await api.v1.payment_intents.update_async(paid.id, {"amount": 1})
    assert refused.value.code == "payment_intent_unexpected_state"


async def test_every_test_card_does_something_known() -> None:
    known = {"pay", "decline", "authenticate", "process", "never", "fail"}
    assert {card.does for card in CARDS.values()} == known
