"""What only a full database has: rows that leave by age, a table filled again, a long backlog, autovacuum."""

import asyncio
import statistics
import time
from typing import Any

from bench.growth_measures import (
    DRAIN_WAIT_S,
    POLL_S,
    READY_WAIT_S,
    Bench,
    Figures,
    console,
    load_orders,
    rss_mb,
    started,
)
from bench.stored_payments import add_old_rows

from payment_service.adapters.sealing import AesGcmCipher

SETTLE_RATE_MIN = 500
"""Orders a second at least, for how long a long backlog is waited for."""
LEAVE_WAIT_S = 300.0
QUIET_S = 3.0


async def leaving(bench: Bench, cipher: AesGcmCipher) -> Figures:
    """Rows that are too old, as many as a third of a month's, and creates meanwhile."""
    count = max(20_000, bench.arguments.size // 8)
    old = {"inbox": count, "payment_webhooks": count // 2, "idempotency_keys": count // 2}
    add_old_rows(bench.site.database_url, *old.values(), cipher)
    worker = bench.site.worker()
    before = deleted(bench, old)
    ready = asyncio.create_task(started(worker))
    await ready
    begun_s, stalls, gone_s = time.monotonic(), [0.0], dict[str, float]()
    stop = asyncio.Event()

    async def creates() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            sent_s = time.monotonic()
            await worker.call(
                "POST", "/api/v1/payments",
                {"orderId": f"while-{time.time_ns()}", "amount": 9.5, "currency": "USD"}, user="bench",
            )  # fmt: skip
            stalls.append(time.monotonic() - sent_s)
            await asyncio.sleep(0.01)

    creating = [asyncio.create_task(creates()) for _ in range(4)]
    while len(gone_s) < len(old) and time.monotonic() - begun_s < LEAVE_WAIT_S:
        await asyncio.sleep(0.5)
        now = deleted(bench, old)
        gone_s |= {
            it: time.monotonic() - begun_s for it in old if it not in gone_s and now[it] - before[it] >= old[it] * 0.999
        }
    now = deleted(bench, old)
    stop.set()
    await asyncio.gather(*creating)
    await worker.stop()
    taken_s = sorted(stalls)
    figures: Figures = {}
    for table, rows in old.items():
        seconds = gone_s.get(table, time.monotonic() - begun_s)
        figures[f"leaving: {table}, rows"] = rows
        figures[f"leaving: {table}, left behind after {LEAVE_WAIT_S:.0f} s"] = max(0, rows - now[table] + before[table])
        figures[f"leaving: {table}, rows /s"] = (now[table] - before[table]) / max(seconds, 0.5)
    figures["leaving: creates meanwhile p50 ms"] = statistics.median(taken_s) * 1000
    figures["leaving: creates meanwhile p99 ms"] = taken_s[int(len(taken_s) * 0.99)] * 1000
    figures["leaving: longest create ms"] = taken_s[-1] * 1000
    return figures


def deleted(bench: Bench, tables: dict[str, int]) -> dict[str, int]:
    rows = bench.rows(
        "select relname::text, n_tup_del from pg_stat_user_tables where schemaname = 'payment_service'"
    )  # fmt: skip
    return {name: count for name, count in rows if name in tables}


async def table_refilled(bench: Bench) -> Figures:
    """Topics that have forgotten everything: the start, and the table of the last days filled from PostgreSQL."""
    worker = bench.site.worker(TOPIC_PREFIX=f"{bench.site.prefix}anew-", LOG_LEVEL="INFO")
    ready_s, reading_s = await started(worker)
    begun_s = time.monotonic()
    while "table refilled" not in worker.log and time.monotonic() - begun_s < READY_WAIT_S:  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
    refilled_s = time.monotonic() - begun_s
    figures = {
        "topics empty: start to ready s": ready_s, "topics empty: start to reading Kafka s": reading_s,
        "topics empty: table refilled after s": refilled_s, "topics empty: RSS MB": rss_mb(worker),
    }  # fmt: skip
    await worker.stop()
    return figures


async def settle(bench: Bench) -> Figures:
    """A long backlog: its rate and the worker's memory at each tenth."""
    count, before = bench.arguments.settle, await bench.told("payment.created")
    load_orders(bench, count)
    worker = bench.site.worker()
    await started(worker)
    deadline = time.monotonic() + DRAIN_WAIT_S + count / SETTLE_RATE_MIN
    figures: Figures = {}
    begun_s, tenth, done = time.monotonic(), 0, 0
    while done < count and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
        done = await bench.told("payment.created") - before
        if done * 10 // count > tenth:
            tenth = done * 10 // count
            figures[f"settle: RSS MB at {tenth * 10} %"] = rss_mb(worker)
            figures[f"settle: /s to {tenth * 10} %"] = done / (time.monotonic() - begun_s)
            console.print(f"  {done:,}: {rss_mb(worker):,.0f} MB, {done / (time.monotonic() - begun_s):,.0f}/s")
    await asyncio.sleep(QUIET_S)
    figures["settle: RSS MB at the end"] = rss_mb(worker)
    await worker.stop()
    return figures


def vacuumed(bench: Bench) -> dict[str, Any]:
    """What is set for each table, and what autovacuum did in this run."""
    rows = bench.rows(
        "select s.relname::text, coalesce(array_to_string(c.reloptions, ', '), ''), s.n_live_tup, s.n_dead_tup,"
        " s.autovacuum_count, s.autoanalyze_count, s.n_tup_upd, s.n_tup_hot_upd"
        " from pg_stat_user_tables s join pg_class c on c.oid = s.relid where s.schemaname = 'payment_service'"
        " and s.n_tup_ins > 0 order by s.n_live_tup desc"
    )
    names = ("options", "live", "dead", "autovacuums", "autoanalyzes", "updates", "of them in place (HOT)")
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}
