"""Idempotency keys as Stripe documents them (docs.stripe.com/api/idempotent_requests)."""

import asyncio
from collections.abc import Callable

import pytest
import stripe
from aiohttp import ClientSession
from rigs.sim_api import Api
from servers.provider_sim import ProviderSim

PAY = {
    "amount": "1000", "currency": "usd", "payment_method": "pm_card_visa", "confirm": "true",
    "payment_method_types[]": "card", "metadata[payment_id]": "pay_key",
}  # fmt: skip


async def test_the_same_request_is_answered_again_and_moves_nothing(api: Api) -> None:
    fields = {**PAY, "metadata[payment_id]": "pay_same"}
    first = await api.form("/v1/payment_intents", "k-same", **fields)
    again = await api.form("/v1/payment_intents", "k-same", **fields)
    assert (first[0], again[0], first[1]) == (200, 200, again[1])
    assert "Idempotent-Replayed" not in first[2]
    assert again[2]["Idempotent-Replayed"] == "true"
    assert len(api.sim.movements("pay_same")) == 1


async def test_other_parameters_under_the_same_key_are_an_error(api: Api) -> None:
    await api.form("/v1/payment_intents", "k-other", **PAY)
    params = {"amount": 2000, "currency": "usd"}
    with pytest.raises(stripe.IdempotencyError):
        await api.v1.payment_intents.create_async(params, {"idempotency_key": "k-other"})
    with pytest.raises(stripe.IdempotencyError):
        await api.v1.refunds.create_async({"charge": "ch_x"}, {"idempotency_key": "k-other"})


async def test_a_decline_is_kept(api: Api) -> None:
    declined = {**PAY, "payment_method": "pm_card_chargeDeclined"}
    first = await api.form("/v1/payment_intents", "k-no", **declined)
    again = await api.form("/v1/payment_intents", "k-no", **declined)
    assert (first[0], again[0], again[1]) == (402, 402, first[1])
    assert again[2]["Idempotent-Replayed"] == "true"


async def test_a_wrong_parameter_keeps_nothing(api: Api) -> None:
    wrong = await api.form("/v1/payment_intents", "k-wrong", **{**PAY, "amount": "x"})
    right = await api.form("/v1/payment_intents", "k-wrong", **PAY)
    assert (wrong[0], right[0]) == (400, 200)


async def test_a_500_after_the_work_began_is_kept_and_not_to_be_retried(api: Api) -> None:
    broken = {**PAY, "payment_method": "pm_card_error", "metadata[payment_id]": "pay_500"}
    first = await api.form("/v1/payment_intents", "k-500", **broken)
    again = await api.form("/v1/payment_intents", "k-500", **broken)
    assert (first[0], again[0], again[1]) == (500, 500, first[1])
    assert again[2]["Stripe-Should-Retry"] == "false"
    assert api.sim.movements("pay_500") == []


async def test_done_and_then_a_500_stays_a_500_though_the_money_moved(
    own_sim: Callable[..., ProviderSim], session: ClientSession
) -> None:
    api = Api(own_sim(), session)
    await api.post("/_sim/faults", {"next": [{"path": "/v1/payment_intents", "fault": "status_500_after"}]})
    statuses = [(await api.form("/v1/payment_intents", "k-1", **PAY))[0] for _ in range(2)]
    assert statuses == [500, 500]
    (movement,) = api.sim.movements("pay_key")
    intent = await api.v1.payment_intents.retrieve_async(movement["object_id"])
    assert intent.status == "succeeded", "a look-up tells"
    await api.post("/_sim/faults", {"next": [{"path": "/v1/payment_intents", "fault": "status_500"}]})
    assert [(await api.form("/v1/payment_intents", "k-2", **PAY))[0] for _ in range(2)] == [500, 200]


async def test_a_key_whose_request_is_still_being_answered_is_a_409(
    own_sim: Callable[..., ProviderSim], session: ClientSession
) -> None:
    api = Api(own_sim(latency_ms=400), session)
    answers = await asyncio.gather(*(api.form("/v1/payment_intents", "k-busy", **PAY) for _ in range(3)))
    assert sorted(answer[0] for answer in answers) == [200, 409, 409]
    busy = next(answer for answer in answers if answer[0] == 409)
    assert busy[1]["error"]["code"] == "idempotency_key_in_use"
    assert (await api.form("/v1/payment_intents", "k-busy", **PAY))[2]["Idempotent-Replayed"] == "true"
    assert len(api.sim.movements("pay_key")) == 1
    with pytest.raises(stripe.APIError) as error:
        held = asyncio.create_task(api.pay(key="k-sdk"))
        await asyncio.sleep(0.1)
        await api.pay(key="k-sdk")
    assert error.value.http_status == 409
    await held


async def test_a_forgotten_key_is_a_new_request(own_sim: Callable[..., ProviderSim], session: ClientSession) -> None:
    sim = own_sim()
    api = Api(sim, session)
    await api.form("/v1/payment_intents", "k-old", **PAY)
    assert (await api.post("/_sim/prune", {"older_than_ms": 60_000}))[1] == {"pruned": 0}
    assert (await api.post("/_sim/prune"))[1] == {"pruned": 1}
    sim.kill()
    sim.start()
    second = await api.form("/v1/payment_intents", "k-old", **PAY)
    assert second[0] == 200
    assert "Idempotent-Replayed" not in second[2]
    moved = sim.movements("pay_key")
    assert len({one["object_id"] for one in moved}) == 2, "which is why nobody sends a day later what may have happened"


async def test_keys_have_a_length(api: Api) -> None:
    assert (await api.form("/v1/payment_intents", "k" * 256, **PAY))[0] == 400
    assert (await api.form("/v1/payment_intents", "k" * 255, **PAY))[0] == 200
