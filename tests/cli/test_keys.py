"""`keys rotate` as an operator uses it, on a real broker and PostgreSQL."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from click.testing import CliRunner, Result
from rigs.changes import change_of, create
from rigs.outbox_site import Site
from rigs.stores import SHARDS
from servers.postgres import execute
from servers.waiting import until

from payment_service import offline
from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.dead_letters import DeadLetterBox
from payment_service.adapters.kafka_topics import AUDIT_ANCHORS, DEAD_LETTERS, WEBHOOKS
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.cli import main as entry
from payment_service.codecs.webhooks import encode_webhook
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Committed, Secrets
from payment_service.core.webhooks import ReceivedWebhook
from payment_service.tables.payments import place_of

Run = Callable[..., Result]
OLD, NEW = "o" * 32, "n" * 32
BEFORE, AFTER, STRANGER = AesGcmCipher(OLD.encode()), AesGcmCipher(NEW.encode()), AesGcmCipher(b"s" * 32)
CHANGELOG = "payment-service-payments-changelog"


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
        "ENCRYPTION_KEY": NEW, "ENCRYPTION_KEYS_OLD": f"{'a' * 32},{OLD}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    # The embedded broker answers "latest offset" wrongly, and it is not known as embedded here.
    monkeypatch.setattr(offline, "_silence_s", lambda settings: 1.0)
    group = entry.program()
    return lambda *arguments: CliRunner().invoke(group, list(arguments), prog_name="payment-service")


async def _commit(site: Site, *orders: str) -> None:
    database = Database(site.dsn)
    store = PostgresPaymentStore(database, BEFORE, chain_key(OLD.encode()), SHARDS, lambda rows: None)
    for order in orders:
        change = change_of(create(order), secrets=Secrets(method_token="tok_1"))
        assert await store.commit(change) is Committed.COMMITTED
    await store.close()
    await database.close()


def _webhook(event_id: str, cipher: AesGcmCipher) -> tuple[bytes, bytes]:
    return encode_webhook(ReceivedWebhook("MOCK", event_id, "t", 1, 1, None, event_id, b"{}"), cipher)


async def _tell(site: Site) -> None:
    """What older keys, the present one and a stranger's sealed."""
    await site.topics(WEBHOOKS, AUDIT_ANCHORS, DEAD_LETTERS, CHANGELOG, "payment.created")
    database = Database(site.dsn)
    async with site.publisher() as (publisher, _):
        await until(lambda: publisher.connected, "the broker is there")
        for number, cipher in enumerate((BEFORE, BEFORE, AFTER, STRANGER)):
            await publisher.send(WEBHOOKS, *_webhook(f"evt_{number}", cipher), [])
        for number, cipher in enumerate((BEFORE, AFTER)):
            box = DeadLetterBox(publisher, database, cipher)
            await box.keep("orders", 0, number, b"k", b"value", (), "R", "e")
        await DeadLetterBox(publisher, database, None).keep("orders", 0, 2, b"k", b"plain", (), "R", "e")
        rows: list[tuple[str, AesGcmCipher]] = [("p1", BEFORE), ("p2", BEFORE), ("p1", AFTER), ("p3", AFTER)]
        for name, cipher in rows:
            await publisher.send(CHANGELOG, name.encode(), cipher.seal(b"{}", place_of(name)), [])
        await publisher.send(AUDIT_ANCHORS, b"w", BEFORE.seal(b"{}", "audit-anchor:w:1"), [])
    await database.close()


def _kept(rotated: Any, prefix: str) -> dict[str, tuple[int, int]]:
    return {f"{it['topic'].removeprefix(prefix)} {it['key']}": (it["key"], it["records"]) for it in rotated["topics"]}


