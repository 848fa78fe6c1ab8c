"""Saved methods: what is kept, and what a payment or an order is charged with."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
import pytest_asyncio
from rigs.desk_rig import ADMIN, ANN, BOB, SERVICE
from rigs.method_rig import ACTION, Rig, method_rig

from payment_service.agents.records import Record
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.payment import status_of
from payment_service.core.payment_method import Card, MethodAnswer, MethodStatus
from payment_service.core.terms import Status, Verdict
from payment_service.core.webhooks import MethodNews


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    async with method_rig() as opened:
        yield opened


def order(**fields: Any) -> bytes:
    return orjson.dumps({"type": "order.created", "orderId": "o1", "userId": "ann", "totalAmount": 10.5, **fields})


# --- saving --------------------------------------------------------------------------------------------------------


async def test_a_token_becomes_a_method(rig: Rig) -> None:
    saved = await rig.save("tok_amex")
    assert saved.created and saved.shown is not None
    method = saved.shown.method
    assert (method.status, method.card, method.is_default) == (
        MethodStatus.ACTIVE, Card("amex", "8431", 12, 2034), False,
    )  # fmt: skip
    assert method.method_id.startswith("pmt_") and "tok_amex" not in repr(saved)
    again = await rig.save("tok_amex", is_default=True)
    assert again.shown is not None
    assert (again.created, again.shown.method.method_id) == (False, method.method_id)
    assert again.shown.method.is_default
    assert len(await rig.methods.listed(ANN)) == 1 and list(await rig.methods.listed(BOB)) == []


@pytest.mark.parametrize(
    ("token", "code"),
    [("tok_chargeDeclined", "card_declined"), ("tok_chargeDeclinedInsufficientFunds", "insufficient_funds")],
)
async def test_one_that_is_declined_is_not_saved(rig: Rig, token: str, code: str) -> None:
    saved = await rig.save(token)
    assert saved.shown is None and saved.declined is not None
    assert (saved.declined.code, saved.declined.decline_code) == ("CARD_DECLINED", code)
    assert list(await rig.methods.listed(ANN)) == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"token": "4111"}, "VALIDATION_ERROR"),
        ({"token": "pmt_1"}, "VALIDATION_ERROR"),
        ({"type": "paypal"}, "VALIDATION_ERROR"),
        ({"provider": "PAYPAL", "type": "paypal"}, "PROVIDER_NOT_CONFIGURED"),
        ({"caller": SERVICE}, "FORBIDDEN"),
    ],
)
async def test_what_cannot_be_saved_is_refused(rig: Rig, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        await rig.save(**fields)
    assert refused.value.code == code and "4111" not in refused.value.message
    assert list(await rig.methods.listed(ANN)) == []


async def test_a_provider_that_is_away_leaves_nothing(rig: Rig) -> None:
    rig.scripted.says = [MethodAnswer(Verdict.NOT_SENT, code="PROVIDER_KEY_REFUSED")]
    with pytest.raises(Unavailable):
        await rig.save("tok_1", provider="STRIPE")
    assert list(await rig.methods.listed(ANN)) == []
    assert (await rig.save("tok_1", provider="STRIPE")).created


@pytest.mark.parametrize("token", ["tok_error", "tok_timeout"])
async def test_one_whose_answer_is_lost_is_finished_by_the_sweep(rig: Rig, token: str) -> None:
    saved = await rig.save(token)
    assert saved.shown is not None and saved.shown.method.status is MethodStatus.PENDING
    with pytest.raises(Refused) as refused:
        await rig.methods.for_user("ann", saved.shown.method.method_id)
    assert refused.value.code == "INVALID_STATE"
    with pytest.raises(Refused) as refused:
        await rig.methods.remove(ANN, saved.shown.method.method_id)
    assert refused.value.code == "INVALID_STATE"


async def test_the_sweep_asks_again_under_the_same_key(rig: Rig) -> None:
    rig.scripted.says = [MethodAnswer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")]
    method_id = await rig.saved("tok_1", provider="STRIPE", is_default=True)
    (waiting,) = await rig.kept.listed("ann")
    await rig.kept.later(waiting, 0.0)
    (claimed,) = await rig.kept.claim(10, 60.0)
    await rig.sweep._one(claimed)
    assert [(what, call.key, call.secrets.given) for what, call in rig.scripted.calls] == [
        ("keep", method_id, "tok_1"), ("keep", method_id, "tok_1"),
    ]  # fmt: skip
    usable = await rig.methods.usable("ann", None)
    assert usable is not None and (usable.token, usable.customer) == ("pm_kept", "cus_1")


async def test_the_shopper_confirms_it(rig: Rig) -> None:
    pending = replace(ACTION, next_action=ACTION.next_action)
    rig.scripted.says = [pending, pending, pending]
    saved = await rig.save("tok_3ds", provider="STRIPE", is_default=True)
    assert saved.shown is not None and saved.created
    assert (saved.shown.method.status, saved.shown.next_action) == (MethodStatus.REQUIRES_ACTION, ACTION.next_action)
    (listed,) = await rig.methods.listed(ANN)
    assert listed.next_action == ACTION.next_action and not listed.method.is_default
    again = await rig.save("tok_3ds", provider="STRIPE")
    assert again.shown is not None and again.shown.method.method_id == saved.shown.method.method_id
    usable = await rig.methods.for_user("ann", saved.shown.method.method_id)
    assert usable.token == "pm_kept"
    (listed,) = await rig.methods.listed(ANN)
    assert (listed.method.status, listed.method.is_default) == (MethodStatus.ACTIVE, True)
    assert [what for what, _ in rig.scripted.calls] == ["keep", "look", "look", "look"]


async def test_one_that_the_shopper_does_not_confirm_goes(rig: Rig) -> None:
    rig.scripted.says = [ACTION, MethodAnswer(Verdict.DECLINED, code="AUTHENTICATION_FAILED")]
    await rig.saved("tok_3ds", provider="STRIPE")
    assert list(await rig.methods.listed(ANN)) == []
    rig.scripted.says = [ACTION, ACTION]
    await rig.saved("tok_3ds2", provider="STRIPE")
    (waiting,) = await rig.kept.listed("ann")
    await rig.kept.later(waiting, 0.0)
    rig.sweep.action_ttl_ms = -1
    (claimed,) = await rig.kept.claim(10, 60.0)
    await rig.sweep._one(claimed)
    assert await rig.kept.listed("ann") == []
    (removed,) = await rig.kept.claim(10, 60.0)
    await rig.sweep._one(removed)
    assert rig.scripted.calls[-1][0] == "detach" and await rig.kept.claim(10, 60.0) == []


async def test_removing_detaches_until_it_is_done(rig: Rig) -> None:
    method_id = await rig.saved("tok_1", provider="STRIPE")
    for caller in (BOB, ADMIN):
        with pytest.raises(Refused) as refused:
            await rig.methods.remove(caller, method_id)
        assert refused.value.code == "NOT_FOUND"
    await rig.methods.remove(ANN, method_id)
    with pytest.raises(Refused) as refused:
        await rig.methods.make_default(ANN, method_id)
    assert refused.value.code == "NOT_FOUND"
    rig.scripted.says = [MethodAnswer(Verdict.UNKNOWN), MethodAnswer(Verdict.NOT_SENT)]
    (claimed,) = await rig.kept.claim(10, 60.0)
    for _ in range(2):
        await rig.sweep._one(claimed)
        await rig.kept.later(claimed, 0.0)
        (claimed,) = await rig.kept.claim(10, 60.0)
    await rig.sweep._one(claimed)
    assert await rig.kept.claim(10, 60.0) == []
    assert {call.secrets.token for what, call in rig.scripted.calls if what == "detach"} == {"pm_kept"}


async def test_a_providers_news(rig: Rig) -> None:
    method_id = await rig.saved("tok_1", provider="STRIPE", is_default=True)
    await rig.methods.changed_there("STRIPE", MethodNews("pm_kept", False, exp_month=2, exp_year=2040))
    (shown,) = await rig.methods.listed(ANN)
    assert shown.method.card == Card("visa", "4242", 2, 2040)
    await rig.methods.changed_there("MOCK", MethodNews("pm_kept", True))
    assert await rig.methods.usable("ann", method_id) is not None
    await rig.methods.changed_there("STRIPE", MethodNews("pm_kept", True))
    assert await rig.methods.usable("ann", None) is None


# --- payments ------------------------------------------------------------------------------------------------------


async def test_a_payment_is_processed_with_a_saved_method(rig: Rig) -> None:
    method = await rig.saved("tok_visa")
    await rig.create()
    paid = await rig.process(method)
    assert (status_of(paid.payment), paid.payment.payment_method_id) == (Status.SUCCEEDED, method)
    assert [(call.method_token, call.payment_method_id) for call in rig.provider.sent] == [("tok_visa", method)]


async def test_a_payment_is_created_with_a_saved_method(rig: Rig) -> None:
    method = await rig.saved("tok_visa")
    created = await rig.create(method=method)
    assert created.payment.payment_method_id == method
    assert status_of((await rig.process()).payment) is Status.SUCCEEDED
    assert [call.method_token for call in rig.provider.sent] == ["tok_visa"]


async def test_the_methods_provider_is_the_payments(rig: Rig) -> None:
    method = await rig.saved("tok_1", provider="STRIPE")
    assert (await rig.create(method=method)).payment.provider == "STRIPE"
    with pytest.raises(Refused) as refused:
        await rig.create("o2", method=method, provider="MOCK")
    assert (refused.value.code, list(refused.value.fields or {})) == ("VALIDATION_ERROR", ["paymentMethodId"])
    await rig.create("o3")
    with pytest.raises(Refused) as refused:
        await rig.process(method, "o3")
    assert refused.value.code == "VALIDATION_ERROR"


async def test_another_users_or_a_removed_one_is_not_found(rig: Rig) -> None:
    bobs, gone = await rig.saved("tok_visa", BOB), await rig.saved("tok_visa")
    await rig.methods.remove(ANN, gone)
    await rig.create()
    for method in (bobs, gone, "pmt_unheard_of"):
        for asked in (rig.create("o2", method=method), rig.process(method)):
            with pytest.raises(Refused) as refused:
                await asked
            assert refused.value.code == "NOT_FOUND"
    assert rig.provider.sent == []


async def test_a_method_that_is_gone_matters_only_to_what_is_still_to_be_charged(rig: Rig) -> None:
    method = await rig.saved("tok_visa")
    await rig.create(method=method)
    await rig.create("o2", method=method)
    await rig.process()
    await rig.methods.remove(ANN, method)
    assert status_of((await rig.process(method)).payment) is Status.SUCCEEDED
    assert not (await rig.create(method=method)).created, "the same creation, sent again"
    with pytest.raises(Refused) as refused:
        await rig.process(None, "o2")
    assert refused.value.code == "NOT_FOUND"
    assert status_of((await rig.process("tok_visa", "o2")).payment) is Status.SUCCEEDED


async def test_a_one_time_token_is_no_saved_method(rig: Rig) -> None:
    method = await rig.saved("tok_visa")
    await rig.create(method=method)
    paid = await rig.process("tok_amex")
    assert paid.payment.payment_method_id is None and paid.payment.attempts[0].payment_method_id is None
    assert [(call.method_token, call.payment_method_id) for call in rig.provider.sent] == [("tok_amex", None)]


async def test_a_saved_card_may_be_declined_and_another_is_taken(rig: Rig) -> None:
    first, second = await rig.saved("tok_threeDSecure"), await rig.saved("tok_visa")
    await rig.create()
    asked = await rig.process(first)
    assert status_of(asked.payment) is Status.REQUIRES_ACTION
    paid = await rig.process(second)
    assert (status_of(paid.payment), paid.payment.payment_method_id) == (Status.SUCCEEDED, second)


async def test_without_a_saved_method_none_is_looked_for(rig: Rig) -> None:
    await rig.create(method="tok_visa")
    await rig.process()
    await rig.create("o2")
    await rig.process("tok_visa", "o2")
    await rig.order(order(orderId="o3", paymentMethodId="tok_visa"))
    assert rig.kept.looked == 0 and len(rig.provider.sent) == 3


# --- orders --------------------------------------------------------------------------------------------------------


async def test_an_order_is_charged_with_the_method_it_names(rig: Rig) -> None:
    await rig.saved("tok_amex", is_default=True)
    method = await rig.saved("tok_visa")
    payment = await rig.order(order(paymentMethodId=method))
    assert (status_of(payment), payment.payment_method_id) == (Status.SUCCEEDED, method)
    assert [call.method_token for call in rig.provider.sent] == ["tok_visa"]


async def test_an_order_without_one_is_charged_with_its_users_default(rig: Rig) -> None:
    await rig.saved("tok_visa")
    default = await rig.saved("tok_amex", is_default=True)
    await rig.saved("tok_jcb", BOB, is_default=True)
    payment = await rig.order(order())
    assert (status_of(payment), payment.payment_method_id) == (Status.SUCCEEDED, default)
    assert [call.method_token for call in rig.provider.sent] == ["tok_amex"]
    await rig.order(order())
    assert len(rig.provider.sent) == 1


async def test_an_order_without_any_is_created_and_waits(rig: Rig) -> None:
    await rig.saved("tok_visa")
    payment = await rig.order(order())
    assert (status_of(payment), payment.attempts) == (Status.PENDING, ())
    assert status_of((await rig.process("tok_visa")).payment) is Status.SUCCEEDED


async def test_an_orders_provider_is_the_methods(rig: Rig) -> None:
    default = await rig.saved("tok_1", provider="STRIPE", is_default=True)
    payment = await rig.order(order())
    assert (payment.provider, payment.payment_method_id, status_of(payment)) == ("STRIPE", default, Status.SUCCEEDED)
    other = await rig.order(order(orderId="o2", paymentProvider="MOCK"))
    assert (other.provider, status_of(other), other.attempts) == ("MOCK", Status.PENDING, ())


@pytest.mark.parametrize("case", ["removed", "another user's", "another provider's", "unheard of"])
async def test_an_order_that_names_one_that_cannot_be_used_fails_and_charges_nothing_else(rig: Rig, case: str) -> None:
    default = await rig.saved("tok_amex", is_default=True)
    method, more = "pmt_unheard_of", {}
    if case == "removed":
        method = await rig.saved("tok_visa")
        await rig.methods.remove(ANN, method)
    elif case == "another user's":
        method = await rig.saved("tok_visa", BOB)
    elif case == "another provider's":
        method, more = await rig.saved("tok_1", provider="STRIPE"), {"paymentProvider": "mock"}
    payment = await rig.order(order(paymentMethodId=method, **more))
    assert status_of(payment) is Status.FAILED
    assert payment.attempts[-1].code == "INVALID_PAYMENT_METHOD"
    assert rig.provider.sent == []
    assert status_of((await rig.process(default)).payment) is Status.SUCCEEDED


async def test_one_that_cannot_be_used_is_not_replaced_by_what_was_left_with_the_payment(rig: Rig) -> None:
    await rig.create(method="tok_jcb")
    payment = await rig.order(order(paymentMethodId="pmt_unheard_of"))
    assert (status_of(payment), rig.provider.sent) == (Status.FAILED, [])


async def test_what_the_payment_was_created_with_comes_before_the_default(rig: Rig) -> None:
    await rig.saved("tok_amex", is_default=True)
    own = await rig.saved("tok_visa")
    await rig.create("o1", method=own)
    await rig.create("o2", method="tok_jcb")
    first, second = await rig.order(order()), await rig.order(order(orderId="o2"))
    assert (first.payment_method_id, second.payment_method_id) == (own, None)
    assert [call.method_token for call in rig.provider.sent] == ["tok_visa", "tok_jcb"]


async def test_a_method_removed_between_commit_and_sending_was_ordered_before(rig: Rig) -> None:
    """The request is sealed whole when it is committed: the runner sends what was ordered, or the provider says no."""
    method = await rig.saved("tok_visa")
    work = rig.orders.plan(Record("orders", 0, 0, None, order(paymentMethodId=method), (), 0))
    assert work is not None
    await work.start()
    await rig.methods.remove(ANN, method)
    payment = await rig.order(order(paymentMethodId=method))
    assert (status_of(payment), len(rig.provider.sent)) == (Status.SUCCEEDED, 1)
    assert rig.provider.sent[0].method_token == "tok_visa"
