"""`make bench-scale`: the same work by 1, 2 and 4 workers of one group on one machine, and what a payment costs.

1. Orders: a backlog that all workers see at the same moment (it is one transaction of Kafka, committed when the group
   has settled), drained until every event is published and in the payments table.
2. REST creates, one wrk for each worker, the same number of connections in all.
3. A whole payment: order, charge at a simulator of Stripe, its webhooks. Rows, bytes, WAL and CPU of each payment.

Real Apache Kafka and PostgreSQL with fsync. On one machine more workers cannot be faster than its cores; what would be
seen is a collapse: CPU for a payment that grows, sessions that wait for locks, commands decided again. Counts every
payment. Never asserts; prints tables, writes .data/bench-scale.json.

Environment: BENCH_ORDERS (20000), BENCH_SECONDS (8, each REST load), BENCH_CHARGED (5000), BENCH_WORKERS (1,2,4),
DATABASE_URL and KAFKA_BROKERS (else both are started; of others no CPU is known).
"""

import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # what the tests start their servers with starts ours

from bench.load import need_wrk, read_load  # noqa: E402
from bench.scale_measures import DatabaseWatch, Figures, counted, resident_mb, spent  # noqa: E402
from rigs.worker import Installation, Worker, token_of  # noqa: E402
from servers import kafka_for_tests, postgres_for_tests  # noqa: E402
from servers.postgres import database_on  # noqa: E402
from servers.provider_sim import ProviderSim  # noqa: E402
from servers.topics import create_topics, partitions_of, read_to_end  # noqa: E402

ORDERS = int(os.environ.get("BENCH_ORDERS", "20000"))
CHARGED = int(os.environ.get("BENCH_CHARGED", "5000"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "8"))
WORKERS = tuple(int(number) for number in os.environ.get("BENCH_WORKERS", "1,2,4").split(","))
PARTITIONS = 8
CONNECTIONS = 64
DRAIN_WAIT_S = 300.0
READ_WAIT_S = 120.0
WRK_WAIT_S = SECONDS + 30.0
QUIET_S = 3.0
"""After the group has settled."""
TOLD_S = 11.0
"""PostgreSQL's sessions tell what they counted ten seconds after their last work at the latest."""
LOOK_EVERY_S = 0.1
BACKLOG_KEPT_MS = 600_000
"""How long the broker keeps the backlog's transaction open for us."""
WEBHOOK_SECRET = "whsec_of_the_bench"
WARM_UP_ORDERS = 2_001
"""The first ones find a Java machine that compiles; not counted."""
LIFTED = {"TOPIC_PARTITIONS": str(PARTITIONS), "RATE_LIMIT_MAX": "1000000000", "STRIPE_RATE_PER_S": "1000000"}
console = Console()


# --- orders ---------------------------------------------------------------------------------------------------------


def order(number: int, **more: str) -> bytes:
    return orjson.dumps(
        {
            "topic": "order.created", "orderId": f"order-{number}", "orderNumber": f"N{number}",
            "userId": f"user-{number % 1000}", "totalAmount": 99.99, "currency": "USD", "itemCount": 2,
            "timestamp": "2026-01-01T00:00:00.000Z", "source": "order-service", **more,
        }
    )  # fmt: skip


class Backlog:
    """Orders in the topic that nobody may read yet: workers read what is committed."""

    def __init__(self, site: Installation) -> None:
        self._site = site
        self._producer = AIOKafkaProducer(
            bootstrap_servers=site.broker, transactional_id=f"{site.prefix}backlog", acks="all", linger_ms=5,
            max_batch_size=262_144, transaction_timeout_ms=BACKLOG_KEPT_MS,
        )  # fmt: skip

    async def fill(self, count: int, **more: str) -> None:
        await create_topics(self._site.broker, [self._site.orders], partitions=PARTITIONS)
        await self._producer.start()
        await self._producer.begin_transaction()
        orders = (order(number, **more) for number in range(count))
        sent = [
            await self._producer.send(self._site.orders, value, key=b"order-%d" % number)
            for number, value in enumerate(orders)
        ]
        await asyncio.gather(*sent)

    async def show(self) -> None:
        await self._producer.commit_transaction()
        await self._producer.stop()


