"""Workers that die in the middle of provider calls, and those that come after them, on a real PostgreSQL: whatever
state a call was left in, it is settled, and no money moves twice. A lease ends by the database's clock."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from rigs.desk_rig import Clock, NoMetrics
from rigs.ledger_provider import DROP_ANSWER, DROP_REQUEST, HANG_AFTER, HANG_BEFORE, HANG_UNSENT, LedgerProvider
from rigs.store_worker import Worker
from servers.postgres import execute as sql

from payment_service.adapters.postgres import statement
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.core.commands import Cancel, Command, CreatePayment, RequestRefund, StartCapture, StartCharge
from payment_service.core.errors import Refused
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import Payment, attempt_in_the_way, status_of
from payment_service.core.terms import REFUND_OPEN, CaptureMethod, Kind, RefundStatus, Status
from payment_service.core.use_cases import perform_effects, reconcile
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.operator_desk import Decision, decide_by_hand
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.core.use_cases.provider_calls import CallContext

LEASE_S, DEADLINE_S, WINDOW_S = 0.8, 0.4, 30.0
SETTLED_S = 20.0
PAID, HELD = Status.SUCCEEDED, Status.AUTHORIZED


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups at short intervals."""
    monkeypatch.setattr(statement, "LOOK_AGAIN_S", 0.1)
    monkeypatch.setattr(reconcile, "LOOKUP_DELAYS_S", (0.1,) * 8)
    monkeypatch.setattr(perform_effects, "POLL_S", 0.1)


class Site:
    """Workers on one database and one provider."""

    def __init__(self, url: str, provider: LedgerProvider) -> None:
        self.url, self.provider = url, provider
        self.workers: list[OneWorker] = []

    def worker(self, name: str, window_s: float = WINDOW_S) -> "OneWorker":
        worker = OneWorker(self, name, window_s)
        self.workers.append(worker)
        return worker

    async def payment(self, order: str) -> Payment:
        loaded = await self.workers[-1].store.load(payment_id_of(order))
        assert loaded.payment is not None
        return loaded.payment

    async def until(self, reached: Callable[[Payment], bool], *orders: str) -> list[Payment]:
        deadline = time.monotonic() + SETTLED_S
        while True:
            payments = [await self.payment(order) for order in orders]
            left = [payment for payment in payments if not reached(payment)]
            if not left:
                return payments
            assert time.monotonic() < deadline, f"{len(left)} did not come so far: {left[0]}"
            await asyncio.sleep(0.05)

    async def settled(self, *orders: str) -> list[Payment]:
        payments = await self.until(is_settled, *orders)
        self.provider.check()
        for payment in payments:
            assert self.provider.taken(payment.payment_id) == payment.captured - payment.refunded
        assert sql(self.url, "select id from payment_service.transactions where due_at is not null") == []
        return payments


class OneWorker:
    def __init__(self, site: Site, name: str, window_s: float) -> None:
        self.base = Worker(site.url)
        self.store = self.base.store
        self.execute = Execute(self.store, Clock(), name, LEASE_S)
        self.effects = Effects(
            self.execute, PostgresCallQueue(self.base.database, self.base.cipher), {"MOCK": site.provider}, Clock(),
            NoMetrics(), name, LEASE_S, DEADLINE_S, 3_600_000, 50, window_s, frozenset({"PROVIDER_TIMEOUT"}),
        )  # fmt: skip
        self.execute.on_scheduled = self.effects.wake
        self.runner: asyncio.Task[None] | None = None

    def run(self) -> None:
        self.runner = asyncio.create_task(self.effects.run())

    async def start(self, command: Command, *, send: bool = True) -> None:
        """Commit an intent of this worker's own, and call unless it dies right there."""
        outcome = await self.execute(command, CallContext(method_token="tok_visa"))
        if send:
            release = await self.effects.admit()
            self.effects.start(outcome.intents[0].call, outcome.claimed_at, release)

    async def kill(self) -> None:
        """As -9 does: nothing is put back, nothing is recorded."""
        left = {*self.effects._running.values(), *([self.runner] if self.runner is not None else [])}
        while left:  # the driver may take a cancellation for its own
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.2)


@asynccontextmanager
async def site_on(url: str) -> AsyncIterator[Site]:
    site = Site(url, LedgerProvider())
    try:
        yield site
    finally:
        site.provider.release()
        for worker in site.workers:
            await worker.kill()
            await worker.base.close()


def is_settled(payment: Payment) -> bool:
    refunding = any(refund.status in REFUND_OPEN for refund in payment.refunds)
    return attempt_in_the_way(payment) is None and not refunding


