"""PayPal's adapter against a simulator of PayPal's API: whole lives of payments, lost answers, what the shopper does.

What every provider does is in tests/contract/test_providers.py; here is what only PayPal does.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from rigs.provider_paypal import api_on
from rigs.provider_rig import call_for
from servers.provider_sim import ProviderSim

from payment_service.adapters.providers.paypal import PaypalProvider
from payment_service.adapters.providers.paypal_api import Reply
from payment_service.adapters.providers.paypal_requests import Request
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import Kind, Verdict

ORDERS = "/v2/checkout/orders"
_numbers = count(1)


@dataclass
class Flow:
    provider: PaypalProvider
    sim: ProviderSim
    session: ClientSession

    async def ask(self, path: str, body: Any = None) -> Any:
        async with self.session.post(f"{self.sim.url}/_sim/{path}", json=body or {}) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def fails_next(self, path: str, *faults: str) -> None:
        await self.ask("faults", {"next": [{"path": path, "fault": fault} for fault in faults]})

    async def started(self, kind: Kind = Kind.CHARGE, token: str | None = None, **more: Any) -> ProviderCall:
        """The call that takes the money of an order that is made: the second one, if the shopper is asked first."""
        manual, number = kind is Kind.AUTHORIZE, 1 if token is not None else 2
        call = call_for(
            f"pay_flow{next(_numbers)}", kind, number, provider="PAYPAL", token=token, manual=manual
        )  # fmt: skip
        call = replace(call, **more)
        made = await self.provider.create_object(call)
        assert made.verdict is Verdict.APPROVED, made
        assert (made.next_action is None) is (token is not None)
        return replace(call, object_id=made.object_id)

    async def approved(self, kind: Kind = Kind.CHARGE, wallet: str = "tok_visa") -> ProviderCall:
        call = await self.started(kind)
        await self.ask(f"approve/{call.object_id}?with={wallet}")
        return call

    async def paid(self, kind: Kind = Kind.CHARGE, wallet: str = "tok_visa") -> tuple[ProviderCall, Answer]:
        call = await self.started(kind, wallet)
        answer = await self.provider.send(call)
        assert answer.verdict is Verdict.APPROVED, answer
        return call, answer

    def moved(self, call: ProviderCall) -> list[tuple[str, int]]:
        return [(line["kind"], line["amount_minor"]) for line in self.sim.movements(call.payment_id)]


@pytest.fixture(scope="module")
def sim() -> Iterator[ProviderSim]:
    with ProviderSim(settle_ms=300) as started:
        yield started


@pytest_asyncio.fixture
async def flow(sim: ProviderSim) -> AsyncIterator[Flow]:
    async with api_on(sim.url) as api, ClientSession() as session:
        made = Flow(PaypalProvider(api), sim, session)
        yield made
        await made.ask("faults")


def later(
    call: ProviderCall, answer: Answer | None, kind: Kind, number: int = 3, amount_minor: int = 1000
) -> ProviderCall:
    return replace(
        call, kind=kind, number=number, amount_minor=amount_minor, key=f"{call.payment_id}:{kind.lower()}:{number}",
        method_token=None, charge_id=answer.provider_id if answer is not None else None,
    )  # fmt: skip


def said(answer: Answer) -> tuple[Verdict, str]:
    return answer.verdict, answer.code


# --- the shopper acts ------------------------------------------------------------------------------------------------


async def test_an_order_waits_for_its_shopper_then_its_money_is_taken_once(flow: Flow) -> None:
    call = await flow.started()
    for answer in (await flow.provider.send(call), await flow.provider.lookup(call)):
        assert answer.verdict is Verdict.PENDING
        assert answer.next_action is not None
        assert (answer.next_action.url or "").endswith(call.object_id or "-")
    await flow.ask(f"approve/{call.object_id}")
    found = await flow.provider.lookup(call)
    assert (found.verdict, found.approved) == (Verdict.UNKNOWN, True)
    assert flow.moved(call) == [], "approving moves no money"
    taken = await flow.provider.send(call)
    assert (taken.verdict, taken.amount_minor, taken.currency) == (Verdict.APPROVED, 1000, "USD")
    other_number = replace(call, number=4, key=f"{call.payment_id}:charge:4")
    for again in (await flow.provider.send(call), await flow.provider.send(other_number)):
        assert (again.verdict, again.provider_id) == (Verdict.APPROVED, taken.provider_id)
    assert flow.moved(call) == [("charge", 1000)]


async def test_an_approved_wallet_that_is_declined_ends_its_order(flow: Flow) -> None:
    call = await flow.approved(wallet="tok_chargeDeclined")
    no = await flow.provider.send(call)
    assert (no.verdict, no.code, no.decline_code) == (Verdict.DECLINED, "CARD_DECLINED", "INSTRUMENT_DECLINED")
    assert no.object_closed, "the next attempt asks the shopper anew"
    assert (await flow.provider.lookup(call)).code == "OBJECT_CANCELLED"
    again = await flow.provider.send(replace(call, number=3, key=f"{call.payment_id}:charge:3"))
    assert (again.verdict, again.object_closed) == (Verdict.DECLINED, True)
    assert flow.moved(call) == []


async def test_an_order_can_be_completed_and_not_paid(flow: Flow) -> None:
    call = await flow.approved(wallet="tok_chargeDeclinedFraudulent")
    no = await flow.provider.send(call)
    assert (no.verdict, no.code, no.object_closed) == (Verdict.DECLINED, "CARD_DECLINED", True)
    assert (await flow.provider.lookup(call)).verdict is Verdict.DECLINED
    denied = await flow.approved(Kind.AUTHORIZE, wallet="tok_chargeDeclinedFraudulent")
    assert said(await flow.provider.send(denied)) == (Verdict.DECLINED, "CARD_DECLINED")
    assert flow.moved(call) == flow.moved(denied) == []


async def test_a_saved_wallet_that_wants_its_shopper_is_approved_and_taken_without_being_named_again(
    flow: Flow,
) -> None:
    call = await flow.started(token="tok_threeDSecure")
    asked = await flow.provider.send(call)
    assert (asked.verdict, asked.next_action is not None) == (Verdict.PENDING, True)
    await flow.ask(f"approve/{call.object_id}")
    second = replace(call, number=2, key=f"{call.payment_id}:charge:2")
    assert (await flow.provider.send(second)).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("charge", 1000)]


@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
async def test_what_is_pending_stays_so_until_it_settles(flow: Flow, kind: Kind) -> None:
    call = await flow.approved(kind, wallet="tok_pending")
    for answer in (await flow.provider.send(call), await flow.provider.lookup(call)):
        assert said(answer) == (Verdict.PENDING, "PENDING_REVIEW")
        assert answer.next_action is None
    await flow.ask("settle")
    assert (await flow.provider.lookup(call)).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("charge" if kind is Kind.CHARGE else "authorize", 1000)]


async def test_pending_money_is_not_voided_and_may_be_denied(flow: Flow) -> None:
    call = await flow.approved(wallet="tok_pending")
    sent = await flow.provider.send(call)
    assert said(await flow.provider.send(later(call, sent, Kind.VOID))) == (Verdict.UNKNOWN, "NOT_FOUND")
    await flow.ask(f"deny/{call.object_id}")
    assert said(await flow.provider.lookup(call)) == (Verdict.DECLINED, "CARD_DECLINED")
    assert (await flow.provider.send(later(call, sent, Kind.VOID))).verdict is Verdict.APPROVED


async def test_an_order_that_a_front_end_names_is_taken_only_if_it_is_ours(flow: Flow) -> None:
    call = await flow.approved()
    stranger = call_for(f"pay_flow{next(_numbers)}", provider="PAYPAL", object_id=call.object_id)
    for object_id in (call.object_id, "0000000000000000A", "../captures"):
        named = replace(stranger, adopted=True, object_id=object_id)
        for answer in (await flow.provider.send(named), await flow.provider.lookup(named)):
            assert said(answer) == (Verdict.DECLINED, "OBJECT_NOT_OURS")
            assert answer.object_closed
    dear = replace(call, adopted=True, amount_minor=1001)
    assert (await flow.provider.send(dear)).code == "OBJECT_DIFFERS"
    assert flow.moved(call) == []
    assert (await flow.provider.send(replace(call, adopted=True, number=1))).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("charge", 1000)]


@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
@pytest.mark.parametrize("wallet", [None, "tok_visa"])
@pytest.mark.parametrize("amount", [("0.01", "USD"), ("10.00", "EUR")])
async def test_an_order_that_was_changed_since_it_was_made_is_not_taken(
    flow: Flow, kind: Kind, wallet: str | None, amount: tuple[str, str]
) -> None:
    """PayPal's script changes an order from the shopper's page, until they approve it: `actions.order.patch`."""
    call = replace(await flow.started(kind), method_token=wallet)
    value = {"currency_code": amount[1], "value": amount[0]}
    path = f"/purchase_units/@reference_id=='{call.order_id}'/amount"
    patch = Request("PATCH", f"{ORDERS}/{call.object_id}", [{"op": "replace", "path": path, "value": value}])
    async with api_on(flow.sim.url) as page:
        changed = await page.ask(patch)
    assert isinstance(changed, Reply) and changed.status == 204
    if wallet is None:
        await flow.ask(f"approve/{call.object_id}")
    refused = await flow.provider.send(call)
    assert (*said(refused), refused.object_closed) == (Verdict.DECLINED, "OBJECT_DIFFERS", True)
    assert set(refused.review) == {"AMOUNT_DIFFERS" if amount[1] == "USD" else "CURRENCY_DIFFERS"}
    assert said(await flow.provider.lookup(call)) == (Verdict.DECLINED, "OBJECT_CANCELLED")
    assert flow.moved(call) == []


async def test_what_the_page_has_changed_and_taken_is_no_yes(flow: Flow) -> None:
    call = await flow.started()
    value = {"currency_code": "USD", "value": "0.01"}
    path = f"/purchase_units/@reference_id=='{call.order_id}'/amount"
    order = f"{ORDERS}/{call.object_id}"
    async with api_on(flow.sim.url) as page:
        await page.ask(Request("PATCH", order, [{"op": "replace", "path": path, "value": value}]))
        await flow.ask(f"approve/{call.object_id}")
        taken = await page.ask(Request("POST", f"{order}/capture", {}, "page"))
    assert isinstance(taken, Reply) and taken.status == 201
    found = await flow.provider.send(call)
    assert (*said(found), found.review) == (Verdict.UNKNOWN, "OBJECT_DIFFERS", ("AMOUNT_DIFFERS",))
    raced = await flow.provider.send(
        replace(call, number=1, method_token="tok_visa")
    )  # it was there to be paid a moment ago
    assert said(raced) == (Verdict.UNKNOWN, "OBJECT_DIFFERS")
    assert flow.moved(call) == [("charge", 1)]


# --- captures, voids, refunds ----------------------------------------------------------------------------------------


async def test_a_hold_is_captured_in_part_and_the_rest_is_released(flow: Flow) -> None:
    call, held = await flow.paid(Kind.AUTHORIZE)
    capture = later(call, held, Kind.CAPTURE, amount_minor=700)
    assert (await flow.provider.lookup(capture)).code == "NOT_FOUND"
    taken = await flow.provider.send(capture)
    assert (taken.verdict, taken.amount_minor) == (Verdict.APPROVED, 700)
    assert (await flow.provider.lookup(capture)).provider_id == taken.provider_id
    again = await flow.provider.send(later(call, held, Kind.CAPTURE, 4, 300))
    assert (again.verdict, again.amount_minor) == (Verdict.APPROVED, 700), "captured already: that is the truth"
    assert (await flow.provider.send(later(call, held, Kind.VOID, 5))).verdict is Verdict.DECLINED
    assert flow.moved(call) == [("authorize", 1000), ("capture", 700)]


async def test_ids_that_are_not_known_are_found_in_the_order(flow: Flow) -> None:
    call, _ = await flow.paid(Kind.AUTHORIZE)
    assert (await flow.provider.send(later(call, None, Kind.CAPTURE))).verdict is Verdict.APPROVED
    assert (await flow.provider.send(later(call, None, Kind.REFUND, 1, 400))).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("authorize", 1000), ("capture", 1000), ("refund", 400)]
    unpaid = await flow.started()
    assert (await flow.provider.send(later(unpaid, None, Kind.REFUND, 1))).verdict is Verdict.UNKNOWN
    lost = replace(call, object_id=None)
    for kind in (Kind.CHARGE, Kind.VOID, Kind.CAPTURE, Kind.REFUND):
        assert said(await flow.provider.send(later(lost, None, kind))) == (Verdict.UNKNOWN, "NO_OBJECT")
        assert said(await flow.provider.lookup(later(lost, None, kind))) == (Verdict.UNKNOWN, "NO_OBJECT")


async def test_a_hold_that_expired_cannot_be_captured(flow: Flow) -> None:
    call, held = await flow.paid(Kind.AUTHORIZE)
    await flow.ask(f"expire/{call.object_id}")
    refused = await flow.provider.send(later(call, held, Kind.CAPTURE))
    assert (refused.verdict, refused.object_closed) == (Verdict.DECLINED, True)
    assert (await flow.provider.send(later(call, held, Kind.VOID, 4))).verdict is Verdict.APPROVED


@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.AUTHORIZE])
@pytest.mark.parametrize("approves", [False, True])
async def test_a_closed_order_takes_no_money_of_a_request_that_comes_late(
    flow: Flow, kind: Kind, approves: bool
) -> None:
    call = await flow.approved(kind) if approves else await flow.started(kind)
    void = later(call, None, Kind.VOID)
    assert (await flow.provider.send(void)).verdict is Verdict.APPROVED
    assert (await flow.provider.send(void)).verdict is Verdict.APPROVED
    assert (await flow.provider.lookup(void)).verdict is Verdict.APPROVED
    await flow.ask(f"approve/{call.object_id}")
    late = replace(call, method_token="tok_visa", number=1)  # sent without looking first
    refused = await flow.provider.send(late)
    assert said(refused) == (Verdict.DECLINED, "OBJECT_CANCELLED")
    assert said(await flow.provider.lookup(call)) == (Verdict.DECLINED, "OBJECT_CANCELLED")
    assert flow.moved(call) == []


async def test_an_order_that_is_gone_is_not_paid_and_not_voided(flow: Flow) -> None:
    gone = call_for("pay_flow_gone", number=2, provider="PAYPAL", object_id="0000000000000000A")
    for call in (gone, replace(gone, number=1, method_token="tok_visa")):
        answer = await flow.provider.send(call)
        assert (*said(answer), answer.object_closed) == (Verdict.DECLINED, "OBJECT_GONE", True)
    assert said(await flow.provider.lookup(gone)) == (Verdict.UNKNOWN, "OBJECT_MISSING")
    void = await flow.provider.send(later(gone, None, Kind.VOID))
    assert (*said(void), void.review) == (Verdict.UNKNOWN, "OBJECT_MISSING", ("OBJECT_MISSING",))


async def test_refunds_that_settle_later_and_that_fail_later(flow: Flow) -> None:
    slow, charged = await flow.paid(wallet="tok_pendingRefund")
    first = later(slow, charged, Kind.REFUND, 1, 400)
    assert said(await flow.provider.send(first)) == (Verdict.PENDING, "ECHECK")
    await flow.ask("settle")
    assert (await flow.provider.lookup(first)).verdict is Verdict.APPROVED
    assert (await flow.provider.lookup(later(slow, charged, Kind.REFUND, 2, 400))).code == "NOT_FOUND"

    failing, charged = await flow.paid(wallet="tok_refundFail")
    second = later(failing, charged, Kind.REFUND, 1, 400)
    sent = await flow.provider.send(second)
    assert sent.verdict is Verdict.APPROVED
    await flow.ask("settle")
    failed = await flow.provider.lookup(second)
    assert (*said(failed), failed.provider_id) == (Verdict.DECLINED, "REFUND_FAILED", sent.provider_id)


# --- answers that are lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drop_response", "cut_body", "status_500_after"])
async def test_a_lost_answer_is_unknown_and_the_look_up_and_a_repeat_tell(flow: Flow, fault: str) -> None:
    call = await flow.started(token="tok_visa")
    await flow.fails_next(ORDERS, fault)
    assert (await flow.provider.send(call)).verdict is Verdict.UNKNOWN
    assert (await flow.provider.lookup(call)).verdict is Verdict.APPROVED
    assert (await flow.provider.send(call)).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("charge", 1000)]

    held, answer = await flow.paid(Kind.AUTHORIZE)
    capture = later(held, answer, Kind.CAPTURE)
    await flow.fails_next("/v2/payments/authorizations", fault)
    assert (await flow.provider.send(capture)).verdict is Verdict.UNKNOWN
    taken = await flow.provider.lookup(capture)
    assert taken.verdict is Verdict.APPROVED
    refund = later(held, taken, Kind.REFUND, 1, 400)
    await flow.fails_next("/v2/payments/captures", fault)
    assert (await flow.provider.send(refund)).verdict is Verdict.UNKNOWN
    assert (await flow.provider.lookup(refund)).verdict is Verdict.APPROVED
    assert (await flow.provider.send(refund)).verdict is Verdict.APPROVED
    assert flow.moved(held) == [("authorize", 1000), ("capture", 1000), ("refund", 400)]


@pytest.mark.parametrize("fault", ["drop_response", "status_500_after"])
async def test_a_void_whose_answer_is_lost_is_looked_at_before_it_is_repeated(flow: Flow, fault: str) -> None:
    call, held = await flow.paid(Kind.AUTHORIZE)
    void = later(call, held, Kind.VOID)
    await flow.fails_next("/v2/payments/authorizations", fault)
    assert (await flow.provider.send(void)).verdict is Verdict.UNKNOWN
    assert (await flow.provider.send(void)).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("authorize", 1000), ("void", 1000)]


async def test_a_request_that_never_arrived_is_not_there_and_is_sent_again_once(flow: Flow) -> None:
    call = await flow.started(token="tok_visa")
    await flow.fails_next(ORDERS, "drop_request")
    assert (await flow.provider.send(call)).verdict is Verdict.UNKNOWN
    assert said(await flow.provider.lookup(call)) == (Verdict.UNKNOWN, "NOT_FOUND")
    for _ in range(3):
        assert (await flow.provider.send(call)).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("charge", 1000)]


async def test_looking_first_in_vain_means_that_nothing_was_sent(flow: Flow) -> None:
    call = await flow.approved()
    for fault in ("cut_body", "status_500", "status_500_after"):
        await flow.fails_next(ORDERS, fault)
        assert said(await flow.provider.send(call)) == (Verdict.NOT_SENT, "PROVIDER_UNAVAILABLE")
    await flow.fails_next(ORDERS, "status_429")
    assert said(await flow.provider.send(call)) == (Verdict.NOT_SENT, "RATE_LIMITED")
    assert flow.moved(call) == []
    assert (await flow.provider.send(call)).verdict is Verdict.APPROVED


async def test_two_at_once_under_one_key_take_the_money_once(flow: Flow) -> None:
    call = await flow.started(token="tok_visa")
    await flow.ask("timing", {"latency_ms": 200})
    answers = await asyncio.gather(*(flow.provider.send(call) for _ in range(4)))
    await flow.ask("timing", {"latency_ms": 0})
    assert {said(answer) for answer in answers} == {(Verdict.APPROVED, ""), (Verdict.UNKNOWN, "IDEMPOTENCY_IN_USE")}
    assert flow.moved(call) == [("charge", 1000)]
    assert (await flow.provider.send(call)).verdict is Verdict.APPROVED


async def test_tokens_that_paypal_takes_back_stop_nothing(flow: Flow) -> None:
    call = await flow.started(token="tok_visa")
    await flow.ask("paypal/end_tokens")
    await asyncio.sleep(0.005)
    assert (await flow.provider.send(call)).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("charge", 1000)]
