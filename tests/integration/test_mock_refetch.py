"""The mock's events may come late and out of order: asked again, the simulator says how its object is now."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from rigs.sim_process import SimProcess

from payment_service.adapters.providers.mock_webhooks import MockWebhooks, remote_objects
from payment_service.core.errors import Unavailable
from payment_service.core.terms import Kind, Verdict
from payment_service.core.webhooks import AttemptNews, Notice, RefundNews

PAYMENT = "pay_1"


class Mock:
    """The simulator, called as the service calls it."""

    def __init__(self, sim: SimProcess, session: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.reader = MockWebhooks("whsec_of_this_test", remote_objects(sim.url, lambda: session))

    async def send(self, kind: str, number: int) -> dict[str, Any]:
        call = {
            "kind": kind, "key": f"{PAYMENT}:{kind.lower()}:{number}", "payment_id": PAYMENT, "order_id": "o",
            "amount_minor": 500, "currency": "USD", "capture_method": "automatic", "method_token": "tok_visa",
            "object_key": f"{PAYMENT}:object:1", "object_id": None,
        }  # fmt: skip
        return await self.sim.ask("POST", "/mock/send", call)

    def event(self, kind: str, **data: Any) -> Notice:
        fields = {"payment_id": PAYMENT, "amount_minor": 500, "currency": "USD", **data}
        return self.reader.read(orjson.dumps({"id": "evt_1", "type": f"mock.{kind}", "created_ms": 1, **fields}))


@pytest.fixture
async def mock(tmp_path: Path) -> AsyncIterator[Mock]:
    async with aiohttp.ClientSession() as session:
        sim = SimProcess(tmp_path, session)
        sim.start()
        try:
            await sim.ready()
            yield Mock(sim, session)
        finally:
            sim.kill()


async def test_a_refund_that_failed_since_is_not_believed(mock: Mock) -> None:
    charged = await mock.send("CHARGE", 1)
    refunded = await mock.send("REFUND", 1)
    late = mock.event("refund.succeeded", object_id=charged["object_id"], provider_id=refunded["provider_id"])
    (still,) = (await mock.reader.refetch(late)).news
    assert isinstance(still, RefundNews)
    assert still.answer.verdict is Verdict.APPROVED
    await mock.sim.ask("POST", f"/_sim/refunds/{refunded['provider_id']}/fail")
    fresh = await mock.reader.refetch(late)
    (now,) = fresh.news
    assert isinstance(now, RefundNews)
    assert (now.answer.verdict, now.answer.code, fresh.refetch) == (Verdict.DECLINED, "REFUND_FAILED", False)


async def test_a_hold_that_was_released_since_is_not_believed(mock: Mock) -> None:
    held = await mock.send("AUTHORIZE", 1)
    late = mock.event("charge.authorized", object_id=held["object_id"], provider_id=held["provider_id"])
    assert (await mock.reader.refetch(late)).news == late.news
    await mock.send("VOID", 2)
    (now,) = (await mock.reader.refetch(late)).news
    assert isinstance(now, AttemptNews)
    assert (now.kind, now.answer.verdict, now.answer.object_closed) == (Kind.VOID, Verdict.APPROVED, True)


async def test_it_comes_again_later_when_nobody_answers(mock: Mock) -> None:
    late = mock.event("refund.succeeded", object_id="mock_pi_1", provider_id="mock_re_1")
    assert (await mock.reader.refetch(late)).news == late.news  # no such refund: the event is all there is
    mock.sim.kill()
    with pytest.raises(Unavailable):
        await mock.reader.refetch(late)
