"""Stripe's adapter against a simulator of Stripe's API: whole lives of payments, lost answers, signed webhooks.

What every provider does is in tests/contract/test_providers.py; here is what only Stripe does.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from rigs.provider_rig import call_for
from rigs.provider_stripe import stripe_on
from servers.provider_sim import ProviderSim

from payment_service.adapters.embedded_process import free_port
from payment_service.adapters.providers.stripe import StripeProvider
from payment_service.adapters.providers.stripe_api import StripeApi
from payment_service.adapters.providers.stripe_webhooks import StripeWebhooks
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import DisputeState, Kind, Verdict
from payment_service.core.webhooks import AttemptNews, DisputeNews, Notice, RefundNews

SECRET = "whsec_flows"
WAIT_S = 10.0
_numbers = count(1)


@dataclass
class Flow:
    provider: StripeProvider
    sim: ProviderSim
    session: ClientSession
    webhooks: StripeWebhooks
    notices: list[Notice] = field(default_factory=list)

    async def ask(self, path: str, body: Any = None) -> Any:
        async with self.session.post(f"{self.sim.url}/_sim/{path}", json=body or {}) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def fails_next(self, path: str, fault: str) -> None:
        await self.ask("faults", {"next": [{"path": path, "fault": fault}]})

    async def started(self, kind: Kind = Kind.CHARGE, token: str | None = "tok_visa", **more: Any) -> ProviderCall:
        """A call whose PaymentIntent is made."""
        call = replace(
            call_for(f"pay_flow{next(_numbers)}", kind, provider="STRIPE", token=token, manual=kind is Kind.AUTHORIZE),
            **more,
        )
        made = await self.provider.create_object(call)
        assert made.verdict is Verdict.APPROVED, made
        return replace(call, object_id=made.object_id)

    async def paid(self, kind: Kind = Kind.CHARGE, token: str = "tok_visa") -> tuple[ProviderCall, Answer]:
        call = await self.started(kind, token)
        answer = await self.provider.send(call)
        assert answer.verdict is Verdict.APPROVED, answer
        return call, answer

    async def all_told(self) -> None:
        """Until the simulator has no event left: none may arrive while the hook that takes them is being closed."""
        deadline = time.monotonic() + WAIT_S
        while True:
            async with self.session.get(f"{self.sim.url}/_sim/health") as response:
                health = await response.json()
            if health["webhooks_waiting"] == health["settling"] == 0:
                return
            assert time.monotonic() < deadline, health
            await asyncio.sleep(0.05)

    def moved(self, call: ProviderCall) -> list[tuple[str, int]]:
        return [(line["kind"], line["amount_minor"]) for line in self.sim.movements(call.payment_id)]

    async def notice(self, kind: str, payment_id: str | None) -> Notice:
        """The first of this type about this payment, once it has come."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            for notice in self.notices:
                if notice.type == kind and payment_id in (None, notice.payment_id):
                    return notice
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {kind}: {[(it.type, it.payment_id) for it in self.notices]}")


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderSim]:
    folder: Path = tmp_path_factory.mktemp("stripe-flows")
    hook = f"http://127.0.0.1:{free_port()}/hook"
    with ProviderSim(folder, webhook_url=hook, webhook_secret=SECRET, settle_ms=300) as started:
        yield started