async def workers_of(site: Installation, count: int) -> list[Worker]:
    """So many that share the partitions. The first makes schema and topics."""
    workers = [await site.started()]
    for _ in range(count - 1):
        workers.append(site.worker())
        workers[-1].start()
    for worker in workers:
        await worker.ready()
        await worker.streaming()
    await site.until_members(count)
    await asyncio.sleep(QUIET_S)
    return workers


async def records_until(site: Installation, needed: dict[str, int], watch: DatabaseWatch) -> bool:
    """Until the topics have so many records; False when it took too long."""
    consumer = AIOKafkaConsumer(bootstrap_servers=site.broker)
    await consumer.start()
    try:
        parts = {topic: await partitions_of(site.broker, site.prefix + topic) for topic in needed}
        deadline = time.monotonic() + DRAIN_WAIT_S
        while time.monotonic() < deadline:
            watch.look()
            ends = {topic: sum((await consumer.end_offsets(of)).values()) for topic, of in parts.items()}
            if all(ends[topic] >= count for topic, count in needed.items()):
                return True
            await asyncio.sleep(LOOK_EVERY_S)
        return False
    finally:
        await consumer.stop()


async def exactly_once(site: Installation, watch: DatabaseWatch, count: int) -> Figures:
    """Every order of the backlog has one payment, every payment one event that said so."""
    given = {f"order-{number}" for number in range(count)}
    kept = Counter(found for (found,) in watch.rows("select order_id from payment_service.payments"))
    events = await read_to_end(site.broker, f"{site.prefix}payment.created", wait_s=READ_WAIT_S)
    ids = Counter(orjson.loads(it.value)["id"] for it in events if it.value)
    told = {orjson.loads(it.value)["data"]["orderId"] for it in events if it.value}
    return {
        "payments": sum(kept.values()), "orders_without_payment": len(given - set(kept)),
        "orders_with_two": sum(1 for times in kept.values() if times > 1), "not_ours": len(set(kept) - given),
        "orders_never_told": len(given - told), "events_repeated": sum(ids.values()) - len(ids),
        "left_in_outbox": watch.number("select count(*) from payment_service.outbox"),
    }  # fmt: skip


async def drained(site: Installation, count: int, orders: int = ORDERS) -> Figures:
    """The backlog by `count` workers, who are left running."""
    backlog = Backlog(site)
    await backlog.fill(orders)
    workers = await workers_of(site, count)
    with DatabaseWatch(site.database_url) as watch:
        idle = spent(workers)
        await asyncio.sleep(QUIET_S)
        idle = spent(workers).since(idle)
        before, begun = watch.counters(), spent(workers)
        await backlog.show()
        needed = {"payment.created": orders, "payment-service-payments-changelog": orders}
        ended_well = await records_until(site, needed, watch)
        used = spent(workers).since(begun)
        await asyncio.sleep(TOLD_S)
        database = watch.counted_since(before)
        shares = await counted(workers, 'stream_events_total{stream="order')
        asked = await counted(workers, 'database_batch_size_sum{operation="write"}')
        batches = await counted(workers, 'database_batch_size_count{operation="write"}')
        rate = orders / used.at_s
        return {
            "workers": count, "in_time": ended_well, "per_s": rate, "per_s_and_worker": rate / count,
            "per_s_and_core": rate / (os.cpu_count() or 1), **used.figures(orders), "shares": shares,
            "idle_cpu_share_of_a_worker": idle.own_s / idle.at_s / count,
            "rss_mb_of_a_worker": resident_mb(workers) / count, "sessions_of_a_worker": watch.sessions() / count,
            "commands_each": sum(asked) / orders, "commands_a_statement": sum(asked) / max(sum(batches), 1),
            "stream_restarts": sum(await counted(workers, "stream_restarts")),
            "publisher_failures": sum(await counted(workers, "publisher_failures")),
            **database, **watch.seen(), **await exactly_once(site, watch, orders),
        }  # fmt: skip


# --- REST -----------------------------------------------------------------------------------------------------------


