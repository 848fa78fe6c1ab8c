"""What waits and what is not whole: planted in a database that has payments, found, and mended by what is said."""

import time
from pathlib import Path

import pytest
from rigs.changes import answer, change_of, charge, create
from rigs.planted import KEY, Doctor, in_loop
from rigs.store_worker import working
from servers.postgres import execute

from payment_service.core.audit import AuditEntry
from payment_service.core.doctor import Area
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Secrets
from payment_service.core.terms import Verdict

PAID, OPEN = payment_id_of("paid"), payment_id_of("open")


async def payments(url: str) -> None:
    """One that is paid, and one that has a token and a call without an answer."""
    async with working(url) as worker:
        store = worker.store
        for order, secrets in (("paid", None), ("open", Secrets(method_token="tok_visa"))):
            await store.commit(change_of(create(order), secrets=secrets))
            payment_id = payment_id_of(order)
            await store.commit(change_of(charge(payment_id, f"charge:{order}"), await store.load(payment_id)))
        said = answer(PAID, Verdict.APPROVED)
        await store.commit(change_of(said, await store.load(PAID)))


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> Doctor:
    in_loop(payments(database_url))
    execute(database_url, "delete from payment_service.outbox")
    doctor = Doctor(monkeypatch, tmp_path)
    doctor.env |= {"DATABASE_URL": database_url, "ENCRYPTION_KEY": KEY}
    return doctor


def tamper(url: str, table: str, change: str) -> None:
    """As the tables' owner can, or whoever gets to be it."""
    name = f"alter table payment_service.{table}"
    execute(url, f"{name} disable trigger append_only; {change}; {name} enable trigger append_only")


def test_nothing_is_wrong_with_payments_alone(doctor: Doctor) -> None:
    told = doctor(Area.WORK)
    assert told.exit_code == 0, told.text
    assert told.found["books"].what == "agree for 2 payments"
    assert told.found["key"].what == "opens 2 of the newest sealed values"
    assert told.found["audit chains"].what.startswith("2 payments and 0 rows")
    assert told.found["waiting"].health == "OK"


def test_events_that_nobody_publishes(doctor: Doctor, database_url: str) -> None:
    execute(
        database_url,
        "insert into payment_service.outbox (shard, payment_id, sequence, topic, at, value) "
        "values (1, 'pay_1', 1, 'payment.created', now() - interval '2 hours', 'x')",
    )
    told = doctor(Area.WORK).wrong("outbox")
    assert told.what == "1 events are committed and not published, the oldest for 2 hours"
    assert "start a worker" in told.mend


def test_calls_without_an_answer(doctor: Doctor, database_url: str) -> None:
    where = f"where payment_id = '{OPEN}'"
    execute(database_url, f"update payment_service.transactions set due_at = now() - interval '10 minutes' {where}")
    assert "10 minutes" in doctor(Area.WORK).wrong("due calls").what
    execute(
        database_url,
        "update payment_service.transactions set due_at = now() + interval '1 hour', status = 'UNKNOWN', "
        f"created_at = now() - interval '1 day' {where}",
    )
    told = doctor(Area.WORK)
    assert told.wrong("unknown calls").what.startswith("1 provider calls")
    assert "due calls" not in told.found


def test_webhooks_reviews_and_words_that_wait(doctor: Doctor, database_url: str) -> None:
    execute(database_url, f"update payment_service.payments set needs_review = true where id = '{PAID}'")
    for number, status in enumerate(("FAILED", "PARKED")):
        execute(
            database_url,
            "insert into payment_service.payment_webhooks (provider, event_id, type, status, body, created_at, since) "
            f"values ('STRIPE', 'evt_{number}', 't', '{status}', '', now(), now() - interval '1 hour')",
        )
    execute(
        database_url,
        "insert into payment_service.order_updates (order_id, payment_id, version, word, reason, since) "
        "values ('o', 'p', 1, 'paid', '', now() - interval '1 hour')",
    )
    told = doctor(Area.WORK)
    told.wrong("failed webhooks")
    told.wrong("order words")
    for check in ("review", "parked webhooks"):
        assert (told.found[check].health, bool(told.found[check].mend)) == ("WARNING", True)


def test_a_key_that_opens_nothing(doctor: Doctor) -> None:
    told = doctor(Area.WORK, ENCRYPTION_KEY="a-wrong-key-of-32-characters-ok!")
    assert "payments.secrets (1), transactions.request (1)" in told.wrong("key").what
    told.wrong("audit chains")
    told = doctor(Area.WORK, ENCRYPTION_KEY="a-wrong-key-of-32-characters-ok!", ENCRYPTION_KEYS_OLD=KEY)
    assert told.found["key"].health == told.found["audit chains"].health == "OK"


def test_an_event_that_somebody_changed(doctor: Doctor, database_url: str) -> None:
    which = f"where payment_id = '{PAID}' and version = 2"
    tamper(database_url, "payment_events", f"update payment_service.payment_events set data = '{{}}' {which}")
    told = doctor(Area.WORK).wrong("audit chains")
    assert PAID in told.what
    assert "audit verify" in told.mend


def test_an_audit_log_that_somebody_changed(doctor: Doctor, database_url: str) -> None:
    from payment_service.adapters.audit_chain import chain_key
    from payment_service.adapters.clock import SystemClock
    from payment_service.adapters.metrics import PrometheusMetrics
    from payment_service.adapters.postgres.audit_log import PostgresAuditLog
    from payment_service.adapters.postgres.pool import Database

    async def written() -> None:
        database = Database(database_url)
        log = PostgresAuditLog(database, chain_key(KEY.encode()), "w:1", SystemClock(), PrometheusMetrics())
        log.record(AuditEntry(time.time_ns() // 10**6, "payment.refund", "OK", "user:eve"))
        await log.close()
        await database.close()

    in_loop(written())
    assert doctor(Area.WORK).found["audit chains"].health == "OK"
    change = "update payment_service.audit_log set entry = replace(entry::text, 'eve', 'ann')::json"
    tamper(database_url, "audit_log", change)
    assert "w:1" in doctor(Area.WORK).wrong("audit chains").what


def test_books_that_do_not_agree(doctor: Doctor, database_url: str) -> None:
    execute(database_url, f"update payment_service.payments set captured = captured + 5 where id = '{PAID}'")
    assert PAID in doctor(Area.WORK).wrong("books").what


def test_letters_that_nobody_sent_again(doctor: Doctor, database_url: str, tansu_broker: str) -> None:
    here = {"KAFKA_BROKERS": tansu_broker, "TOPIC_PREFIX": f"l{time.time_ns()}-"}
    assert doctor(Area.WORK, **here).found["dead letters"].health != "WARNING"
    execute(
        database_url,
        'insert into payment_service.dead_letters (topic, partition, "offset", headers, reason, error) '
        "values ('orders', 0, 42, '[]', 'MALFORMED_JSON', 'not JSON')",
    )
    told = doctor(Area.WORK, **here).found["dead letters"]
    assert (told.health, "MALFORMED_JSON" in told.what, "replay" in told.mend) == ("WARNING", True, True)
