"""Random crashes by seed: traffic and faults at the same time, then quiet, then the auditor.

`make crash SEED=7` (`python -m crash.random_rig --seed 7` in tests/) makes one run of that seed, `make crash` one of a
fresh seed; ROUNDS and SECONDS make more of them.
A seed gives inputs and faults, not their interleaving. A failure keeps the folder with the whole history.
"""

import argparse
import asyncio
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from crash.auditor import audit, report
from crash.auditor_evidence import Evidence, Violation, read_evidence
from crash.chaos import Fault, plan_chaos
from crash.chaos_steps import Chaos
from crash.history import History
from crash.random_quiet import settle, write_down
from crash.random_site import Servers, Site
from crash.traffic import Traffic, plan_traffic
from crash.traffic_client import Client, Provider, Shop, run_traffic
from rigs.restartable_postgres import RestartablePostgres
from rigs.worker import ENCRYPTION_KEY
from servers.kafka import KafkaServer
from servers.postgres import database_on, migrate

CHAOS_S = 45.0
ORDERS = (80, 140)
SHOPPERS = (50, 80)
WEBHOOKS_RATE = 0.8
"""Without them everything must settle all the same: they are news, not the truth."""
RUN_S_MAX = 480.0
"""A run that takes longer hangs, which is a failure too."""


@dataclass(frozen=True, slots=True)
class Result:
    seed: int
    provider: str
    violations: list[Violation]
    payments: int
    kills: int
    faults: Counter[str]
    quiet_s: float
    took_s: float
    folder: Path
    seen: Counter[str]
    """That the run was one: what callers were told, what moved, what came more than once."""


async def run_seed(seed: int, provider: str, servers: Servers, database_url: str, folder: Path) -> Result:
    started = time.monotonic()
    chance = random.Random(f"run {seed}")
    auto = chance.random() < 0.75
    history = History(folder)
    webhooks = chance.random() < WEBHOOKS_RATE
    traffic = plan_traffic(
        seed, CHAOS_S, chance.randrange(*ORDERS), chance.randrange(*SHOPPERS), beside_us=webhooks, provider=provider
    )
    plan = plan_chaos(seed, CHAOS_S, webhooks=webhooks)
    quiet_s = 0.0
    try:
        async with Site(folder, servers, database_url, history, chance, provider, auto=auto, webhooks=webhooks) as site:
            history.note(
                "begin", seed=seed, provider=provider, auto=auto, webhooks=webhooks,
                orders_topic=site.installation.orders, encryption_key=ENCRYPTION_KEY,
            )  # fmt: skip
            await _storm(site, plan, traffic, seed)
            history.note("quiet")
            quiet_s = await settle(site)
            await asyncio.gather(*(site.stop(number) for number in range(len(site.workers))))
            await write_down(site)
    finally:
        history.close()
    evidence = read_evidence(folder)
    faults = Counter(history.faults)
    kills = sum(count for kind, count in faults.items() if "kill" in kind or "frozen" in kind)
    return Result(
        seed, provider, audit(evidence), len(evidence.payments), kills, faults, quiet_s,
        time.monotonic() - started, folder, _seen(evidence),
    )  # fmt: skip


def _seen(evidence: Evidence) -> Counter[str]:
    seen = Counter(
        f"{call.op} told {call.status or 'nothing'}" for call in evidence.calls if call.reached and call.op != "get"
    )
    seen += Counter(f"{it['kind']} moved" for it in evidence.movements)
    seen += Counter(f"webhook {row['status']}" for row in evidence.table("payment_webhooks"))
    seen += Counter(f"payment {row['status']}" for row in evidence.payments.values())
    seen += Counter("struck in its moment" for it in evidence.said("struck") if it["in_its_moment"])
    ids = [dict(it["headers"]).get("ce_id") for it in evidence.messages if it["topic"].startswith("payment.")]
    seen["events"] += len(set(ids))
    seen["events delivered again"] += len(ids) - len(set(ids))
    for row in evidence.payments.values():
        seen += Counter(f"review for {reason.partition(':')[0]}" for reason in json.loads(row["state"])["review"])
    return seen


