"""The audit log on a real PostgreSQL: written beside the requests, never changed, and checked."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import psycopg2
import pytest
from rigs.counted import CountedMetrics
from rigs.settable_clock import SettableClock
from rigs.stores import KEY, eventually
from servers.postgres import execute

from payment_service.adapters.audit_anchors import Anchored
from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.postgres import audit_log
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.audit_verifier import AuditVerifier
from payment_service.adapters.postgres.pool import Database
from payment_service.core.audit import AuditEntry, Verified
from payment_service.core.errors import Unavailable
from payment_service.core.ids import payment_id_of

NOW_S = 1_800_000_000.0
CHANGES = [
    "update payment_service.audit_log set entry = '{}'",
    "delete from payment_service.audit_log",
    "truncate payment_service.audit_log",
]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()


def log_on(database: Database, metrics: CountedMetrics | None = None) -> PostgresAuditLog:
    return PostgresAuditLog(database, chain_key(KEY), "w:1", SettableClock(NOW_S), metrics or CountedMetrics())


def entry(number: int = 1, result: str = "OK", **fields: Any) -> AuditEntry:
    return AuditEntry(int(NOW_S * 1000) + number, "payment.create", result, "user:u1", order_id=f"o{number}", **fields)


async def verified(database: Database, anchors: Anchored | None = None, *keys: bytes) -> list[str]:
    async def read() -> Anchored:
        return anchors or Anchored()

    verifier = AuditVerifier(database, keys or (chain_key(KEY),), read)
    if anchors is not None:
        await verifier.read_anchors()
    parts: list[Verified] = [part async for part in verifier.verify(None)]
    return [f"{problem.kind} {problem.what}" for part in parts for problem in part.problems]


async def written(database: Database, count: int = 5) -> PostgresAuditLog:
    """A closed chain: opened, `count` entries, closed."""
    log = log_on(database)
    for number in range(1, count + 1):
        log.record(entry(number))
    await log.close()
    return log


def stored(url: str) -> list[dict[str, Any]]:
    rows = execute(url, "select entry::text from payment_service.audit_log order by chain, number")
    return [orjson.loads(str(text)) for (text,) in rows]


async def test_an_attempt_is_kept_with_who_where_and_what(database_url: str, database: Database) -> None:
    log = log_on(database)
    log.record(entry(1, roles=frozenset({"b", "a"}), client="10.0.0.1", request_id="r1", refund_id="ref_1", detail="x"))
    await log.flush()
    (opened, kept) = stored(database_url)
    assert opened["action"] == "chain.opened"
    assert kept == {
        "at": "2027-01-15T08:00:00.001Z", "action": "payment.create", "result": "OK", "actor": "user:u1",
        "roles": ["a", "b"], "client": "10.0.0.1", "requestId": "r1",
        "paymentId": payment_id_of("o1"), "orderId": "o1", "refundId": "ref_1", "detail": "x",
    }  # fmt: skip
    await log.close()
    assert stored(database_url)[-1]["action"] == "chain.closed"
    assert await verified(database) == []


async def test_it_is_written_by_itself_and_in_batches(database_url: str, database: Database) -> None:
    metrics = CountedMetrics()
    log = log_on(database, metrics)
    for number in range(audit_log.BATCH_MAX + 500):
        log.record(entry(number))

    async def all_there() -> bool:
        return log.count == audit_log.BATCH_MAX + 501

    await eventually(all_there)
    assert len(stored(database_url)) == log.count
    assert await verified(database) == []
    await log.close()


async def test_what_comes_while_the_writer_ends_does_not_wait_for_the_next(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, fetch = log_on(database), database.fetch

    async def fetch_and_hear_of_more(*given: Any, **named: Any) -> Any:
        answered = await fetch(*given, **named)
        if log.count == 0:  # before anybody can be told that the task has ended
            asyncio.get_running_loop().call_soon(log.record, entry(2))
        return answered

    monkeypatch.setattr(database, "fetch", fetch_and_hear_of_more)
    log.record(entry(1))

    async def both_there() -> bool:
        return log.count == 3

    await eventually(both_there)
    await log.close()
    assert await verified(database) == []


async def test_text_that_cannot_be_stored_is_replaced(database_url: str, database: Database) -> None:
    log = log_on(database)
    log.record(entry(1, client="\ud800\x00\n", detail="y" * 10_000))
    await log.close()
    kept = stored(database_url)[1]
    assert kept["client"] == "???"
    assert len(kept["detail"]) == audit_log.TEXT_MAX


async def test_refused_strangers_are_counted_not_repeated(database_url: str, database: Database) -> None:
    log = log_on(database)
    for number in range(100):
        log.record(
            AuditEntry(number, "payment.read", "UNAUTHORIZED", "anonymous", client="9.9.9.9", request_id=f"r{number}")
        )
    log.record(AuditEntry(1, "payment.read", "UNAUTHORIZED", "anonymous", client="8.8.8.8"))
    await log.close()
    refused = [it for it in stored(database_url) if it["result"] == "UNAUTHORIZED"]
    assert [(it["client"], it.get("times")) for it in refused] == [("9.9.9.9", 100), ("8.8.8.8", None)]


@pytest.mark.parametrize("what", CHANGES)
async def test_it_is_append_only(database_url: str, database: Database, what: str) -> None:
    await written(database)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        execute(database_url, what)


TAMPERING = [
    ("update payment_service.audit_log set entry = '{\"a\":1}' where number = 3", "audit 3 was changed: its hash"),
    ("update payment_service.audit_log set entry = (entry::text || ' ')::json where number = 3", "audit 3 was changed"),
    ("delete from payment_service.audit_log where number = 3", "audit missing: 3"),
    ("delete from payment_service.audit_log where number in (1, 2)", "audit missing: 1 to 2"),
    (
        "update payment_service.audit_log a set entry = b.entry from payment_service.audit_log b "
        "where a.number + b.number = 7 and a.number in (3, 4)",
        "audit 3 was changed: its hash does not fit; audit 4 was changed",
    ),
    ("delete from payment_service.audit_log where number > 5", "audit its end is missing: it had 7 rows"),
    ("delete from payment_service.audit_log", "audit removed: it had 7 rows"),
]  # fmt: skip


@pytest.mark.parametrize(("tampering", "problem"), TAMPERING)
async def test_tampering_is_found(database_url: str, database: Database, tampering: str, problem: str) -> None:
    log = await written(database)
    anchors = Anchored(chains={log.chain: (log.count, log.head.hex()[:32])})
    assert await verified(database, Anchored(chains=dict(anchors.chains))) == []
    execute(database_url, "alter table payment_service.audit_log disable trigger all")
    execute(database_url, tampering)
    assert problem in "; ".join(await verified(database, anchors))


async def test_a_whole_chain_written_anew_does_not_fit_its_anchor(database_url: str, database: Database) -> None:
    """By somebody who has the key: only what was kept outside tells."""
    log = await written(database)
    anchors = Anchored(chains={log.chain: (5, "0" * 32)})
    assert await verified(database, anchors) == ["audit 5: another one was anchored"]


async def test_an_older_key_still_fits_after_a_rotation(database: Database) -> None:
    await written(database)
    new = chain_key(b"n" * 32)
    assert await verified(database, None, new, chain_key(KEY)) == []
    assert len(await verified(database, None, new)) == 7


async def test_what_finds_no_room_is_counted_in_the_chain(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "WAITING_MAX", 10)
    metrics = CountedMetrics()
    log = log_on(database, metrics)
    for number in range(25):
        log.record(entry(number))
    await log.close()
    kept = stored(database_url)
    assert len([it for it in kept if it["action"] == "payment.create"]) == 10
    assert [it["times"] for it in kept if it["action"] == "chain.lost"] == [15]
    assert metrics.counts["audit_lost",] == 15
    assert await verified(database) == []


async def test_entries_wait_for_a_database_that_is_away(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "FLUSH_S", 0.5)
    execute(database_url, "alter table payment_service.audit_log rename to away")
    log = log_on(database)
    log.record(entry())
    with pytest.raises(Unavailable):
        await log.flush()
    execute(database_url, "alter table payment_service.away rename to audit_log")

    async def there() -> bool:
        return log.count == 2

    await eventually(there)
    assert await verified(database) == []
    await log.close()


async def test_a_batch_whose_connection_broke_is_written_once(database_url: str, database: Database) -> None:
    """It was committed, and nobody heard of it: the same rows again."""
    log = log_on(database)
    log.record(entry(1))
    await log.flush()
    count, head = log.count, log.head
    log.count, log.head = 0, b""
    rows = execute(database_url, "select entry::text from payment_service.audit_log order by number")
    await log._store([str(text).encode() for (text,) in rows])
    assert (log.count, log.head) == (count, head)
    assert len(stored(database_url)) == 2
    await log.close()
