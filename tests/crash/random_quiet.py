"""The end of a run: everything must settle in a time that was named before, then what there is is written down."""

import asyncio
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import psycopg2
import psycopg2.extras
from aiokafka import AIOKafkaConsumer
from crash.chaos import WORKERS
from crash.random_operator import decide_what_is_left
from crash.random_site import Site
from rigs.worker import PARTITIONS, token_of
from servers.topics import partitions_of

QUIET_S = 150.0
"""More than the leases, the resend window, ACTION_TTL_S and the look-ups between them need after the last fault."""
POLL_S = 0.5
SYNC_EVERY_S = 4.0
SYNC_MAX = 20
"""Payments that are asked about at a time: what a shopper does who waits at the screen."""
OPEN = {
    "payments": "select id from payment_service.payments where status in ('PROCESSING', 'UNKNOWN', 'REQUIRES_ACTION')"
    " or refund_pending <> 0",
    "calls": "select provider_key from payment_service.transactions where due_at is not null",
    "refunds": "select id from payment_service.refunds where status not in ('COMPLETED', 'FAILED', 'CANCELLED')",
    "outbox": "select payment_id from payment_service.outbox",
}
TABLES = (
    "payments", "payment_events", "transactions", "refunds", "outbox", "inbox", "dead_letters", "payment_webhooks",
    "audit_log",
)  # fmt: skip
COLUMNS = {"audit_log": "chain, number, entry::text as entry, hash"}
"""What would not come as it is stored."""
TOPICS = (
    "payment.created", "payment.processed", "payment.failed", "payment.refunded", "payment.requires_action",
    "payment.cancelled", "payment.unknown", "payment.disputed", "payment.refund_failed", "payment-dead-letters",
)  # fmt: skip
READ_S = 60.0


async def settle(site: Site) -> float:
    """Seconds until nothing was open any more; what still is at the deadline is noted as unsettled."""
    started = time.monotonic()
    deadline, asked_at = started + QUIET_S, 0.0
    left: dict[str, int] = {"everything": 1}
    while left:
        if time.monotonic() > deadline:
            site.history.note("unsettled", text=f"after {QUIET_S:.0f} s: {left}")
            break
        await asyncio.sleep(POLL_S)
        site.look()
        if time.monotonic() > asked_at + SYNC_EVERY_S:
            asked_at = time.monotonic()
            await site.sim.ask("POST", "/_sim/settle")
            await _ask_about_open(site)
            await decide_what_is_left(site)
        left = await _left(site)
        site.history.note("left", **left)
    site.history.note("settled", after_s=round(time.monotonic() - started, 1))
    return time.monotonic() - started


async def _left(site: Site) -> dict[str, int]:
    left = {name: len(site.installation.rows(query)) for name, query in OPEN.items()}
    health = await site.sim.ask("GET", "/_sim/health")
    left["webhooks on their way"] = health.get("webhooks_waiting", 0) + health.get("settling", 0)
    if site.installation.rows("select to_regclass('payment_service.payment_webhooks')") != [(None,)]:
        query = "select 1 from payment_service.payment_webhooks where status in ('RECEIVED', 'PARKED')"
        left["webhooks"] = len(site.installation.rows(query))
    if not any(left.values()):
        left["orders not read"] = await _unread(site)
    return {name: count for name, count in left.items() if count}


async def _unread(site: Site) -> int:
    """Partitions of the order topic with an offset that is not committed."""
    try:
        await site.installation.all_committed(wait_s=1.0)
    except AssertionError:
        return PARTITIONS
    return 0


async def _ask_about_open(site: Site) -> None:
    query = OPEN["payments"].replace("select id", "select id, user_id") + f" limit {SYNC_MAX}"
    for number, (payment_id, user_id) in enumerate(site.installation.rows(query)):
        worker = site.workers[number % WORKERS]
        headers = {"Authorization": f"Bearer {token_of(user_id)}"}
        try:
            async with site.session.get(
                f"{worker.url}/api/v1/payments/{payment_id}?sync=true", headers=headers
            ) as told:
                await told.read()
        except (aiohttp.ClientError, TimeoutError):
            pass


async def write_down(site: Site) -> None:
    """The tables and the topics, for the auditor and for whoever reads a failure."""
    _dump(site.folder / "tables.jsonl", _table_lines(site))
    _dump(site.folder / "topics.jsonl", await asyncio.wait_for(_messages(site), READ_S))


async def _messages(site: Site) -> list[dict[str, Any]]:
    broker, prefix = site.servers.kafka.address, site.installation.prefix
    tps = await partitions_of(broker, *(prefix + topic for topic in TOPICS))
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest", enable_auto_commit=False)
    found: list[dict[str, Any]] = []
    await consumer.start()
    try:
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        await consumer.seek_to_beginning(*tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                found += [
                    {
                        "topic": tp.topic.removeprefix(prefix), "partition": tp.partition, "offset": it.offset,
                        "at_ms": it.timestamp, "key": _text(it.key), "value": _text(it.value),
                        "headers": [[name, _text(value)] for name, value in it.headers],
                    }
                    for it in records
                ]  # fmt: skip
    finally:
        await consumer.stop()
    return found


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _table_lines(site: Site) -> list[dict[str, Any]]:
    lines = []
    for table in TABLES:
        if site.installation.rows(f"select to_regclass('payment_service.{table}')") == [(None,)]:
            continue
        with (
            closing(psycopg2.connect(site.installation.database_url)) as connection,
            connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
        ):
            cursor.execute(f"select {COLUMNS.get(table, '*')} from payment_service.{table}")
            rows = cursor.fetchall()
        for row in rows:
            row = {name: value.hex() if isinstance(value, memoryview) else value for name, value in row.items()}
            if table == "transactions":
                del row["request"]  # sealed, and nothing to judge
            lines.append({"table": table, "row": row})
    return lines


def _dump(path: Path, lines: list[dict[str, Any]]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(line, default=str) + "\n" for line in lines)
