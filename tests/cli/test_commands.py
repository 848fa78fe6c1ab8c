"""The commands as a person or a script meets them: what is printed, and with which exit code."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rigs.provider_rig import call_for

from payment_service.cli import main as entry
from payment_service.cli import service
from payment_service.cli.outcome import explained
from payment_service.codecs.health import row_of
from payment_service.core.errors import Malformed, Refused, Unavailable, invalid_field
from payment_service.core.events import PaymentCreated
from payment_service.core.health import HealthWindow
from payment_service.core.payment import Payment
from payment_service.core.ports import Answer, Loaded, PaymentFilter, PaymentPage, StoredEvent
from payment_service.core.reconciliation import compared, our_fact, provider_fact, told
from payment_service.core.terms import CaptureMethod, Verdict

Run = Callable[..., Result]
ROWS = {
    "pay_1": {"orderId": "o1", "status": "SUCCEEDED", "amountMinor": 1990, "currency": "USD", "sequence": 2,
              "timestamp": "2026-11-24T10:00:00.000Z", "eventType": "payment.processed"},
    "pay_2": {"orderId": "o2", "status": "FAILED", "amountMinor": 5, "currency": "JPY", "sequence": 3,
              "timestamp": "2026-11-24T11:00:00.000Z", "eventType": "payment.failed"},
}  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(service, "load_settings", lambda: SimpleNamespace(is_production=False, warnings=()))
    group = entry.program()

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(group, list(arguments), prog_name="payment-service")

    return run


def payment(**changes: Any) -> Payment:
    return Payment(
        **{
            "payment_id": "pay_1", "order_id": "order-1", "user_id": "user-1", "amount_minor": 9999,
            "currency": "USD", "provider": "MOCK", "payment_method_id": None,
            "capture_method": CaptureMethod.AUTOMATIC, "description": None, "metadata": {},
            "created_at_ms": 1_700_000_000_000, "updated_at_ms": 1_700_000_000_000,
        }
        | changes
    )  # fmt: skip


class Store:
    def __init__(self, payments: Sequence[Payment]) -> None:
        self.payments = payments
        self.queries: list[PaymentFilter] = []

    async def find(self, query: PaymentFilter) -> PaymentPage:
        self.queries.append(query)
        return PaymentPage(self.payments, len(self.payments), False)

    async def load(self, payment_id: str, command_id: str = "") -> Loaded:
        found = [one for one in self.payments if one.payment_id == payment_id]
        return Loaded(found[0] if found else None)

    async def events(self, payment_id: str) -> list[StoredEvent]:
        if payment_id != "pay_1":
            return []
        event = PaymentCreated(
            1_700_000_000_000, "order", "order-1", "user-1", 9999, "USD", "MOCK", None, CaptureMethod.AUTOMATIC, None,
            {}, False,
        )  # fmt: skip
        return [StoredEvent(1, 1, event.at_ms, "PaymentCreated", event)]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store([payment()])

    @asynccontextmanager
    async def open_reader(settings: Any) -> AsyncIterator[Store]:
        yield store

    monkeypatch.setattr(service, "open_reader", open_reader)
    return store


# -- the program


def test_help_names_faust_commands_and_ours_and_imports_no_app(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["payment-service", "--help"])
    monkeypatch.setattr(service, "load_settings", lambda: pytest.fail("the app was loaded"))
    result = run("-A", "payment_service.app", "--help")
    assert result.exit_code == 0
    for name in ("agents", "tables", "send", "reset", *entry.COMMANDS):
        assert f"  {name}" in result.output


def test_the_version_is_ours(run: Run) -> None:
    assert run("--version").output.startswith("payment-service, version ")


def test_our_app_is_named_unless_another_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(entry, "program", lambda: SimpleNamespace(main=lambda args, prog_name: given.append(args)))
    entry.main(["tables"])
    entry.main(["-A", "other", "tables"])
    entry.main(["--app=other", "tables"])
    assert given == [["-A", "payment_service.app", "tables"], ["-A", "other", "tables"], ["--app=other", "tables"]]


def test_an_error_from_a_faust_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(args: list[str], prog_name: str) -> None:
        raise Unavailable("the broker is away")

    monkeypatch.setattr(entry, "program", lambda: SimpleNamespace(main=fails))
    with pytest.raises(SystemExit) as ended:
        entry.main(["send"])
    assert ended.value.code == 3
    assert capsys.readouterr().err.startswith("Error: the broker is away\n")
    with pytest.raises(Unavailable):
        entry.main(["--debug", "send"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("away"), 3),
        (Refused("no", code="NOT_FOUND"), 1),
        (invalid_field("amount", "is odd"), 2),
        (Malformed("odd"), 1),
        (ConnectionRefusedError(111, "Connection refused"), 3),
        (PermissionError(13, "Permission denied", "/data"), 3),
    ],
)
def test_exit_codes_say_what_the_caller_can_do(error: Exception, code: int) -> None:
    failed = explained(error)
    assert failed is not None
    assert failed.exit_code == code


def test_a_bug_keeps_its_traceback() -> None:
    assert explained(KeyError("x")) is None


# -- worker, dev, migrate, token, completion


@pytest.mark.parametrize(("command", "function"), [("worker", "run_worker"), ("dev", "run_dev")])
def test_the_workers_exit_code_is_the_commands(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, function: str
) -> None:
    levels: list[str] = []
    settings = SimpleNamespace(
        warnings=("JWT_SECRET: is missing",), log_level="INFO",
        model_copy=lambda update: SimpleNamespace(warnings=(), log_level=update["log_level"]),
    )  # fmt: skip
    monkeypatch.setattr(service, "load_settings", lambda: settings)
    monkeypatch.setattr(service, "prepare_logging", lambda settings: levels.append(settings.log_level))
    monkeypatch.setattr(service, function, lambda settings: 1)
    assert run(command).exit_code == 1
    assert "JWT_SECRET: is missing" in run(command).stderr
    run(command, "-l", "debug")
    assert levels == ["INFO", "INFO", "DEBUG"]


def test_migrate_check_fails_when_something_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ["0002_more.sql"]

    async def names(settings: Any) -> list[str]:
        return missing

    monkeypatch.setattr(service, "pending_migrations", names)
    monkeypatch.setattr(service, "migrate", names)
    result = run("migrate", "--check")
    assert (result.exit_code, result.output) == (1, "missing  0002_more.sql\n")
    assert run("migrate").exit_code == 0
    assert json.loads(run("migrate", "--json").output) == {"applied": missing}
    missing.clear()
    result = run("migrate", "--check")
    assert (result.exit_code, result.output) == (0, "The database is up to date.\n")


def test_a_token_is_all_that_is_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(settings: Any, user_id: str, roles: Sequence[str], ttl_s: int) -> str:
        return f"{user_id}/{'+'.join(roles)}/{ttl_s}"

    monkeypatch.setattr(service, "make_token", make)
    result = run("token", "--user", "u1", "--role", "admin", "--role", "service", "--ttl-h", "0.5")
    assert (result.exit_code, result.output) == (0, "u1/admin+service/1800\n")
    assert run("token").exit_code == 2
    assert run("token", "--user", "u1", "--ttl-h", "0").exit_code == 2


def test_a_token_that_is_refused_explains_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> str:
        raise Refused("tokens are not issued in production", code="FORBIDDEN")

    monkeypatch.setattr(service, "make_token", refuse)
    result = run("token", "--user", "u1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: tokens are not issued in production\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_PAYMENT_SERVICE_COMPLETE" in result.output


def test_an_unknown_shell_is_told_which_there_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    result = run("completion")
    assert result.exit_code == 2
    assert "bash, zsh or fish" in result.stderr


def test_names_of_commands_complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_PAYMENT_SERVICE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "payment-service payments t")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        entry.main([])
    assert capsys.readouterr().out == "plain,timeline\n"


# -- payments


def test_payments_are_listed_for_people_and_programs(run: Run, store: Store) -> None:
    result = run("payments", "list", "--status", "pending", "--user", "user-1", "--since", "2026-01-01")
    assert result.exit_code == 0
    assert "99.99 USD" in result.output
    assert "1-1 of 1" in result.output
    query = store.queries[0]
    assert (query.status, query.user_id, query.created_from_ms) == ("PENDING", "user-1", 1_767_225_600_000)
    assert json.loads(run("payments", "list", "--json").stdout)["payments"][0]["id"] == "pay_1"
    assert json.loads(run("--json", "payments", "list").stdout)["total"] == 1


def test_no_payment_is_an_exit_code_of_its_own(run: Run, store: Store) -> None:
    store.payments = []
    result = run("payments", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    for command in ("show", "timeline"):
        result = run("payments", command, "pay_2")
        assert result.exit_code == 1
        assert "there is no payment pay_2" in result.stderr


def test_a_payment_is_shown_with_its_history(run: Run, store: Store) -> None:
    assert "order-1" in run("payments", "show", "pay_1").output
    assert json.loads(run("payments", "show", "pay_1", "--json").output)["transactions"] == []
    assert "payment_created" in run("payments", "timeline", "pay_1").output
    assert json.loads(run("payments", "timeline", "pay_1", "--json").output)[0]["sequence"] == 1


@pytest.mark.parametrize("arguments", [("--limit", "0"), ("--status", "PAID"), ("--since", "yesterday")])
def test_wrong_options_are_usage_errors(run: Run, store: Store, arguments: tuple[str, ...]) -> None:
    assert run("payments", "list", *arguments).exit_code == 2


def test_a_database_that_is_away_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def away(settings: Any) -> AsyncIterator[None]:
        raise Unavailable("the database is away")
        yield

    monkeypatch.setattr(service, "open_reader", away)
    result = run("payments", "show", "pay_1")
    assert result.exit_code == 3
    assert result.stderr.startswith("Error: the database is away\n")


# -- tables


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    rows: dict[str, Any] = dict(ROWS)

    async def read(settings: Any, name: str, key: str | None) -> dict[str, Any]:
        if name == "nope":
            raise Refused("there is no table nope", code="NOT_FOUND")
        return rows if key is None else {key: rows[key]} if key in rows else {}

    monkeypatch.setattr(service, "read_table", read)
    return rows


def test_a_table_is_shown_newest_first(run: Run, rows: dict[str, Any]) -> None:
    result = run("table", "payments", "--limit", "1")
    assert result.exit_code == 0
    assert "pay_2" in result.output
    assert "5 JPY" in result.output
    assert "1 of 2 rows; more with --limit" in result.output
    assert [row["key"] for row in json.loads(run("table", "payments", "--json").output)] == ["pay_2", "pay_1"]


def test_a_table_is_filtered(run: Run, rows: dict[str, Any]) -> None:
    found = json.loads(run("table", "payments", "--status", "succeeded", "--json").output)
    assert [row["key"] for row in found] == ["pay_1"]
    assert [row["key"] for row in json.loads(run("table", "payments", "--key", "pay_2", "--json").output)] == ["pay_2"]


def test_nothing_found_and_no_such_table(run: Run, rows: dict[str, Any]) -> None:
    result = run("table", "payments", "--key", "pay_9", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])
    assert run("table", "nope").exit_code == 1


def test_another_table_is_shown_as_it_is(run: Run, rows: dict[str, Any]) -> None:
    rows.clear()
    rows["MOCK:USD"] = {"count": 3}
    assert '{"count": 3}' in run("table", "of_tomorrow").output


def test_what_providers_did_is_shown_minute_by_minute(run: Run, rows: dict[str, Any]) -> None:
    rows.clear()
    latency, at_ms = [0, 99, 0, 1], 1_700_000_040_000
    window = HealthWindow("STRIPE", "USD", "pod-1:7", at_ms, (0.1, 0.2, 1.0), latency, {"APPROVED": 97, "UNKNOWN": 3},
                          {"SUCCEEDED": 97})  # fmt: skip
    rows[window.key] = row_of(window)
    shown = run("table", "provider_health").output
    for cell in ("STRIPE", "USD", "2023-11-14", "pod-1:7", "100", "3", "151 ms", "97", "SUCCEEDED"):
        assert cell in shown, (cell, shown)


def test_who_differs_is_shown_with_what_each_side_says(run: Run, rows: dict[str, Any]) -> None:
    rows.clear()
    heard = provider_fact(call_for("pay_1"), Answer(Verdict.APPROVED, amount_minor=9999, currency="USD"), 1000)
    assert heard is not None
    account = told(None, "pay_1", "order-1", [heard, our_fact(None, None, 2000)])
    rows["pay_1"] = {**compared(account, None, 3000, whole=True), "timestamp": "2026-11-24T10:00:00.000Z"}
    rows["pay_2"] = {**compared(told(None, "pay_2", "order-2", []), None, 3000, whole=True), "timestamp": ""}
    shown = run("table", "reconciliation", "--status", "differs").output
    for cell in ("pay_1", "order-1", "DIFFERS", "NO_PAYMENT", "none", "charge:1"):
        assert cell in shown, (cell, shown)
    assert "pay_2" not in shown
    assert "not read" in run("table", "reconciliation", "--status", "waits").output


def test_groups_are_click_groups() -> None:
    assert isinstance(entry.program().commands["payments"], click.Group)
