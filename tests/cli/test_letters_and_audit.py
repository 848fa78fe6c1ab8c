"""`dead-letters` and `audit` as an operator uses them, on a real broker and PostgreSQL."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rigs.changes import change_of, create
from rigs.counted import CountedMetrics
from rigs.outbox_site import Site
from rigs.store_worker import working
from rigs.stores import KEY
from servers.postgres import execute
from servers.waiting import until

from payment_service import offline
from payment_service.adapters.audit_anchors import AuditAnchors
from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.kafka_topics import AUDIT_ANCHORS, DEAD_LETTERS
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.pool import Database
from payment_service.cli import main as entry
from payment_service.core.audit import AuditEntry
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Committed

Run = Callable[..., Result]
CARD = "4242 4242 4242 4242"
ORDER = {
    "type": "order.created",
    "orderId": "o-7",
    "note": CARD,
    "userId": "ann",
    "paymentMethodId": "tok_visa",
    "n": 5,
}


@pytest.fixture(params=["tansu_broker", pytest.param("kafka_broker", marks=pytest.mark.kafka)])
def site(request: pytest.FixtureRequest, database_url: str) -> Iterator[Site]:
    made = Site(request.getfixturevalue(request.param), database_url, f"t{uuid.uuid4().hex[:8]}.")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name, value in {
        "DATABASE_URL": site.dsn, "KAFKA_BROKERS": site.broker, "TOPIC_PREFIX": site.prefix, "DATA_DIR": str(tmp_path),
        "ENCRYPTION_KEY": KEY.decode(),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    # The embedded broker answers "latest offset" wrongly, and it is not known as embedded here.
    monkeypatch.setattr(offline, "_silence_s", lambda settings: 1.0)
    group = entry.program()
    return lambda *arguments: CliRunner().invoke(group, list(arguments), prog_name="payment-service")


async def _keep(site: Site, *values: bytes) -> None:
    await site.topics(DEAD_LETTERS, "orders")
    database = Database(site.dsn)
    async with site.publisher() as (publisher, _):
        await until(lambda: publisher.connected, "the broker is there")
        for number, value in enumerate(values):
            box = DeadLetterBox(publisher, database, None)
            await box.keep(f"{site.prefix}orders", 0, number, b"k", value, (), "VALIDATION_ERROR", "amount: is missing")
    await database.close()


def test_letters_are_listed_shown_and_sent_again(site: Site, run: Run) -> None:
    assert run("dead-letters", "list").exit_code == 1
    asyncio.run(_keep(site, json.dumps(ORDER).encode(), b"\xff junk"))
    listed = json.loads(run("dead-letters", "list", "--json").stdout)
    assert [(it["sourceOffset"], it["reason"], it["sentAgainAt"]) for it in listed] == [
        (0, "VALIDATION_ERROR", None), (1, "VALIDATION_ERROR", None),
    ]  # fmt: skip
    shown = run("dead-letters", "list", "--topic", "orders", "--reason", "VALIDATION_ERROR")
    assert "amount: is missing" in shown.stdout
    assert (
        run("dead-letters", "replay", "--reason", "VALIDATION_ERROR", "--dry-run").stdout
        == "2 letters are like that.\n"
    )
    sent = run("dead-letters", "replay", listed[0]["id"], "--operator", "ann")
    assert (sent.exit_code, sent.stdout) == (0, "1 sent\n")
    assert "comes back as a new letter" in sent.stderr
    counts = json.loads(run("dead-letters", "replay", "--all", "--operator", "ann", "--json").stdout)
    assert (counts["chosen"], counts["sent"], counts["already"], counts["failed"]) == (2, 1, 1, 0)
    tried = json.loads(run("audit", "list", "--json").stdout)
    assert {(it["actor"], it["result"]) for it in tried if it["action"] == "dead_letter.replay"} == {
        ("operator:ann", "OK"), ("operator:ann", "ALREADY"),
    }  # fmt: skip


def test_a_letter_shows_nothing_personal_and_never_a_card(site: Site, run: Run) -> None:
    asyncio.run(_keep(site, json.dumps(ORDER).encode(), b"\xff" + CARD.encode()))
    outline = json.loads(run("dead-letters", "show", f"{site.prefix}orders/0/0", "--json").stdout)
    assert outline["value"] == {
        "type": "order.created", "orderId": "o-7", "note": "(text of 19)", "userId": "(text of 3)",
        "paymentMethodId": "(text of 8)", "n": "(number)",
    }  # fmt: skip
    raw = run("dead-letters", "show", outline["id"], "--raw").stdout
    assert '"userId": "ann"' in raw
    assert CARD not in raw
    assert "tok_visa" not in raw
    junk = run("dead-letters", "show", f"{site.prefix}orders/0/1", "--raw")
    assert "\\xff[card number]" in junk.stdout
    assert "not JSON" in run("dead-letters", "show", f"{site.prefix}orders/0/1").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show", "nonsense"), 2), (("show", "0/99"), 1), (("replay",), 2), (("replay", "0/1", "--all"), 2),
        (("replay", "--all", "--operator", " "), 2), (("replay", "--reason", "NONE"), 1),
    ],
)  # fmt: skip
def test_used_wrongly_or_nothing_found(site: Site, run: Run, arguments: tuple[str, ...], code: int) -> None:
    assert run("dead-letters", *arguments).exit_code == code


def test_a_broker_that_is_away_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BROKERS", "127.0.0.1:1")
    listed = run("dead-letters", "list")
    assert (listed.exit_code, "without those of the broker" in listed.stderr) == (3, True)
    verified = run("audit", "verify")
    assert (verified.exit_code, "checked without anchors" in verified.stderr) == (3, True)
    assert run("audit", "verify", "--no-anchors").exit_code == 0


async def _live(site: Site) -> None:
    """What a worker writes: two payments, three attempts, and their anchor."""
    await site.topics(AUDIT_ANCHORS)
    async with site.publisher() as (publisher, _), working(site.dsn) as worker:
        await until(lambda: publisher.connected, "the broker is there")
        clock = SystemClock()
        audit = PostgresAuditLog(worker.database, chain_key(KEY), "w", clock, CountedMetrics())
        anchors = AuditAnchors(publisher, audit, worker.cipher, clock, CountedMetrics())
        worker.store.on_head = anchors.changed
        for order in ("o1", "o2"):
            assert await worker.store.commit(change_of(create(order))) is Committed.COMMITTED
            audit.record(AuditEntry(clock.now_ms(), "payment.create", "OK", "user:u1", order_id=order))
        audit.record(
            AuditEntry(clock.now_ms(), "payment.refund", "FORBIDDEN", "user:u1", payment_id=payment_id_of("o1"))
        )
        await audit.flush()
        await anchors.anchor()
        await audit.close()


def test_the_audit_log_is_listed_and_verified(site: Site, run: Run) -> None:
    asyncio.run(_live(site))
    of_one = json.loads(run("audit", "list", "--payment", payment_id_of("o1"), "--json").stdout)
    assert [(it["action"], it["result"]) for it in of_one] == [
        ("payment.refund", "FORBIDDEN"),
        ("payment.create", "OK"),
    ]
    assert "payment.refund" in run("audit", "list", "--limit", "4").stdout
    assert run("audit", "list", "--payment", "pay_none").exit_code == 1
    verified = run("audit", "verify")
    assert verified.exit_code == 0
    assert "2 payments and 5 rows of the audit log: all is as it was written" in verified.stdout
    assert run("audit", "verify", "--payment", payment_id_of("o2")).exit_code == 0
    for table in ("payment_events", "audit_log"):
        execute(site.dsn, f"alter table payment_service.{table} disable trigger all")
    execute(
        site.dsn,
        f"update payment_service.payment_events set data = data || ' ' where payment_id = '{payment_id_of('o2')}'",
    )
    execute(site.dsn, "delete from payment_service.audit_log where number = 3")
    execute(site.dsn, f"delete from payment_service.payment_events where payment_id = '{payment_id_of('o1')}'")
    execute(site.dsn, f"delete from payment_service.payments where id = '{payment_id_of('o1')}'")
    broken = run("audit", "verify", "--json")
    assert broken.exit_code == 1
    found = json.loads(broken.stdout)
    assert (found["ok"], found["payments"], found["entries"]) == (False, 1, 4)
    assert [(it["kind"], it["what"][:9]) for it in found["found"]] == [
        ("payment", "version 1"), ("payment", "removed: "), ("audit", "missing: "),
    ]  # fmt: skip
    assert run("audit", "verify", "--payment", payment_id_of("o1")).exit_code == 1


def test_a_key_that_is_missing_is_named_as_a_reason(site: Site, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(_live(site))
    monkeypatch.setenv("ENCRYPTION_KEY", "n" * 32)
    told = run("audit", "verify", "--no-anchors")
    assert (told.exit_code, "its hash does not fit" in told.stdout) == (1, True)
    assert "ENCRYPTION_KEYS_OLD" in told.stderr
    monkeypatch.setenv("ENCRYPTION_KEYS_OLD", KEY.decode())
    told = run("audit", "verify", "--no-anchors")
    assert (told.exit_code, "ENCRYPTION_KEYS_OLD" in told.stderr) == (0, False)
