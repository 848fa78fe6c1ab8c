"""The Provider port: one suite over every provider that is found. What one does beyond it is tested elsewhere.

`make test-live` runs it against Stripe's own sandbox too.
"""

import importlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from rigs.provider_rig import ProviderRig, call_for

from payment_service.adapters.providers import find_providers
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import Kind, Verdict

pytestmark = pytest.mark.long

FOUND = find_providers()
RIGS = [*sorted(FOUND), "MOCK_REMOTE", pytest.param("STRIPE_SANDBOX", marks=pytest.mark.live)]


@pytest_asyncio.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[ProviderRig]:
    module = importlib.import_module(f"rigs.provider_{request.param.lower()}")
    async with module.make_rig() as made:
        yield made


def new_call(rig: ProviderRig, kind: Kind = Kind.CHARGE, *, token: str | None = None) -> ProviderCall:
    return call_for(
        f"pay_{uuid.uuid4().hex}", kind, provider=rig.provider.name, token=token, manual=kind is Kind.AUTHORIZE
    )


async def pay(rig: ProviderRig, kind: Kind = Kind.CHARGE, *, token: str | None = None) -> tuple[ProviderCall, Answer]:
    """The object, then the call on it; the call as it was sent."""
    call = new_call(rig, kind, token=token if token is not None else rig.yes)
    made = await rig.provider.create_object(call)
    assert made.verdict is Verdict.APPROVED, made
    call = replace(call, object_id=made.object_id)
    return call, await rig.provider.send(call)


def next_call(
    call: ProviderCall, answer: Answer, kind: Kind, number: int = 2, amount_minor: int = 1000, token: str | None = None
) -> ProviderCall:
    """Another call on the same object."""
    return replace(
        call, kind=kind, number=number, amount_minor=amount_minor, method_token=token, charge_id=answer.provider_id,
        key=f"{call.payment_id}:{kind.lower()}:{number}",
    )  # fmt: skip


def test_the_mock_is_found_and_names_are_upper_case() -> None:
    assert "MOCK" in FOUND
    assert all(name == name.upper() == registration.name for name, registration in FOUND.items())


async def test_a_provider_is_called_as_it_is_registered(rig: ProviderRig) -> None:
    assert FOUND[rig.provider.name].name == rig.provider.name


async def test_an_object_is_made_once_per_key(rig: ProviderRig) -> None:
    call = new_call(rig, token=rig.yes)
    first, again = await rig.provider.create_object(call), await rig.provider.create_object(call)
    other = await rig.provider.create_object(new_call(rig, token=rig.yes))
    assert first.object_id
    assert first.object_id == again.object_id != other.object_id
    assert first.provider_id is None, "it moves no money"


async def test_a_key_of_an_object_used_for_another_amount_is_unknown(rig: ProviderRig) -> None:
    call = new_call(rig, token=rig.yes)
    await rig.provider.create_object(call)
    answer = await rig.provider.create_object(replace(call, amount_minor=call.amount_minor + 1))
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, "IDEMPOTENCY_MISMATCH")


@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
async def test_a_yes_says_what_moved_again_and_by_look_up(rig: ProviderRig, kind: Kind) -> None:
    call, answer = await pay(rig, kind)
    assert (answer.verdict, answer.amount_minor, answer.currency) == (Verdict.APPROVED, 1000, "USD")
    assert answer.object_id == call.object_id
    assert answer.provider_id
    for again in (await rig.provider.send(call), await rig.provider.lookup(call)):
        assert (again.verdict, again.provider_id, again.amount_minor) == (Verdict.APPROVED, answer.provider_id, 1000)


async def test_a_key_used_for_something_else_is_unknown(rig: ProviderRig) -> None:
    first, other = (rig.no, rig.yes) if rig.tells_declines else (rig.yes, rig.no)
    call, _ = await pay(rig, token=first)
    answer = await rig.provider.send(replace(call, method_token=other))
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, "IDEMPOTENCY_MISMATCH")


async def test_a_decline_carries_its_code_and_leaves_the_object_payable(rig: ProviderRig) -> None:
    call, answer = await pay(rig, token=rig.no)
    assert (answer.verdict, answer.code, answer.decline_code) == (Verdict.DECLINED, "CARD_DECLINED", rig.no_code)
    told = (await rig.provider.lookup(call)).verdict
    assert told is (Verdict.DECLINED if rig.tells_declines else Verdict.UNKNOWN)
    second = await rig.provider.send(next_call(call, answer, Kind.CHARGE, token=rig.yes))
    assert (second.verdict, second.object_id) == (Verdict.APPROVED, call.object_id)


