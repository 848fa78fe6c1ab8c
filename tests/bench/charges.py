"""How many charges at once, at a provider that takes 300 ms: through the guard alone, and through the whole service.

`make bench-charges`. One run, on Apache Kafka and PostgreSQL with fsync for the second part; only ratios within the run
count. Prints figures and the machine's load, writes .data/bench-charges.json. Never asserts.

Environment: BENCH_CHARGES (10000), DATABASE_URL and KAFKA_BROKERS (else both are started), GUARD_ONLY=1.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import uvloop
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # what the tests start their servers with starts ours

from rigs.counted import CountedMetrics  # noqa: E402
from rigs.provider_rig import call_for  # noqa: E402
from rigs.worker import Installation, Message  # noqa: E402
from servers import kafka_for_tests, postgres_for_tests  # noqa: E402

from payment_service.adapters.clock import SystemClock  # noqa: E402
from payment_service.adapters.guarded import GuardedProvider, GuardLimits  # noqa: E402
from payment_service.adapters.providers.mock import MockProvider  # noqa: E402
from payment_service.core.resilience import RateRule  # noqa: E402
from payment_service.core.terms import Verdict  # noqa: E402

IN_FLIGHT, LATENCY_S = 1000, 0.3
IDEAL = IN_FLIGHT / LATENCY_S
CHARGES = int(os.environ.get("BENCH_CHARGES", "10000"))
SHARE_WAITED_FOR = 0.9
"""Of our own rate without latency; what waiting for such a provider may cost us at most is the rest."""
WAIT_S = 300.0
console = Console()
Figures = dict[str, float]


# --- the guard -------------------------------------------------------------------------------------------------------


async def through_the_guard(
    latency_s: float, rate: RateRule | None = None, charges: int = CHARGES
) -> tuple[float, float]:
    """(charges a second, own CPU in us each), from the first call to the last answer; IN_FLIGHT callers, each with its
    next one at once."""
    mock = MockProvider(SystemClock(), public_url="http://shop.test", latency_ms=round(latency_s * 1000))
    limits = GuardLimits(IN_FLIGHT, 20.0, 20.0, rate)
    guard = GuardedProvider(mock, limits, SystemClock(), CountedMetrics())
    calls = [call_for(f"pay_{number}", token="tok_visa", object_id=f"obj_{number}") for number in range(charges)]
    for call in calls:
        await mock.create_object(call)  # moves no money: not what is measured
    waiting, refused = iter(calls), 0

    async def caller() -> None:
        nonlocal refused
        for call in waiting:
            refused += (await guard.send(call)).verdict is not Verdict.APPROVED

    started_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    taken_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    if refused:
        console.print(f"[red]{refused} of {charges} were no yes")
    return charges / taken_s, cpu_s / charges * 1e6


async def guard_figures() -> Figures:
    figures: Figures = {}
    figures["guard: 0 ms /s"], _ = await through_the_guard(0.0)
    figures["guard: 300 ms /s"], figures["guard: 300 ms, own CPU us each"] = await through_the_guard(LATENCY_S)
    # 3,500 charges: the burst of 500 goes at once, the rest at the rate, so that 3,000 take 6 s.
    bucket = RateRule(500.0, 500.0)
    figures["guard: 300 ms, bucket of 500 /s"], _ = await through_the_guard(LATENCY_S, bucket, charges=3500)
    return figures


# --- the whole service -----------------------------------------------------------------------------------------------


async def through_the_service(broker: str, database_url: str, folder: Path, latency_ms: int) -> tuple[float, int]:
    """(charges a second, payments told in a wrong order). From the first charge that was answered to the last; orders
    come from Kafka with a method, and wait in it before the worker starts."""
    async with Installation(
        folder, broker, database_url, AUTO_PROCESS_ORDERS="true", PAYMENT_PROVIDER="mock", LOG_LEVEL="warning",
        MOCK_LATENCY_MS=str(latency_ms), PROVIDER_CONCURRENCY=str(IN_FLIGHT),
    ) as site:  # fmt: skip
        await site.make_order_topic()
        for first in range(0, CHARGES, 1000):
            await site.produce(*(order(number) for number in range(first, min(first + 1000, CHARGES))))
        await site.started()
        done = "select count(*) from payment_service.transactions where status = 'SUCCEEDED'"
        began_at, began_with, now = 0.0, 0, 0
        deadline = time.monotonic() + WAIT_S
        while now < CHARGES and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            ((now,),) = site.rows(done)
            if now and not began_at:
                began_at, began_with = time.monotonic(), now
        rate_per_s = (now - began_with) / (time.monotonic() - began_at) if began_at else 0.0
        # Kept is what the state machine committed, one after the other, without holes.
        ((disordered,),) = site.rows(
            "select count(*) from (select payment_id, max(version) - count(*) as holes, bool_and(later) as later from"
            " (select payment_id, version, at >= coalesce(lag(at) over (partition by payment_id order by version), at)"
            " as later from payment_service.payment_events) e group by payment_id) p where holes <> 0 or not later"
        )
        return rate_per_s, int(disordered) + CHARGES - now


def order(number: int) -> Message:
    body = {
        "eventType": "order.created", "orderId": f"charge-{number}", "userId": "u", "totalAmount": 10.5,
        "currency": "USD", "paymentMethodId": "tok_visa",
    }  # fmt: skip
    return Message(orjson.dumps(body), number % 4, str(number).encode())


async def service_figures(stack: ExitStack) -> Figures:
    broker = os.environ.get("KAFKA_BROKERS") or stack.enter_context(kafka_for_tests())
    figures: Figures = {}
    for latency_ms in (0, 300):
        # A database of its own for each, so that neither measures the other's rows.
        dsn = os.environ.get("DATABASE_URL") or stack.enter_context(postgres_for_tests())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))) / "site"
        rate_per_s, wrong = await through_the_service(broker, dsn, folder, latency_ms)
        figures[f"service: {latency_ms} ms /s"] = rate_per_s
        figures[f"service: {latency_ms} ms, payments not in order or not charged"] = wrong
    return figures


def show(figures: Figures) -> None:
    load = os.getloadavg()[0]
    table = Table(title=f"{IN_FLIGHT} charges in flight, {os.cpu_count()} cores, load {load:.1f}, one run")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.0f}")
    table.add_section()
    table.add_row("ideal: in flight / 0.3 s", f"{IDEAL:,.0f}")
    for part in ("guard", "service"):
        slow, fast = figures.get(f"{part}: 300 ms /s"), figures.get(f"{part}: 0 ms /s")
        if slow and fast:
            target = min(IDEAL, SHARE_WAITED_FOR * fast)
            table.add_row(f"{part}: 300 ms / least of ideal and 90 % of 0 ms", f"{slow / target:.2f}")
    bucket = figures.get("guard: 300 ms, bucket of 500 /s")
    if bucket:
        table.add_row("guard: with the bucket / 3,500 in 6 s", f"{bucket / (3500 / 6):.2f}")
    console.print(table)
    kept: dict[str, Any] = {"in_flight": IN_FLIGHT, "latency_s": LATENCY_S, "load": load, **figures}
    target_file = ROOT / ".data" / "bench-charges.json"
    target_file.parent.mkdir(exist_ok=True)
    target_file.write_text(json.dumps(kept, indent=1))
    console.print(f"written to {target_file}")


async def main() -> None:
    figures = await guard_figures()
    with ExitStack() as stack:
        if not os.environ.get("GUARD_ONLY"):
            figures |= await service_figures(stack)
        show(figures)


if __name__ == "__main__":
    uvloop.run(main())  # as the worker does