def load_of(worker: Worker, connections: int, number: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", str(HERE / "post.lua"), worker.url],
        env={**os.environ, "TOKEN": token_of("bench"), "RUN": f"rest-{number}", "LUA": str(HERE)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


async def created(site: Installation, workers: list[Worker]) -> Figures:
    """Creates at every worker at once."""
    each = CONNECTIONS // len(workers)
    with DatabaseWatch(site.database_url) as watch:
        before, begun = watch.counters(), spent(workers)
        loads = [load_of(worker, each, number) for number, worker in enumerate(workers)]
        deadline = time.monotonic() + WRK_WAIT_S
        while any(load.poll() is None for load in loads) and time.monotonic() < deadline:
            watch.look()
            await asyncio.sleep(LOOK_EVERY_S)
        used = spent(workers).since(begun)
        for load in loads:
            load.kill()
        told = [read_load(load.communicate()[0]) for load in loads]
        timed = [it.timings["all"] for it in told if "all" in it.timings]
        await asyncio.sleep(TOLD_S)
        database = watch.counted_since(before)
        kept = watch.number("select count(*) from payment_service.payments where order_id like 'rest-%'")
        answered = sum(it.count for it in timed)
        return {
            "workers": len(workers), "connections": each * len(workers), "per_s": sum(it.per_s for it in timed),
            "answered": answered, "payments": kept, "failures": sum(it.failures for it in told),
            "p50_ms": max((it.p50_ms for it in timed), default=0.0),
            "p99_ms": max((it.p99_ms for it in timed), default=0.0),
            **used.figures(answered), **database, **watch.seen(),
        }  # fmt: skip


# --- a whole payment ------------------------------------------------------------------------------------------------


async def whole_payments(broker: str, database_url: str, folder: Path, *, webhooks: bool) -> Figures:
    """Orders that are charged at the simulator of Stripe, by one worker, which is told by webhooks too or is not."""
    sim = ProviderSim(None, webhook_secret=WEBHOOK_SECRET)
    async with Installation(
        folder, broker, database_url, **LIFTED, AUTO_PROCESS_ORDERS="true", PAYMENT_PROVIDER="stripe",
        STRIPE_SECRET_KEY="sk_test_bench", STRIPE_API_BASE=sim.url, STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET,
    ) as site:  # fmt: skip
        backlog = Backlog(site)
        await backlog.fill(CHARGED, paymentMethodId="tok_visa")
        worker = site.worker()
        if webhooks:
            sim.options = {**sim.options, "webhook_url": f"{worker.url}/api/v1/webhooks/stripe"}
        with sim:
            worker.start()
            await worker.ready()
            await worker.streaming()
            with DatabaseWatch(database_url) as watch:
                return {"webhooks": webhooks, **await _charged(site, worker, backlog, watch)}


async def _charged(site: Installation, worker: Worker, backlog: Backlog, watch: DatabaseWatch) -> Figures:
    empty, before = watch.sizes(), watch.counters()
    begun = spent([worker])
    await backlog.show()

    in_time = await records_until(site, {"payment.created": CHARGED, "payment.processed": CHARGED}, watch)
    rate_s = time.monotonic() - begun.at_s
    in_time &= await webhooks_applied(watch)
    used = spent([worker]).since(begun)
    await asyncio.sleep(TOLD_S)
    database = watch.counted_since(before)
    full = watch.sizes()
    watch.pack()
    packed = watch.sizes()
    tables = {
        name: {
            "rows": (full[name][0] - empty[name][0]) / CHARGED, "bytes": (full[name][1] - empty[name][1]) / CHARGED,
            "packed_bytes": (packed[name][1] - empty[name][1]) / CHARGED,
            "packed_index_bytes": (packed[name][2] - empty[name][2]) / CHARGED,
        }
        for name in full
        if full[name][1] > empty[name][1]
    }  # fmt: skip
    succeeded = watch.number("select count(*) from payment_service.payments where status = 'SUCCEEDED'")
    return {
        "charged": succeeded, "in_time": in_time, "per_s": CHARGED / rate_s, **used.figures(CHARGED), **database,
        **watch.seen(), "refetched": sum(await counted([worker], "webhook_refetches")), "tables": tables,
        "topics": await bytes_by_topic(site),
    }  # fmt: skip


async def webhooks_applied(watch: DatabaseWatch) -> bool:
    """Until none waits, and none has come for a second; False when it took too long."""
    kept, deadline = -1, time.monotonic() + DRAIN_WAIT_S
    while time.monotonic() < deadline:
        ((now, waiting),) = watch.rows(
            "select count(*), count(*) filter (where due_at is not null) from payment_service.payment_webhooks"
        )
        if now == kept and not waiting:
            return True
        kept = now
        await asyncio.sleep(1.0)
    return False


async def bytes_by_topic(site: Installation) -> dict[str, dict[str, float]]:
    """Records and bytes of keys, values and headers, for each payment; without what compression saves."""
    found = {}
    for topic in ("orders", "payment.created", "payment.processed", "payment-webhooks", "payment-facts",
                  "payment-audit-anchors", "payment-service-payments-changelog",
                  "payment-service-reconciliation-changelog"):  # fmt: skip
        records = await read_to_end(site.broker, site.prefix + topic, wait_s=READ_WAIT_S)
        size = sum(
            len(it.key or b"") + len(it.value or b"") + sum(len(name) + len(value) for name, value in it.headers)
            for it in records
        )
        found[topic] = {"records": len(records) / CHARGED, "bytes": size / CHARGED}
    return found


# --- the run --------------------------------------------------------------------------------------------------------


def show(title: str, runs: list[Figures]) -> None:
    if not runs:
        return
    table = Table(title=title)
    table.add_column("what")
    for run in runs:
        table.add_column(f"{run['workers']} workers" if "workers" in run else "", justify="right")
    for name in runs[0]:
        values = [run[name] for run in runs]
        table.add_row(name, *(f"{it:,.2f}" if isinstance(it, float) else _short(it) for it in values))
    console.print(table)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} {_short(it)}" for name, it in value.items())
    if isinstance(value, list):
        return " ".join(f"{it:,.0f}" for it in value)
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


async def part(name: str, work: Coroutine[Any, Any, None]) -> None:
    """What goes wrong in it is shown, and costs the run these figures alone."""
    console.print(f"{name} …")
    try:
        await work
    except Exception as error:
        console.print(f"[red]{name}: no figures, {type(error).__name__}[/red]")
        console.print(str(error), markup=False)


async def scaled(
    broker: str, server: str, folder: Path, count: int, size: int, orders: list[Figures], rest: list[Figures] | None
) -> None:
    """`rest` None: without it."""
    with database_on(server) as url:
        async with Installation(folder / f"{count}-{size}", broker, url, **LIFTED) as site:
            orders.append(await drained(site, count, size))
            if rest is not None:
                rest.append(await created(site, site.workers))


async def whole(broker: str, server: str, folder: Path, webhooks: bool, charged: list[Figures]) -> None:
    with database_on(server) as url:
        charged.append(await whole_payments(broker, url, folder / f"whole-{webhooks}", webhooks=webhooks))


async def main() -> None:
    need_wrk()
    kept: Figures = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": platform.machine(), "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0], "orders": ORDERS, "partitions": PARTITIONS,
    }  # fmt: skip
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True)))
        broker = os.environ.get("KAFKA_BROKERS") or stack.enter_context(kafka_for_tests())
        server = os.environ.get("DATABASE_URL") or stack.enter_context(postgres_for_tests())
        orders: list[Figures] = []
        rest: list[Figures] = []
        charged: list[Figures] = []
        await part(f"{WARM_UP_ORDERS} orders to warm up", scaled(broker, server, folder, 1, WARM_UP_ORDERS, [], None))
        for count in WORKERS:
            await part(f"{count} workers", scaled(broker, server, folder, count, ORDERS, orders, rest))
        for webhooks in (False, True):
            await part(f"whole payments, webhooks: {webhooks}", whole(broker, server, folder, webhooks, charged))
    kept |= {"orders_drained": orders, "rest_creates": rest, "whole_payments": charged}
    show(f"{ORDERS} orders drained, {os.cpu_count()} cores, load before {kept['load_before']:.1f}", orders)
    show(f"REST creates, {CONNECTIONS} connections in all", rest)
    show(f"{CHARGED} whole payments, one worker", charged)
    target = ROOT / ".data" / "bench-scale.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(kept, indent=1, default=str))
    console.print(f"written to {target}")


if __name__ == "__main__":
    asyncio.run(main())
