"""The parts of the random rig that must not be wrong in silence: what a seed repeats, and the wire that cuts."""

import asyncio
from contextlib import closing
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from crash.chaos import HEAVY, LIGHT, plan_chaos
from crash.chaos_steps import Chaos
from crash.traffic import plan_traffic
from rigs.commit_cutter import CommitCutter
from servers.postgres import execute

SEEDS = range(40)


def test_a_seed_repeats_its_inputs_and_faults() -> None:
    for seed in (1, 2):
        assert plan_traffic(seed, 30, 60, 40, beside_us=True) == plan_traffic(seed, 30, 60, 40, beside_us=True)
        assert plan_chaos(seed, 30, webhooks=True) == plan_chaos(seed, 30, webhooks=True)
    assert plan_traffic(1, 30, 60, 40, beside_us=True) != plan_traffic(2, 30, 60, 40, beside_us=True)
    assert plan_chaos(1, 30, webhooks=True) != plan_chaos(2, 30, webhooks=True)


def test_every_fault_is_done_by_some_seed() -> None:
    named = {kind for kinds in (*HEAVY.values(), *LIGHT.values()) for kind in kinds}
    plans = [plan_chaos(seed, 45, webhooks=True) for seed in SEEDS]
    assert {fault.kind for plan in plans for lane in plan.values() for fault in lane} == named
    assert set(Chaos.STEPS) == named


def test_every_kind_of_input_is_sent_by_some_seed() -> None:
    plans = [plan_traffic(seed, 30, 60, 40, beside_us=True) for seed in SEEDS]
    assert {event.kind for plan in plans for event in plan.events} == {"created", "cancelled", "junk", "skipped"}
    asks = {ask.op for plan in plans for who in plan.shoppers for ask in who.asks}
    assert {
        "process", "capture", "cancel", "refund", "get", "approve", "deny", "create", "expire", "dashboard refund",
        "refund fails", "dispute", "dispute won", "dispute lost",
    } == asks  # fmt: skip


@pytest.mark.parametrize("armed", [True, False])
async def test_the_wire_is_cut_after_the_commit_and_before_its_answer(database_url: str, armed: bool) -> None:
    execute(database_url, "create table kept (what text)")
    address = urlsplit(database_url)
    assert address.hostname is not None and address.port is not None
    async with CommitCutter(address.hostname, address.port) as wire:
        near = f"{address.username}:{address.password}@127.0.0.1:{wire.port}"
        url = urlunsplit(("postgresql", near, address.path, address.query, ""))

        def commit() -> None:
            with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
                connection.autocommit = True
                cursor.execute("select 1")  # no commit: it is let through
                cursor.execute("insert into kept values ('PaymentCreated')")

        struck = wire.cut_at_commit(0.2) if armed else None
        if struck is not None:
            with pytest.raises(psycopg2.OperationalError):
                await asyncio.to_thread(commit)
            await asyncio.wait_for(struck, 5)
        else:
            await asyncio.to_thread(commit)
    assert execute(database_url, "select count(*) from kept") == [(1,)]
