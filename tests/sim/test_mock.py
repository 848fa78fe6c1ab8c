"""The mock over HTTP: what tokens mean is the providers' contract suite's; here is what the ledger says of it, and what
happens without a call."""

import asyncio

import pytest
from rigs.provider_rig import call_for
from rigs.sim_api import Api

from payment_service.adapters.providers.mock_remote import RemoteMock
from payment_service.core.terms import Kind, Verdict


def kinds(api: Api, payment_id: str) -> list[tuple[str, str | None]]:
    return [(one["kind"], one["key"]) for one in api.sim.movements(payment_id)]


async def test_what_the_mock_is_asked_and_what_moved(api: Api) -> None:
    mock = RemoteMock(api.sim.url, lambda: api.session)
    for token in ("tok_chargeDeclined", "tok_error", "gift"):
        await mock.send(call_for(f"pay_{token}", token=token))
        assert kinds(api, f"pay_{token}") == []
    acting = await mock.send(call_for("pay_act", token="tok_threeDSecure"))
    assert acting.next_action is not None and acting.next_action.url is not None
    for _ in range(2):
        async with api.session.get(acting.next_action.url) as page:
            assert page.status == 200
    assert kinds(api, "pay_act") == [("charge", None)]
    await mock.send(call_for("pay_later", token="tok_pending"))
    await api.settled(
        lambda: mock.lookup(call_for("pay_later", token="tok_pending")), lambda one: one.verdict is Verdict.APPROVED
    )
    assert kinds(api, "pay_later") == [("charge", "pay_later:charge:1")]
    first = await mock.send(call_for("pay_two", token="tok_visa"))
    second = await mock.send(call_for("pay_two", number=2, token="tok_visa", object_id=first.object_id))
    assert (second.provider_id, len(kinds(api, "pay_two"))) == (first.provider_id, 1)


async def test_the_mock_can_stay_silent_and_nothing_is_charged(api: Api) -> None:
    mock, call = RemoteMock(api.sim.url, lambda: api.session), call_for("pay_silent", token="tok_timeout")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await mock.send(call)
    assert (await mock.lookup(call)).code == "NOT_FOUND"
    assert api.sim.movements("pay_silent") == []


async def test_a_look_up_without_its_key_tells_what_the_object_is(api: Api) -> None:
    """The first attempt's answer was lost with its key, or another attempt did it."""
    mock = RemoteMock(api.sim.url, lambda: api.session)
    held = await mock.send(call_for("pay_o", Kind.AUTHORIZE, token="tok_visa", manual=True))
    other = {"object_id": held.object_id, "charge_id": held.provider_id}
    never = call_for("pay_o", Kind.AUTHORIZE, 2, token="tok_visa", **other)
    assert (await mock.lookup(never)).verdict is Verdict.APPROVED
    assert (await mock.lookup(call_for("pay_o", Kind.CAPTURE, 2, **other))).code == "NOT_FOUND"
    await mock.send(call_for("pay_o", Kind.CAPTURE, 2, 700, **other))
    captured = await mock.lookup(call_for("pay_o", Kind.CAPTURE, 3, 700, **other))
    assert (captured.verdict, captured.amount_minor) == (Verdict.APPROVED, 700)
    assert (await mock.lookup(call_for("pay_o", Kind.REFUND, 4, **other))).code == "NOT_FOUND"


async def test_a_refund_of_the_dashboard_and_one_that_fails_late(api: Api) -> None:
    mock = RemoteMock(api.sim.url, lambda: api.session)
    paid = await mock.send(call_for("pay_md", token="tok_visa"))
    ours = call_for("pay_md", Kind.REFUND, 1, 300, object_id=paid.object_id)
    refunded = await mock.send(ours)
    status, _ = await api.post("/_sim/refunds", {"object_id": paid.object_id, "amount_minor": 701})
    assert status == 409
    status, beside = await api.post("/_sim/refunds", {"object_id": paid.object_id, "amount_minor": 200})
    assert (status, beside["state"]) == (200, "SUCCEEDED")
    too_much = await mock.send(call_for("pay_md", Kind.REFUND, 2, 501, object_id=paid.object_id))
    assert too_much.verdict is Verdict.DECLINED
    assert (await api.post(f"/_sim/refunds/{refunded.provider_id}/fail"))[0] == 200
    assert (await api.post(f"/_sim/refunds/{refunded.provider_id}/fail"))[0] == 409
    told = await mock.lookup(ours)
    assert (told.verdict, told.code) == (Verdict.DECLINED, "REFUND_FAILED")
    assert kinds(api, "pay_md") == [
        ("charge", "pay_md:charge:1"), ("refund", "pay_md:refund:1"), ("refund", None), ("refund_failed", None),
    ]  # fmt: skip
    again = await mock.send(call_for("pay_md", Kind.REFUND, 3, 800, object_id=paid.object_id))
    assert again.verdict is Verdict.APPROVED, "the money came back"


async def test_disputes_end_and_holds_run_out(api: Api) -> None:
    mock = RemoteMock(api.sim.url, lambda: api.session)
    paid = await mock.send(call_for("pay_mq", token="tok_visa"))
    _, made = await api.post("/_sim/disputes", {"object_id": paid.object_id, "amount_minor": 400})
    assert (await api.post("/_sim/disputes", {"object_id": paid.object_id}))[0] == 409
    assert (await api.post(f"/_sim/disputes/{made['id']}/lost"))[1]["state"] == "LOST"
    assert (await api.post(f"/_sim/disputes/{made['id']}/won"))[0] == 409
    assert [kind for kind, _ in kinds(api, "pay_mq")] == ["charge", "dispute", "dispute_lost"]
    held = await mock.send(call_for("pay_mx", Kind.AUTHORIZE, token="tok_visa", manual=True))
    assert (await api.post(f"/_sim/expire/{held.object_id}"))[0] == 200
    assert [kind for kind, _ in kinds(api, "pay_mx")] == ["authorize", "expire"]
    late = await mock.send(call_for("pay_mx", Kind.CAPTURE, 2, object_id=held.object_id))
    assert late.verdict is Verdict.DECLINED


async def test_a_shopper_who_says_no(api: Api) -> None:
    mock, call = RemoteMock(api.sim.url, lambda: api.session), call_for("pay_mn", token="tok_threeDSecure")
    acting = await mock.send(call)
    assert (await api.post(f"/_sim/deny/{acting.object_id}"))[0] == 200
    told = await mock.lookup(call)
    assert (told.verdict, told.code) == (Verdict.DECLINED, "AUTHENTICATION_FAILED")
    other = await mock.send(call_for("pay_mn", number=2, token="tok_visa", object_id=acting.object_id))
    assert other.verdict is Verdict.APPROVED
    assert kinds(api, "pay_mn") == [("charge", "pay_mn:charge:2")]