@pytest_asyncio.fixture
async def flow(sim: ProviderSim) -> AsyncIterator[Flow]:
    async with stripe_on(sim.url) as provider, ClientSession() as session:
        api = StripeApi("sk_test_simulated", sim.url, 10, lambda: session)
        made = Flow(provider, sim, session, StripeWebhooks(["whsec_older", SECRET], api, live=False))

        async def hook(request: web.Request) -> web.Response:
            headers = {name.lower(): value for name, value in request.headers.items()}
            made.notices.append(await made.webhooks.verify(headers, await request.read(), time.time_ns() // 1_000_000))
            return web.Response()

        app = web.Application()
        app.router.add_post("/hook", hook)
        port = int(str(sim.options["webhook_url"]).rpartition(":")[2].partition("/")[0])
        async with TestServer(app, port=port):
            yield made
            await made.ask("faults", {})
            await made.all_told()


def later(call: ProviderCall, kind: Kind, number: int = 2, amount_minor: int = 1000) -> ProviderCall:
    return replace(
        call, kind=kind, number=number, amount_minor=amount_minor, key=f"{call.payment_id}:{kind.lower()}:{number}",
        method_token=None,
    )  # fmt: skip


# --- the shopper acts ------------------------------------------------------------------------------------------------


async def test_3d_secure_by_redirect_and_by_script_until_the_shopper_agrees(flow: Flow) -> None:
    call = await flow.started(token="tok_threeDSecure", return_url="https://shop.test/back")
    asked = await flow.provider.send(call)
    assert asked.verdict is Verdict.PENDING
    assert asked.next_action is not None and asked.next_action.type == "redirect" and asked.next_action.url
    script = await flow.provider.send(await flow.started(token="tok_threeDSecure"))
    assert script.next_action is not None and script.next_action.type == "use_client_secret"
    assert (await flow.provider.lookup(call)).verdict is Verdict.PENDING
    await flow.ask(f"approve/{call.object_id}")
    done = await flow.provider.lookup(call)
    assert (done.verdict, done.amount_minor) == (Verdict.APPROVED, 1000)
    news = (await flow.notice("payment_intent.succeeded", call.payment_id)).news
    assert [(it.kind, it.answer.provider_id) for it in news if isinstance(it, AttemptNews)] == [
        (Kind.CHARGE, done.provider_id)
    ]


async def test_a_shopper_who_is_not_authenticated_is_declined_and_may_pay_otherwise(flow: Flow) -> None:
    call = await flow.started(token="tok_threeDSecure")
    await flow.provider.send(call)
    await flow.ask(f"deny/{call.object_id}")
    denied = await flow.provider.lookup(call)
    assert (denied.verdict, denied.code) == (Verdict.DECLINED, "AUTHENTICATION_FAILED")
    failed = await flow.notice("payment_intent.payment_failed", call.payment_id)
    assert isinstance(failed.news[0], AttemptNews)
    assert (failed.news[0].number, failed.news[0].answer.verdict) == (1, Verdict.DECLINED)
    second = replace(call, number=2, key=f"{call.payment_id}:charge:2", method_token="tok_visa")
    assert (await flow.provider.lookup(second)).code == "NOT_FOUND", "the first one's no is not the second one's"
    assert (await flow.provider.send(second)).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("charge", 1000)]


async def test_without_a_means_of_payment_the_front_end_pays(flow: Flow) -> None:
    call = call_for("pay_flow_front", provider="STRIPE")
    made = await flow.provider.create_object(call)
    assert made.next_action is not None and made.next_action.client_secret
    call = replace(call, object_id=made.object_id)
    assert (await flow.provider.send(call)).verdict is Verdict.PENDING
    declined = replace(call, method_token="pm_card_chargeDeclined", key="what-the-browser-did-first")
    assert (await flow.provider.send(declined)).verdict is Verdict.DECLINED
    assert (await flow.notice("payment_intent.payment_failed", call.payment_id)).news == (), "the form is still open"
    assert (await flow.provider.lookup(call)).next_action == made.next_action
    browser = replace(call, method_token="tok_visa", key="what-the-browser-did")
    assert (await flow.provider.send(browser)).verdict is Verdict.APPROVED
    assert (await flow.provider.send(call)).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("charge", 1000)]


async def test_an_object_that_a_front_end_names_is_read_and_never_confirmed_when_it_is_not_ours(flow: Flow) -> None:
    other = await flow.started()
    stranger = call_for("pay_flow_stranger", provider="STRIPE", token="tok_visa", object_id=other.object_id)
    for call in (stranger, replace(stranger, method_token=None), replace(stranger, object_id="pi_nowhere")):
        for answer in (
            await flow.provider.send(replace(call, adopted=True)),
            await flow.provider.lookup(replace(call, adopted=True)),
        ):
            assert (answer.verdict, answer.code, answer.object_closed) == (Verdict.DECLINED, "OBJECT_NOT_OURS", True)
    hostile = replace(stranger, object_id="../customers", adopted=True)
    assert (await flow.provider.send(hostile)).code == "OBJECT_NOT_OURS"
    assert flow.moved(other) == []
    assert (await flow.provider.send(replace(other, adopted=True))).verdict is Verdict.APPROVED, "ours is confirmed"
    again = await flow.provider.send(replace(other, adopted=True, number=2, key=f"{other.payment_id}:charge:2"))
    assert again.verdict is Verdict.APPROVED, "and when it is paid, that is the answer"
    assert flow.moved(other) == [("charge", 1000)]


