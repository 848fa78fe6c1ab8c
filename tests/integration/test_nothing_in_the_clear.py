"""After a day in the life of a whole service: no secret can be read in its database, its cache, its topics or its log.

One worker on real servers, with every way in and everything that goes wrong, at the most talkative level of its log.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis
from rigs.clear_text import database_dump, readable, secrets_in, topics_dump
from rigs.order_service import OrderService
from rigs.webhook_sender import event, send
from rigs.worker import ENCRYPTION_KEY, JWT_SECRET, Answer, Installation, Message, Worker, token_of
from servers.provider_sim import ProviderSim
from servers.redis import RedisServer

pytestmark = pytest.mark.long

USER = "ann"
BACK = "https://shop.test/back"
WAIT_S = 30.0
STRIPE_KEY = "sk_test_plantedStripeKey0001"
STRIPE_HOOK, MOCK_HOOK = "whsec_plantedStripeHook0001", "whsec_plantedMockHook0001"
INTERNAL, ORDERS_TOKEN, METRICS = "planted-internal-token-0001", "planted-orders-token-0001", "planted-metrics-0001"
PAYPAL_SECRET = "planted-paypal-secret-0001"
IDEMPOTENCY = "planted-idempotency-key-0001"
HOLDER = "ann.cardholder@planted.test"
ONCE = "tok_plantedOnce0001"
SAVED = "tok_plantedSaved0001"
BY_ORDER = "tok_plantedOrder0001"
LOST = "tok_plantedLost0001"
TOKENS = (ONCE, SAVED, BY_ORDER, LOST, "tok_visa", "tok_mastercard", "tok_threeDSecure", "tok_chargeDeclined")
CARDS = ("4242424242424242", "4242 4242 4242 4242", "5555-5555-5555-4444", "378282246310005", "6011111111111117")
ENCODED = "payments/4242%204242%204242%204242"
LARGE = 1_047_000
"""Bytes of an order that the broker takes, and not any more with the headers of a letter."""

MAY_BE_EMPTY = {
    *("table outbox", "table order_updates", "topic payment-service-provider_health-changelog"),
    "table ended_sessions",
    *("table dead_letter_replays", "table legacy_payments", "topic payment.unknown", "topic payment.refund_failed"),
}
MUST_BE_THERE = {
    *(
        "cache",
        "log",
        "metrics",
        "table idempotency_keys",
        "table inbox",
        "topic payment-dead-letters",
        "topic payment-webhooks",
    ),
    *("topic payment-service-payments-changelog", "topic payment-audit-anchors"),
    *("topic payment-provider-stats", "topic payment-facts", "topic payment-service-reconciliation-changelog"),
}


class Site:
    """The service, with what its callers send and are told."""

    def __init__(self, site: Installation, worker: Worker, sim: ProviderSim, orders: OrderService) -> None:
        self.site, self.worker, self.sim, self.orders = site, worker, sim, orders
        self.jwts = {name: token_of(name, roles) for name, roles in ((USER, ()), ("root", ("admin",)))}
        self.jwts["forged"] = self.jwts[USER][:-6] + "AAAAAA"

    async def call(self, method: str, path: str, body: Any = None, by: str = USER, **headers: str) -> Answer:
        return await self.worker.call(
            method, f"/api/v1/{path}", body, Authorization=f"Bearer {self.jwts[by]}", **headers
        )

    async def made(self, order: str, **more: Any) -> str:
        self.orders.has(order, USER, 99.99)
        answer = await self.call("POST", "payments", {"orderId": order, "amount": 99.99, **more})
        assert answer.status in (200, 201), answer
        return str(answer.data["id"])

    async def process(self, order: str, method: str | None = None, **more: Any) -> Answer:
        payment, key = await self.made(order, **more), {"Idempotency-Key": f"{IDEMPOTENCY}-{order}"}
        body = {"paymentMethodId": method} if method is not None else {}
        path = f"payments/{payment}/process"
        first = await self.call("POST", path, {**body, "returnUrl": BACK}, **key)
        again = await self.call("POST", path, {**body, "returnUrl": BACK}, **key)
        assert again.status == first.status
        return first

    async def until(self, path: str, status: str) -> Any:
        deadline = time.monotonic() + WAIT_S
        while True:
            answer = await self.call("GET", path)
            if answer.status == 200 and answer.data["status"] == status:
                return answer.data
            assert time.monotonic() < deadline, f"{path} is {answer.body}\n{self.worker.log}"
            await asyncio.sleep(0.05)

    async def at_stripe(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        form = path.startswith("/v1/")
        given = {"data": body, "headers": {"Authorization": f"Bearer {STRIPE_KEY}"}} if form else {"json": body or {}}
        async with aiohttp.ClientSession() as session, session.post(self.sim.url + path, **given) as response:
            assert response.status == 200, await response.text()
            return await response.json()


@pytest.fixture
async def service(
    tansu_broker: str, database_url: str, redis_server: RedisServer, tmp_path: Path
) -> AsyncIterator[Site]:
    sim = ProviderSim(tmp_path, webhook_secret=STRIPE_HOOK, settle_ms=200)
    async with (
        OrderService() as orders,
        Installation(
            tmp_path / "site", tansu_broker, database_url, PAYMENT_PROVIDER="stripe", STRIPE_SECRET_KEY=STRIPE_KEY,
            STRIPE_API_BASE=sim.url, STRIPE_WEBHOOK_SECRET=STRIPE_HOOK, MOCK_WEBHOOK_SECRET=MOCK_HOOK,
            PAYPAL_CLIENT_ID="client", PAYPAL_CLIENT_SECRET=PAYPAL_SECRET, PAYPAL_API_BASE=sim.url,
            PAYPAL_WEBHOOK_ID="WH-1", INTERNAL_TOKENS=INTERNAL, ORDER_SERVICE_URL=orders.url,
            ORDER_SERVICE_TOKEN=ORDERS_TOKEN, METRICS_TOKEN=METRICS, REDIS_URL=redis_server.url,
            REFUND_ROLES="owner,service", AUTO_PROCESS_ORDERS="true", DEAD_LETTERS_PLAIN="false", LOG_LEVEL="DEBUG",
        ) as site,
    ):  # fmt: skip
        await site.make_order_topic()
        worker = site.worker()
        sim.options = {**sim.options, "webhook_url": f"{worker.url}/api/v1/webhooks/stripe"}
        with sim:
            worker.start()
            await worker.ready()
            await worker.streaming()
            yield Site(site, worker, sim, orders)


async def test_no_secret_can_be_read_anywhere(service: Site, redis_server: RedisServer) -> None:
    told = [
        *await paid_refunded_and_declined(service), *await saved(service), *await confirmed_by_shoppers(service),
    ]  # fmt: skip
    await ordered(service)
    await refused(service)
    await told_by_providers(service)
    places = {**await redis_dump(redis_server), "metrics": await metrics_dump(service)}
    assert (await service.worker.stop())[0] == 0
    places |= database_dump(service.site.database_url)
    places |= await topics_dump(service.site.broker, service.site.prefix)
    places["log"] = (service.worker.data.parent / "log").read_bytes()
    orders = {name: places.pop(name) for name in ("topic orders",)}  # what others wrote, in their own topic

    ledger = service.sim.ledger.read_text()
    secrets: dict[str, Any] = {
        "token": TOKENS, "card number": (*CARDS, ENCODED.partition("/")[2]),
        "client secret": [secret for secret in told if secret],
        "JWT": [jwt.rsplit(".", 1)[1] for jwt in service.jwts.values()] + list(service.jwts.values()),
        "key": [STRIPE_KEY, STRIPE_HOOK, MOCK_HOOK, INTERNAL, ORDERS_TOKEN, METRICS, PAYPAL_SECRET, IDEMPOTENCY],
        "our key": [ENCRYPTION_KEY, JWT_SECRET, _password(service.site.database_url)],
        "card holder": [HOLDER],
        **secrets_in(ledger),
    }  # fmt: skip
    assert all(secrets.values()), {kind: len(them) for kind, them in secrets.items()}
    everything_was_used(places, orders, ledger)
    found = readable(places, secrets)
    assert not found, "\n".join(found)


def everything_was_used(places: Mapping[str, bytes], orders: Mapping[str, bytes], ledger: str) -> None:
    """Else nothing would be in the clear because nothing was ever there."""
    empty = [place for place, text in places.items() if not text]
    assert set(empty) <= MAY_BE_EMPTY, empty
    assert set(places) >= MUST_BE_THERE, set(places)
    assert b"payment_method_id" in places["table payment_events"], "bytes are looked into"
    assert readable({"orders": orders["topic orders"], "ledger": ledger.encode()}, {"": [BY_ORDER, LOST, "tok_visa"]})
    assert b"path=/api/v1/x/" in places["log"], "its log is talkative"


async def paid_refunded_and_declined(service: Site) -> list[str]:
    paid = await service.process("o-paid", "tok_visa")
    assert paid.data["status"] == "SUCCEEDED"
    path = f"payments/{paid.data['id']}"
    back = await service.call("POST", f"{path}/refund", {"amount": 10}, **{"Idempotency-Key": f"{IDEMPOTENCY}-r"})
    assert back.data["refund"]["status"] in ("COMPLETED", "PENDING", "PROCESSING")
    body = {"paymentId": paid.data["id"], "amount": 5}
    assert (await service.worker.call("POST", "/api/v1/refunds", body, **{"X-Internal-Token": INTERNAL})).status == 200
    assert (await service.process("o-declined", "tok_chargeDeclined")).code == "CARD_DECLINED"
    assert (await service.process("o-mock", ONCE, provider="MOCK")).data["status"] == "SUCCEEDED"
    await service.made("o-kept", paymentMethodId=LOST, provider="MOCK")  # a token that waits to be charged
    assert (await service.process("o-timeout", "tok_error", provider="MOCK")).status == 202
    disputed = await service.process("o-disputed", "tok_visa")
    await service.at_stripe("/_sim/disputes", {"object_id": disputed.data["providerPaymentId"], "amount_minor": 500})
    return []


async def saved(service: Site) -> list[str]:
    methods = []
    for provider, token in (("stripe", "tok_mastercard"), ("mock", SAVED), ("stripe", "tok_threeDSecure")):
        body = {"type": "card", "provider": provider, "token": token, "returnUrl": BACK}
        answer = await service.call("POST", "payment-methods", body, **{"Idempotency-Key": f"{IDEMPOTENCY}-{token}"})
        assert answer.status == 201, answer
        methods.append(answer.data)
    assert methods[2]["status"] == "REQUIRES_ACTION"
    assert (await service.process("o-saved", methods[0]["id"])).data["status"] == "SUCCEEDED"
    assert (await service.process("o-saved-mock", methods[1]["id"], provider="MOCK")).data["status"] == "SUCCEEDED"
    assert (await service.call("PUT", f"payment-methods/{methods[0]['id']}/default")).status == 200
    assert (await service.call("DELETE", f"payment-methods/{methods[1]['id']}")).status == 200
    return [str((methods[2]["nextAction"] or {}).get("clientSecret") or "")]


async def confirmed_by_shoppers(service: Site) -> list[str]:
    """The client secrets that front ends were told."""
    asked = (await service.process("o-3ds", "tok_threeDSecure")).data
    assert asked["status"] == "REQUIRES_ACTION"
    await service.at_stripe(f"/_sim/approve/{asked['providerPaymentId']}")
    await service.until(f"payments/{asked['id']}", "SUCCEEDED")
    front = (await service.process("o-front")).data
    intent = front["providerPaymentId"]
    await service.at_stripe(
        f"/v1/payment_intents/{intent}/confirm", {"payment_method": "pm_card_visa", "return_url": BACK}
    )
    await service.until(f"payments/{front['id']}", "SUCCEEDED")
    waits = (await service.process("o-waits")).data
    assert waits["nextAction"]["clientSecret"].startswith(f"{waits['providerPaymentId']}_secret_")
    return [str(one["nextAction"]["clientSecret"]) for one in (front, waits)]


async def ordered(service: Site) -> None:
    def order(kind: str, name: str, **more: Any) -> Message:
        body = {"eventType": kind, "orderId": name, "userId": USER, "totalAmount": 99.99, "currency": "USD", **more}
        return Message(json.dumps(body).encode(), 0, name.encode())

    card, dashed = CARDS[1], CARDS[2]
    await service.site.produce(
        order("order.created", "o-topic", paymentMethodId="tok_visa", note=card),
        order("order.created", "o-topic-mock", paymentMethodId=BY_ORDER, paymentProvider="MOCK"),
        order("order.created", "o-cancelled", paymentMethodId="tok_threeDSecure"),
        order("order.cancelled", "o-cancelled", reason=f"wrong card {card}"),
        order("order.cancelled", "o-never", reason=f"{dashed} was declined"),
        order("order.created", "", paymentMethodId=LOST, note=card),
        order("order.created", "o-bad", totalAmount=f"{CARDS[0]}", paymentMethodId=LOST),
        Message(b'{"eventType": "order.created", "token": "' + LOST.encode() + b'", ', 0),
        Message(b'{"note": "' + card.encode() + b'", "pad": "' + b"x" * LARGE, 0),
    )
    for name in ("o-topic", "o-topic-mock"):
        await service.until(f"orders/{name}/payment", "SUCCEEDED")
    await service.site.until(lambda: service.site.count("dead_letters") == 1, "the large one is in PostgreSQL")
    await service.site.until(lambda: letters(service.site) >= 4, "what cannot be read is in the dead letters")


def letters(site: Installation) -> int:
    ((count,),) = site.rows(
        "select count(*) from payment_service.audit_log where entry ->> 'action' = 'stream.refused'"
    )
    return int(count)


async def refused(service: Site) -> None:
    """What strangers and careless front ends send."""
    payment = await service.made("o-refused")
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("payments", {"orderId": "o-x", "amount": 1, "description": f"card {CARDS[1]}"}),
        ("payments", {"orderId": "o-x", "amount": 1, "metadata": {"note": CARDS[2]}}),
        ("payments", {"orderId": "o-x", "amount": 1, CARDS[0]: 1}),
        ("payments", {"orderId": "o-x", "amount": CARDS[3]}),
        (f"payments/{payment}/process", {"cardNumber": CARDS[0], "cvc": "123"}),
        (f"payments/{payment}/process", {"paymentMethodId": CARDS[4]}),
        (f"payments/{payment}/cancel", {"reason": f"wrong card {CARDS[1]}"}),
        ("payment-methods", {"type": "card", "provider": "stripe", "token": CARDS[3]}),
        ("payment-methods", {"type": "card", "provider": "stripe", "token": "tok_chargeDeclined"}),
    ]
    for path, body in bodies:
        answer = await service.call("POST", path, body, **{"Idempotency-Key": f"{IDEMPOTENCY}-{len(body)}"})
        assert 400 <= answer.status < 500, (path, body, answer)
    assert (await service.call("GET", f"payments/{payment}", by="forged")).status == 401
    paths = (ENCODED, f"payments/{CARDS[0]}", f"payments?userId={CARDS[0]}", f"payment-methods/{CARDS[3]}", f"x/{LOST}")
    for path in paths:
        await service.call("GET", path)
    for name in ("X-Internal-Token", "X-API-Key"):
        wrong = await service.worker.call("POST", "/api/v1/refunds", {"paymentId": payment}, **{name: INTERNAL + "x"})
        assert wrong.status == 401
    basic = base64.b64encode(f"ann:{JWT_SECRET}".encode()).decode()
    assert (await service.worker.call("GET", "/api/v1/payments", Authorization=f"Basic {basic}")).status == 401
    for line in (f"X-Internal-Token {INTERNAL}", f"Expect: {INTERNAL}", f"Authorization : Bearer {service.jwts[USER]}"):
        await not_http(service, f"GET /health HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n")


async def not_http(service: Site, text: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.worker.url.rpartition(":")[2]))
    writer.write(text.encode())
    assert (await reader.readline()).split()[1] in (b"400", b"417")
    writer.close()
    await writer.wait_closed()


async def told_by_providers(service: Site) -> None:
    await service.process("o-hook", "tok_pending", provider="MOCK")
    good = event("evt_planted_1", "charge.succeeded", "o-hook", receipt_email=HOLDER, card=CARDS[1])
    assert await send(service.worker, good, secret=MOCK_HOOK) == 200
    assert await send(service.worker, good, secret="whsec_wrong") == 400
    assert await send(service.worker, b'{"note": "' + CARDS[1].encode(), secret=MOCK_HOOK) == 400
    odd = event("evt_planted_2", "charge.succeeded", "o-nobody", receipt_email=HOLDER)
    assert await send(service.worker, odd, secret=MOCK_HOOK) == 200
    kept = "select count(*) from payment_service.payment_webhooks where event_id like 'evt_planted%'"
    await service.site.until(lambda: service.site.rows(kept) == [(2,)], "both events are kept")
    disputes = "select count(*) from payment_service.payments where disputed > 0"
    await service.site.until(lambda: service.site.rows(disputes) == [(1,)], "the dispute is known")
    await service.site.until(lambda: not service.site.count("outbox"), "everything is published")


async def metrics_dump(service: Site) -> bytes:
    headers = {"Authorization": f"Bearer {METRICS}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(service.worker.url + "/metrics", headers=headers) as told,
    ):
        assert told.status == 200
        return await told.read()


async def redis_dump(redis_server: RedisServer) -> dict[str, bytes]:
    redis = Redis.from_url(redis_server.url)
    parts: list[bytes] = []
    for key in await redis.keys("*"):
        parts += [key, await redis.get(key) if await redis.type(key) == b"string" else await redis.dump(key) or b""]
    await redis.aclose()
    return {"cache": b"\n".join(part or b"" for part in parts)}


def _password(url: str) -> str:
    return url.partition("://")[2].rpartition("@")[0].partition(":")[2]


@pytest.mark.parametrize("secret", [CARDS[1], "tok_visa", STRIPE_KEY])
def test_the_search_finds_it_however_it_is_written(secret: str) -> None:
    for before in range(4):
        text = b"a" * before + secret.encode() + b"zz"
        encoded = base64.b64encode(text), base64.urlsafe_b64encode(text), text.hex().encode(), text
        assert [bool(readable({"": form}, {"": [secret]})) for form in encoded] == [True] * 4
    assert not readable({"": base64.b64encode(secret.encode()[:-1] * 3)}, {"": [secret]})
