"""Points 20-25 of the security check-list: a check that fails denies, browsers, encrypted ways, who the caller is, what
is kept of it, and what lies open. OWASP API Security 2023 (A), ASVS 5.0 (V), PCI DSS 4.0.1 (P)."""

import re
import ssl
import subprocess
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from rigs.counted import CountedMetrics
from rigs.desk_rig import desk_over
from rigs.order_service import OrderService
from rigs.stores import KEY
from rigs.web_site import ADMIN, ANN, BOB, PATH, SERVICE, RecordedRequests, ask, opened, services_with
from rigs.whole_site import whole_site
from servers.postgres import execute

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.kafka_client import KafkaClient
from payment_service.adapters.memory.payment_store import MemoryPaymentStore
from payment_service.adapters.orders_api import OrdersApi
from payment_service.adapters.outbound import Outbound
from payment_service.adapters.postgres.audit_log import PostgresAuditLog
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.settings import Settings, SettingsInvalid
from payment_service.core.errors import Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.use_cases.check_order import CheckOrder

ROOT = Path(__file__).resolve().parents[2]
LOCAL = (ip_network("127.0.0.0/8"),)
SHOP = "https://shop.example"
CREATE = {"orderId": "o1", "amount": 10.5}

# --- 20 --------------------------------------------------------------------------------------------------------


class Broken:
    """A verifier that a defect, or a key set that is away, keeps from verifying."""

    takes_internal = True

    def __init__(self, error: Exception) -> None:
        self.error = error

    def bearer(self, token: str) -> Any:
        raise self.error

    internal = bearer


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("a bug"), 500), (Unavailable("no keys yet"), 503)])
async def test_20_a_check_that_fails_lets_nobody_in(error: Exception, status: int) -> None:
    """V 16.5.3."""
    requests = RecordedRequests()
    client = await opened(replace(services_with(requests), tokens=Broken(error)))  # type: ignore[arg-type]
    try:
        for headers in (ANN, ADMIN, SERVICE):
            assert (await ask(client, "POST", "/api/v1/payments", CREATE, **headers))[0] == status
    finally:
        await client.close()
    assert requests.calls == []


@pytest.mark.parametrize("mood", ["error", "cut", "odd", "unavailable", "denies", "forbidden", "huge", "redirect"])
async def test_20_an_order_that_cannot_be_checked_makes_no_payment(mood: str) -> None:
    outbound, store = Outbound(), MemoryPaymentStore()
    async with OrderService(mood=mood) as service, desk_over(store) as rig:
        service.has("o1", "user-1")
        orders = OrdersApi(service.url, None, outbound.session, SystemClock(), CountedMetrics())
        client = await opened(services_with(replace(rig.desk, check_order=CheckOrder(orders, store))))
        status, _ = await ask(client, "POST", "/api/v1/payments", CREATE, **ANN)
        await client.close()
    await outbound.close()
    assert status in (404, 503)
    assert (await store.load(payment_id_of("o1"))).payment is None


async def test_20_without_its_keys_store_a_keyed_request_does_nothing() -> None:
    class Away:
        async def find(self, key: Any) -> Any:
            raise Unavailable("the database is away")

    async with whole_site(keys=Away()) as site:
        body = {"type": "card", "provider": "mock", "token": "tok_visa"}
        status, _ = await site.ask("POST", "/api/v1/payment-methods", body, **{"Idempotency-Key": "k"})
        assert status == 503 and await site.rig.kept.listed("user-1") == []


# --- 21 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [frozenset(), frozenset({SHOP}), frozenset({"*"}), frozenset({SHOP, "*"})])
async def test_21_only_a_named_origin_may_read(allowed: frozenset[str]) -> None:
    """A 8, V 3.4.2: never `*`, whatever the setting says; and nothing that is merely like a named one."""
    async with whole_site(allowed_origins=allowed) as site:
        await site.created("order-1")
        for origin in (SHOP, "https://evil.example", f"{SHOP}.evil.example", "null", "http://shop.example"):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            async with site.client.options(PATH, headers=asked) as preflight:
                said = preflight.headers.get("Access-Control-Allow-Origin")
            async with site.client.get(PATH, headers={**ANN, "Origin": origin}) as answer:
                assert answer.headers.get("Access-Control-Allow-Origin") == said
            assert said == (SHOP if origin == SHOP and SHOP in allowed else None)


async def test_21_every_answer_is_careful_and_odd_methods_are_none() -> None:
    """V 3.4.4, 4.1.4, 13.4.4."""
    async with whole_site(https_only=True) as site:
        for path in (
            PATH,
            "/health",
            "/metrics",
            "/api-docs",
            "/api-docs/openapi.yaml",
            "/nowhere",
            "/api/v1/payments",
        ):
            async with site.client.get(path, headers=ANN) as answer:
                headers = answer.headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Server"] == "payment-service"
            assert headers["Strict-Transport-Security"].startswith("max-age=63072000")
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "unsafe-eval" not in headers["Content-Security-Policy"]
            assert "script-src 'self';" in headers["Content-Security-Policy"] or path != "/api-docs"
        for method in ("TRACE", "PATCH", "OPTIONS", "PROPFIND", "PUT"):
            async with site.client.request(method, PATH, headers=ANN) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD"), method