# --- captures, voids, refunds ----------------------------------------------------------------------------------------


async def test_a_hold_is_captured_in_part_once_and_the_rest_is_released(flow: Flow) -> None:
    call, held = await flow.paid(Kind.AUTHORIZE)
    assert held.amount_minor == 1000
    capturable = await flow.notice("payment_intent.amount_capturable_updated", call.payment_id)
    assert isinstance(capturable.news[0], AttemptNews) and capturable.news[0].kind is Kind.AUTHORIZE
    capture = later(call, Kind.CAPTURE, amount_minor=700)
    assert (await flow.provider.lookup(capture)).code == "NOT_FOUND"
    taken = await flow.provider.send(capture)
    assert (taken.verdict, taken.amount_minor, taken.provider_id) == (Verdict.APPROVED, 700, held.provider_id)
    assert (await flow.provider.lookup(capture)).amount_minor == 700
    again = await flow.provider.send(later(call, Kind.CAPTURE, 3, 300))
    assert again.verdict is Verdict.APPROVED and again.amount_minor == 700, "captured already: that is the truth"
    assert ("capture", 700) in flow.moved(call)
    succeeded = await flow.notice("payment_intent.succeeded", call.payment_id)
    assert [(it.kind, it.answer.amount_minor) for it in succeeded.news if isinstance(it, AttemptNews)] == [
        (Kind.AUTHORIZE, 1000),
        (Kind.CAPTURE, 700),
    ]


async def test_a_hold_that_expired_cannot_be_captured(flow: Flow) -> None:
    call, _ = await flow.paid(Kind.AUTHORIZE)
    await flow.ask(f"expire/{call.object_id}")
    refused = await flow.provider.send(later(call, Kind.CAPTURE))
    assert (refused.verdict, refused.object_closed) == (Verdict.DECLINED, True)
    assert (await flow.provider.send(later(call, Kind.VOID, 3))).verdict is Verdict.APPROVED


async def test_refunds_that_settle_later_and_that_fail_later(flow: Flow) -> None:
    slow, _ = await flow.paid(token="tok_pendingRefund")
    first = later(slow, Kind.REFUND, 1, 400)
    assert (await flow.provider.send(first)).verdict is Verdict.PENDING
    await flow.ask("settle")
    assert (await flow.provider.lookup(first)).verdict is Verdict.APPROVED
    assert (await flow.provider.lookup(later(slow, Kind.REFUND, 2, 400))).code == "NOT_FOUND"

    failing, _ = await flow.paid(token="tok_refundFail")
    second = later(failing, Kind.REFUND, 1, 400)
    sent = await flow.provider.send(second)
    assert sent.verdict in (Verdict.APPROVED, Verdict.PENDING)
    await flow.ask("settle")
    failed = await flow.provider.lookup(second)
    assert (failed.verdict, failed.code, failed.provider_id) == (Verdict.DECLINED, "REFUND_FAILED", sent.provider_id)
    news = (await flow.notice("refund.failed", failing.payment_id)).news[0]
    assert isinstance(news, RefundNews) and news.answer.verdict is Verdict.DECLINED and news.number == 1


