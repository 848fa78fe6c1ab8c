"""What was told to the broker every minute shows what a chain alone cannot: a cut end, a payment that is gone."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from rigs.changes import answer, change_of, charge
from rigs.counted import CountedMetrics
from rigs.outbox_site import Site
from rigs.store_worker import Worker, working
from rigs.stores import KEY
from servers.postgres import execute
from servers.waiting import until

from payment_service.adapters import audit_anchors
from payment_service.adapters.audit_anchors import AuditAnchors, read_anchors
from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.kafka_topics import AUDIT_ANCHORS
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.audit_verifier import AuditVerifier
from payment_service.adapters.publisher import OutboxPublisher
from payment_service.core.audit import AuditEntry, Verified
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Committed
from payment_service.core.terms import Verdict

PAYMENT = payment_id_of("o1")


@pytest.fixture(params=["tansu_broker", pytest.param("kafka_broker", marks=pytest.mark.kafka)])
def site(request: pytest.FixtureRequest, database_url: str) -> Iterator[Site]:
    made = Site(request.getfixturevalue(request.param), database_url, f"t{uuid.uuid4().hex[:8]}.")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
async def publisher(site: Site) -> AsyncIterator[OutboxPublisher]:
    await site.topics(AUDIT_ANCHORS)
    async with site.publisher() as (opened, _):
        await until(lambda: opened.connected, "the broker is there")
        yield opened


@pytest.fixture
async def worker(site: Site) -> AsyncIterator[Worker]:
    async with working(site.dsn) as opened:
        yield opened


class Anchoring:
    """A worker's audit log and anchors beside its store."""

    def __init__(self, worker: Worker, publisher: OutboxPublisher) -> None:
        clock = SystemClock()
        self.audit = PostgresAuditLog(worker.database, chain_key(KEY), "w", clock, CountedMetrics())
        self.anchors = AuditAnchors(publisher, self.audit, worker.cipher, clock, CountedMetrics())
        worker.store.on_head = self.anchors.changed

    async def record(self, count: int) -> None:
        for number in range(count):
            self.audit.record(AuditEntry(number, "payment.create", "OK", "user:u1", payment_id=PAYMENT))
        await self.audit.flush()


@pytest.fixture
async def anchoring(worker: Worker, publisher: OutboxPublisher) -> AsyncIterator[Anchoring]:
    made = Anchoring(worker, publisher)
    yield made
    await made.audit.close()


async def charged(worker: Worker) -> None:
    """Two payments: one with three versions, one with one."""
    await worker.create("o1", "o2")
    for command in (charge(PAYMENT), answer(PAYMENT, Verdict.APPROVED)):
        loaded = await worker.store.load(PAYMENT)
        assert await worker.store.commit(change_of(command, loaded)) is Committed.COMMITTED


async def problems(site: Site, worker: Worker, payment_id: str | None = None) -> list[str]:
    verifier = AuditVerifier(
        worker.database, (chain_key(KEY),),
        lambda: read_anchors(KafkaClient(site.broker), site.prefix + AUDIT_ANCHORS, worker.cipher, 1.0),
    )  # fmt: skip
    await verifier.read_anchors()
    parts: list[Verified] = [part async for part in verifier.verify(payment_id)]
    return [f"{it.kind} {it.where}: {it.what}" for part in parts for it in part.problems]


async def test_what_is_as_it_was_written_verifies(site: Site, worker: Worker, anchoring: Anchoring) -> None:
    await worker.create("o3")
    await anchoring.anchors.anchor()
    await charged(worker)
    await anchoring.record(3)
    await anchoring.anchors.anchor()
    await anchoring.anchors.anchor()  # nothing changed: nothing is sent
    await charged_more(worker)  # after the last anchor: more than was anchored is no fault
    assert await problems(site, worker) == []
    assert await problems(site, worker, PAYMENT) == []
    read = await read_anchors(KafkaClient(site.broker), site.prefix + AUDIT_ANCHORS, worker.cipher, 1.0)
    assert (read.count, read.payments[PAYMENT][0], read.chains[anchoring.audit.chain][0]) == (2, 3, 4)


async def charged_more(worker: Worker) -> None:
    await worker.create("o4")
    assert await worker.store.commit(await worker.cancel_of(payment_id_of("o2"))) is Committed.COMMITTED


