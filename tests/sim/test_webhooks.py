"""Events on their way out: signed as the SDK checks it, at least once, in any order, over restarts."""

import asyncio
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from typing import Any

import orjson
import pytest
import pytest_asyncio
import stripe
from aiohttp import ClientSession, web
from rigs.provider_rig import call_for
from rigs.sim_api import Api
from servers.provider_sim import ProviderSim

from payment_service.adapters.embedded_process import free_port
from payment_service.adapters.providers.mock_remote import RemoteMock

SECRET = "whsec_of_this_test"
Make = Callable[..., ProviderSim]


class Receiver:
    """What the service's webhook route would be given."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hooks"
        self.status = 200
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(body) for _, body in self.got]

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hooks", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made
    await runner.cleanup()


def options(receiver: Receiver) -> dict[str, object]:
    return {"webhook_url": receiver.url, "webhook_secret": SECRET, "settle_ms": 100}


async def quiet(api: Api) -> None:
    """Until everything was delivered and nothing settles any more."""

    async def health() -> Any:
        async with api.session.get(api.sim.url + "/_sim/health") as answer:
            return await answer.json()

    await api.settled(health, lambda one: one["webhooks_waiting"] == one["settling"] == 0, wait_s=15)


async def test_events_are_whole_and_signed(own_sim: Make, session: ClientSession, receiver: Receiver) -> None:
    api = Api(own_sim(**options(receiver)), session)
    intent = await api.pay(key="k-1", metadata={"payment_id": "pay_1"})
    await quiet(api)
    assert Counter(receiver.types()) == Counter(
        ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]
    )
    for headers, body in receiver.got:
        event = stripe.Webhook.construct_event(body, headers["Stripe-Signature"], SECRET)
        assert event.livemode is False and event.api_version and event.request.idempotency_key == "k-1"
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, headers["Stripe-Signature"], "whsec_another")
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body + b" ", headers["Stripe-Signature"], SECRET)
    succeeded = next(event for event in receiver.events if event["type"] == "payment_intent.succeeded")
    assert succeeded["data"]["object"] == orjson.loads(orjson.dumps(intent.to_dict()))
    assert len({event["id"] for event in receiver.events}) == 3


@pytest.mark.parametrize(
    ("story", "types"),
    [
        ("hold", {"payment_intent.amount_capturable_updated", "charge.captured", "payment_intent.succeeded"}),
        ("void", {"payment_intent.canceled", "charge.refunded"}),
        ("decline", {"charge.failed", "payment_intent.payment_failed"}),
        ("refund", {"refund.created", "charge.refunded", "refund.updated", "charge.refund.updated"}),
        ("failed refund", {"refund.created", "refund.failed", "charge.refund.updated"}),
        ("dispute", {"charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed",
                     "charge.dispute.funds_reinstated"}),
        ("action", {"payment_intent.requires_action", "charge.succeeded", "payment_intent.succeeded"}),
        ("pending", {"payment_intent.processing", "payment_intent.succeeded"}),
    ],
)  # fmt: skip
async def test_every_story_is_told(
    own_sim: Make, session: ClientSession, receiver: Receiver, story: str, types: set[str]
) -> None:
    api = Api(own_sim(**options(receiver)), session)
    match story:
        case "hold" | "void":
            intent = await api.pay(capture_method="manual")
            end = api.v1.payment_intents.capture_async if story == "hold" else api.v1.payment_intents.cancel_async
            await end(intent.id)
        case "decline":
            with pytest.raises(stripe.CardError):
                await api.pay(card="pm_card_chargeDeclined")
        case "refund" | "failed refund":
            intent = await api.pay(card="pm_card_pendingRefund" if story == "refund" else "pm_card_refundFail")
            await api.v1.refunds.create_async({"payment_intent": intent.id})
        case "dispute":
            intent = await api.pay()
            dispute = (await api.post("/_sim/disputes", {"object_id": intent.id}))[1]
            await api.post(f"/_sim/disputes/{dispute['id']}/won")
        case "action":
            intent = await api.pay(card="pm_card_threeDSecure2Required")
            await api.post(f"/_sim/approve/{intent.id}")
        case "pending":
            await api.pay(card="pm_card_pending")
    await quiet(api)
    assert types <= set(receiver.types())
    if story == "void":
        released = next(event for event in receiver.events if event["type"] == "charge.refunded")
        assert released["data"]["object"]["captured"] is False, "no money was given back: none was taken"


async def test_what_is_not_taken_comes_again_also_after_a_kill(
    own_sim: Make, session: ClientSession, receiver: Receiver
) -> None:
    sim = own_sim(**options(receiver))
    api = Api(sim, session)
    receiver.status = 503
    await api.pay()
    await api.settled(lambda: asyncio.sleep(0, len(receiver.got)), lambda count: count >= 6)
    sim.kill()
    receiver.got.clear()
    receiver.status = 200
    sim.start()
    await quiet(api)
    assert len(receiver.events) == 3
    sim.kill()
    sim.start()
    await quiet(api)
    await asyncio.sleep(0.2)
    assert len(receiver.events) == 3, "what was taken is not sent again"


async def test_events_are_doubled_overtaken_lost_and_late_but_all_arrive(
    own_sim: Make, session: ClientSession, receiver: Receiver
) -> None:
    api = Api(own_sim(**options(receiver)), session)
    rates = {"webhook_duplicate": 0.3, "webhook_reorder": 0.3, "webhook_drop": 0.2, "webhook_delay": 0.2}
    await api.post("/_sim/faults", {"rates": rates, "delay_ms": 200, "seed": 3})
    for _ in range(25):
        await api.pay()
    await quiet(api)
    noted = Counter(line["fault"] for line in api.sim.lines("fault"))
    assert noted.keys() == rates.keys()
    sent = [line["id"] for line in api.sim.lines("event")]
    got = [event["id"] for event in receiver.events]
    assert set(got) == set(sent) and len(sent) == 75
    assert sum(count == 2 for count in Counter(got).values()) == noted["webhook_duplicate"]
    first_seen = list(dict.fromkeys(got))
    assert first_seen != sent, "some were overtaken"
    assert first_seen.index(_of(api, "webhook_drop")) > sent.index(_of(api, "webhook_drop"))


def _of(api: Api, fault: str) -> str:
    return next(str(line["of"]) for line in api.sim.lines("fault") if line["fault"] == fault)


async def test_the_mock_tells_what_moved_and_signs_it(
    own_sim: Make, session: ClientSession, receiver: Receiver
) -> None:
    api = Api(own_sim(**options(receiver)), session)
    await RemoteMock(api.sim.url, lambda: session).send(call_for("pay_1", token="tok_visa"))
    await quiet(api)
    ((headers, body),) = receiver.got
    stamp, signature = headers["Mock-Signature"].removeprefix("t=").split(",v1=")
    assert signature == hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, sha256).hexdigest()
    event = orjson.loads(body)
    assert (event["type"], event["payment_id"], event["amount_minor"]) == ("mock.charge.succeeded", "pay_1", 1000)
    assert event["id"].startswith("evt_mock_")