# --- answers that are lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drop_response", "cut_body", "status_500_after"])
async def test_a_lost_answer_is_unknown_and_the_look_up_tells(flow: Flow, fault: str) -> None:
    call = await flow.started()
    await flow.fails_next("/v1/payment_intents", fault)
    assert (await flow.provider.send(call)).verdict is Verdict.UNKNOWN
    assert (await flow.provider.lookup(call)).verdict is Verdict.APPROVED

    held, _ = await flow.paid(Kind.AUTHORIZE)
    for kind, path in ((Kind.CAPTURE, "/v1/payment_intents"), (Kind.REFUND, "/v1/refunds")):
        await flow.fails_next(path, fault)
        step = later(held, kind, 2 if kind is Kind.CAPTURE else 1)
        assert (await flow.provider.send(step)).verdict is Verdict.UNKNOWN
        found = await flow.provider.lookup(step)
        assert (found.verdict, found.amount_minor) == (Verdict.APPROVED, 1000)

    void, _ = await flow.paid(Kind.AUTHORIZE)
    await flow.fails_next("/v1/payment_intents", fault)
    assert (await flow.provider.send(later(void, Kind.VOID))).verdict is Verdict.UNKNOWN
    assert (await flow.provider.lookup(later(void, Kind.VOID))).verdict is Verdict.APPROVED
    assert [kind for kind, _ in flow.moved(call)] == ["charge"]


async def test_a_request_that_never_arrived_is_not_there_and_is_sent_again_once(flow: Flow) -> None:
    call = await flow.started()
    await flow.fails_next("/v1/payment_intents", "drop_request")
    assert (await flow.provider.send(call)).verdict is Verdict.UNKNOWN
    missing = await flow.provider.lookup(call)
    assert (missing.verdict, missing.code) == (Verdict.UNKNOWN, "NOT_FOUND")
    for _ in range(3):
        assert (await flow.provider.send(call)).verdict is Verdict.APPROVED
    assert flow.moved(call) == [("charge", 1000)]


async def test_too_many_requests_were_not_looked_at(flow: Flow) -> None:
    call = await flow.started()
    await flow.fails_next("/v1/payment_intents", "status_429")
    limited = await flow.provider.send(call)
    assert (limited.verdict, limited.code) == (Verdict.NOT_SENT, "RATE_LIMITED")
    assert flow.moved(call) == []


# --- webhooks --------------------------------------------------------------------------------------------------------


async def test_a_refund_of_the_dashboard_is_told_and_its_payment_found(flow: Flow) -> None:
    call, charged = await flow.paid()
    await flow.ask("refunds", {"object_id": call.object_id, "amount_minor": 250})
    told = await flow.notice("charge.refunded", call.payment_id)
    assert told.refetch and told.news == () and told.charge_id == charged.provider_id
    fresh = await flow.webhooks.refetch(told)
    assert [
        (it.answer.verdict, it.answer.amount_minor, it.number) for it in fresh.news if isinstance(it, RefundNews)
    ] == [(Verdict.APPROVED, 250, None)]
    created = next(it for it in flow.notices if it.type == "refund.created" and it.object_id == call.object_id)
    assert created.payment_id is None, "what the dashboard makes does not carry our id"
    assert (await flow.webhooks.refetch(created)).payment_id == call.payment_id


async def test_a_dispute_is_opened_and_lost(flow: Flow) -> None:
    call, charged = await flow.paid()
    dispute = await flow.ask("disputes", {"object_id": call.object_id})
    opened = await flow.notice("charge.dispute.created", None)
    assert (opened.object_id, opened.charge_id, opened.payment_id) == (call.object_id, charged.provider_id, None)
    assert isinstance(opened.news[0], DisputeNews) and opened.news[0].state is DisputeState.OPEN
    await flow.ask(f"disputes/{dispute['id']}/lost")
    fresh = await flow.webhooks.refetch(opened)
    assert fresh.payment_id == call.payment_id
    assert isinstance(fresh.news[0], DisputeNews) and fresh.news[0].state is DisputeState.LOST


async def test_what_an_old_event_says_is_replaced_by_how_it_is_now(flow: Flow) -> None:
    call, _ = await flow.paid(Kind.AUTHORIZE)
    held = await flow.notice("payment_intent.amount_capturable_updated", call.payment_id)
    await flow.provider.send(later(call, Kind.VOID))
    fresh = await flow.webhooks.refetch(held)
    assert [it.kind for it in fresh.news if isinstance(it, AttemptNews)] == [Kind.VOID]
    assert (fresh.event_id, fresh.refetch) == (held.event_id, False)
