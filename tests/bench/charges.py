"""How many charges at once, at a provider that takes 300 ms: through the guard alone, and through the whole service,
with the mock in the process, the mock of another process, and Stripe's SDK.

`make bench-charges`. One run, on Apache Kafka and PostgreSQL with fsync for the service; only ratios within the run
count. The other process is `payment-service provider-sim`, Python on the same processors: what it can serve at most is
shown beside what went through it. Prints figures and the machine's load, writes .data/bench-charges.json. Never
asserts.

Environment: BENCH_CHARGES (10000), BENCH_IN_FLIGHT (2000), BENCH_PARTS (guard,most,adapter,service), BENCH_PROVIDERS
(mock,remote,stripe), DATABASE_URL and KAFKA_BROKERS (else both are started).
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvloop
from aiohttp import ClientSession
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # what the tests start their servers with starts ours

from bench.sim_load import most_mock_charges_per_s, most_stripe_charges_per_s  # noqa: E402
from rigs.counted import CountedMetrics  # noqa: E402
from rigs.provider_rig import call_for  # noqa: E402
from rigs.sim_process import SimProcess  # noqa: E402
from rigs.worker import Installation, Message  # noqa: E402
from servers import kafka_for_tests, postgres_for_tests  # noqa: E402

from payment_service.adapters.clock import SystemClock  # noqa: E402
from payment_service.adapters.guarded import GuardedProvider, GuardLimits  # noqa: E402
from payment_service.adapters.outbound import Outbound  # noqa: E402
from payment_service.adapters.providers.mock import MockProvider  # noqa: E402
from payment_service.adapters.providers.mock_remote import RemoteMock  # noqa: E402
from payment_service.adapters.providers.stripe import StripeProvider  # noqa: E402
from payment_service.adapters.providers.stripe_api import StripeApi  # noqa: E402
from payment_service.core.ports import Provider, ProviderCall  # noqa: E402
from payment_service.core.resilience import RateRule  # noqa: E402
from payment_service.core.terms import Verdict  # noqa: E402
from payment_service.worker import calm_garbage_collection  # noqa: E402

LATENCY_MS = 300
LATENCY_S = LATENCY_MS / 1000
COMPARED_IN_FLIGHT = 1000
"""Of the guard alone: as many as Confluent's parallel-consumer 0.5.3 had when its handler slept as long, on two such
cores; it reached 2,800 to 2,980/s."""
IN_FLIGHT = int(os.environ.get("BENCH_IN_FLIGHT", "2000"))
CHARGES = int(os.environ.get("BENCH_CHARGES", "10000"))
PARTS = os.environ.get("BENCH_PARTS", "guard,most,adapter,service").split(",")
PROVIDERS = os.environ.get("BENCH_PROVIDERS", "mock,remote,stripe").split(",")
SHARE_WANTED = 0.9
"""Of the least of what can be in flight and our own rate without latency; what waiting may cost is the rest."""
DEADLINE_S = 20.0
WAIT_S = 300.0
POLL_S = 0.2
UNLIMITED_PER_S = "1000000"
console = Console()
Figures = dict[str, float]


@dataclass(frozen=True)
class Kind:
    """A provider as it is charged through: the name it has in the table, and how the service is told of it."""

    title: str
    environment: Callable[[str, int], Mapping[str, str]]
    """By the simulator's URL and the latency."""
    remote: bool = True
    most: Callable[[str, int], Any] | None = None


KINDS = {
    "mock": Kind("mock in process", lambda _, ms: {"MOCK_LATENCY_MS": str(ms)}, remote=False),
    "remote": Kind("mock over HTTP", lambda url, _: {"MOCK_PROVIDER_URL": url}, most=most_mock_charges_per_s),
    "stripe": Kind(
        "Stripe's SDK",
        lambda url, _: {
            "PAYMENT_PROVIDER": "stripe", "STRIPE_SECRET_KEY": "sk_test_bench", "STRIPE_API_BASE": url,
            "STRIPE_RATE_PER_S": UNLIMITED_PER_S,
        },
        most=most_stripe_charges_per_s,
    ),
}  # fmt: skip


class Watched:
    """Processor time of a process of ours or of another."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self._began_s = self._now_s()

    def _now_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def us_each(self, charges: int) -> float:
        return (self._now_s() - self._began_s) / max(charges, 1) * 1e6


@asynccontextmanager
async def simulator(latency_ms: int) -> AsyncIterator[SimProcess]:
    """One with an empty ledger: it grows by 2 KB a charge."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with ClientSession() as session:
            sim = SimProcess(Path(folder), session, "--latency-ms", str(latency_ms))
            sim.start()
            try:
                await sim.ready()
                yield sim
            finally:
                sim.kill()