async def _storm(site: Site, plan: dict[str, tuple[Fault, ...]], traffic: Traffic, seed: int) -> None:
    chaos = Chaos(site)
    shop = Shop(site.history, site.servers.kafka.address, site.installation.orders)
    client = Client(site.history, site.workers, site.session, random.Random(f"client {seed}"))
    provider = Provider(site.history, site.sim.url, site.session)
    started = time.monotonic()
    lanes = (chaos.run(lane, started + CHAOS_S) for lane in plan.values())
    breaking = asyncio.gather(*lanes)
    talking = asyncio.ensure_future(run_traffic(shop, client, provider, traffic, started))
    try:
        await breaking
        await chaos.end()
        await talking
    finally:
        for task in (breaking, talking):
            task.cancel()


def _one(seed: int, provider: str, servers: Servers, keep: Path, keep_all: bool) -> Result:
    folder = Path(tempfile.mkdtemp(prefix=f"seed-{seed}-", dir=keep))
    with database_on(servers.postgres.url) as database_url:
        migrate(database_url)
        try:
            result = asyncio.run(asyncio.wait_for(run_seed(seed, provider, servers, database_url, folder), RUN_S_MAX))
        except Exception:
            text = traceback.format_exc()
            (folder / "rig-failure.txt").write_text(text)
            failed = [Violation("rig", "", text.strip().splitlines()[-1])]
            return Result(seed, provider, failed, 0, 0, Counter(), 0, 0, folder, Counter())
    if result.violations or keep_all:
        (folder / "violations.txt").write_text(report(result.violations))
    else:
        shutil.rmtree(folder)
    return result


def _line(result: Result) -> str:
    return (
        f"seed {result.seed:>7} {result.provider:<7} payments {result.payments:>4}  faults"
        f" {sum(result.faults.values()):>3}  kills {result.kills:>3}  quiet {result.quiet_s:5.1f} s"
        f"  took {result.took_s:5.1f} s  violations {len(result.violations)}"
    )


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, help="the first seed; default a fresh one")
    arguments.add_argument("--rounds", type=int, default=1, help="how many seeds, each one more than the one before")
    arguments.add_argument("--seconds", type=float, help="begin new rounds for so long instead")
    arguments.add_argument("--providers", default="mock,stripe,paypal", help="chosen from by seed")
    arguments.add_argument("--keep", type=Path, help="where the folder of a failure is kept")
    arguments.add_argument("--keep-all", action="store_true", help="keep the folders of good runs too")
    given = arguments.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
    keep: Path = given.keep or Path(tempfile.gettempdir()) / "payment-crash"
    keep.mkdir(parents=True, exist_ok=True)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every broker that is away, as planned
    providers = given.providers.split(",")
    results: list[Result] = []
    until = time.monotonic() + (given.seconds or 0)
    with KafkaServer() as kafka, RestartablePostgres() as postgres:
        while len(results) < given.rounds or time.monotonic() < until:
            provider = random.Random(f"provider {seed}").choice(providers)
            print(f"SEED={seed} ({provider})", flush=True)
            results.append(_one(seed, provider, Servers(kafka, postgres), keep, given.keep_all))
            print(_line(results[-1]), flush=True)
            if results[-1].violations:
                print(report(results[-1].violations), flush=True)
                print(f"everything is kept in {results[-1].folder}; again: make crash SEED={seed}", flush=True)
            seed += 1
    _total(results)
    return 1 if any(result.violations for result in results) else 0


def _total(results: list[Result]) -> None:
    faults: Counter[str] = Counter()
    for result in results:
        faults += result.faults
    print(f"{len(results)} seeds, {sum(it.payments for it in results)} payments, {sum(faults.values())} faults:")
    print(", ".join(f"{count} {kind}" for kind, count in faults.most_common()))
    seen: Counter[str] = Counter()
    for result in results:
        seen += result.seen
    print(", ".join(f"{count} {what}" for what, count in sorted(seen.items())))
    print(f"{sum(len(it.violations) for it in results)} violations")


if __name__ == "__main__":
    sys.exit(main())