def order(order_id: str, *, charge: bool = False, manual: bool = False) -> CreatePayment:
    method = CaptureMethod.MANUAL if manual else CaptureMethod.AUTOMATIC
    return CreatePayment(
        payment_id_of(order_id), f"order:{order_id}", 1, "order", order_id, "ann", 1050, "USD", "MOCK",
        capture_method=method, by_order=True, charge=charge,
    )  # fmt: skip


def charge(order_id: str) -> StartCharge:
    return StartCharge(payment_id_of(order_id), "", 2, "user:ann", "ann", has_method=True)


def cancelled(order_id: str) -> Cancel:
    return Cancel(payment_id_of(order_id), f"cancel:{order_id}", 3, "order", by_order=True, order_id=order_id)


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(500):
        if reached():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


async def left_open(site: Site, order_id: str, operation: str, fault: str, *, manual: bool = False) -> OneWorker:
    """A charge whose worker is killed while `operation` hangs."""
    dead = site.worker(f"dead-{order_id}")
    await dead.execute(order(order_id, manual=manual))
    site.provider.faults[operation] = [fault]
    await dead.start(charge(order_id))
    reached = {HANG_AFTER: site.provider.count(operation) + 1, HANG_BEFORE: site.provider.count(operation)}[fault]
    await until(lambda: not site.provider.faults[operation] and site.provider.count(operation) >= reached)
    await dead.kill()
    return dead


@pytest.mark.parametrize("window_s", [WINDOW_S, 0.0], ids=["in-window", "too-late"])
@pytest.mark.parametrize(
    ("operation", "fault", "moved"),
    [
        ("", "", False),
        ("create", HANG_BEFORE, False),
        ("create", HANG_AFTER, False),
        ("send:CHARGE", HANG_BEFORE, False),
        ("send:CHARGE", HANG_AFTER, True),
    ],
    ids=["never-sent", "object-not-made", "object-not-committed", "not-arrived", "done-unheard"],
)
async def test_two_workers_settle_what_a_dead_one_left(
    database_url: str, operation: str, fault: str, moved: bool, window_s: float
) -> None:
    async with site_on(database_url) as site:
        if operation:
            await left_open(site, "o1", operation, fault)
        else:
            dead = site.worker("dead")
            await dead.execute(order("o1"))
            await dead.start(charge("o1"), send=False)
        for name in ("w2", "w3"):
            site.worker(name, window_s).run()
        (payment,) = await site.settled("o1")
        key = f"{payment.payment_id}:charge:1"
        if moved or window_s:
            assert status_of(payment) is PAID
        else:  # too late to send it again: a definite no, and nothing of it can be paid any more
            assert status_of(payment) is (Status.FAILED if operation == "send:CHARGE" else Status.PENDING)
            assert payment.object_id is None or site.provider.things[payment.object_id].state == "cancelled"
            assert site.provider.count("send:CHARGE", key) == 0
        assert len(site.provider.movements) == (1 if moved or window_s else 0)
        assert payment.review == ()


async def test_a_zombie_that_wakes_up_charges_nothing(database_url: str) -> None:
    """Stopped for longer than its lease while the object was made; another worker has finished meanwhile."""
    async with site_on(database_url) as site:
        zombie = site.worker("zombie")
        await zombie.execute(order("o1"))
        site.provider.faults["create"] = [HANG_AFTER]
        await zombie.start(charge("o1"))
        site.worker("w2").run()
        await site.settled("o1")
        site.provider.release()
        await asyncio.gather(*zombie.effects._running.values())
        (payment,) = await site.settled("o1")
        assert status_of(payment) is PAID and payment.review == ()
        assert site.provider.count("send:CHARGE") == 1


async def test_a_zombie_that_wakes_while_another_worker_charges_leaves_it_to_that_one(database_url: str) -> None:
    async with site_on(database_url) as site:
        zombie, heir = site.worker("zombie"), site.worker("heir")
        await zombie.execute(order("o1"))
        site.provider.faults = {"create": [HANG_AFTER], "send:CHARGE": [HANG_AFTER]}
        await zombie.start(charge("o1"))
        heir.run()
        await until(lambda: site.provider.count("send:CHARGE") == 1)
        site.provider.release("create")
        assert await asyncio.gather(*zombie.effects._running.values()) == [None]
        assert site.provider.count("send:CHARGE") == 1
        site.provider.release("send:CHARGE")
        (payment,) = await site.settled("o1")
        assert status_of(payment) is PAID and payment.review == ()


