"""The mock's own promises: tokens decide, its memory is bounded, and losing it loses no payment."""

import asyncio
from dataclasses import dataclass, replace

import pytest
from rigs.provider_rig import call_for
from rigs.settable_clock import SettableClock

from payment_service.adapters.providers.mock import PROVIDER, MockProvider, object_id_of
from payment_service.adapters.providers.mock_memory import MockMemory
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import Kind, Verdict


def new_mock(
    clock: SettableClock | None = None, settle_ms: int = 5000, latency_ms: int = 0, memory: MockMemory | None = None
) -> MockProvider:
    return MockProvider(
        clock or SettableClock(),
        public_url="http://shop.test/",
        settle_ms=settle_ms,
        latency_ms=latency_ms,
        memory=memory,
    )


async def pay(mock: MockProvider, token: str | None, payment_id: str = "pay_1") -> tuple[ProviderCall, Answer]:
    call = call_for(payment_id, token=token)
    made = await mock.create_object(call)
    call = replace(call, object_id=made.object_id)
    return call, await mock.send(call)


@pytest.mark.parametrize(
    ("token", "verdict", "code", "decline_code"),
    [
        ("tok_visa", Verdict.APPROVED, "", None),
        ("tok_anything", Verdict.APPROVED, "", None),
        ("pm_card_visa", Verdict.APPROVED, "", None),
        (None, Verdict.APPROVED, "", None),
        ("tok_chargeDeclined", Verdict.DECLINED, "CARD_DECLINED", "card_declined"),
        ("tok_chargeDeclinedInsufficientFunds", Verdict.DECLINED, "CARD_DECLINED", "insufficient_funds"),
        ("tok_threeDSecure", Verdict.PENDING, "", None),
        ("tok_pending", Verdict.PENDING, "", None),
        ("tok_error", Verdict.UNKNOWN, "PROVIDER_ERROR", None),
        ("4242424242424242", Verdict.DECLINED, "INVALID_PAYMENT_METHOD", None),
    ],
)
async def test_the_token_decides(token: str | None, verdict: Verdict, code: str, decline_code: str | None) -> None:
    _, answer = await pay(new_mock(), token)
    assert (answer.verdict, answer.code, answer.decline_code) == (verdict, code, decline_code)


async def test_the_page_of_the_next_action_approves() -> None:
    mock = new_mock()
    call, answer = await pay(mock, "tok_threeDSecure")
    assert answer.next_action is not None
    assert answer.next_action.url == f"http://shop.test/mock/approve/{call.object_id}"
    assert call.object_id is not None
    assert call.object_id.startswith("mock_pi_")
    assert mock.approve(call.object_id)
    assert mock.approve(call.object_id), "a second click does no harm"
    answer = await mock.lookup(call)
    assert (answer.verdict, answer.amount_minor) == (Verdict.APPROVED, 1000)


async def test_nobody_approves_what_waits_for_nobody() -> None:
    mock = new_mock()
    call, _ = await pay(mock, "tok_threeDSecure")
    void = replace(call, kind=Kind.VOID, key="void", method_token=None)
    assert (await mock.send(void)).verdict is Verdict.APPROVED
    assert call.object_id is not None
    assert not mock.approve(call.object_id)
    assert not mock.approve("mock_pi_unheard_of")


async def test_two_attempts_on_one_object_are_one_movement() -> None:
    mock = new_mock()
    call, _ = await pay(mock, "tok_threeDSecure")
    assert call.object_id is not None
    mock.approve(call.object_id)
    second = await mock.send(replace(call, key="pay_1:charge:2", number=2, method_token="tok_visa"))
    first = await mock.lookup(call)
    assert first.provider_id == second.provider_id is not None


async def test_pending_settles_after_its_time() -> None:
    clock = SettableClock()
    mock = new_mock(clock, settle_ms=5000)
    call, _ = await pay(mock, "tok_pending")
    clock.pass_s(4.999)
    assert (await mock.lookup(call)).verdict is Verdict.PENDING
    clock.pass_s(0.001)
    assert (await mock.lookup(call)).verdict is Verdict.APPROVED


async def test_a_timeout_never_answers_and_stays_unknown() -> None:
    mock = new_mock()
    call = call_for("pay_1", token="tok_timeout")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(mock.send(call), 0.02)
    assert (await mock.lookup(call)).verdict is Verdict.UNKNOWN
    void = replace(call, kind=Kind.VOID, key="void", object_id=object_id_of(call), method_token=None)
    assert (await mock.send(void)).verdict is Verdict.APPROVED, "a way out for whoever cancels"


async def test_a_call_given_up_during_the_latency_has_happened() -> None:
    mock = new_mock(latency_ms=10_000)
    call = call_for("pay_1", token="tok_visa")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(mock.send(call), 0.01)
    assert (await mock.lookup(call)).verdict is Verdict.APPROVED