@pytest.mark.long
def test_it_seals_anew_and_tells_what_cannot_be(site: Site, run: Run) -> None:
    asyncio.run(_commit(site, "o1", "o2"))
    asyncio.run(_tell(site))
    dry = run("keys", "rotate", "--dry-run", "--json")
    assert (dry.exit_code, json.loads(dry.stdout)["columns"][0]["resealed"]) == (0, 2)
    assert run("audit", "list").exit_code == 1, "a dry run changes nothing, and tells nobody"
    done = run("keys", "rotate", "--operator", "ann", "--json")
    assert done.exit_code == 0, done.stderr
    rotated = json.loads(done.stdout)
    assert (rotated["ok"], rotated["rounds"], rotated["unreadable"]) == (True, 2, [])
    assert rotated["columns"][0] == {"column": "payments.secrets", "resealed": 2, "left": 0, "unreadable": 0}
    assert len(rotated["columns"]) == 7
    assert _kept(rotated, site.prefix) == {
        f"{WEBHOOKS} 0": (0, 1), f"{WEBHOOKS} 2": (2, 2), f"{DEAD_LETTERS} 2": (2, 1), f"{CHANGELOG} 2": (2, 1),
        f"{AUDIT_ANCHORS} 2": (2, 1),
    }  # fmt: skip
    again = run("keys", "rotate", "--operator", "ann")
    assert again.exit_code == 0
    assert "payments.secrets" in again.stdout and "2 of ENCRYPTION_KEYS_OLD" in again.stdout
    tried = json.loads(run("audit", "list", "--json").stdout)
    told = [(it["actor"], it["result"], it.get("detail")) for it in tried if it["action"] == "keys.rotate"]
    assert sorted(told, key=str) == sorted(
        [
            ("operator:ann", "ACCEPTED", None), ("operator:ann", "ACCEPTED", None),
            ("operator:ann", "OK", "payments.secrets 2, left 0, unreadable 0"),
            ("operator:ann", "OK", "left 0, unreadable 0"),
        ],
        key=str,
    )  # fmt: skip
    assert run("audit", "verify", "--no-anchors").exit_code == 0, "chains of both keys"
    shown = run("payments", "show", payment_id_of("o1"))
    assert shown.exit_code == 0, shown.stderr


@pytest.mark.kafka
def test_it_says_until_when(kafka_broker: str, site: Site, run: Run) -> None:
    if site.broker != kafka_broker:
        pytest.skip("the embedded broker tells no retention")
    asyncio.run(_make(site, WEBHOOKS, {"retention.ms": "172800000", "segment.ms": "86400000"}))
    asyncio.run(_make(site, DEAD_LETTERS, {"retention.ms": "432000000", "segment.ms": "432000000"}))
    asyncio.run(_make(site, AUDIT_ANCHORS, {"retention.ms": "-1"}))
    asyncio.run(_tell(site))
    rotated = json.loads(run("keys", "rotate", "--dry-run", "--json").stdout)
    by_topic = {it["topic"].removeprefix(site.prefix): it for it in rotated["topics"] if it["key"]}
    assert by_topic[AUDIT_ANCHORS]["kept"] == "FOR_EVER"
    days = {name: _days(it) for name, it in by_topic.items() if it["goneBy"]}
    # A row of a table leaves in 72 hours, ten times later when its payment is not finished.
    assert days == {WEBHOOKS: 3, DEAD_LETTERS: 10, CHANGELOG: 30}
    assert rotated["neededUntil"] == by_topic[CHANGELOG]["goneBy"]


async def _make(site: Site, topic: str, configs: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=site.broker)
    await admin.start()
    await admin.create_topics([NewTopic(site.prefix + topic, 1, 1, topic_configs=configs)])
    await admin.close()


def _days(it: Any) -> int:
    return (datetime.fromisoformat(it["goneBy"]) - datetime.fromisoformat(it["newestAt"])).days


def test_what_cannot_be_read_is_named(site: Site, run: Run) -> None:
    asyncio.run(_commit(site, "o1", "o2"))
    execute(site.dsn, "update payment_service.payments set secrets = secrets || 'x' where order_id = 'o2'")
    place = f"payments.secrets:{payment_id_of('o2')}"
    done = run("keys", "rotate", "--json")
    assert (done.exit_code, json.loads(done.stdout)["unreadable"]) == (1, [place])
    shown = run("keys", "rotate")
    assert (shown.exit_code, f"no key opens {place}" in shown.stderr) == (1, True)
    assert "tok_1" not in shown.output
    (entry_,) = [
        it for it in json.loads(run("audit", "list", "--json").stdout) if it.get("detail", "")[:8] == "payments"
    ]
    assert (entry_["result"], entry_["detail"]) == ("INCOMPLETE", "payments.secrets 1, left 0, unreadable 1")


def test_a_broker_that_is_away_does_not_keep_it_from_sealing(
    site: Site, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(_commit(site, "o1"))
    monkeypatch.setenv("KAFKA_BROKERS", "127.0.0.1:1")
    done = run("keys", "rotate")
    assert (done.exit_code, "without what is in topics" in done.stderr) == (3, True)
    header = AFTER.header.hex()
    assert execute(site.dsn, "select encode(substring(secrets from 1 for 5), 'hex') from payment_service.payments") == [
        (header,)
    ]
