"""Each planted fault is found, called by its name, and comes with how to mend it; a healthy installation has none."""

import json
import resource
import shutil
import socket
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from rigs.planted import PRODUCTION, Doctor, http, in_loop, listening
from servers.postgres import at_database, execute
from servers.provider_sim import ProviderSim
from servers.redis import RedisServer
from servers.topics import create_topics

from payment_service.adapters.embedded_process import free_port
from payment_service.cli.main import program
from payment_service.core.doctor import Area, Finding, Health, worst_of
from payment_service.core.doctor import Doctor as Notes

SETTINGS, MACHINE, DATABASE, BROKER = Area.SETTINGS, Area.MACHINE, Area.DATABASE, Area.BROKER
PROVIDERS, AROUND = Area.PROVIDERS, Area.AROUND
NOWHERE = "127.0.0.1:9"


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    return Doctor(monkeypatch, tmp_path)


# --- settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "planted"),
    [
        ("JWT_SECRET", {"JWT_SECRET": "short"}),
        ("ENCRYPTION_KEY", {"ENCRYPTION_KEY": "too-short"}),
        ("ENCRYPTION_KEY", {"ENCRYPTION_KEY": "k" * 32}),
        ("STRIPE_SECRET_KEY, STRIPE_PUBLISHABLE_KEY", {"STRIPE_PUBLISHABLE_KEY": "pk_test_123"}),
        ("STRIPE_WEBHOOK_SECRET", {"STRIPE_WEBHOOK_SECRET": ""}),
        ("PAYMENT_PROVIDER", {"STRIPE_SECRET_KEY": "", "STRIPE_WEBHOOK_SECRET": ""}),
        ("REFUND_ROLES", {"REFUND_ROLES": ""}),
        ("DATABASE_URL", {"DATABASE_URL": "mysql://u:p@h/d"}),
        ("KAFKA_BROKERS", {"KAFKA_BROKERS": ""}),
        ("PORT", {"PORT": "seventy"}),
        (
            "PAYPAL_MODE, PAYPAL_API_BASE",
            {"PAYPAL_CLIENT_ID": "i", "PAYPAL_CLIENT_SECRET": "s", "PAYPAL_WEBHOOK_ID": "w", "PAYPAL_MODE": "live",
             "PAYPAL_API_BASE": "https://api-m.sandbox.paypal.com"},
        ),
    ],
)  # fmt: skip
def test_settings_that_stop_the_start(doctor: Doctor, check: str, planted: dict[str, str]) -> None:
    doctor.env |= PRODUCTION
    assert doctor(SETTINGS).exit_code == 0, "without what is planted nothing is wrong"
    told = doctor(SETTINGS, **planted)
    told.wrong(check)
    for value in planted.values():
        assert len(value) < 12 or value.startswith("https:") or value not in told.text, "no value is told"


def test_weak_secrets_are_told_everywhere_and_judged_as_in_production_when_asked(doctor: Doctor) -> None:
    planted = {"JWT_SECRET": "short", "ENCRYPTION_KEY": "too-short", "STRIPE_SECRET_KEY": "sk_test_123456"}
    told = doctor(SETTINGS, **planted)
    assert told.exit_code == 0
    for check in ("JWT_SECRET", "ENCRYPTION_KEY", "STRIPE_WEBHOOK_SECRET"):
        assert told.found[check].health == "WARNING", check
    assert doctor(SETTINGS, arguments=("--strict",), **planted).exit_code == 1
    told = doctor(SETTINGS, arguments=("--as-production",), **planted)
    for check in ("JWT_SECRET", "ENCRYPTION_KEY", "REFUND_ROLES", "KAFKA_BROKERS"):
        told.wrong(check)


# --- machine ---------------------------------------------------------------------------------------------------