async def test_a_shopper_who_has_to_act_is_pending_with_what_to_do(rig: ProviderRig) -> None:
    call, answer = await pay(rig, token=rig.action)
    assert answer.verdict is Verdict.PENDING
    assert answer.next_action is not None
    assert answer.next_action.url or answer.next_action.client_secret
    assert "http" not in repr(answer), "whoever has it can act"
    assert (await rig.provider.lookup(call)).verdict is Verdict.PENDING
    other_card = await rig.provider.send(next_call(call, answer, Kind.CHARGE, token=rig.yes))
    assert (other_card.verdict, other_card.object_id) == (Verdict.APPROVED, call.object_id)


async def test_a_failure_of_the_provider_is_unknown(rig: ProviderRig) -> None:
    if rig.error is None:
        pytest.skip("nothing makes this one fail")
    call, answer = await pay(rig, token=rig.error)
    assert (answer.verdict, answer.code) == (Verdict.UNKNOWN, "PROVIDER_ERROR")
    assert (await rig.provider.lookup(call)).verdict is Verdict.UNKNOWN


async def test_what_was_never_received_is_unknown_never_not_sent(rig: ProviderRig) -> None:
    call = new_call(rig, token=rig.yes)
    made = await rig.provider.create_object(call)
    answer = await rig.provider.lookup(replace(call, object_id=made.object_id))
    assert answer.verdict is Verdict.UNKNOWN


async def test_authorize_capture_part_refund_part_by_part(rig: ProviderRig) -> None:
    call, authorized = await pay(rig, Kind.AUTHORIZE)
    capture = next_call(call, authorized, Kind.CAPTURE, amount_minor=700)
    captured = await rig.provider.send(capture)
    assert (captured.verdict, captured.amount_minor) == (Verdict.APPROVED, 700)
    assert (await rig.provider.send(capture)).provider_id == captured.provider_id

    first = next_call(call, captured, Kind.REFUND, 1, 500)
    refunded = await rig.provider.send(first)
    assert (refunded.verdict, refunded.amount_minor) == (Verdict.APPROVED, 500)
    assert (await rig.provider.send(first)).provider_id == refunded.provider_id, "once per key"
    assert (await rig.provider.lookup(first)).verdict is Verdict.APPROVED

    too_much = await rig.provider.send(next_call(call, captured, Kind.REFUND, 2, 201))
    rest = await rig.provider.send(next_call(call, captured, Kind.REFUND, 3, 200))
    assert (too_much.verdict, rest.verdict) == (Verdict.DECLINED, Verdict.APPROVED)


async def test_more_than_is_authorized_is_not_captured(rig: ProviderRig) -> None:
    call, authorized = await pay(rig, Kind.AUTHORIZE)
    answer = await rig.provider.send(next_call(call, authorized, Kind.CAPTURE, amount_minor=1001))
    assert answer.verdict is Verdict.DECLINED


async def test_a_void_ends_it(rig: ProviderRig) -> None:
    call, authorized = await pay(rig, Kind.AUTHORIZE)
    void = next_call(call, authorized, Kind.VOID)
    assert (await rig.provider.send(void)).verdict is Verdict.APPROVED
    assert (await rig.provider.send(void)).verdict is Verdict.APPROVED
    assert (await rig.provider.lookup(void)).verdict is Verdict.APPROVED
    capture = await rig.provider.send(next_call(call, authorized, Kind.CAPTURE, 3))
    assert capture.verdict is Verdict.DECLINED


async def test_a_void_while_the_shopper_acts_makes_the_charge_a_no(rig: ProviderRig) -> None:
    call, answer = await pay(rig, token=rig.action)
    assert (await rig.provider.send(next_call(call, answer, Kind.VOID))).verdict is Verdict.APPROVED
    assert (await rig.provider.lookup(call)).verdict is Verdict.DECLINED


async def test_taken_money_is_not_voided(rig: ProviderRig) -> None:
    call, charged = await pay(rig)
    assert (await rig.provider.send(next_call(call, charged, Kind.VOID))).verdict is Verdict.DECLINED
    assert (await rig.provider.lookup(call)).verdict is Verdict.APPROVED
