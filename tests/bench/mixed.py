"""REST while a backlog of orders drains: how long callers wait, and how long the event loop is held."""

import asyncio
import math
import re
from collections.abc import Sequence

import aiohttp
from bench.harness import ORDERS, SECONDS, SETTLE_S, Bench, Watcher, produce, service
from bench.load import wrk
from bench.orders import first_payments

CONNECTIONS = 32
PACE_MS = 75
"""Each connection pauses for so long: about 400 requests a second while answers take 5 ms. At a pace of its own, a
load does not measure how fast it can fill the queue."""
MIX = "create read process health"
BACKLOG_S = SECONDS + 4
BACKLOG_MAX = 200_000
LAG = re.compile(r'^event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
Buckets = Sequence[tuple[float, float]]
"""Upper bound in seconds, and how many looks found no longer hold."""


async def measure(bench: Bench) -> None:
    # As much as drains without REST, so that there is some left at the end.
    per_s = bench.results.get("orders: ours, committed /s", ORDERS)
    backlog = min(BACKLOG_MAX, max(ORDERS, int(per_s * BACKLOG_S)))
    await produce(bench, bench.prefix("mixed") + "orders", backlog)
    async with service(bench, "mixed") as site:
        with Watcher(site.dsn) as watcher:
            await first_payments(watcher)
            await asyncio.sleep(SETTLE_S)  # joining the group and first batches are another matter
            before, payments = lag_buckets(await metrics(site.port)), watcher.payments()
            load = wrk("flow.lua", site.port, CONNECTIONS, MIX=MIX, PACE_MS=str(PACE_MS))
            after, now = lag_buckets(await metrics(site.port)), watcher.payments()
    for kind in MIX.split():
        load.keep(bench, kind, f"mixed: {kind}")
    slowest = [load.timings[kind] for kind in MIX.split() if kind != "health" and kind in load.timings]
    if not slowest:
        return
    bench.results["mixed: p99 of the slowest kind ms"] = max(timing.p99_ms for timing in slowest)
    bench.results["mixed: longest answer of all ms"] = max(timing.max_ms for timing in load.timings.values())
    bench.results["mixed: under way when the load ended"] = load.unanswered
    created = load.timings["create"].count if "create" in load.timings else 0
    bench.results["mixed: orders drained meanwhile /s"] = (now - payments - created) / SECONDS
    bench.results["mixed: orders left at the end"] = max(0, backlog + created - now)
    looks, bound_s = held_at_most(before, after)
    bench.results["mixed: looks at the event loop"] = looks
    if looks and math.isfinite(bound_s):
        bench.results["mixed: event loop held at most ms"] = bound_s * 1000
    health = load.timings.get("health")
    if health is not None:
        bench.results["mixed: health longest ms"] = health.max_ms


async def metrics(port: int) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        return await answer.text()


def lag_buckets(text: str) -> Buckets:
    return [(float(bound), float(count)) for bound, count in LAG.findall(text)]


def held_at_most(before: Buckets, after: Buckets) -> tuple[int, float]:
    """How many looks there were between the two, and the smallest bound in seconds that holds for all of them: the
    service counts in buckets, so that 25 ms may have been 11."""
    earlier = dict(before)
    between = [(bound, count - earlier.get(bound, 0.0)) for bound, count in after]
    looks = between[-1][1] if between else 0.0
    return int(looks), next((bound for bound, count in between if count >= looks), math.inf)
