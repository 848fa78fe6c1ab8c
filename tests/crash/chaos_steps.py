"""Doing what chaos.py planned. Each fault is noted before it is done; whatever it takes away comes back by itself."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar

import aiohttp
from crash.chaos import HEAVY, LIGHT, WORKERS, Fault
from crash.random_site import Site

MOMENT_WAIT_S = 2.0
"""How long a fault waits for its moment before it strikes without one."""
MOMENT_POLL_S = 0.003
UP_POLL_S = 0.1
NEXT_TIMES = 2
MONEY_PATHS = {
    "mock": ("/mock/send",),
    "stripe": ("/v1/refunds", "/v1/payment_intents/"),
    "paypal": ("/v2/payments/captures/", "/v2/checkout/orders/"),
}
"""Where each provider is asked to move money."""
TAKES_WORKERS = frozenset((*LIGHT["workers"], *HEAVY["workers"]))
DOWN_S = 0.5
WITHOUT_DATABASE_S = 1.2
"""Longer than two commits of offsets."""


class Chaos:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._later: set[asyncio.Task[None]] = set()

    async def run(self, plan: tuple[Fault, ...], until: float) -> None:
        for fault in plan:
            await asyncio.sleep(fault.pause_s)
            if fault.kind in TAKES_WORKERS and fault.patient:
                await self._until_up(until)
            if time.monotonic() >= until:
                return
            self._site.history.fault(fault.kind, who=fault.who, for_s=round(fault.for_s, 3), rates=dict(fault.rates))
            await self.STEPS[fault.kind](self, fault)

    async def _until_up(self, until: float) -> None:
        while time.monotonic() < until:
            running = [worker for worker in self._site.workers if worker.running]
            answers = [await worker.try_call("GET", "/health") for worker in running]
            if len(answers) == WORKERS and None not in answers:
                return
            await asyncio.sleep(UP_POLL_S)

    async def end(self) -> None:
        """Nothing is broken any more, and everything runs."""
        site = self._site
        await asyncio.gather(*self._later)
        for number in range(WORKERS):
            site.thaw(number)
            site.revive(number)
            await site.wires[number].cut()
            await site.wires[number].mend()
        await site.sim.ready()
        await site.sim.ask("POST", "/_sim/faults", {})

    # --- workers ---------------------------------------------------------------------------------------------

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _back(self, number: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._site.revive(number)

    async def _kill(self, fault: Fault) -> None:
        self._site.kill(fault.who)
        self._soon(self._back(fault.who, fault.for_s))

    async def _both(self, fault: Fault) -> None:
        for number in range(WORKERS):
            await self._kill(Fault(0, fault.kind, number, fault.for_s))

    async def _stop(self, fault: Fault) -> None:
        await self._site.stop(fault.who)
        self._soon(self._back(fault.who, fault.for_s))

    async def _freeze(self, fault: Fault) -> None:
        if self._site.freeze(fault.who):
            self._soon(self._thaw(fault))

    async def _thaw(self, fault: Fault) -> None:
        await asyncio.sleep(fault.for_s)
        self._site.thaw(fault.who)

    async def _owner(self, find: Callable[[], int | None], otherwise: int) -> tuple[int, bool]:
        """Whose moment it is, as soon as there is one."""
        deadline = time.monotonic() + MOMENT_WAIT_S
        while time.monotonic() < deadline:
            owner = find()
            if owner is not None and owner not in self._site.frozen:
                return owner, True
            await asyncio.sleep(MOMENT_POLL_S)
        return otherwise, False

    async def _kill_with_open_call(self, fault: Fault) -> None:
        who, found = await self._owner(self._site.owner_of_open_call, fault.who)
        await asyncio.sleep(fault.for_s)
        self._site.history.note("struck", kind=fault.kind, who=who, in_its_moment=found)
        await self._kill(Fault(0, fault.kind, who, DOWN_S))

    async def _kill_outbox_owner(self, fault: Fault) -> None:
        who, found = await self._owner(self._site.owner_of_outbox, fault.who)
        self._site.history.note("struck", kind=fault.kind, who=who, in_its_moment=found)
        await self._kill(Fault(0, fault.kind, who, DOWN_S))

    async def _freeze_outbox_owner(self, fault: Fault) -> None:
        who, found = await self._owner(self._site.owner_of_outbox, fault.who)
        self._site.history.note("struck", kind=fault.kind, who=who, in_its_moment=found)
        await self._freeze(Fault(0, fault.kind, who, fault.for_s))

    async def _kill_without_database(self, fault: Fault) -> None:
        """What it has read and not committed must not count as read."""
        await self._site.wires[fault.who].cut()
        await asyncio.sleep(WITHOUT_DATABASE_S)
        self._site.kill(fault.who)
        await self._site.wires[fault.who].mend()
        self._soon(self._back(fault.who, fault.for_s))

    # --- wires and servers -----------------------------------------------------------------------------------

    async def _cut(self, fault: Fault) -> None:
        struck = self._site.wires[fault.who].cut_at_commit(fault.for_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(struck, MOMENT_WAIT_S)
        self._site.history.note("struck", kind=fault.kind, who=fault.who, in_its_moment=not struck.cancelled())

    async def _drop(self, fault: Fault) -> None:
        self._site.wires[fault.who].drop()

    async def _away(self, fault: Fault) -> None:
        await self._site.wires[fault.who].cut()
        await asyncio.sleep(fault.for_s)
        await self._site.wires[fault.who].mend()

    async def _database(self, fault: Fault) -> None:
        await self._site.servers.postgres.kill()
        await asyncio.sleep(fault.for_s)
        await self._site.servers.postgres.start()

    async def _broker(self, fault: Fault) -> None:
        # Beside the others: it takes as long as ten of them.
        self._soon(self._site.servers.restart_kafka(kill=fault.kind == "broker killed", away_s=fault.for_s))

    async def _offsets(self, fault: Fault) -> None:
        site = self._site
        await asyncio.gather(*(site.stop(number) for number in range(WORKERS)))
        for number in range(WORKERS):
            site.kill(number)  # one that was frozen
        done = await site.reset_offsets()
        site.history.note("struck", kind=fault.kind, in_its_moment=done)
        for number in range(WORKERS):
            site.revive(number)

    async def _sim(self, fault: Fault) -> None:
        self._site.sim.kill()
        await asyncio.sleep(fault.for_s)
        self._site.sim.start()
        await self._site.sim.ready()

    async def _rates(self, fault: Fault) -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            paths = MONEY_PATHS[self._site.provider]
            planned = [{"path": path, "fault": fault.next_fault, "times": NEXT_TIMES} for path in paths]
            body = {"rates": dict(fault.rates), "delay_ms": 800, "seed": fault.who, "next": planned}
            await self._site.sim.ask("POST", "/_sim/faults", body)

    STEPS: ClassVar[dict[str, Callable[["Chaos", Fault], Awaitable[None]]]] = {
        "worker killed": _kill,
        "worker stopped": _stop,
        "worker frozen": _freeze,
        "both killed": _both,
        "killed between intent and send": _kill_with_open_call,
        "killed without database": _kill_without_database,
        "outbox owner killed": _kill_outbox_owner,
        "outbox owner frozen": _freeze_outbox_owner,
        "cut at commit": _cut,
        "connections cut": _drop,
        "database away": _away,
        "database killed": _database,
        "broker killed": _broker,
        "broker restarted": _broker,
        "offsets reset": _offsets,
        "sim killed": _sim,
        "sim faults": _rates,
    }
