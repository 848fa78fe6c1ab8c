"""What a person does about open calls, as they do it: `payments resolve` and `reconcile`, on a real PostgreSQL."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner, Result
from rigs.changes import AT_MS, answer, change_of, charge
from rigs.store_worker import Worker, working
from servers.postgres import execute as sql

from payment_service.cli import main as entry
from payment_service.core import commands as c
from payment_service.core.ids import payment_id_of
from payment_service.core.terms import Verdict

PID = payment_id_of("o1")
Run = Callable[..., Result]
T = TypeVar("T")


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Run:
    for name, value in {"DATABASE_URL": database_url, "ENVIRONMENT": "test", "ENCRYPTION_KEY": "k" * 32}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)  # no .env of this checkout
    group = entry.program()
    return lambda *arguments: CliRunner().invoke(group, list(arguments), prog_name="payment-service")


def on(url: str, work: Callable[[Worker], Awaitable[T]]) -> T:
    async def working_on() -> T:
        async with working(url) as worker:
            return await work(worker)

    return asyncio.run(working_on())


async def _unknown_charge(worker: Worker) -> None:
    await worker.create("o1")
    loaded = await worker.store.load(PID)
    await worker.store.commit(change_of(charge(PID), loaded))
    loaded = await worker.store.load(PID)
    await worker.store.commit(change_of(c.RecordObject(PID, "made", AT_MS + 2, 1, "obj_1"), loaded))
    loaded = await worker.store.load(PID)
    await worker.store.commit(change_of(answer(PID, Verdict.UNKNOWN), loaded))


def resolve(run: Run, *more: str) -> Result:
    return run("payments", "resolve", PID, *more, "--reason", "asked the bank", "--operator", "eve")


def test_an_open_attempt_is_decided_once_with_who_and_why(run: Run, database_url: str) -> None:
    on(database_url, _unknown_charge)
    done = resolve(run, "--attempt", "1", "--as", "approved", "--provider-id", "ch_77", "--amount", "900")
    assert (done.exit_code, done.output) == (0, f"{PID} is SUCCEEDED now\n")
    shown = json.loads(run("payments", "show", PID, "--json").output)
    assert (shown["status"], shown["amounts"]["captured"], shown["needsReview"]) == ("SUCCEEDED", 900, True)
    assert shown["transactions"][0]["providerTransactionId"] == "ch_77"
    timeline = json.loads(run("payments", "timeline", PID, "--json").output)
    decided = next(row for row in timeline if row["type"] == "decided_by_hand")
    assert (decided["by"], decided["reason"]) == ("operator:eve", "asked the bank")
    assert decided["details"] == {"subject": "attempt:1", "said": "APPROVED"}
    assert sql(database_url, "select due_at, moved_minor from payment_service.transactions") == [(None, 900)]
    again = resolve(run, "--attempt", "1", "--as", "declined")
    assert again.exit_code == 1 and "not open" in again.output
    entries = [json.loads(str(row[0])) for row in sql(
        database_url, "select entry::text from payment_service.audit_log "
        "where entry ->> 'action' = 'payment.resolve' order by entry ->> 'at'"
    )]  # fmt: skip
    assert [(it["action"], it["actor"], it["result"]) for it in entries] == [
        ("payment.resolve", "operator:eve", "OK"), ("payment.resolve", "operator:eve", "INVALID_STATE"),
    ]  # fmt: skip


@pytest.mark.parametrize(("verdict", "status"), [("declined", "FAILED"), ("not-sent", "PENDING")])
def test_a_no_makes_it_payable_again_and_is_told(run: Run, database_url: str, verdict: str, status: str) -> None:
    on(database_url, _unknown_charge)
    assert resolve(run, "--attempt", "1", "--as", verdict).output == f"{PID} is {status} now\n"
    topics = [row[0] for row in sql(database_url, "select topic from payment_service.outbox order by sequence")]
    assert topics == ["payment.created", "payment.unknown", "payment.failed"]


def test_a_refund_is_decided_by_its_number(run: Run, database_url: str) -> None:
    async def refund_unknown(worker: Worker) -> None:
        await _unknown_charge(worker)
        commands: list[c.Command] = [
            answer(PID, Verdict.APPROVED, "yes"), c.RequestRefund(PID, "refund", AT_MS + 3, "service", None, 400),
        ]  # fmt: skip
        for command in commands:
            await worker.store.commit(change_of(command, await worker.store.load(PID)))

    on(database_url, refund_unknown)
    assert resolve(run, "--refund", "1", "--as", "approved").output == f"{PID} is PARTIALLY_REFUNDED now\n"
    assert sql(database_url, "select status, moved_minor from payment_service.refunds") == [("COMPLETED", 400)]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--as", "declined"], 2),
        (["--attempt", "1", "--refund", "1", "--as", "declined"], 2),
        (["--attempt", "1", "--as", "perhaps"], 2),
        (["--attempt", "1", "--as", "declined", "--amount", "5"], 2),
        (["--attempt", "2", "--as", "declined"], 1),
        (["--refund", "1", "--as", "declined"], 1),
    ],
)
def test_what_cannot_be_decided_is_said(run: Run, database_url: str, arguments: list[str], code: int) -> None:
    on(database_url, _unknown_charge)
    assert resolve(run, *arguments).exit_code == code
    assert run("payments", "resolve", "pay_none", "--attempt", "1", "--as", "declined", "--reason", "x").exit_code == 1
    assert json.loads(run("payments", "show", PID, "--json").output)["status"] == "UNKNOWN"


def test_open_calls_are_shown_and_hurried(run: Run, database_url: str) -> None:
    on(database_url, _unknown_charge)
    before = json.loads(run("reconcile", "--json").output)
    (call,) = before["calls"]
    assert (before["hurried"], call["payment_id"], call["kind"], call["status"]) == (0, PID, "CHARGE", "UNKNOWN")
    assert call["due_in_s"] > 1 and call["sent_at_ms"] is not None and call["tries"] == 1
    table = run("reconcile")
    assert table.exit_code == 0 and "UNKNOWN" in table.output
    after = json.loads(run("reconcile", "--now", "--json").output)
    assert after["hurried"] == 1 and after["calls"][0]["due_in_s"] <= 0

    async def claim(worker: Worker) -> int:
        from payment_service.adapters.postgres.call_queue import PostgresCallQueue

        return len(await PostgresCallQueue(worker.database, worker.cipher).claim("w", 10, 30.0))

    assert on(database_url, claim) == 1
    assert json.loads(run("reconcile", "--now", "--json").output)["hurried"] == 0, "a lease is left alone"
