"""What PayPal says when a webhook is asked about: what of the event is believed, and what is shown to a person."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from rigs.paypal_recorded import ORDER_ID, event, recorded
from rigs.settable_clock import SettableClock

from payment_service.adapters.providers.paypal_api import PaypalApi
from payment_service.adapters.providers.paypal_events import notice_of
from payment_service.adapters.providers.paypal_webhooks import PaypalWebhooks

DISPUTE = "/v1/customer/disputes/PP-D-12345"
ORDER = f"/v2/checkout/orders/{ORDER_ID}"


@dataclass
class Paypal:
    reader: PaypalWebhooks
    shows: dict[str, Any] = field(default_factory=dict)


@pytest_asyncio.fixture
async def paypal() -> AsyncIterator[Paypal]:
    async def rest(request: web.Request) -> web.Response:
        if request.path == "/v1/oauth2/token":
            return web.json_response({"access_token": "t", "expires_in": 1000})
        return web.json_response(made.shows[request.path])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", rest)
    async with TestServer(app) as server, ClientSession() as session:
        api = PaypalApi("client", "secret", f"http://127.0.0.1:{server.port}", 5, lambda: session, SettableClock())
        made = Paypal(PaypalWebhooks(api, "WH1", None))
        yield made


@pytest.mark.parametrize("odd", [{"dispute_amount": None}, {"dispute_id": 7}, {"dispute_amount": {"value": "1e3"}}])
async def test_a_dispute_that_cannot_be_read_is_shown_to_a_person(paypal: Paypal, odd: dict[str, Any]) -> None:
    notice, there = notice_of(event("dispute_created")), recorded("dispute_open").body
    paypal.shows[DISPUTE] = {**there, **odd}
    told = await paypal.reader.refetch(notice)
    assert (told.news, told.review) == ((), ("DISPUTE_NOT_READABLE",))
    paypal.shows[DISPUTE] = there
    told = await paypal.reader.refetch(notice)
    assert (len(told.news), told.review) == (1, ())


async def test_what_an_event_says_beside_its_order_is_believed_only_if_the_order_says_it_too(paypal: Paypal) -> None:
    """Headers of another event, and a body with the same CRC: a charge of one payment, and an order of another."""
    paypal.shows[ORDER] = recorded("order_capture_completed").body
    notice = notice_of(event("capture_completed"))
    assert (await paypal.reader.refetch(notice)).charge_id == notice.charge_id == "3C679366HH908993F"
    forged = await paypal.reader.refetch(replace(notice, charge_id="5TY05013RG002845M", payment_id="pay_of_another"))
    assert (forged.charge_id, forged.payment_id) == (None, "pay_recorded")