ROW = f"payment_service.payments where id = '{PAYMENT}'"
EVENTS = f"payment_service.payment_events where payment_id = '{PAYMENT}'"
UNDO = (
    "update payment_service.payments p set version = 1, state = o.state, chain_head = e.hash "
    "from payment_service.payments o, payment_service.payment_events e "
    f"where p.id = '{PAYMENT}' and o.id = '{payment_id_of('o2')}' and e.payment_id = p.id and e.version = 1"
)


@pytest.mark.parametrize(
    ("tampering", "problem"),
    [
        ((f"delete from {ROW}", f"delete from {EVENTS}"), "removed: it had come to version 3"),
        ((f"delete from {EVENTS} and version > 1", UNDO), "its end is missing: it had come to version 3"),
        (("delete from payment_service.audit_log where number > 2",), "its end is missing: it had 4 rows"),
        (("delete from payment_service.audit_log",), "removed: it had 4 rows"),
    ],
)
async def test_what_a_chain_alone_does_not_show(
    site: Site, worker: Worker, anchoring: Anchoring, tampering: tuple[str, ...], problem: str
) -> None:
    await charged(worker)
    await anchoring.record(3)
    await anchoring.anchors.anchor()
    for table in ("payment_events", "audit_log"):
        execute(site.dsn, f"alter table payment_service.{table} disable trigger all")
    for statement in tampering:
        execute(site.dsn, statement)
    found = await problems(site, worker)
    assert any(problem in it for it in found), found
    if "payments" in str(tampering):
        assert any(problem in it or "its end is missing" in it for it in await problems(site, worker, PAYMENT))


async def test_what_a_command_did_is_anchored_by_a_worker(site: Site, worker: Worker, anchoring: Anchoring) -> None:
    command = PostgresAuditLog(worker.database, chain_key(KEY), "cli:host:1", SystemClock(), CountedMetrics())
    command.record(AuditEntry(SystemClock().now_ms(), "payment.resolve", "OK", "operator:ann"))
    await command.close()
    await anchoring.anchors.anchor()
    await anchoring.anchors.anchor()
    read = await read_anchors(KafkaClient(site.broker), site.prefix + AUDIT_ANCHORS, worker.cipher, 1.0)
    assert (read.count, read.chains[command.chain][0]) == (1, 3)
    execute(site.dsn, "alter table payment_service.audit_log disable trigger all")
    execute(site.dsn, "delete from payment_service.audit_log")
    assert await problems(site, worker) == [f"audit {command.chain}: removed: it had 3 rows when it was anchored"]


async def test_a_missing_or_foreign_anchor_is_told(
    site: Site, worker: Worker, anchoring: Anchoring, publisher: OutboxPublisher
) -> None:
    await worker.create("o1")
    await anchoring.anchors.anchor()
    anchoring.anchors._number = 4  # as if 2 to 4 had been removed
    await worker.create("o2")
    await anchoring.anchors.anchor()
    await publisher.send(AUDIT_ANCHORS, b"k", b"v", [("chain", b"c"), ("number", b"1")])
    found = await problems(site, worker)
    assert len(found) == 2
    assert any("anchor 2 is missing: 5 comes next" in it for it in found)
    assert any("sealed with a key" in it for it in found)


async def test_many_payments_go_in_several_messages(
    site: Site, worker: Worker, anchoring: Anchoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_anchors, "PAYMENTS_OF_ONE_MAX", 2)
    monkeypatch.setattr(audit_anchors, "PAYMENTS_WAITING_MAX", 5)
    await worker.create(*(f"o{number}" for number in range(7)))
    await anchoring.anchors.anchor()
    read = await read_anchors(KafkaClient(site.broker), site.prefix + AUDIT_ANCHORS, worker.cipher, 1.0)
    assert (read.count, len(read.payments)) == (3, 5)


async def test_anchors_wait_for_a_broker_that_is_away(worker: Worker, site: Site) -> None:
    async with site.publisher("127.0.0.1:1") as (away, _):
        anchoring = Anchoring(worker, away)
        await worker.create("o1")
        await anchoring.anchors.anchor()
    await site.topics(AUDIT_ANCHORS)
    async with site.publisher() as (there, _):
        await until(lambda: there.connected, "the broker is there")
        anchoring.anchors._publisher = there
        await worker.create("o2")
        await anchoring.anchors.anchor()
    read = await read_anchors(KafkaClient(site.broker), site.prefix + AUDIT_ANCHORS, worker.cipher, 1.0)
    assert (read.count, set(read.payments)) == (2, {PAYMENT, payment_id_of("o2")})
    assert read.problems == []
