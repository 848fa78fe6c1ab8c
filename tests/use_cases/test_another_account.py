"""PayPal's credentials are changed to another account's while nobody knows what became of a charge."""

import time

from aiohttp import ClientSession
from rigs.desk_rig import Rig
from rigs.provider_paypal import api_on
from servers.provider_sim import ProviderSim

from payment_service.adapters.providers.paypal import PaypalProvider
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import provider_key, status_of
from payment_service.core.terms import Kind, Status

ID = payment_id_of("o1")


async def test_that_its_order_is_not_there_is_no_no_for_what_may_have_been_sent(rig: Rig) -> None:
    """Else the shopper, who has paid, is told that they have not, and pays once more."""
    with ProviderSim() as before, ProviderSim() as since:
        async with api_on(before.url) as old, api_on(since.url) as new, ClientSession() as session:
            rig.effects.providers["MOCK"] = PaypalProvider(old)  # type: ignore[index]
            lost = {"next": [{"path": "/v2/checkout/orders/", "fault": "drop_response"}]}
            async with session.post(f"{before.url}/_sim/faults", json=lost) as response:
                assert response.status == 200
            await rig.create()
            assert (await rig.process()).pending
            assert [line["amount_minor"] for line in before.movements(ID)] == [1050]

            rig.effects.providers["MOCK"] = PaypalProvider(new)  # type: ignore[index]
            kept = rig.store._calls[provider_key(ID, Kind.CHARGE, 1)]
            kept.due_at, kept.tries = time.monotonic(), 1
            (claim,) = await rig.store.claim("w1", 1, 30.0)
            await rig.effects.reconciler.reconcile(claim)
            payment = await rig.payment()
            assert (status_of(payment), payment.object_open) == (Status.UNKNOWN, True)
            assert payment.review, "a person looks"
            await rig.process()
            assert since.movements(ID) == []