def test_a_port_that_somebody_has(doctor: Doctor) -> None:
    with socket.create_server(("", 0)) as taken:
        doctor(MACHINE, PORT=str(taken.getsockname()[1])).wrong("port")
    ours = http('{"success": true, "data": {"status": "UP", "service": "payment-service"}}')
    with listening(ours) as port:
        told = doctor(MACHINE, PORT=str(port))
    assert told.found["port"] == ("OK", f"a worker of this service answers on {port}", "")
    with listening(http("[]")) as port:
        doctor(MACHINE, PORT=str(port)).wrong("port")


def test_a_folder_that_is_none(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    doctor(MACHINE, DATA_DIR=str(tmp_path / "file")).wrong("DATA_DIR")


def test_a_disk_that_is_full(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 1024**2))
    doctor(MACHINE).wrong("disk")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 500 * 1024**2))
    assert doctor(MACHINE).found["disk"].health == "WARNING"


def test_few_open_files(doctor: Doctor) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        told = doctor(MACHINE).found["open files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert told.health == "WARNING"
    assert "ulimit" in told.mend


def test_faust_without_its_compiled_parts(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    from faust import streams

    monkeypatch.setattr(streams, "_CStreamIterator", None)
    doctor(MACHINE).wrong("faust")


# --- database --------------------------------------------------------------------------------------------------


@pytest.fixture
def database(doctor: Doctor, database_url: str) -> Doctor:
    doctor.env["DATABASE_URL"] = database_url
    return doctor


@pytest.fixture
def role(database_url: str) -> Iterator[str]:
    """The URL of a role that owns nothing, with the grants of `migrate`."""
    name = f"service_{abs(hash(database_url)) % 10**8}"
    execute(database_url, f"create role {name} login password 'its-own'")
    parts = urlsplit(database_url)
    url = urlunsplit(parts._replace(netloc=f"{name}:its-own@{parts.hostname}:{parts.port}"))
    execute(database_url, f"select payment_service.grant_to_service('{name}')")
    try:
        yield url
    finally:
        execute(database_url, f"drop owned by {name}; drop role {name}")


def test_a_healthy_database(database: Doctor, role: str) -> None:
    told = database(DATABASE, Area.WORK, DATABASE_URL=role, NODE_ENV="test")
    assert told.exit_code == 0, told.text
    assert {it.health for check, it in told.found.items() if check != "dead letters"} == {"OK"}, told.text


@pytest.mark.parametrize(
    ("url", "meaning"),
    [
        (f"postgresql://u:secret-word@{NOWHERE}/d", "nothing listens there"),
        ("postgresql://u:secret-word@no-such-host.invalid/d", "the host's name is not known"),
    ],
)
def test_a_database_that_cannot_be_reached(doctor: Doctor, url: str, meaning: str) -> None:
    told = doctor(DATABASE, Area.WORK, DATABASE_URL=url)
    assert meaning in told.wrong("connection").what
    assert "secret-word" not in told.text
    assert told.found["work"].health == "SKIPPED"


def test_a_database_that_does_not_exist(doctor: Doctor, postgres_server: str) -> None:
    told = doctor(DATABASE, DATABASE_URL=at_database(postgres_server, "no_such_database")).wrong("connection")
    assert "createdb" in told.mend


def test_a_password_or_role_that_is_not_accepted(doctor: Doctor, role: str) -> None:
    told = doctor(DATABASE, DATABASE_URL=role.replace("its-own", "guessed"))
    assert "the password is not accepted" in told.wrong("connection").what
    assert "guessed" not in told.text


def test_a_schema_that_is_not_there(doctor: Doctor, empty_database_url: str) -> None:
    told = doctor(DATABASE, DATABASE_URL=empty_database_url, MIGRATE_ON_START="false").wrong("schema")
    assert told.mend == "payment-service migrate"
    told = doctor(DATABASE, DATABASE_URL=empty_database_url, MIGRATE_ON_START="true").found["schema"]
    assert told.health == "WARNING"


def test_a_schema_of_another_making(database: Doctor, database_url: str) -> None:
    execute(database_url, "update payment_service.schema_migrations set checksum = 'x' where name like '0001%'")
    assert "was changed after" in database(DATABASE).wrong("schema").what


def test_a_role_that_may_not_do_its_work(database: Doctor, database_url: str, role: str) -> None:
    name = execute(role, "select current_user::text")[0][0]
    execute(database_url, f"revoke insert on payment_service.payments, payment_service.outbox from {name}")
    told = database(DATABASE, DATABASE_URL=role).wrong("rights")
    assert "payments: insert" in told.what
    execute(database_url, f"revoke all on all tables in schema payment_service from {name}")
    told = database(DATABASE, Area.WORK, DATABASE_URL=role)
    told.wrong("schema" if "schema" in told.found and told.found["schema"].health == "WRONG" else "rights")


def test_a_role_that_may_do_too_much(database: Doctor, database_url: str, role: str) -> None:
    name = execute(role, "select current_user::text")[0][0]
    execute(database_url, f"grant update on payment_service.payment_events to {name}")
    here = {"DATABASE_URL": role, **{k: v for k, v in PRODUCTION.items() if k != "DATABASE_URL"}}
    told = database(DATABASE, **here).wrong("append-only")
    assert "payment_events" in told.what
    told = database(DATABASE, **{**here, "DATABASE_URL": database_url})
    assert "superuser" in told.wrong("role").what


def test_a_server_that_would_lose_payments(database: Doctor, database_url: str) -> None:
    execute(database_url, "alter system set full_page_writes = off")
    execute(database_url, "select pg_reload_conf(), pg_sleep(0.5)")
    try:
        told = database(DATABASE).found["durability"]
    finally:
        execute(database_url, "alter system reset full_page_writes")
        execute(database_url, "select pg_reload_conf(), pg_sleep(0.5)")
    assert told.health == "WARNING"


def test_a_server_that_takes_no_writes(database: Doctor, database_url: str) -> None:
    name = database_url.rpartition("/")[2].partition("?")[0]
    execute(database_url, f'alter database "{name}" set default_transaction_read_only = on')
    database(DATABASE).wrong("writing")


def test_a_clock_that_differs_from_the_databases(database: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    from payment_service.adapters.clock import SystemClock

    real = SystemClock().now_ms
    monkeypatch.setattr(SystemClock, "now_ms", lambda self: real() + 120_000)
    assert "120 s ahead" in database(DATABASE).wrong("clock against the database").what


# --- broker ----------------------------------------------------------------------------------------------------


def test_a_broker_that_is_away(doctor: Doctor) -> None:
    doctor(BROKER, KAFKA_BROKERS=NOWHERE).wrong("broker")
    assert doctor(BROKER).found["broker"].health == "WARNING", "the embedded one is not running"


def test_topics_that_are_missing_or_wrong(doctor: Doctor, tansu_broker: str) -> None:
    doctor.env |= {"KAFKA_BROKERS": tansu_broker, "TOPIC_PREFIX": f"d{free_port()}-"}
    prefix = doctor.env["TOPIC_PREFIX"]
    told = doctor(BROKER)
    assert told.wrong(f"{prefix}payment-webhooks").mend == "payment-service topics create"
    in_loop(create_topics(tansu_broker, [f"{prefix}payment.created"], partitions=3))
    assert "3 partitions" in doctor(BROKER).wrong(f"{prefix}payment.created").what


# --- providers -------------------------------------------------------------------------------------------------


def test_providers_whose_keys_are_accepted_or_not(doctor: Doctor, tmp_path: Path) -> None:
    with ProviderSim(tmp_path) as sim:
        stripe = {"STRIPE_API_BASE": sim.url, "STRIPE_SECRET_KEY": "sk_test_good"}
        paypal = {"PAYPAL_API_BASE": sim.url, "PAYPAL_CLIENT_ID": "i", "PAYPAL_CLIENT_SECRET": "s"}
        told = doctor(PROVIDERS, **stripe, **paypal)
        assert told.exit_code == 0, told.text
        assert told.found["clock against stripe"].health == "OK"
        told = doctor(PROVIDERS, **{**stripe, "STRIPE_SECRET_KEY": "no-key-at-all"})
        assert "401" in told.wrong("stripe").what
        assert "no-key-at-all" not in told.text


def test_a_provider_that_is_away(doctor: Doctor) -> None:
    keys = {"STRIPE_SECRET_KEY": "sk_test_good", "PAYPAL_CLIENT_ID": "i", "PAYPAL_CLIENT_SECRET": "very-secret"}
    away = f"http://{NOWHERE}"
    told = doctor(PROVIDERS, STRIPE_API_BASE=away, PAYPAL_API_BASE=away, **keys)
    told.wrong("stripe")
    told.wrong("paypal")
    assert "very-secret" not in told.text
    doctor(PROVIDERS, PAYMENT_PROVIDER="stripe").wrong("PAYMENT_PROVIDER")


def test_a_clock_that_differs_from_a_providers(doctor: Doctor) -> None:
    with listening(http('{"object": "list", "data": []}')) as port:
        told = doctor(PROVIDERS, STRIPE_API_BASE=f"http://127.0.0.1:{port}", STRIPE_SECRET_KEY="sk_test_good")
    assert "ahead" in told.wrong("clock against stripe").what


# --- around ----------------------------------------------------------------------------------------------------


def test_what_is_around_and_away(doctor: Doctor) -> None:
    told = doctor(
        AROUND, REDIS_URL=f"redis://:secret-word@{NOWHERE}/0", ORDER_SERVICE_URL=f"http://{NOWHERE}",
        JWT_JWKS_URL=f"http://{NOWHERE}/keys", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{NOWHERE}",
    )  # fmt: skip
    for check in ("redis", "order service", "key set"):
        told.wrong(check)
    assert told.found["traces"].health == "WARNING"
    assert "secret-word" not in told.text
    doctor(AROUND, REDIS_URL="redis:/what").wrong("redis")
    with listening(http('{"keys": []}')) as port:
        doctor(AROUND, JWT_JWKS_URL=f"http://127.0.0.1:{port}/keys").wrong("key set")


def test_what_is_around_and_well(doctor: Doctor, redis_server: RedisServer) -> None:
    with listening(http('{"keys": [{"kty": "RSA"}]}')) as port:
        here = f"http://127.0.0.1:{port}"
        told = doctor(AROUND, REDIS_URL=redis_server.url, ORDER_SERVICE_URL=here, JWT_JWKS_URL=here)
    assert {it.health for it in told.found.values()} == {"OK"}, told.text


# --- the command -----------------------------------------------------------------------------------------------


def test_people_read_it_too(doctor: Doctor) -> None:
    from click.testing import CliRunner

    doctor(SETTINGS)
    result = CliRunner().invoke(program(), ["doctor", "--only", "settings", "--only", "machine"])
    assert result.exit_code == 0, result.output
    assert "settings\n  ok       environment: test" in result.stdout
    assert "mend: make one: openssl rand -hex 32" in result.stdout
    assert "nothing wrong" in result.stderr
    quiet = CliRunner().invoke(program(), ["doctor", "--only", "machine", "-q"])
    assert quiet.stdout == ""
    assert json.loads(CliRunner().invoke(program(), ["--json", "doctor", "--only", "machine"]).stdout)["ok"] is True


def test_the_worst_is_told() -> None:
    notes = Notes(Area.WORK)
    well, soso, bad = notes.ok("a", "b"), notes.warning("a", "b", "c"), notes.wrong("a", "b", "c")
    cases: list[tuple[list[Finding], Health]] = [
        ([], Health.OK), ([notes.skipped("a", "b")], Health.OK), ([well, soso], Health.WARNING),
        ([bad, soso, well], Health.WRONG),
    ]  # fmt: skip
    for findings, health in cases:
        assert worst_of(findings) is health