@pytest.mark.parametrize("heir_is", ["another", "itself"])
@pytest.mark.parametrize("operation", ["create", "send:CHARGE", "send:REFUND"])
async def test_a_zombie_that_sent_nothing_is_not_heard_while_it_is_sent_again(
    database_url: str, operation: str, heir_is: str
) -> None:
    """Else a refund's amount is free again while its money moves, and whoever asks again gets it twice."""
    async with site_on(database_url) as site:
        zombie = site.worker("zombie")
        heir = site.worker("heir") if heir_is == "another" else zombie
        await zombie.execute(order("o1"))
        sent, pid = operation, payment_id_of("o1")
        if operation == "send:REFUND":
            await zombie.start(charge("o1"))
            await site.settled("o1")
        else:
            sent = "send:CHARGE"
        site.provider.faults = {operation: [HANG_UNSENT]}
        site.provider.faults.setdefault(sent, []).append(HANG_AFTER)
        await zombie.start(RequestRefund(pid, "", 4, "service", None, 500) if sent == "send:REFUND" else charge("o1"))
        (call,) = zombie.effects._running.values()
        heir.run()
        await until(lambda: site.provider.count(sent) == 1)
        site.provider.release("unsent")
        await call
        payment = await site.payment("o1")
        open_still = payment.refunds[0].status in REFUND_OPEN if sent == "send:REFUND" else not is_settled(payment)
        assert open_still, "the money has moved"
        site.provider.release(sent)
        (payment,) = await site.settled("o1")
        assert payment.review == ()


@pytest.mark.parametrize("said", ["not-sent", "declined"])
async def test_a_person_says_no_to_nothing_that_is_being_sent(database_url: str, said: str) -> None:
    """They looked, and it was not there: it is on its way, sent once more. Refunded again it would be paid twice."""
    async with site_on(database_url) as site:
        worker = site.worker("w1")
        await worker.execute(order("o1"))
        await worker.start(charge("o1"))
        await site.settled("o1")
        pid = payment_id_of("o1")
        site.provider.faults["send:REFUND"] = [DROP_REQUEST, HANG_AFTER]
        await worker.start(RequestRefund(pid, "", 4, "service", None, 500))
        worker.run()
        await until(lambda: site.provider.count("send:REFUND") == 1)
        no = Decision(said, "it is not in the dashboard", refund=1)
        with pytest.raises(Refused) as refused:
            await decide_by_hand(worker.execute, pid, "operator:eve", no)
        assert refused.value.code == "INVALID_STATE"
        site.provider.release()
        (payment,) = await site.settled("o1")
        assert (payment.refunded, payment.review) == (500, ())


@pytest.mark.parametrize("kind", [Kind.CAPTURE, Kind.REFUND, Kind.VOID])
@pytest.mark.parametrize("fault", [DROP_REQUEST, DROP_ANSWER])
async def test_what_follows_a_charge_is_settled_too(database_url: str, kind: Kind, fault: str) -> None:
    async with site_on(database_url) as site:
        worker = site.worker("w1")
        worker.run()
        await worker.execute(order("o1", manual=kind is not Kind.REFUND))
        await worker.start(charge("o1"))
        await site.settled("o1")
        pid = payment_id_of("o1")
        site.provider.faults[f"send:{kind}"] = [fault]
        site.provider.faults["lookup"] = [DROP_ANSWER]  # says nothing, so that nothing may follow from it
        if kind is Kind.CAPTURE:
            await worker.start(StartCapture(pid, "", 4, "service"))
        elif kind is Kind.REFUND:
            await worker.start(RequestRefund(pid, "", 4, "service"))
        else:
            await worker.execute(cancelled("o1"))
        (payment,) = await site.settled("o1")
        expected = {Kind.CAPTURE: PAID, Kind.REFUND: Status.REFUNDED, Kind.VOID: Status.CANCELLED}
        assert status_of(payment) is expected[kind]


