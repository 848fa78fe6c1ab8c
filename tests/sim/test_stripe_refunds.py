"""Refunds and disputes through Stripe's SDK."""

import pytest
import stripe
from rigs.sim_api import Api


def kinds(api: Api, payment_id: str) -> list[str]:
    return [one["kind"] for one in api.sim.movements(payment_id)]


async def test_refunds_part_by_part_up_to_what_was_taken(api: Api) -> None:
    intent = await api.pay(metadata={"payment_id": "pay_r", "order_id": "o"})
    first = await api.v1.refunds.create_async(
        {"payment_intent": intent.id, "amount": 600, "reason": "requested_by_customer"},
        {"idempotency_key": "pay_r:refund:1"},
    )
    assert (first.status, first.amount, first.charge) == ("succeeded", 600, intent.latest_charge)
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount"):
        await api.v1.refunds.create_async({"payment_intent": intent.id, "amount": 401})
    rest = await api.v1.refunds.create_async({"charge": intent.latest_charge})
    assert rest.amount == 400
    with pytest.raises(stripe.InvalidRequestError) as again:
        await api.v1.refunds.create_async({"payment_intent": intent.id})
    assert again.value.code == "charge_already_refunded"
    charge = await api.v1.charges.retrieve_async(intent.latest_charge)
    assert (charge.amount_refunded, charge.refunded) == (1000, True)
    listed = await api.v1.refunds.list_async({"payment_intent": intent.id})
    assert [one.id for one in listed.data] == [rest.id, first.id]
    assert (await api.v1.refunds.retrieve_async(first.id)).amount == 600
    moved = api.sim.movements("pay_r")
    assert [(one["kind"], one["amount_minor"]) for one in moved] == [("charge", 1000), ("refund", 600), ("refund", 400)]
    assert (moved[1]["key"], moved[1]["id"], moved[1]["order_id"]) == ("pay_r:refund:1", first.id, "o")


async def test_after_a_partial_capture_only_the_captured_is_refundable(api: Api) -> None:
    intent = await api.pay(capture_method="manual")
    with pytest.raises(stripe.InvalidRequestError, match="cancel the PaymentIntent"):
        await api.v1.refunds.create_async({"payment_intent": intent.id})
    await api.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 700})
    with pytest.raises(stripe.InvalidRequestError, match="greater than"):
        await api.v1.refunds.create_async({"payment_intent": intent.id, "amount": 701})
    assert (await api.v1.refunds.create_async({"payment_intent": intent.id})).amount == 700


async def test_nothing_charged_nothing_to_refund(api: Api) -> None:
    intent = await api.v1.payment_intents.create_async({"amount": 500, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        await api.v1.refunds.create_async({"payment_intent": intent.id})
    assert (await api.post("/_sim/refunds", {"object_id": intent.id}))[0] == 409


async def test_a_pending_refund_moves_when_it_settles(api: Api) -> None:
    intent = await api.pay(card="pm_card_pendingRefund", metadata={"payment_id": "pay_rp"})
    refund = await api.v1.refunds.create_async({"payment_intent": intent.id}, {"idempotency_key": "pay_rp:refund:1"})
    assert (refund.status, refund.pending_reason) == ("pending", "processing")
    assert kinds(api, "pay_rp") == ["charge"]
    await api.settled(lambda: api.v1.refunds.retrieve_async(refund.id), lambda one: one.status == "succeeded")
    assert api.sim.movements("pay_rp")[1]["key"] == "pay_rp:refund:1"


async def test_a_refund_fails_late_by_its_card_or_on_demand(api: Api) -> None:
    intent = await api.pay(card="pm_card_refundFail", metadata={"payment_id": "pay_rf"})
    refund = await api.v1.refunds.create_async({"payment_intent": intent.id, "amount": 300})
    assert refund.status == "succeeded"
    failed = await api.settled(lambda: api.v1.refunds.retrieve_async(refund.id), lambda one: one.status == "failed")
    assert failed.failure_reason == "expired_or_canceled_card"
    assert kinds(api, "pay_rf") == ["charge", "refund", "refund_failed"]
    assert (await api.v1.charges.retrieve_async(intent.latest_charge)).amount_refunded == 0

    other = await api.pay(metadata={"payment_id": "pay_rd"})
    refund = await api.v1.refunds.create_async({"payment_intent": other.id})
    status, body = await api.post(f"/_sim/refunds/{refund.id}/fail", {"reason": "lost_or_stolen_card"})
    assert (status, body["failure_reason"]) == (200, "lost_or_stolen_card")
    assert (await api.post(f"/_sim/refunds/{refund.id}/fail"))[0] == 409
    assert kinds(api, "pay_rd") == ["charge", "refund", "refund_failed"]


async def test_a_pending_refund_that_fails_never_moved(api: Api) -> None:
    intent = await api.pay(card="pm_card_pendingRefund", metadata={"payment_id": "pay_rn"})
    refund = await api.v1.refunds.create_async({"payment_intent": intent.id})
    await api.post(f"/_sim/refunds/{refund.id}/fail")
    await api.post("/_sim/settle")
    assert (await api.v1.refunds.retrieve_async(refund.id)).status == "failed"
    assert kinds(api, "pay_rn") == ["charge"]


async def test_a_refund_made_in_the_dashboard_has_nobodys_key(api: Api) -> None:
    intent = await api.pay(metadata={"payment_id": "pay_dash"})
    status, made = await api.post("/_sim/refunds", {"object_id": intent.id, "amount_minor": 250})
    assert (status, made["amount"], made["metadata"]) == (200, 250, {})
    movement = api.sim.movements("pay_dash")[1]
    assert (movement["kind"], movement["amount_minor"], movement["key"]) == ("refund", 250, None)
    assert (await api.post("/_sim/refunds", {"object_id": intent.id, "amount_minor": 751}))[0] == 409
    assert (await api.post("/_sim/refunds", {"object_id": "pi_never"}))[0] == 404


@pytest.mark.parametrize("end", ["won", "lost"])
async def test_a_dispute_takes_the_money_and_ends(api: Api, end: str) -> None:
    intent = await api.pay(metadata={"payment_id": f"pay_d{end}"})
    status, made = await api.post("/_sim/disputes", {"object_id": intent.id, "amount_minor": 400})
    assert (status, made["status"], made["charge"]) == (200, "needs_response", intent.latest_charge)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await api.v1.refunds.create_async({"payment_intent": intent.id})
    assert refused.value.code == "charge_disputed"
    assert (await api.post(f"/_sim/disputes/{made['id']}/{end}"))[0] == 200
    assert (await api.post(f"/_sim/disputes/{made['id']}/{end}"))[0] == 409
    dispute = await api.v1.disputes.retrieve_async(made["id"])
    assert (dispute.status, dispute.amount) == (end, 400)
    assert kinds(api, f"pay_d{end}") == ["charge", "dispute", f"dispute_{end}"]


async def test_a_card_that_is_disputed_by_itself(api: Api) -> None:
    intent = await api.pay(card="pm_card_createDispute", metadata={"payment_id": "pay_cd"})
    assert intent.status == "succeeded"
    assert kinds(api, "pay_cd") == ["charge", "dispute"]
    listed = await api.v1.disputes.list_async({"payment_intent": intent.id})
    assert [(one.amount, one.reason) for one in listed.data] == [(1000, "fraudulent")]
