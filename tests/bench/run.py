"""`make bench`: how fast, beside what an ordinary service reaches and what the machine allows, all in one run.

Everything is on real Apache Kafka and PostgreSQL with fsync. Only ratios within one run count: the machine is shared
by the service, the load, the broker and the database. Prints tables, writes .data/bench.json and .data/bench.svg;
`--keep` adds a row to HISTORY.md. A part that fails has no figures, and the others go on. Never asserts.

Environment: BENCH_ORDERS (50000), BENCH_SECONDS (6, each REST load), BASELINES_DIR (another folder of the same
programs), DATABASE_URL and KAFKA_BROKERS (else both are started).
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # what the tests start their servers with starts ours

from bench import history, mixed, orders, report, rest, webhooks
from bench.harness import ORDERS, ROOT, WAIT_S, Bench, baseline, console, produce, service
from bench.load import need_wrk
from bench.processor import Processors
from servers import kafka_for_tests, postgres_for_tests

PART_S = 150.0
"""Longest time of one part."""


async def part(bench: Bench, name: str, measured: Awaitable[None]) -> None:
    started = time.monotonic()
    try:
        async with asyncio.timeout(PART_S):
            await measured
    except Exception as error:  # whatever it was: the figures of the others are worth having
        bench.failed.append(name)
        console.print(f"[red]{name}: no figures, {type(error).__name__}: {error}", highlight=False)
    else:
        console.print(f"{name}: {time.monotonic() - started:.0f} s")


async def ours(bench: Bench) -> None:
    """Orders, then REST on what they left: one worker, as it runs for a day."""
    await produce(bench, bench.prefix("service") + "orders", ORDERS)
    async with service(bench, "service") as site:
        await part(bench, "our orders", orders.ours(bench, site))
        await part(bench, "our REST", rest.ours(bench, site))


async def postgresql_limit(bench: Bench) -> None:
    env = bench.env(DATABASE_URL=bench.database("pg_limit"))
    done = subprocess.run(baseline("pg_limit.py"), env=env, capture_output=True, text=True, timeout=WAIT_S)
    for batch, rate in re.findall(r"batch\s+(\d+):\s+(\d+)", done.stdout):
        bench.results[f"postgresql: limit at batch {batch} /s"] = float(rate)


PARTS: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    "plain-faust": orders.plain_faust,
    "order-limit": orders.order_limit,
    "ours": ours,
    "plain-rest": partial(rest.other, name="plain_rest", has_reads=True),
    "rest-limit": partial(rest.other, name="rest_limit", has_reads=False),
    "mixed": mixed.measure,
    "webhooks": webhooks.measure,
    "postgresql-limit": postgresql_limit,
}


async def main(names: Sequence[str], keep: bool) -> None:
    need_wrk()
    load_before, started = os.getloadavg()[0], time.monotonic()
    async with AsyncExitStack() as stack:
        kept = tempfile.TemporaryDirectory(prefix="payment-bench-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(kept))
        broker = os.environ.get("KAFKA_BROKERS") or stack.enter_context(kafka_for_tests())
        dsn = os.environ.get("DATABASE_URL") or stack.enter_context(postgres_for_tests())
        bench = Bench(broker, dsn, folder, Processors(broker, dsn))
        for name in names:
            await part(bench, name, PARTS[name](bench))
        done = report.run_of(bench, load_before, time.monotonic() - started)
    report.show(done)
    report.write(done, ROOT / ".data")
    if keep:
        history.keep(done)
        console.print(f"a row was added to {history.FILE}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measures; see the top of this file.")
    parser.add_argument("--keep", action="store_true", help="add a row to tests/bench/HISTORY.md")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"all if none is named: {', '.join(PARTS)}")
    given = parser.parse_args()
    if unknown := set(given.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    asyncio.run(main(given.parts or list(PARTS), given.keep))
