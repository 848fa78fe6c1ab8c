"""One life of a worker: recover what the lives before left, then go on with the script, until killed or done.

Runs in a forked process that never returns. What the outside world would do between two lives is done first: the
orders are delivered again, from the beginning, and the clients that got no answer ask again.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import uvloop
from crash.exhaustive_audit import Auditor, connect
from crash.exhaustive_journal import Deaths, Journal, Kill
from crash.exhaustive_ledger import LedgerProvider
from crash.exhaustive_ports import put_in_place
from crash.exhaustive_stories import AMOUNT, Step, Story

from payment_service import app
from payment_service.adapters.settings import Settings
from payment_service.agents.order_events import OrderEvents
from payment_service.agents.records import Record
from payment_service.codecs.order_events import OrderRules
from payment_service.core.errors import OutcomeUnknown, PaymentError
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import status_of
from payment_service.core.terms import CaptureMethod
from payment_service.core.use_cases.payment_requests import Answered, Caller

REST_S = 20.0
HURRIES_MAX = 40
"""How often the pauses of one payment are ended in one wait: enough for its whole cadence of look-ups, many times."""
HURRY_S = 0.02
"""Longest wait for everything to be settled and published, with every lease and pause shortened."""
LIFE_S = 60
LOOK_S = 0.004
LATER_MS = 4_000_000
"""More than a shopper has for acting."""
ONLY_IN_ORDER = {"refund", "cancel", "later"}
"""Requests that mean something else when they come after what followed them."""
PR_SET_PDEATHSIG = 1
BROKEN = 70
"""Exit code of a life that ended in an error of its own."""
USER = "ann"
UNSETTLED = """select
  (select count(*) from payment_service.transactions where payment_id = %s and due_at is not null),
  (select count(*) from payment_service.outbox where payment_id = %s),
  coalesce((select status from payment_service.payments where id = %s), '')"""
HURRY = "update payment_service.transactions set due_at = now() where payment_id = %s and due_at > now()"


@dataclass(slots=True)
class Run:
    """A story played once, over as many lives as it takes."""

    story: Story
    order_id: str
    journal: Journal
    database_url: str
    plant: str = ""

    @property
    def payment_id(self) -> str:
        return payment_id_of(self.order_id)


def live(run: Run, kill: Kill | None, log: Path) -> NoReturn:
    """Ends the process: 0 when the script is done, by SIGKILL at the place to die, by SIGALRM when it hangs."""
    try:
        file = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        _die_with_the_rig()
        signal.alarm(LIFE_S)
        os.environ.update(run.story.settings)
        deaths = Deaths(run.journal, kill)
        put_in_place(run.journal, deaths, run.plant)
        uvloop.run(_Life(run, deaths).play())
    except BaseException:  # it is told by the exit code, and by the log
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(BROKEN)


def _die_with_the_rig() -> None:
    """One that stands still would do so for ever. Linux only: elsewhere nobody stops the rig in its middle."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class _Life:
    def __init__(self, run: Run, deaths: Deaths) -> None:
        self._run = run
        self._deaths = deaths
        self._journal = run.journal
        self._services: Any = None
        self._orders: Any = None

    async def play(self) -> None:
        before = self._journal.lines("asked", "told")
        told = {line["step"] for line in before if line["line"] == "told"}
        asked = {line["step"] for line in before}
        async with app.build_services(Settings.load(None)) as services:
            self._services = services
            rules = OrderRules("MOCK", self._run.story.charges_orders, cancel_refunds_succeeded=False)
            self._orders = OrderEvents(services.execute, rules, services.clock.now_ms)
            tasks = [asyncio.create_task(services.effects.run()), asyncio.create_task(services.publisher.run())]
            if before:
                await self._deliver_again(asked)
                await self._rest()
                await self._check(Auditor.at_rest)
            for number, together in enumerate(self._run.story.steps):
                if self._deaths.stood_still:
                    break  # its clients have long gone to another worker
                names = [f"{number}.{place}" for place in range(len(together))]
                going = [
                    self._step(name, step, again=name in asked)
                    for name, step in zip(names, together, strict=True)
                    if name not in told
                ]
                await asyncio.gather(*going)
            await self._rest()
            await self._check(lambda auditor: auditor.at_the_end(self._ends()))
            for task in tasks:
                if task.done():
                    await task
            self._journal.write("done", counts=dict(self._deaths.counts))
            os._exit(0)  # it has nothing left to do: how a worker ends is no matter of this rig

    def _ends(self) -> frozenset[tuple[str, int, int]] | None:
        """None: only what holds of every end is looked at. What was asked of a worker that stood still is done late,
        and may be another request by then: a second refund, a payment that is opened again after it was cancelled."""
        asked = {step.what for together in self._run.story.steps for step in together}
        return None if self._deaths.stood_still and asked & ONLY_IN_ORDER else self._run.story.ends

    # --- the world -----------------------------------------------------------------------------------------------

    async def _deliver_again(self, asked: set[str]) -> None:
        """The offsets were set back to the beginning."""
        for number, together in enumerate(self._run.story.steps):
            for place, step in enumerate(together):
                if f"{number}.{place}" in asked and step.what.startswith("order."):
                    await self._order_event(step)

    async def _step(self, name: str, step: Step, *, again: bool) -> None:
        self._journal.write("asked", step=name, what=step.what)
        told: dict[str, Any] = {}
        try:
            if step.what == "rest":
                await self._rest()
            elif step.what == "approve":
                LedgerProvider(self._journal).approve(self._run.payment_id)
            elif step.what == "later":
                self._journal.write("later", ms=LATER_MS)
            elif step.what.startswith("order."):
                await self._order_event(step)
            elif not (again and step.what == "refund" and await self._refunded(step)):
                told = _shown(await self._request(step)())
        except PaymentError as error:
            told = {"error": error.code, "unknown": isinstance(error, OutcomeUnknown)}
        self._journal.write("told", step=name, what=step.what, **told)

    def _request(self, step: Step) -> Callable[[], Awaitable[Answered]]:
        desk, payment_id, ann = self._services.desk, self._run.payment_id, Caller(USER)
        match step.what:
            case "create" | "create_manual":
                manual = step.what == "create_manual"
                method = CaptureMethod.MANUAL if manual else CaptureMethod.AUTOMATIC
                return lambda: desk.create(
                    ann, order_id=self._run.order_id, amount=AMOUNT, currency="USD", provider=None, method=None,
                    capture_method=method, description=None, metadata={},
                )  # fmt: skip
            case "process":
                return lambda: desk.process(ann, payment_id, method=step.token, return_url=None, object_id=None)
            case "capture":
                return lambda: desk.capture(Caller(None, frozenset({"service"})), payment_id, amount=step.amount)
            case "cancel":
                return lambda: desk.cancel(ann, payment_id, reason=None)
            case "refund":
                return lambda: desk.refund(ann, payment_id, amount=step.amount, reason=None, metadata={})
        raise AssertionError(step.what)

    async def _refunded(self, step: Step) -> bool:
        """Whoever is not sure whether a refund was made looks before asking for another."""
        payment = (await self._services.desk.get(Caller(USER), self._run.payment_id)).payment
        return sum(refund.status not in ("FAILED", "CANCELLED") for refund in payment.refunds) >= step.nth

    async def _order_event(self, step: Step) -> None:
        body = {"type": step.what, "orderId": self._run.order_id, "userId": USER, "paymentMethodId": step.token}
        if step.what == "order.created":
            body |= {"totalAmount": AMOUNT, "currency": "USD"}
        value = json.dumps({name: it for name, it in body.items() if it is not None}).encode()
        work = self._orders.plan(Record("orders", 0, 0, None, value, (), 0))
        await work.start()

    # --- rest ----------------------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Until nothing is under way, open or unpublished. Leases and pauses end at once when nobody is at work."""
        loop = asyncio.get_running_loop()
        deadline, hurry_at, hurries = loop.time() + REST_S, 0.0, 0
        payment_id = self._run.payment_id
        while loop.time() < deadline and hurries < HURRIES_MAX:
            await asyncio.sleep(LOOK_S)
            if self._deaths.inside:
                continue
            ((calls, events, status),) = await self._services.database.fetch(UNSETTLED, (payment_id,) * 3)
            if self._deaths.inside:
                continue
            if not events and (not calls or self._waits_for_shopper(status)):
                return
            if calls and not self._waits_for_shopper(status) and loop.time() > hurry_at:
                hurry_at, hurries = loop.time() + HURRY_S, hurries + 1
                await self._services.database.fetch(HURRY, (payment_id,))
                self._services.effects.wake()
        self._journal.write("restless", calls=calls, events=events, status=status)

    def _waits_for_shopper(self, status: str) -> bool:
        if status != "REQUIRES_ACTION":
            return False
        kinds = [line["line"] for line in self._journal.lines("waits", "movement", "later")]
        return kinds[-1:] == ["waits"]

    async def _check(self, look: Callable[[Auditor], list[str]]) -> None:
        database = connect(self._run.database_url)
        auditor = Auditor(database, self._journal.lines(), self._run.order_id)
        wrong = look(auditor)
        database.close()
        if auditor.found and not wrong:
            wrong = await self._services.store.verify_chain(self._run.payment_id)
        for what in wrong:
            self._journal.write("violation", what=what)


def _shown(answered: Answered) -> dict[str, Any]:
    """Of an answer, what its client goes by."""
    refund = answered.refund
    return {
        "status": str(status_of(answered.payment)),
        "captured": answered.payment.captured, "refunded": answered.payment.refunded,
        "pending": answered.pending, "declined": answered.declined is not None,
        "refund": refund and {"status": str(refund.status), "amount_minor": refund.amount_minor},
    }  # fmt: skip
