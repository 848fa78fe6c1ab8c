"""PayPal's events from the simulator, believed by the service's own reader in both ways, and read to their end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from rigs.provider_paypal import api_on
from rigs.sim_paypal import PaypalAsker, payments
from servers.provider_sim import ProviderSim

from payment_service.adapters.embedded_process import free_port
from payment_service.adapters.providers.paypal_signatures import Certificates
from payment_service.adapters.providers.paypal_webhooks import PaypalWebhooks
from payment_service.core.errors import Refused
from payment_service.core.terms import DisputeState, Kind, Verdict
from payment_service.core.webhooks import Approved, AttemptNews, DisputeNews, Notice, RefundNews

WEBHOOK_ID = "WEBHOOKOFTHETEST2"
WAIT_S = 10.0


@dataclass
class Hooked:
    asker: PaypalAsker
    offline: PaypalWebhooks
    postback: PaypalWebhooks
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def told(self, kind: str, count: int = 1) -> list[Notice]:
        """What came of this type, believed in both ways, as it stands now."""
        deadline = time.monotonic() + WAIT_S
        while True:
            found = [it for it in self.got if f'"event_type":"{kind}"'.encode() in it[1]]
            if len(found) >= count:
                break
            assert time.monotonic() < deadline, [body[:200] for _, body in self.got]
            await asyncio.sleep(0.02)
        notices = []
        for headers, body in found:
            now_ms = time.time_ns() // 1_000_000
            first = await self.offline.verify(headers, body, now_ms)
            assert await self.postback.verify(headers, body, now_ms) == first
            for reader in (self.offline, self.postback):
                with pytest.raises(Refused):
                    await reader.verify(headers, body.replace(b"USD", b"EUR"), now_ms)
            notices.append(await self.offline.refetch(first))
        return notices


@pytest_asyncio.fixture
async def hooked(own_sim: Callable[..., ProviderSim], tmp_path: Path) -> AsyncIterator[Hooked]:
    port, roots = free_port(), tmp_path / "roots.pem"
    sim = own_sim(webhook_url=f"http://127.0.0.1:{port}/hook", paypal_webhook_id=WEBHOOK_ID, settle_ms=100)
    async with ClientSession() as session, api_on(sim.url) as api:
        async with session.get(f"{sim.url}/_sim/paypal/root.pem") as answer:
            roots.write_bytes(await answer.read())
        asker = PaypalAsker(sim, session)
        await asker.token()
        certificates = Certificates(sim.url, roots, lambda: session)
        made = Hooked(asker, PaypalWebhooks(api, WEBHOOK_ID, certificates), PaypalWebhooks(api, WEBHOOK_ID, None))

        async def hook(request: web.Request) -> web.Response:
            headers = {name.lower(): value for name, value in request.headers.items()}
            made.got.append((headers, await request.read()))
            return web.Response()

        app = web.Application()
        app.router.add_post("/hook", hook)
        async with TestServer(app, port=port):
            yield made


async def test_an_approval_is_told_and_after_the_capture_so_is_that(hooked: Hooked) -> None:
    asker = hooked.asker
    order = (await asker.order(unit={"custom_id": "pay_1"}))[1]
    await asker.control(f"approve/{order['id']}")
    (approved,) = await hooked.told("CHECKOUT.ORDER.APPROVED")
    assert (approved.payment_id, approved.object_id, approved.news) == ("pay_1", order["id"], (Approved(),))
    assert not approved.refetch
    await asker.ask("POST", f"/v2/checkout/orders/{order['id']}/capture", {}, "k")
    (paid,) = await hooked.told("PAYMENT.CAPTURE.COMPLETED")
    (news,) = paid.news
    assert isinstance(news, AttemptNews)
    assert (news.kind, news.answer.verdict, news.answer.amount_minor) == (Kind.CHARGE, Verdict.APPROVED, 1000)
    (late,) = await hooked.told("CHECKOUT.ORDER.APPROVED")
    assert late.news == paid.news, "late news is what is true now"


async def test_holds_captures_and_refunds_are_told_with_their_order(hooked: Hooked) -> None:
    asker = hooked.asker
    order = await asker.paid(payment_id="pay_2", intent="AUTHORIZE")
    (held,) = await hooked.told("PAYMENT.AUTHORIZATION.CREATED")
    assert [(it.kind, it.answer.verdict) for it in held.news if isinstance(it, AttemptNews)] == [
        (Kind.AUTHORIZE, Verdict.APPROVED)
    ]
    path = f"/v2/payments/authorizations/{payments(order, 'authorizations')[0]['id']}"
    body = {"invoice_id": "pay_2:capture:2", "final_capture": True}
    capture = (await asker.ask("POST", path + "/capture", body, "c"))[1]
    refund = {"amount": {"currency_code": "USD", "value": "4.00"}, "custom_id": "pay_2", "invoice_id": "pay_2:refund:1"}
    await asker.ask("POST", f"/v2/payments/captures/{capture['id']}/refund", refund, "r")
    await asker.control("refunds", {"object_id": order["id"], "amount_minor": 100})
    notices = await hooked.told("PAYMENT.CAPTURE.REFUNDED", 2)
    for notice in notices:
        assert (notice.payment_id, notice.object_id, notice.charge_id) == ("pay_2", order["id"], capture["id"])
        refunds = [it for it in notice.news if isinstance(it, RefundNews)]
        assert [(it.answer.amount_minor, it.number) for it in refunds] == [(400, 1), (100, None)]
    captured = [it for it in notices[0].news if isinstance(it, AttemptNews) and it.kind is Kind.CAPTURE]
    assert [(it.answer.amount_minor, it.number) for it in captured] == [(1000, 2)]


async def test_a_hold_that_ends_is_told(hooked: Hooked) -> None:
    order = await hooked.asker.paid(payment_id="pay_3", intent="AUTHORIZE")
    await hooked.asker.control(f"expire/{order['id']}")
    (ended,) = await hooked.told("PAYMENT.AUTHORIZATION.VOIDED")
    (news,) = ended.news
    assert isinstance(news, AttemptNews)
    assert (news.kind, news.answer.verdict, news.answer.object_closed) == (Kind.VOID, Verdict.APPROVED, True)


async def test_pending_denied_and_failed_are_told(hooked: Hooked) -> None:
    asker = hooked.asker
    order = await asker.paid("tok_pending", "pay_4")
    await hooked.told("PAYMENT.CAPTURE.PENDING")
    await hooked.told("PAYMENT.CAPTURE.COMPLETED")
    await asker.control("timing", {"settle_ms": 60_000})
    order = await asker.paid("tok_pending", "pay_5")
    await asker.control(f"deny/{order['id']}")
    (denied,) = await hooked.told("PAYMENT.CAPTURE.DENIED")
    assert [it.answer.verdict for it in denied.news if isinstance(it, AttemptNews)] == [Verdict.DECLINED]
    order = await asker.paid(payment_id="pay_6")
    refund = await asker.control("refunds", {"object_id": order["id"]})
    await asker.control(f"refunds/{refund['id']}/fail")
    (failed,) = await hooked.told("PAYMENT.REFUND.FAILED")
    assert [it.answer.verdict for it in failed.news if isinstance(it, RefundNews)] == [Verdict.DECLINED]


async def test_a_dispute_is_told_and_how_it_ends(hooked: Hooked) -> None:
    order = await hooked.asker.paid(payment_id="pay_7")
    made = await hooked.asker.control("disputes", {"object_id": order["id"], "amount_minor": 500})
    (opened,) = await hooked.told("CUSTOMER.DISPUTE.CREATED")
    assert (opened.payment_id, opened.charge_id) == ("pay_7", payments(order, "captures")[0]["id"])
    (news,) = opened.news
    assert isinstance(news, DisputeNews)
    assert (news.state, news.amount_minor) == (DisputeState.OPEN, 500)
    await hooked.asker.control(f"disputes/{made['dispute_id']}/won")
    (closed,) = await hooked.told("CUSTOMER.DISPUTE.RESOLVED")
    assert isinstance(closed.news[0], DisputeNews)
    assert closed.news[0].state is DisputeState.WON


async def test_an_object_that_paypal_does_not_know_is_for_a_person(hooked: Hooked) -> None:
    await hooked.asker.paid(payment_id="pay_8")
    (notice,) = await hooked.told("PAYMENT.CAPTURE.COMPLETED")
    stranger = Notice("PAYPAL", "WH-1", notice.type, 0, "pay_8", "0000000000000000A", None, (), refetch=True)
    assert (await hooked.offline.refetch(stranger)).review == ("OBJECT_MISSING",)
    lost = Notice("PAYPAL", "WH-1", "PAYMENT.CAPTURE.REFUNDED", 0, "pay_8", None, "0000000000000000A", (), refetch=True)
    assert (await hooked.offline.refetch(lost)).review == ("OBJECT_MISSING",)
    dispute = DisputeNews("PP-D-NONE", DisputeState.OPEN, 1, "USD", None)
    gone = Notice("PAYPAL", "WH-1", "CUSTOMER.DISPUTE.CREATED", 0, "pay_8", None, None, (dispute,), refetch=True)
    read = await hooked.offline.refetch(gone)
    assert (read.news, read.review) == ((), ("DISPUTE_NOT_READABLE",))