# --- 22 --------------------------------------------------------------------------------------------------------

STRONG = "Zk3v9QpLr7XwTn2bYc8hJd5fGs1mVa6u"
PRODUCTION = {
    "NODE_ENV": "production", "DATABASE_URL": "postgresql://pay:pass@db/shop", "KAFKA_BROKERS": "kafka:9092",
    "JWT_SECRET": STRONG, "ENCRYPTION_KEY": STRONG[::-1], "STRIPE_SECRET_KEY": "sk_live_51Habc",
    "STRIPE_WEBHOOK_SECRET": "whsec_1a2b3c", "REFUND_ROLES": "admin", "PUBLIC_URL": "https://pay.example.org",
}  # fmt: skip
PAYPAL = {"PAYPAL_CLIENT_ID": "Ab", "PAYPAL_CLIENT_SECRET": "Cd", "PAYPAL_WEBHOOK_ID": "WH-1", "PAYPAL_MODE": "live"}


def load(monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: str) -> Settings:
    monkeypatch.chdir(folder)
    for name, value in {**PRODUCTION, **changes}.items():
        monkeypatch.setenv(name, value)
    return Settings.load()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"PUBLIC_URL": "http://pay.example.org"}, "PUBLIC_URL"),
        ({"STRIPE_API_BASE": "http://proxy.example"}, "STRIPE_API_BASE"),
        ({**PAYPAL, "PAYPAL_API_BASE": "http://proxy.example"}, "PAYPAL_API_BASE"),
        ({**PAYPAL, "PAYPAL_API_BASE": "https://api-m.sandbox.paypal.com"}, "PAYPAL_MODE"),
        ({"STRIPE_PUBLISHABLE_KEY": "pk_test_51Habc"}, "STRIPE_PUBLISHABLE_KEY"),
        ({"STRIPE_SECRET_KEY": "sk_test_51Habc", "STRIPE_PUBLISHABLE_KEY": "pk_live_51Habc"}, "STRIPE_SECRET_KEY"),
        ({"PAYMENT_PROVIDER": "mock"}, "PAYMENT_PROVIDER"),
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"KAFKA_BROKERS": ""}, "KAFKA_BROKERS"),
        ({"JWT_SECRET": "change-me-change-me-change-me-change-me"}, "JWT_SECRET"),
        ({"ENCRYPTION_KEY": "0" * 64}, "ENCRYPTION_KEY"),
        ({"INTERNAL_TOKENS": "admin"}, "INTERNAL_TOKENS"),
        ({"METRICS_TOKEN": "metrics"}, "METRICS_TOKEN"),
    ],
)
def test_22_production_refuses_what_is_not_in_earnest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, str], named: str
) -> None:
    """V 12.3, 13.2.3, 13.4.2: the way in the clear, the key of the sandbox beside the real one, what anybody knows."""
    load(monkeypatch, tmp_path)  # starts as it is
    with pytest.raises(SettingsInvalid) as refused:
        load(monkeypatch, tmp_path, **changes)
    assert len(refused.value.problems) == 1 and named in refused.value.problems[0].partition(": ")[0]


def test_22_certificates_are_verified_everywhere() -> None:
    context = KafkaClient("k:9093", "SASL_SSL", "PLAIN", "user", "password").options()["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    rooms = [ROOT / name for name in ("adapters", "agents", "cli", "codecs", "core", "tables", "web")]
    off = re.compile(r"CERT_NONE|\bverify\s*=\s*False|ssl\s*=\s*False|check_hostname\s*=\s*False|_create_unverified")
    files = [*ROOT.glob("*.py"), *(file for room in rooms for file in room.rglob("*.py"))]
    assert len(files) > 100
    assert [file for file in files if off.search(file.read_text())] == []


# --- 23 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "forwarded", "seen"),
    [
        ((), "203.0.113.7", "127.0.0.1"),
        (LOCAL, "203.0.113.7", "203.0.113.7"),
        (LOCAL, "1.1.1.1, 203.0.113.7", "203.0.113.7"),
        (LOCAL, "203.0.113.7, 127.0.0.2", "203.0.113.7"),
        ((ip_network("10.0.0.0/8"),), "203.0.113.7", "127.0.0.1"),
    ],
)
async def test_23_the_address_is_what_our_own_proxies_saw(trusted: Any, forwarded: str, seen: str) -> None:
    """V 4.1.3, 15.3.4: in the audit log, and for what is counted by address."""
    async with whole_site(trusted_proxies=trusted) as site:
        others = {"X-Real-IP": "9.9.9.9", "Forwarded": "for=9.9.9.9", "X-Client-IP": "9.9.9.9"}
        await site.ask("POST", f"{PATH}/cancel", {}, {}, **{"X-Forwarded-For": forwarded, **others})
        assert [entry.client for entry in site.audited] == [seen]


