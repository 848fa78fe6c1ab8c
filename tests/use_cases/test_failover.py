"""Another provider is tried only when the first certainly has nothing: NOT_SENT, or a void that it has confirmed.

Nothing here changes the provider by itself: the shopper cancels, and chooses another one. On the state machine the
same is a rule of every random history (tests/core/test_histories.py).
"""

import contextlib

import pytest
from rigs.desk_rig import ANN, Rig, ScriptedProvider

from payment_service.core.errors import Refused, Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import status_of
from payment_service.core.ports import Answer, NextAction
from payment_service.core.terms import CaptureMethod, Kind, Status, Verdict

AWAY = Answer(Verdict.NOT_SENT, code="PROVIDER_UNAVAILABLE")
SILENCE = Answer(Verdict.UNKNOWN, code="PROVIDER_TIMEOUT")
NO = Answer(Verdict.DECLINED, code="CARD_DECLINED")
ACT = Answer(Verdict.PENDING, next_action=NextAction("redirect", "https://bank.test"))
GONE = Answer(Verdict.DECLINED, code="OBJECT_GONE", object_closed=True)


@pytest.fixture
def other(rig: Rig) -> ScriptedProvider:
    """A second provider that says yes."""
    made = ScriptedProvider("OTHER", object_answer=Answer(Verdict.APPROVED, object_id="other_1"))
    for providers in (rig.effects.providers, rig.desk.providers):
        providers["OTHER"] = made  # type: ignore[index]
    return made


async def tried(rig: Rig, answer: Answer, **more: object) -> None:
    """The first provider has said this."""
    await rig.create(**more)
    rig.provider.answers[Kind.CHARGE] = rig.provider.answers[Kind.AUTHORIZE] = answer
    try:
        await rig.process()
    except Unavailable:
        assert answer is AWAY


async def cancelled(rig: Rig) -> Status:
    return status_of((await rig.desk.cancel(ANN, payment_id_of("o1"), reason=None)).payment)


@pytest.mark.parametrize("answer", [AWAY, SILENCE, NO, ACT, GONE], ids=["away", "silence", "no", "acts", "gone"])
async def test_the_payment_stays_with_its_provider_until_it_is_cancelled(
    rig: Rig, other: ScriptedProvider, answer: Answer
) -> None:
    """Also by whoever asks for another one: it is the same payment."""
    await tried(rig, answer)
    rig.provider.calls.clear()
    assert (await rig.create(provider="OTHER")).payment.provider == "MOCK"
    rig.provider.answers[Kind.CHARGE] = NO
    again = await rig.process()
    assert other.calls == []
    assert again.payment.provider == "MOCK"
    assert bool(rig.provider.calls) is (answer is not SILENCE), "what is not known is not tried again at all"


@pytest.mark.parametrize("answer", [AWAY, NO, ACT, GONE], ids=["away", "no", "acts", "gone"])
async def test_after_a_confirmed_void_or_what_was_never_sent_another_one_may_be_tried(
    rig: Rig, other: ScriptedProvider, answer: Answer
) -> None:
    await tried(rig, answer)
    assert await cancelled(rig) is Status.CANCELLED
    voids = [call.object_id for what, call in rig.provider.calls if (what, call.kind) == ("send", Kind.VOID)]
    assert voids == ([] if answer is GONE else ["obj_1"]), "its object is closed first, if the provider did not do it"
    reopened = await rig.create(provider="OTHER")
    assert (reopened.created, reopened.payment.provider) == (True, "OTHER")
    paid = await rig.process()
    assert status_of(paid.payment) is Status.SUCCEEDED
    assert [(what, call.object_id, call.provider) for what, call in other.calls] == [
        ("object", None, "OTHER"), ("send", "other_1", "OTHER"),
    ]  # fmt: skip


async def test_without_any_object_there_is_nothing_to_void(rig: Rig, other: ScriptedProvider) -> None:
    rig.provider.object_answer = AWAY
    await tried(rig, AWAY)
    assert await cancelled(rig) is Status.CANCELLED
    assert [what for what, _ in rig.provider.calls] == ["object"]
    await rig.create(provider="OTHER")
    assert status_of((await rig.process()).payment) is Status.SUCCEEDED


@pytest.mark.long
@pytest.mark.parametrize("void", [SILENCE, AWAY, Answer(Verdict.DECLINED, code="INVALID_STATE")],
                         ids=["silence", "away", "refused"])  # fmt: skip
@pytest.mark.parametrize("answer", [ACT, NO], ids=["acts", "no"])
async def test_while_the_void_is_not_confirmed_no_other_one_is_asked(
    rig: Rig, other: ScriptedProvider, answer: Answer, void: Answer
) -> None:
    """The shopper, or their bank, may still pay the first one's object."""
    await tried(rig, answer)
    rig.provider.answers[Kind.VOID] = void
    assert await cancelled(rig) is not Status.CANCELLED
    payment = (await rig.create(provider="OTHER")).payment
    assert payment.provider == "MOCK"
    rig.provider.answers[Kind.CHARGE] = NO
    with contextlib.suppress(Refused):  # it is being cancelled
        await rig.process()
    assert other.calls == []


async def test_an_unknown_charge_is_cancelled_only_by_the_providers_truth(rig: Rig, other: ScriptedProvider) -> None:
    await tried(rig, SILENCE)
    assert await cancelled(rig) is Status.UNKNOWN
    assert (await rig.create(provider="OTHER")).payment.provider == "MOCK"
    assert (await rig.process()).pending
    assert other.calls == []
    assert [what for what, call in rig.provider.calls if call.kind is Kind.VOID] == []


@pytest.mark.long
async def test_a_hold_of_the_first_is_let_go_before_the_second_is_asked(rig: Rig, other: ScriptedProvider) -> None:
    held = Answer(Verdict.APPROVED, "tx_1", amount_minor=1050, currency="USD")
    await tried(rig, held, capture_method=CaptureMethod.MANUAL)
    rig.provider.answers[Kind.VOID] = SILENCE
    assert await cancelled(rig) is Status.UNKNOWN
    assert (await rig.process()).pending
    assert other.calls == []
