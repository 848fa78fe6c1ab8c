"""`payment-service webhooks` on a real database: what is listed, and what is applied again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from servers.postgres import execute

from payment_service.cli import main as entry

Run = Callable[..., Result]
KEPT = (("evt_1", "PROCESSED", ""), ("evt_2", "FAILED", "PAYMENT_UNKNOWN"), ("evt_3", "PARKED", "PAYMENT_UNKNOWN"))


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "DATABASE_URL": database_url, "ENCRYPTION_KEY": "k" * 32, "JWT_SECRET": "s" * 40, "ENVIRONMENT": "test",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for event_id, status, reason in KEPT:
        due = "now()" if status == "PARKED" else "null"
        execute(
            database_url,
            "insert into payment_service.payment_webhooks (provider, event_id, type, status, reason, payment_id, body,"
            f" created_at, due_at) values ('MOCK', '{event_id}', 'charge.succeeded', '{status}', '{reason}', 'pay_1',"
            f" 'sealed', now(), {due})",
        )
    group = entry.program()
    return lambda *arguments: CliRunner().invoke(group, ["webhooks", *arguments], prog_name="payment-service")


def states(url: str) -> list[tuple[object, ...]]:
    return execute(url, "select status, reason from payment_service.payment_webhooks order by id")


def test_list_and_show(run: Run) -> None:
    listed = run("list")
    assert listed.exit_code == 0
    assert [listed.output.index(event_id) for event_id in ("evt_3", "evt_2", "evt_1")] == sorted(
        listed.output.index(event_id) for event_id in ("evt_3", "evt_2", "evt_1")
    )
    parked = json.loads(run("list", "--status", "parked", "--provider", "mock", "--json").output)
    assert [(row["eventId"], row["status"], row["reason"]) for row in parked] == [
        ("evt_3", "PARKED", "PAYMENT_UNKNOWN")
    ]
    shown = json.loads(run("show", str(parked[0]["id"]), "--json").output)
    assert shown == parked[0] and "body" not in shown
    assert run("list", "--provider", "stripe").exit_code == 1
    assert run("list", "--status", "lost").exit_code == 2
    assert run("show", "999").exit_code == 1


def test_replay(run: Run, database_url: str) -> None:
    assert run("replay").exit_code == 2
    assert run("replay", "1", "--all").exit_code == 2
    assert run("replay", "999").exit_code == 1
    again = run("replay", "--status", "FAILED", "--operator", "ann", "--json")
    assert (again.exit_code, json.loads(again.output)) == (0, {"replayed": 1})
    assert states(database_url) == [("PROCESSED", ""), ("RECEIVED", "REPLAYED"), ("PARKED", "PAYMENT_UNKNOWN")]
    (one,) = json.loads(run("list", "--status", "PROCESSED", "--json").output)
    assert run("replay", str(one["id"])).exit_code == 0
    assert json.loads(run("replay", "--all", "--json").output) == {"replayed": 3}
    assert {row[0] for row in states(database_url)} == {"RECEIVED"}
    audited = execute(
        database_url, "select count(*) from payment_service.audit_log where entry ->> 'action' = 'webhook.replay'"
    )
    assert audited == [(4,)]