# --- 24 --------------------------------------------------------------------------------------------------------


async def test_24_who_tried_what_is_kept_and_cannot_be_changed(database_url: str) -> None:
    """P 10.2, 10.3, V 16.2: what was done, denied, and counted out; append-only even for the owner of the tables."""
    database = Database(database_url)
    log = PostgresAuditLog(database, chain_key(KEY), "worker-1", SystemClock(), CountedMetrics())
    async with whole_site(audit=log.record, rate_limit_max=4) as site:
        path = await site.created("order-1")
        await site.ask("POST", f"{path}/process", {"paymentMethodId": "tok_visa"}, **{"X-Request-ID": "r-1"})
        await site.ask("POST", f"{path}/refund", {}, BOB)
        await site.ask("GET", path, who=BOB)
        for _ in range(3):
            await site.ask("POST", f"{path}/refund", {"amount": 1})
        for _ in range(5):
            await site.ask("GET", path, who={})
    await log.close()
    rows = [
        row for (row,) in execute(database_url, "select entry::text from payment_service.audit_log order by number")
    ]
    await database.close()
    entries = [yaml.safe_load(row) for row in rows]
    results = {(it["action"], it["result"], it["actor"]) for it in entries}
    assert {
        ("payment.create", "OK", "user:user-1"), ("payment.process", "OK", "user:user-1"),
        ("payment.refund", "PAYMENT_NOT_FOUND", "user:user-2"), ("payment.read", "PAYMENT_NOT_FOUND", "user:user-2"),
        ("payment.refund", "OK", "user:user-1"), ("payment.refund", "RATE_LIMITED", "user:user-1"),
        ("payment.read", "UNAUTHORIZED", "anonymous"), ("payment.read", "RATE_LIMITED", "anonymous"),
    } <= results  # fmt: skip
    (charged,) = [it for it in entries if it["action"] == "payment.process"]
    assert charged["paymentId"] == payment_id_of("order-1") and charged["requestId"] == "r-1" and "Z" in rows[0]
    assert "tok_visa" not in "".join(rows)
    for what in ("update payment_service.audit_log set number = 0", "delete from payment_service.audit_log",
                 "truncate payment_service.audit_log"):  # fmt: skip
        with pytest.raises(psycopg2.Error):
            execute(database_url, what)
    assert execute(database_url, "select count(*) from payment_service.audit_log") == [(len(rows),)]


# --- 25 --------------------------------------------------------------------------------------------------------

SECRETS = re.compile(
    r"\b(?:sk|rk)_live_[A-Za-z0-9]{24,}|\bwhsec_[A-Za-z0-9+/]{32,}|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}"
    r"|\bxox[bapr]-[A-Za-z0-9-]{20,}|-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY-----\s*\n[A-Za-z0-9+/=\s]{100,}"
)
"""Of what a real one looks like; the tests' own are shorter, or say that they are of a test."""


def test_25_no_secret_is_in_the_repository() -> None:
    """P 6.3.2, 8.6.2, V 13.3.1."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name for name in listed.decode().split("\0") if name]
    assert len(files) > 200
    texts = {file: file.read_text(errors="ignore") for file in files if file.is_file()}
    assert [str(file) for file, text in texts.items() if SECRETS.search(text)] == []
    assert not [file for file in files if file.name == ".env" or file.suffix in {".pem", ".key", ".p12", ".jks"}]
    assert SECRETS.search("sk_live_" + "a1" * 12) and SECRETS.search("AKIA" + "Q" * 16)


async def test_25_what_operators_see_is_not_open() -> None:
    """V 13.4.5. The documentation is public by contract; what a page tells of our inside is not."""
    client = await opened(services_with(RecordedRequests(), metrics_token="token-of-the-scraper"))
    try:
        for headers in ({}, ANN, ADMIN, SERVICE, {"Authorization": "Bearer token-of-the-scrape"}):
            assert (await ask(client, "GET", "/metrics", **headers))[0] == 401
        async with client.get("/metrics", headers={"Authorization": "Bearer token-of-the-scraper"}) as answer:
            assert answer.status == 200
        for path in ("/tables/payments/pay_1", "/table/", "/table/payments/", "/router/", "/stats", "/", "/debug"):
            assert (await ask(client, "GET", path, **ANN))[0] in (403, 404), path
        for path in ("/.env", "/.git/config", "/api-docs/../env.txt", "/api-docs/%2e%2e/settings.py"):
            assert (await client.get(path)).status == 404, path
    finally:
        await client.close()


def test_25_the_audit_of_dependencies_is_one_command() -> None:
    """A 9. test_audit.py proves what it does; tests/web/test_api_document.py holds routes and openapi.yaml together."""
    targets, in_ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make audit", in_ci, re.MULTILINE) and re.search(r"^make test-api", in_ci, re.MULTILINE)
    assert re.search(r"^audit: .*\n\t.*security\.audit \$\(ARGS\)$", targets, re.MULTILINE)
    assert re.search(r"^test-api: .*\n\t.*security\.api_run", targets, re.MULTILINE)