@pytest.mark.parametrize("kind", [Kind.CAPTURE, Kind.REFUND])
async def test_a_late_capture_or_refund_is_never_guessed_and_a_person_is_asked(
    database_url: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "KEYS_KEPT_S", 0.0)  # the provider may have forgotten its key
    async with site_on(database_url) as site:
        worker = site.worker("w1", window_s=0.0)
        worker.run()
        await worker.execute(order("o1", manual=kind is Kind.CAPTURE))
        await worker.start(charge("o1"))
        await site.settled("o1")
        pid, key = payment_id_of("o1"), f"{payment_id_of('o1')}:{kind.lower()}:{2 if kind is Kind.CAPTURE else 1}"
        site.provider.faults[f"send:{kind}"] = [DROP_REQUEST]
        command: Command = StartCapture(pid, "", 4, "service")
        await worker.start(command if kind is Kind.CAPTURE else RequestRefund(pid, "", 4, "service"))
        (payment,) = await site.until(lambda payment: bool(payment.review), "o1")
        assert payment.review == (f"NO_ANSWER:{'attempt:2' if kind is Kind.CAPTURE else 'refund:1'}",)
        looked = site.provider.count("lookup", key)
        assert looked >= 7 and site.provider.count(f"send:{kind}") == 0
        await asyncio.sleep(1.0)
        assert site.provider.count("lookup", key) > looked, "it is looked up for ever"
        unknown = status_of(payment) if kind is Kind.CAPTURE else payment.refunds[0].status
        assert unknown in (Status.UNKNOWN, RefundStatus.UNKNOWN)


async def test_a_cancelled_charge_is_not_sent_again_but_cancelled_there(database_url: str) -> None:
    async with site_on(database_url) as site:
        await left_open(site, "o1", "send:CHARGE", HANG_BEFORE)
        late = site.worker("w2")
        await late.execute(cancelled("o1"))
        late.run()
        (payment,) = await site.settled("o1")
        assert status_of(payment) is Status.CANCELLED
        assert site.provider.count("send:CHARGE") == 0
        assert [thing.state for thing in site.provider.things.values()] == ["cancelled"]


async def test_scheduled_charges_of_a_dead_worker_are_done_once(database_url: str) -> None:
    """Some were never claimed, some were claimed and not sent, some were sent."""
    orders = [f"o{number}" for number in range(30)]
    async with site_on(database_url) as site:
        dead = site.worker("dead")
        site.provider.faults = {"create": [HANG_BEFORE, HANG_AFTER] * 5, "send:CHARGE": [HANG_AFTER, HANG_BEFORE] * 5}
        for order_id in orders[:20]:
            await dead.execute(order(order_id, charge=True))
        dead.run()
        await asyncio.sleep(0.4)
        await dead.kill()
        for order_id in orders[20:]:
            await dead.execute(order(order_id, charge=True))
        for name in ("w2", "w3"):
            site.worker(name).run()
        payments = await site.settled(*orders)
        assert {status_of(payment) for payment in payments} == {PAID}


@pytest.mark.parametrize("seed", [1, 2, random.SystemRandom().randrange(10**6)], ids=["1", "2", "another"])
async def test_any_faults_and_deaths_end_with_the_books_in_order(database_url: str, seed: int) -> None:
    """Requests and answers are lost, workers die at any moment, orders are cancelled in between."""
    dice = random.Random(seed)
    orders = [f"o{number}" for number in range(40)]
    async with site_on(database_url) as site:
        kinds = ["create", "send:CHARGE", "send:AUTHORIZE", "send:VOID", "send:REFUND", "lookup"]
        chances = ["", "", "", DROP_REQUEST, DROP_ANSWER, HANG_BEFORE, HANG_AFTER]
        site.provider.faults = {kind: dice.choices(chances, k=30) for kind in kinds}
        window_s = dice.choice([WINDOW_S, 1.5, 0.0])
        racing = [site.worker(f"w{number}", window_s) for number in range(2)]
        for worker in racing:
            worker.run()
        for number, order_id in enumerate(orders):
            worker = dice.choice(racing)
            by_order = dice.random() < 0.5
            await worker.execute(order(order_id, charge=by_order, manual=dice.random() < 0.2))
            if not by_order:
                await worker.start(charge(order_id), send=dice.random() < 0.8)
            if dice.random() < 0.2:
                await worker.execute(cancelled(order_id))
            if number % 10 == 9:  # one dies, another takes its place
                dead = racing.pop(dice.randrange(2))
                await dead.kill()
                racing.append(site.worker(f"w{10 + number}", window_s))
                racing[-1].run()
        await asyncio.sleep(0.5)
        site.provider.faults.clear()
        site.provider.release()
        payments = await site.settled(*orders)
        for payment in payments:
            held = [it.state for it in site.provider.things.values() if it.payment_id == payment.payment_id]
            assert held.count("held") == (status_of(payment) is HELD), f"seed {seed}: {payment}"
            assert not (payment.cancel_requested and status_of(payment) in (PAID, HELD)), f"seed {seed}"
            assert not any("CONTRADICTED" in reason for reason in payment.review), f"seed {seed}: {payment}"
