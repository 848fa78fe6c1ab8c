"""A burst of signed webhooks about payments that were charged: accepted, applied, and none lost by the database's own
count. Each tells of a dispute, so that each changes its payment and is published; charges that wait for their webhook
would be looked up meanwhile, by the mock without any limit, and that is another load."""

import time

import orjson
from aiokafka import AIOKafkaProducer
from bench.harness import ORDERS, WAIT_S, Bench, Site, Watcher, service
from bench.load import wrk
from rigs.webhook_sender import ENV, SECRET, event
from servers.topics import create_topics

from payment_service.adapters.providers.mock_webhooks import signature_of

WEBHOOKS = min(10_000, ORDERS)
CONNECTIONS = 64
APPLIED_EVERY_S = 0.5
CHARGED = "select count(*) from payment_service.payments where status = 'SUCCEEDED'"
DISPUTED = "select count(*) from payment_service.payments where disputed > 0"
UNSETTLED = "status in ('RECEIVED', 'PARKED')"
SETTLED = f"select count(*) from payment_service.payment_webhooks where not {UNSETTLED}"
ENDED = (
    "select count(*) filter (where status = 'PROCESSED'), extract(epoch from max(updated_at) - min(received_at))"
    " from payment_service.payment_webhooks"
)


async def measure(bench: Bench) -> None:
    await create_topics(bench.broker, [bench.prefix("webhooks") + "orders"])
    async with service(bench, "webhooks", AUTO_PROCESS_ORDERS="true", PAYMENT_PROVIDER="mock", **ENV) as site:
        orders = [f"webhook-{bench.run}-{number}" for number in range(WEBHOOKS)]
        await order(bench, site, orders)
        with Watcher(site.dsn) as watcher:
            bench.results["webhooks: payments"] = await watcher.until(CHARGED, WEBHOOKS, every_s=APPLIED_EVERY_S)
            lines = bench.folder / "webhooks.txt"
            lines.write_bytes(b"\n".join(map(signed, orders)) + b"\n")
            load = wrk("webhooks.lua", site.port, CONNECTIONS, int(WAIT_S), WEBHOOKS=str(lines))
            await watcher.until(SETTLED, WEBHOOKS, every_s=APPLIED_EVERY_S)
            applied, took_s = watcher.row(ENDED)
            changed = watcher.number(DISPUTED)
    load.keep(bench, "webhook", "webhooks: accepted")
    accepted = load.timings["webhook"].count if "webhook" in load.timings else 0
    bench.results["webhooks: not accepted"] = WEBHOOKS - accepted
    bench.results["webhooks: client CPU us a request"] = load.client_us
    bench.results["webhooks: first accepted to last applied s"] = float(took_s or 0)
    bench.results["webhooks: applied /s"] = applied / float(took_s) if took_s else 0.0
    bench.results["webhooks: accepted and not applied"] = max(0, accepted - min(applied, changed))


async def order(bench: Bench, site: Site, orders: list[str]) -> None:
    """With a method that is charged at once."""
    producer = AIOKafkaProducer(bootstrap_servers=bench.broker, linger_ms=5, max_batch_size=262_144)
    await producer.start()
    try:
        for name in orders:
            body = {
                "eventType": "order.created", "orderId": name, "userId": "bench", "totalAmount": 99.99,
                "currency": "USD", "paymentMethodId": "tok_visa",
            }  # fmt: skip
            await producer.send(site.prefix + "orders", orjson.dumps(body), key=name.encode())
    finally:
        await producer.stop()


def signed(order_id: str) -> bytes:
    body = event(f"evt-{order_id}", "dispute.opened", order_id, provider_id=f"dispute-{order_id}")
    return signature_of(SECRET, body, int(time.time())).encode() + b"\t" + body