@pytest.mark.parametrize(
    ("kind", "token", "verdict"),
    [
        (Kind.CHARGE, "tok_visa", Verdict.APPROVED),
        (Kind.CHARGE, None, Verdict.APPROVED),
        (Kind.AUTHORIZE, "tok_visa", Verdict.APPROVED),
        (Kind.CHARGE, "tok_chargeDeclined", Verdict.DECLINED),
        (Kind.CHARGE, "tok_pending", Verdict.APPROVED),
        (Kind.CHARGE, "tok_threeDSecure", Verdict.PENDING),
        (Kind.CHARGE, "tok_timeout", Verdict.UNKNOWN),
        (Kind.CHARGE, "tok_error", Verdict.UNKNOWN),
        (Kind.CAPTURE, None, Verdict.APPROVED),
        (Kind.VOID, None, Verdict.APPROVED),
        (Kind.REFUND, None, Verdict.APPROVED),
    ],
)
async def test_after_a_restart_a_look_up_says_what_the_token_says(
    kind: Kind, token: str | None, verdict: Verdict
) -> None:
    before, after = new_mock(), new_mock()
    made = await before.create_object(call_for("pay_1"))
    call = call_for("pay_1", kind, token=token, object_id=made.object_id)
    first = await after.lookup(call)
    again = await after.lookup(call)
    assert (first.verdict, again.verdict) == (verdict, verdict)
    assert (await after.lookup(replace(call, object_id=None))).verdict is verdict, "the id can be worked out"


async def test_after_a_restart_the_ids_are_the_same() -> None:
    before, after = new_mock(), new_mock()
    call, answer = await pay(before, "tok_visa")
    assert await after.lookup(call) == answer
    assert (await after.create_object(call)).object_id == call.object_id


async def test_after_a_restart_the_page_works_once_it_was_looked_up() -> None:
    call, _ = await pay(new_mock(), "tok_threeDSecure")
    after = new_mock()
    assert call.object_id is not None
    assert not after.approve(call.object_id)
    answer = await after.lookup(call)
    assert answer.next_action is not None
    assert after.approve(call.object_id)
    assert (await after.lookup(call)).verdict is Verdict.APPROVED


async def test_after_a_restart_an_old_payment_can_be_refunded_and_looked_up() -> None:
    call, answer = await pay(new_mock(), "tok_visa")
    after = new_mock()
    refund = call_for("pay_1", Kind.REFUND, amount_minor=400, charge_id=answer.provider_id)
    assert object_id_of(refund) == call.object_id, "the charge tells its object"
    assert (await after.send(refund)).verdict is Verdict.APPROVED
    assert (await after.lookup(call)).verdict is Verdict.APPROVED


@dataclass(frozen=True)
class Held:
    objects: int
    keys: int


async def test_the_memory_is_bounded_and_forgets_the_settled_first() -> None:
    memory = MockMemory(objects_max=3, keys_max=100)
    mock = new_mock(memory=memory)
    waiting, _ = await pay(mock, "tok_threeDSecure", "pay_waiting")
    for number in range(10):
        await pay(mock, "tok_visa", f"pay_{number}")
    assert Held(len(memory.objects), len(memory.said)) == Held(3, 6)
    assert waiting.object_id is not None
    assert mock.approve(waiting.object_id)


async def test_the_memory_is_bounded_when_nothing_settles() -> None:
    memory = MockMemory(objects_max=1000, keys_max=8)
    mock = new_mock(memory=memory)
    calls = [(await pay(mock, "tok_threeDSecure", f"pay_{number}"))[0] for number in range(10)]
    assert Held(len(memory.objects), len(memory.said)) == Held(4, 8)
    assert (await mock.lookup(calls[0])).verdict is Verdict.PENDING


async def test_what_was_declined_and_waits_again_is_not_forgotten_before_the_settled() -> None:
    mock = new_mock(memory=MockMemory(objects_max=2))
    call, _ = await pay(mock, "tok_chargeDeclined", "pay_a")
    await mock.send(replace(call, key="pay_a:charge:2", number=2, method_token="tok_threeDSecure"))
    await pay(mock, "tok_visa", "pay_b")
    await pay(mock, "tok_visa", "pay_c")
    assert call.object_id is not None
    assert mock.approve(call.object_id)


def test_production_has_no_mock() -> None:
    @dataclass(frozen=True)
    class Some:
        is_production: bool
        mock_settle_ms: int = 0
        mock_latency_ms: int = 0
        public_url: str | None = None
        port: int = 3005
        mock_provider_url: str | None = None

    assert PROVIDER.configured(Some(is_production=False))
    assert not PROVIDER.configured(Some(is_production=True))
    assert PROVIDER.build(Some(is_production=False), SettableClock(), lambda: pytest.fail("no network")).name == "MOCK"
