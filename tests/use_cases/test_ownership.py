"""Whose payment it is, who pays for it, and who gets to see what lets somebody pay."""

import pytest
from rigs.desk_rig import ANN, BOB, SERVICE, Rig, desk_over

from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.agents.records import Record
from payment_service.codecs.order_events import OrderRules, decode_order_event
from payment_service.core.commands import CreatePayment
from payment_service.core.errors import Refused
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import status_of
from payment_service.core.ports import Answer, NextAction
from payment_service.core.terms import CaptureMethod, Kind, Status, Verdict
from payment_service.core.use_cases.payment_requests import Caller
from payment_service.core.use_cases.provider_calls import CallContext

RULES = OrderRules("MOCK", auto_process=True, cancel_refunds_succeeded=False)


def anns_order(*, charge: bool, provider: str = "MOCK", user: str = "ann") -> CreatePayment:
    return CreatePayment(
        payment_id_of("o1"), "order.created:o1:a", 1, "order", "o1", user, 1050, "USD", provider, by_order=True,
        charge=charge,
    )  # fmt: skip


@pytest.mark.parametrize("charge", [True, False])
async def test_an_order_is_never_paid_with_what_somebody_else_left_there(rig: Rig, charge: bool) -> None:
    await rig.create(caller=BOB, method="tok_of_bob")
    await rig.execute(anns_order(charge=charge))
    if not charge:
        await rig.process(method=None)
    payment = await rig.until(lambda payment: status_of(payment) is Status.SUCCEEDED)
    assert payment.user_id == "ann"
    assert [call.method_token for what, call in rig.provider.calls if what == "send"] == [None]


async def test_the_owner_pays_with_the_token_that_came_with_the_order(rig: Rig) -> None:
    await rig.create(caller=BOB, method="tok_of_bob")
    await rig.execute(anns_order(charge=True), CallContext(stored_token="tok_of_ann"))
    await rig.until(lambda payment: status_of(payment) is Status.SUCCEEDED)
    assert rig.provider.calls[-1][1].method_token == "tok_of_ann"


async def test_the_same_owner_keeps_the_token_when_the_order_confirms(rig: Rig) -> None:
    await rig.create(method="tok_of_ann")
    await rig.execute(anns_order(charge=True))
    await rig.until(lambda payment: status_of(payment) is Status.SUCCEEDED)
    assert rig.provider.calls[-1][1].method_token == "tok_of_ann"


@pytest.mark.parametrize(("user", "kept"), [("ann", False), ("bob", True)])
async def test_what_somebody_else_wrote_is_not_the_owners(rig: Rig, user: str, kept: bool) -> None:
    await rig.create(
        caller=BOB, capture_method=CaptureMethod.MANUAL, description="from bob", metadata={"by": "bob"}
    )  # fmt: skip
    await rig.execute(anns_order(charge=False, provider="STRIPE", user=user))
    payment = await rig.payment()
    assert payment.user_id == user
    assert (payment.description == "from bob", payment.metadata == {"by": "bob"}) == (kept, kept)
    assert (payment.capture_method is CaptureMethod.MANUAL, payment.provider == "MOCK") == (kept, kept)


async def test_a_role_that_is_called_owner_owns_nothing(rig: Rig) -> None:
    await rig.create()
    await rig.process()
    with pytest.raises(Refused) as refused:
        await rig.refund(caller=Caller("eve", frozenset({"owner"})))
    assert refused.value.code == "PAYMENT_NOT_FOUND"
    assert (await rig.payment()).refunds == ()


@pytest.mark.parametrize("caller", [ANN, Caller("eve", frozenset({"owner"}))])
async def test_an_owner_who_may_not_refund_may_not_by_the_name_of_a_role(caller: Caller) -> None:
    async with desk_over(MemoryPaymentStore(), refund_roles=frozenset({"admin"})) as rig:
        await rig.create()
        await rig.process()
        with pytest.raises(Refused) as refused:
            await rig.refund(caller=caller)
        assert refused.value.code == "FORBIDDEN"


async def test_what_lets_somebody_pay_is_shown_to_the_shopper_alone(rig: Rig) -> None:
    await rig.create()
    action = NextAction("redirect", url="https://bank.example/3ds")
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.PENDING, next_action=action)
    await rig.process()
    pid = payment_id_of("o1")
    assert (await rig.desk.get(Caller("root", frozenset({"admin"})), pid)).next_action is None
    assert (await rig.desk.get(ANN, pid)).next_action == action


def test_no_repr_shows_the_token_of_an_order() -> None:
    value = b'{"type":"order.created","orderId":"o","userId":"u","totalAmount":1,"paymentMethodId":"tok_secret"}'
    decoded = decode_order_event(value, (), RULES, 1)
    assert decoded is not None and decoded.token == "tok_secret"
    record = Record("orders", 0, 1, b"tok_secret", value, (("h", b"tok_secret"),), 1)
    assert "tok_secret" not in repr(decoded) + repr(record)


async def test_a_service_may_refund_whatever_the_roles_and_admins_may_read() -> None:
    async with desk_over(MemoryPaymentStore(), refund_roles=frozenset({"owner"})) as rig:
        await rig.create()
        await rig.process()
        assert (await rig.refund(2, caller=SERVICE)).refund is not None
        admin = Caller("root", frozenset({"admin"}))
        assert (await rig.desk.by_order(admin, "o1")).payment.user_id == "ann"
        for caller, attempt in ((admin, rig.refund(1, caller=admin)), (SERVICE, rig.desk.by_order(SERVICE, "o1"))):
            with pytest.raises(Refused) as refused:
                await attempt
            assert refused.value.code == "PAYMENT_NOT_FOUND", caller
