"""Customers, saved methods and SetupIntents through Stripe's SDK."""

import pytest
import stripe
from rigs.sim_api import Api


async def test_a_method_is_saved_used_and_removed(api: Api) -> None:
    customer = await api.v1.customers.create_async({"email": "a@shop.test", "metadata": {"user_id": "u1"}})
    made = await api.v1.payment_methods.create_async({"type": "card", "card": {"token": "tok_mastercard"}})
    assert (made.card.brand, made.card.last4, made.card.exp_year, made.customer) == ("mastercard", "4444", 2034, None)
    saved = await api.v1.payment_methods.attach_async(made.id, {"customer": customer.id})
    assert saved.customer == customer.id
    for _ in range(2):
        intent = await api.pay(card=made.id, customer=customer.id)
        assert (intent.status, intent.customer) == ("succeeded", customer.id)
    with pytest.raises(stripe.InvalidRequestError, match="belongs to a Customer"):
        await api.pay(card=made.id)
    listed = await api.v1.customers.payment_methods.list_async(customer.id)
    assert [one.id for one in listed.data] == [made.id]
    assert (await api.v1.payment_methods.detach_async(made.id)).customer is None
    with pytest.raises(stripe.InvalidRequestError, match="may not be"):
        await api.pay(card=made.id)


async def test_a_method_that_belongs_to_nobody_is_used_once(api: Api) -> None:
    made = await api.v1.payment_methods.create_async({"type": "card", "card": {"token": "tok_visa"}})
    assert (await api.pay(card=made.id)).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError, match="may not be"):
        await api.pay(card=made.id)
    assert (await api.v1.payment_methods.retrieve_async(made.id)).card.last4 == "4242"


async def test_what_no_test_token_is_and_card_numbers_are_refused(api: Api) -> None:
    for card in ({"token": "tok_unheard_of"}, {"number": "4242424242424242", "exp_month": 1, "exp_year": 2030}):
        with pytest.raises(stripe.InvalidRequestError):
            await api.v1.payment_methods.create_async({"type": "card", "card": card})
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        await api.pay(card="pm_unheard_of")
    assert unknown.value.code == "resource_missing"


async def test_a_declined_card_is_not_saved(api: Api) -> None:
    customer = await api.v1.customers.create_async()
    with pytest.raises(stripe.CardError):
        await api.v1.payment_methods.attach_async("pm_card_chargeDeclined", {"customer": customer.id})
    saved = await api.v1.payment_methods.attach_async("pm_card_chargeCustomerFail", {"customer": customer.id})
    with pytest.raises(stripe.CardError):
        await api.pay(card=saved.id, customer=customer.id)


async def test_paying_may_save_the_card(api: Api) -> None:
    customer = await api.v1.customers.create_async()
    intent = await api.pay(customer=customer.id, setup_future_usage="off_session")
    again = await api.pay(card=intent.payment_method, customer=customer.id, off_session=True)
    assert again.status == "succeeded"


async def test_a_setup_saves_a_card_without_paying(api: Api) -> None:
    customer = await api.v1.customers.create_async()
    setup = await api.v1.setup_intents.create_async({"customer": customer.id, "payment_method_types": ["card"]})
    assert (setup.status, setup.usage) == ("requires_payment_method", "off_session")
    setup = await api.v1.setup_intents.confirm_async(setup.id, {"payment_method": "pm_card_visa"})
    assert setup.status == "succeeded"
    assert (await api.v1.payment_methods.retrieve_async(setup.payment_method)).customer == customer.id
    assert (await api.v1.setup_intents.retrieve_async(setup.id)).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError) as done:
        await api.v1.setup_intents.cancel_async(setup.id)
    assert done.value.code == "setup_intent_unexpected_state"


async def test_a_setup_may_need_the_shopper_or_be_declined(api: Api) -> None:
    customer = await api.v1.customers.create_async()
    setup = await api.v1.setup_intents.create_async(
        {"customer": customer.id, "payment_method": "pm_card_threeDSecure2Required", "confirm": True,
         "return_url": "https://shop.test/back"}
    )  # fmt: skip
    assert (setup.status, setup.next_action.type) == ("requires_action", "redirect_to_url")
    assert (await api.post(f"/_sim/approve/{setup.id}"))[1]["status"] == "succeeded"
    with pytest.raises(stripe.CardError) as declined:
        await api.v1.setup_intents.create_async({"payment_method": "pm_card_chargeDeclined", "confirm": True})
    assert declined.value.error.setup_intent.status == "requires_payment_method"


async def test_the_account_is_who_the_key_belongs_to(api: Api) -> None:
    account = await api.v1.accounts.retrieve_current_async()
    assert (account.object, account.charges_enabled) == ("account", True)