# --- the guard, and the adapters behind it ---------------------------------------------------------------------------


async def charged(guard: GuardedProvider, calls: list[ProviderCall], in_flight: int, *, makes: bool) -> float:
    """Charges a second, from the first call to the last answer; so many callers, each with its next one at once.
    `makes`: each makes the provider's object first, as the service does."""
    waiting, refused = iter(calls), 0

    async def caller() -> None:
        nonlocal refused
        for call in waiting:
            if makes:
                made = await guard.create_object(call)
                call = replace(call, object_id=made.object_id)
            refused += (await guard.send(call)).verdict is not Verdict.APPROVED

    started_s = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    taken_s = time.perf_counter() - started_s
    if refused:
        console.print(f"[red]{refused} of {len(calls)} were no yes")
    return len(calls) / taken_s


def guarded(provider: Provider, in_flight: int, rate: RateRule | None = None) -> GuardedProvider:
    limits = GuardLimits(in_flight, DEADLINE_S, DEADLINE_S, rate)
    return GuardedProvider(provider, limits, SystemClock(), CountedMetrics())


async def through_the_guard(latency_ms: int, rate: RateRule | None = None, charges: int = CHARGES) -> Figures:
    mock = MockProvider(SystemClock(), public_url="http://shop.test", latency_ms=latency_ms)
    calls = [call_for(f"pay_{number}", token="tok_visa", object_id=f"obj_{number}") for number in range(charges)]
    for call in calls:
        await mock.create_object(call)  # moves no money: not what is measured
    own = Watched()
    rate_per_s = await charged(guarded(mock, COMPARED_IN_FLIGHT, rate), calls, COMPARED_IN_FLIGHT, makes=False)
    return {"/s": rate_per_s, "own CPU us each": own.us_each(charges)}


async def guard_figures() -> Figures:
    figures = named("guard, mock in process", 0, await through_the_guard(0))
    figures |= named("guard, mock in process", LATENCY_MS, await through_the_guard(LATENCY_MS))
    # 3,500 charges: the burst of 500 goes at once, the rest at the rate, so that 3,000 take 6 s.
    bucket = await through_the_guard(LATENCY_MS, RateRule(500.0, 500.0), charges=3500)
    return figures | {"guard, bucket of 500: 300 ms /s": bucket["/s"]}


async def through_the_adapter(name: str, latency_ms: int) -> Figures:
    outbound = Outbound()
    async with simulator(latency_ms) as sim:
        provider: Provider = RemoteMock(sim.url, outbound.session)
        if name == "stripe":
            provider = StripeProvider(StripeApi("sk_test_bench", sim.url, DEADLINE_S, outbound.session), live=False)
        calls = [
            call_for(f"pay_{number}", token="tok_visa", provider=provider.name, object_id=None)
            for number in range(CHARGES)
        ]
        own, other = Watched(), Watched(sim.pid)
        try:
            rate_per_s = await charged(guarded(provider, IN_FLIGHT), calls, IN_FLIGHT, makes=True)
        finally:
            await outbound.close()
        return {"/s": rate_per_s, "own CPU us each": own.us_each(CHARGES), "sim CPU us each": other.us_each(CHARGES)}


async def most_of_the_simulator(kind: Kind) -> Figures:
    assert kind.most is not None, "only what is asked over HTTP"
    async with simulator(0) as sim:
        other = Watched(sim.pid)
        rate_per_s = await kind.most(sim.url, CHARGES)
        return {"/s": rate_per_s, "sim CPU us each": other.us_each(CHARGES)}


# --- the whole service -----------------------------------------------------------------------------------------------


async def through_the_service(kind: Kind, broker: str, database_url: str, folder: Path, latency_ms: int) -> Figures:
    """From the first charge that was answered to the last; orders come from Kafka with a method, and wait in it before
    the worker starts."""
    async with simulator(latency_ms) as sim, Installation(
        folder, broker, database_url, AUTO_PROCESS_ORDERS="true", LOG_LEVEL="warning",
        PROVIDER_CONCURRENCY=str(IN_FLIGHT), **kind.environment(sim.url, latency_ms),
    ) as site:  # fmt: skip
        await site.make_order_topic()
        for first in range(0, CHARGES, 1000):
            await site.produce(*(order(number) for number in range(first, min(first + 1000, CHARGES))))
        worker = await site.started()
        done = "select count(*) from payment_service.transactions where status = 'SUCCEEDED'"
        began_at, began_with, now = 0.0, 0, 0
        own = other = Watched()
        deadline = time.monotonic() + WAIT_S
        while now < CHARGES and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
            ((now,),) = site.rows(done)
            if now and not began_at:
                began_at, began_with = time.monotonic(), now
                own, other = Watched(worker.pid), Watched(sim.pid)
        figures = {"/s": (now - began_with) / (time.monotonic() - began_at) if began_at else 0.0}
        figures["own CPU us each"] = own.us_each(now - began_with)
        if kind.remote:
            figures["sim CPU us each"] = other.us_each(now - began_with)
        # Kept is what the state machine committed, one after the other, without holes.
        ((disordered,),) = site.rows(
            "select count(*) from (select payment_id, max(version) - count(*) as holes, bool_and(later) as later from"
            " (select payment_id, version, at >= coalesce(lag(at) over (partition by payment_id order by version), at)"
            " as later from payment_service.payment_events) e group by payment_id) p where holes <> 0 or not later"
        )
        return figures | {"payments not in order or not charged": int(disordered) + CHARGES - now}


