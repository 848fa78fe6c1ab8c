"""`make bench-growth`: whether anything becomes slower or larger as payments are stored, beside an empty database.

One run on Apache Kafka and PostgreSQL with fsync: what a payment costs and how long REST takes, by turns at a database
with nothing in it and at one with SIZE payments of a year (COPY, stored_payments.py), so that whatever else the machine
does meets both; at that size also the start, every list and search (growth_reads.py), rows that leave by age, and a
long backlog. Prints tables, writes .data/bench-growth.json. Never asserts.

Arguments: --size, --orders (of each backlog), --settle (0: none), --seconds (REST load), --rounds, --set
name=value (of the PostgreSQL, such as wal_compression=on). Environment: KAFKA_BROKERS and DATABASE_URL (else both are
started).
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop
from aiokafka import AIOKafkaConsumer
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # what the tests start their servers with starts ours

from bench.growth_full import QUIET_S, leaving, settle, table_refilled, vacuumed  # noqa: E402
from bench.growth_measures import Bench, console, measure, started  # noqa: E402
from bench.growth_reads import SLOW_MS, Read, WatchedDatabase, all_reads, time_reads  # noqa: E402
from bench.stored_payments import AMOUNT_MINOR, USER, Loader, Story, read_story  # noqa: E402
from rigs.worker import ENCRYPTION_KEY, Installation  # noqa: E402
from servers import kafka_for_tests  # noqa: E402
from servers.postgres import TEST_SETTINGS, database_on, execute, migrate, temporary_postgres  # noqa: E402

from payment_service.adapters.audit_chain import chain_key  # noqa: E402
from payment_service.adapters.sealing import AesGcmCipher  # noqa: E402

SERVER = {
    **TEST_SETTINGS, "autovacuum_naptime": "15s", "checkpoint_timeout": "5min", "max_wal_size": "4GB",
    "shared_buffers": "1GB",
}  # fmt: skip
"""Autovacuum and checkpoints as in production, or sooner: they belong to what a payment costs."""
FLAT = 0.10
SHARES = {"cart": 0.10, "paid": 0.68, "declined": 0.08, "refunded": 0.07, "in part": 0.04, "cancelled": 0.03}


# --- storing ----------------------------------------------------------------------------------------------------------


async def make_stories(bench: Bench) -> list[Story]:
    """One payment of each kind, made by a worker."""
    worker = bench.site.worker()
    await started(worker)
    amount = AMOUNT_MINOR / 100

    async def post(path: str, body: dict[str, Any]) -> Any:
        return await worker.call("POST", f"/api/v1/payments{path}", body, user=USER, roles=("admin",))

    for kind in SHARES:
        order = f"story-{kind.replace(' ', '-')}"
        created = await post("", {"orderId": order, "amount": amount, "currency": "USD"})
        path = f"/{created.data['id']}"
        if kind in ("paid", "refunded", "in part"):
            await post(f"{path}/process", {"paymentMethodId": "tok_visa"})
        if kind == "declined":
            await post(f"{path}/process", {"paymentMethodId": "tok_chargeDeclined"})
        if kind in ("refunded", "in part"):
            await post(f"{path}/refund", {"amount": amount if kind == "refunded" else 1.0, "reason": "sent back"})
        if kind == "cancelled":
            await post(f"{path}/cancel", {"reason": "changed their mind"})
    await asyncio.sleep(QUIET_S)  # the audit log is written with a delay
    await worker.stop()
    return [
        read_story(bench.site.database_url, f"story-{kind.replace(' ', '-')}", share) for kind, share in SHARES.items()
    ]


async def store(bench: Bench, loader: Loader) -> None:
    size = bench.arguments.size
    begun_s, shown = time.monotonic(), 0

    def progress(done: int) -> None:
        nonlocal shown
        if done * 10 // size > shown:
            shown = done * 10 // size
            console.print(f"  {done:,} stored, {done / (time.monotonic() - begun_s):,.0f}/s")

    before = bench.rows("select pg_database_size(current_database())")[0][0]
    await asyncio.to_thread(loader.load, progress)
    loaded_s = time.monotonic() - begun_s
    begun_s = time.monotonic()
    await asyncio.to_thread(bench.rows, "vacuum (analyze)")
    await asyncio.to_thread(bench.rows, "checkpoint")
    bench.report["stored"] = {
        "load s": loaded_s, "vacuum analyze, checkpoint s": time.monotonic() - begun_s,
        "bytes per payment": (bench.rows("select pg_database_size(current_database())")[0][0] - before) / size,
    }  # fmt: skip
    bench.report["sizes"] = {
        name: {"kind": kind, "MB": round(bytes_ / 1e6, 1), "bytes per payment": round(bytes_ / size, 1)}
        for name, kind, bytes_ in bench.rows(
            "select c.relname::text, case c.relkind when 'r' then 'table' else 'index' end,"
            " case c.relkind when 'r' then pg_table_size(c.oid) else pg_relation_size(c.oid) end from pg_class c"
            " where c.relnamespace = 'payment_service'::regnamespace and c.relkind in ('r', 'i')"
            " and pg_relation_size(c.oid) > 1000000 order by 3 desc"
        )
    }


# --- the report -------------------------------------------------------------------------------------------------------


def show(bench: Bench) -> None:
    report, size = bench.report, bench.arguments.size
    table = Table(title=f"growth: {size:,} stored payments, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for column in ("median of the rounds", "empty", f"{size:,}", "ratio", "of each round"):
        table.add_column(column, justify="left" if column.startswith("median") else "right")
    rounds = report["rounds"]
    for name in rounds[0]["full"]:
        empty, full = (statistics.median(it[which].get(name, 0.0) for it in rounds) for which in ("empty", "full"))
        ratios = [it["full"].get(name, 0.0) / it["empty"][name] for it in rounds if it["empty"].get(name)]
        ratio = statistics.median(ratios) if ratios else 0.0
        mark = "" if abs(ratio - 1) <= FLAT else " !"
        each = " ".join(f"{it:.2f}" for it in ratios)
        table.add_row(name, f"{empty:,.1f}", f"{full:,.1f}", f"{ratio:.2f}{mark}", each)
    table.add_section()
    for name, value in (report["stored"] | report["once"]).items():
        table.add_row(name, "", f"{value:,.1f}")
    console.print(table)
    for title, rows in (("tables and indexes", report["sizes"]), ("autovacuum", report["vacuum"])):
        table = Table("name", *next(iter(rows.values())), title=title)
        for name, row in rows.items():
            table.add_row(name, *(f"{it:,}" if isinstance(it, int | float) else str(it) for it in row.values()))
        console.print(table)
    target = ROOT / ".data" / "bench-growth.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=1))
    console.print(f"written to {target}")


def show_reads(reads: list[Read]) -> None:
    table = Table("what", "p50 ms", "p99 ms", title=f"lists and searches; slower than {SLOW_MS:.0f} ms are explained")
    for read in reads:
        mark = " !" if read.p99_ms > SLOW_MS else ""
        table.add_row(read.name, f"{read.p50_ms:,.2f}", f"{read.p99_ms:,.2f}{mark}")
    console.print(table)
    for read in reads:
        if read.plan:
            console.print(f"[bold]{read.name}", *read.plan, sep="\n  ", highlight=False, markup=False)


# --- the run ----------------------------------------------------------------------------------------------------------


def postmaster(dsn: str) -> psutil.Process:
    """The server of this machine: the parent of whoever answers us."""
    ((backend,),) = execute(dsn, "select (select pid from pg_stat_activity where backend_type = 'checkpointer')")
    parent = psutil.Process(int(str(backend))).parent()
    assert parent is not None
    return parent


async def run(empty: Bench, full: Bench) -> None:
    arguments, report = full.arguments, full.report
    console.print("stories …")
    worker = empty.site.worker()
    await started(worker)  # makes the topics
    await worker.stop()
    stories = await make_stories(full)
    cipher = AesGcmCipher(ENCRYPTION_KEY.encode())
    loader = Loader(full.site.database_url, stories, cipher, chain_key(ENCRYPTION_KEY.encode()), arguments.size)
    console.print(f"storing {arguments.size:,} …")
    await store(full, loader)
    report["rounds"] = []
    for number in range(arguments.rounds):
        console.print(f"round {number + 1}: empty, full …")
        report["rounds"].append(
            {"load": os.getloadavg()[0], "empty": await measure(empty), "full": await measure(full)}
        )
    console.print("lists and searches …")
    database = WatchedDatabase(full.site.database_url, size_max=2)
    reads = all_reads(database, cipher, arguments.size, loader.place)
    await time_reads(database, reads)
    await database.close()
    show_reads(reads)
    report["reads"] = {it.name: {"p50 ms": it.p50_ms, "p99 ms": it.p99_ms, "plan": it.plan} for it in reads}
    console.print("empty topics, rows that leave …")
    report["once"] = await table_refilled(full) | await leaving(full, cipher)
    if arguments.settle:
        console.print(f"settling {arguments.settle:,} …")
        report["once"] |= await settle(full)
    report["vacuum"] = vacuumed(full)
    show(full)


@contextlib.asynccontextmanager
async def reading(broker: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    defaults = (("size", 1_000_000), ("orders", 20_000), ("settle", 50_000), ("seconds", 20), ("rounds", 3))
    for name, default in defaults:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--set", action="append", default=[], metavar="name=value", help="of the PostgreSQL we start")
    arguments = parser.parse_args()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        broker = os.environ.get("KAFKA_BROKERS") or stack.enter_context(kafka_for_tests())
        settings = SERVER | dict(one.split("=", 1) for one in arguments.set)
        server = os.environ.get("DATABASE_URL") or stack.enter_context(temporary_postgres(settings))
        consumer = await stack.enter_async_context(reading(broker))
        benches = []
        for name in ("empty", "full"):
            dsn = stack.enter_context(database_on(server))
            migrate(dsn)
            site = await stack.enter_async_context(Installation(folder / name, broker, dsn))
            await site.make_order_topic()
            benches.append(Bench(site, arguments, postmaster(dsn), consumer))
        await run(*benches)


if __name__ == "__main__":
    with contextlib.suppress(aiohttp.ClientConnectionError):
        uvloop.run(main())
