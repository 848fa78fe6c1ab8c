"""From `order.created` to `payment.created`: a backlog drained by an ordinary Faust program, by the least work that
could do it, and by us."""

import asyncio
import re
import subprocess
import time

from bench.harness import (
    BASELINES,
    ORDERS,
    POLL_S,
    WAIT_S,
    Bench,
    Site,
    Watcher,
    apply_sql,
    baseline,
    produce,
    running,
    until_written,
)

ROUND = 2000
"""The ordinary program tells its rate after so many."""
PLAIN_ORDERS = min(8000, max(2 * ROUND, ORDERS // ROUND * ROUND))
FIRST_S = 0.02
COMMITTED = (
    "select count(*), count(*) filter (where created_at = first), extract(epoch from max(created_at) - first)"
    " from payment_service.inbox, (select min(created_at) as first from payment_service.inbox) f group by first"
)
"""All, those of the first statement, and seconds from the first statement to the last, by the database's own clock."""


async def plain_faust(bench: Bench) -> None:
    """The median of its own figures."""
    topic, created, dsn = f"plain-{bench.run}", f"created-{bench.run}", bench.database("plain_faust")
    apply_sql(dsn, BASELINES / "schema.sql")
    await produce(bench, topic, PLAIN_ORDERS, created)
    log = bench.folder / "plain_faust.log"
    env = bench.env(DATABASE_URL=dsn, ORDERS=topic, CREATED=created, GROUP=topic)
    rates: list[float] = []
    with running(baseline("plain_faust.py", "worker", "--without-web", "-l", "warn"), env, log) as process:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline and len(rates) < PLAIN_ORDERS // ROUND and process.poll() is None:
            await asyncio.sleep(POLL_S)
            rates = [float(rate) for rate in re.findall(r"plain faust: (\d+)", log.read_text())]
    rates = sorted(rates[1:])  # the first includes joining the group
    if rates:
        bench.results["orders: plain Faust /s"] = rates[len(rates) // 2]


async def order_limit(bench: Bench) -> None:
    topic, created, dsn = f"limit-{bench.run}", f"limit-created-{bench.run}", bench.database("order_limit")
    apply_sql(dsn, BASELINES / "schema.sql")
    await produce(bench, topic, ORDERS, created)
    env = bench.env(DATABASE_URL=dsn, TOPIC=topic, CREATED=created, N=str(ORDERS))
    done = subprocess.run(baseline("order_limit.py"), env=env, capture_output=True, text=True, timeout=WAIT_S)
    found = re.search(r"(\d+)/s", done.stdout)
    if found:
        bench.results["orders: limit /s"] = float(found.group(1))


async def ours(bench: Bench, site: Site) -> None:
    """From the first payment to the last published event and the last table row."""
    with Watcher(site.dsn) as watcher:
        first = await first_payments(watcher)
        started, before = time.monotonic(), bench.processors.spent(site.pid)
        topics = (site.prefix + "payment.created", site.prefix + "payment-service-payments-changelog")
        complete = await until_written(bench, topics, ORDERS)
        ended, after = time.monotonic(), bench.processors.spent(site.pid)
        counted = watcher.payments()
        committed, in_first, took_s = watcher.row(COMMITTED)
    bench.results["orders: missing"] = ORDERS - counted
    bench.results["orders: ours, committed /s"] = (committed - in_first) / float(took_s) if took_s else 0.0
    if complete:
        bench.results["orders: ours, published and in the table /s"] = (ORDERS - first) / (ended - started)
    for who, us in after.each_us(before, counted - first).items():
        bench.results[f"orders: {who} CPU us each"] = us


async def first_payments(watcher: Watcher) -> int:
    """How many there are as soon as there are any."""
    return await watcher.until("select count(*) from payment_service.payments", 1, every_s=FIRST_S)