def order(number: int) -> Message:
    body = {
        "eventType": "order.created", "orderId": f"charge-{number}", "userId": "u", "totalAmount": 10.5,
        "currency": "USD", "paymentMethodId": "tok_visa",
    }  # fmt: skip
    return Message(orjson.dumps(body), number % 4, str(number).encode())


async def service_figures(kind: Kind, broker: str, latency_ms: int) -> Figures:
    with ExitStack() as stack:
        # A database of its own for each, so that neither measures the other's rows.
        dsn = os.environ.get("DATABASE_URL") or stack.enter_context(postgres_for_tests())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))) / "site"
        return await through_the_service(kind, broker, dsn, folder, latency_ms)


# --- what is shown ---------------------------------------------------------------------------------------------------


def named(what: str, latency_ms: int, figures: Figures) -> Figures:
    return {f"{what}: {latency_ms} ms {name}": value for name, value in figures.items()}


def ratios(figures: Figures) -> Figures:
    """With latency, of the least of what can be in flight and our own rate without."""
    shares: Figures = {}
    for name, fast in figures.items():
        what, _, rest = name.partition(": ")
        slow = figures.get(f"{what}: {LATENCY_MS} ms /s")
        if rest == "0 ms /s" and slow and fast:
            ideal = (COMPARED_IN_FLIGHT if what.startswith("guard") else IN_FLIGHT) / LATENCY_S
            shares[f"{what}: {LATENCY_MS} ms / least of {ideal:,.0f} and 0 ms"] = slow / min(ideal, fast)
    bucket = figures.get("guard, bucket of 500: 300 ms /s")
    return shares | ({"guard, with the bucket / 3,500 in 6 s": bucket / (3500 / 6)} if bucket else {})


def show(figures: Figures) -> None:
    load = os.getloadavg()[0]
    title = f"{CHARGES:,} charges, {IN_FLIGHT:,} in flight (guard {COMPARED_IN_FLIGHT:,}), rates unlimited"
    table = Table(title=f"{title}\n{os.cpu_count()} cores, load {load:.1f}, one run")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.0f}")
    table.add_section()
    shares = ratios(figures)
    for name, share in shares.items():
        table.add_row(f"{name} (wanted {SHARE_WANTED:.2f})", f"{share:.2f}")
    console.print(table)
    kept: dict[str, Any] = {"in_flight": IN_FLIGHT, "latency_s": LATENCY_S, "load": load, **figures, **shares}
    target_file = ROOT / ".data" / "bench-charges.json"
    target_file.parent.mkdir(exist_ok=True)
    target_file.write_text(json.dumps(kept, indent=1))
    console.print(f"written to {target_file}")


async def measure(figures: Figures, stack: ExitStack) -> None:
    """Fills `figures` as it goes, so that what a broken part leaves undone costs only itself."""
    kinds = [(name, KINDS[name]) for name in PROVIDERS]
    if "guard" in PARTS:
        figures |= await guard_figures()
    for name, kind in kinds:
        if kind.most is not None and "most" in PARTS:
            figures |= named(f"provider-sim at most, {kind.title}", 0, await most_of_the_simulator(kind))
        for latency_ms in (0, LATENCY_MS):
            if kind.remote and "adapter" in PARTS:
                figures |= named(f"adapter, {kind.title}", latency_ms, await through_the_adapter(name, latency_ms))
    if "service" in PARTS:
        broker = os.environ.get("KAFKA_BROKERS") or stack.enter_context(kafka_for_tests())
        for _, kind in kinds:
            for latency_ms in (0, LATENCY_MS):
                title = f"service, {kind.title}"
                figures |= named(title, latency_ms, await service_figures(kind, broker, latency_ms))


async def main() -> None:
    figures: Figures = {}
    calm_garbage_collection()  # as the worker does, and the loop below
    with ExitStack() as stack:
        try:
            await measure(figures, stack)
        finally:
            show(figures)


if __name__ == "__main__":
    uvloop.run(main())
