"""`paymentIntentId` of process: a provider object that the front end names."""

import pytest
from rigs.desk_rig import ANN, Rig

from payment_service.core.errors import Refused
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import status_of
from payment_service.core.ports import Answer, NextAction
from payment_service.core.terms import AttemptState, Kind, Status, Verdict
from payment_service.core.use_cases.payment_requests import Answered

SCRIPT = NextAction("use_client_secret", client_secret="shh")
NOT_OURS = Answer(
    Verdict.DECLINED, object_id="pi_theirs", code="OBJECT_NOT_OURS", review=("OBJECT_NOT_OURS",), object_closed=True
)


async def named(rig: Rig, object_id: str, method: str | None = None) -> Answered:
    return await rig.desk.process(ANN, payment_id_of("o1"), method=method, return_url=None, object_id=object_id)


async def test_another_object_than_ours_is_handed_to_its_provider_to_be_looked_at(rig: Rig) -> None:
    await rig.create()
    done = await named(rig, "pi_front")
    assert (status_of(done.payment), done.payment.object_id) == (Status.SUCCEEDED, "pi_front")
    [(what, call)] = rig.provider.calls
    assert (what, call.object_id, call.adopted, call.method_token) == ("send", "pi_front", True, None)


async def test_one_that_is_not_ours_is_a_no_for_a_person_and_is_never_used_again(rig: Rig) -> None:
    rig.provider.answers[Kind.CHARGE] = NOT_OURS
    await rig.create()
    refused = await named(rig, "pi_theirs")
    assert refused.declined is not None and refused.declined.code == "OBJECT_NOT_OURS"
    assert (refused.payment.object_open, refused.payment.review) == (False, ("OBJECT_NOT_OURS",))
    del rig.provider.answers[Kind.CHARGE]
    paid = await rig.process()
    assert (status_of(paid.payment), paid.payment.object_id) == (Status.SUCCEEDED, "obj_1")
    assert [(what, call.object_id, call.adopted) for what, call in rig.provider.calls[1:]] == [
        ("object", None, False),
        ("send", "obj_1", False),
    ]


async def test_it_is_not_cancelled_with_the_payment(rig: Rig) -> None:
    rig.provider.answers[Kind.CHARGE] = NOT_OURS
    await rig.create()
    await named(rig, "pi_theirs")
    cancelled = await rig.desk.cancel(ANN, payment_id_of("o1"), reason=None)
    assert status_of(cancelled.payment) is Status.CANCELLED
    assert [call.kind for _, call in rig.provider.calls] == [Kind.CHARGE], "nothing is asked about somebody else's"


async def test_a_second_object_is_refused_while_the_first_can_be_paid(rig: Rig) -> None:
    rig.provider.answers[Kind.CHARGE] = Answer(Verdict.DECLINED, object_id="obj_1", code="CARD_DECLINED")
    await rig.create()
    await rig.process()
    with pytest.raises(Refused) as refused:
        await named(rig, "pi_front")
    assert refused.value.code == "INVALID_STATE"


async def test_naming_our_own_asks_what_became_of_it(rig: Rig) -> None:
    """The front end has confirmed it with the client secret, and says so."""
    rig.provider.object_answer = Answer(Verdict.APPROVED, object_id="obj_1", next_action=SCRIPT)
    await rig.create()
    waits = await rig.process(method=None)
    assert (status_of(waits.payment), waits.next_action) == (Status.REQUIRES_ACTION, SCRIPT)
    rig.provider.lookups[Kind.CHARGE] = Answer(Verdict.PENDING, object_id="obj_1", next_action=SCRIPT)
    assert status_of((await named(rig, "obj_1")).payment) is Status.REQUIRES_ACTION
    rig.provider.lookups[Kind.CHARGE] = Answer(Verdict.APPROVED, "ch_1", "obj_1", 1050, "USD")
    paid = await named(rig, "obj_1")
    assert status_of(paid.payment) is Status.SUCCEEDED
    assert paid.payment.attempts[0].state is AttemptState.APPROVED and len(paid.payment.attempts) == 1
