"""What is read from the environment, what is derived, and what stops the start."""

import hashlib
import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from payment_service.adapters.settings import JWT_SECRET_FILE, Settings, SettingsInvalid
from payment_service.adapters.settings_values import parse_internal_token

STRONG = "Zk3v9QpLr7XwTn2bYc8hJd5fGs1mVa6u"
SECRET_WORDS = (STRONG, "s3cr3tpass", "sk_live_51Habc", "whsec_1a2b3c")

PRODUCTION = {
    "NODE_ENV": "production",
    "DATABASE_URL": "postgresql://pay:s3cr3tpass@db:5432/shop?schema=public&connection_limit=5&sslmode=require",
    "KAFKA_BROKERS": "kafka-1:9092, kafka-2:9092",
    "JWT_SECRET": STRONG,
    "ENCRYPTION_KEY": "9f3a0a1b2c3d4e5f60718293a4b5c6d7e8f90123456789abcdef55e1c0ffee42",
    "STRIPE_SECRET_KEY": "sk_live_51Habc",
    "STRIPE_WEBHOOK_SECRET": "whsec_1a2b3c, whsec_new4d5e",
    "REFUND_ROLES": "admin,service",
    "PUBLIC_URL": "https://pay.example.org/",
}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own environment or working directory is seen."""
    for name in list(os.environ):
        if name not in ("PATH", "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings.load()


def problems(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    with pytest.raises(SettingsInvalid) as caught:
        load(monkeypatch, **environment)
    assert str(caught.value).count("\n  - ") == len(caught.value.problems)
    return caught.value.problems


def names(lines: list[str]) -> set[str]:
    return {name for line in lines for name in re.findall(r"[A-Z][A-Z0-9_]{3,}", line.partition(": ")[0])}


def test_nothing_set_is_a_working_development_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load(monkeypatch)
    assert settings.environment == "development"
    assert settings.port == 3005
    assert settings.embedded_broker
    assert settings.embedded_database
    assert settings.kafka_brokers == ()
    assert settings.default_provider == "mock"
    assert settings.migrate_on_start
    assert settings.kafka_create_topics
    assert settings.dead_letters_plain
    assert settings.refund_roles == {"owner"}
    assert len(settings.encryption_key_bytes) == 32
    assert names(list(settings.warnings)) == {"JWT_SECRET", "ENCRYPTION_KEY"}


def test_the_made_jwt_secret_is_kept_and_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = load(monkeypatch, DATA_DIR="data")
    second = load(monkeypatch)
    kept = tmp_path / "data" / JWT_SECRET_FILE
    assert first.jwt_secret == second.jwt_secret
    assert first.jwt_secret is not None
    assert first.jwt_secret.get_secret_value() == kept.read_text()
    assert len(kept.read_text()) >= 32
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in kept.parent.iterdir()] == [JWT_SECRET_FILE]


def test_a_data_dir_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert names(problems(monkeypatch, DATA_DIR="file/below")) == {"DATA_DIR"}


def test_the_environment_wins_over_the_file_and_unknown_names_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        'PORT=4000\nLOG_LEVEL="silly"\nREDIS_URL=\nJWT_SECRET=from-the-file\nOLD_THING=1\n'
        "DATABASE_URL='postgresql://u:p%40ss@localhost:5432/payments?schema=shop&connection_limit=3'\n"
    )
    settings = load(monkeypatch, PORT="4001")
    assert settings.port == 4001
    assert settings.log_level == "DEBUG"
    assert settings.redis_url is None
    assert settings.database_dsn == "postgresql://u:p%40ss@localhost:5432/payments"
    assert settings.legacy_schema == "shop"
    assert not settings.embedded_database


def test_environment_wins_over_node_env(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, NODE_ENV="test").environment == "test"
    assert load(monkeypatch, ENVIRONMENT="Development").environment == "development"


def test_a_complete_production_starts_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **PRODUCTION)
    assert settings.warnings == ()
    assert settings.is_production
    assert settings.kafka_brokers == ("kafka-1:9092", "kafka-2:9092")
    assert settings.database_dsn == "postgresql://pay:s3cr3tpass@db:5432/shop?sslmode=require"
    assert settings.migration_database_dsn == settings.database_dsn
    assert settings.default_provider == "stripe"
    assert [one.get_secret_value() for one in settings.stripe_webhook_secret] == ["whsec_1a2b3c", "whsec_new4d5e"]
    assert settings.refund_roles == {"admin", "service"}
    assert settings.public_url == "https://pay.example.org"
    assert not settings.migrate_on_start
    assert not settings.kafka_create_topics
    assert not settings.dead_letters_plain
    assert settings.encryption_key_bytes == bytes.fromhex(PRODUCTION["ENCRYPTION_KEY"])


def test_production_lists_everything_wrong_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problems(monkeypatch, NODE_ENV="production", PUBLIC_URL="http://pay.example.org")
    assert names(found) == {
        "JWT_SECRET",
        "ENCRYPTION_KEY",
        "PAYMENT_PROVIDER",
        "DATABASE_URL",
        "KAFKA_BROKERS",
        "REFUND_ROLES",
        "PUBLIC_URL",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JWT_SECRET", "short"),
        ("JWT_SECRET", "a" * 40),
        ("JWT_SECRET", "please-change-me-before-production-1234"),
        ("ENCRYPTION_KEY", "0" * 64),
        ("ENCRYPTION_KEY", "31-characters-are-not-enough-ab"),
        ("ENCRYPTION_KEY", "ü" * 32),
        ("PAYMENT_PROVIDER", "mock"),
        ("INTERNAL_TOKENS", f"{STRONG},tooshort"),
        ("INTERNAL_TOKENS", "sha256:12ab"),
        ("INTERNAL_TOKENS", f"{STRONG};exp=soon"),
        ("STRIPE_WEBHOOK_SECRET", ""),
        ("PAYPAL_CLIENT_ID", "AbC"),
        ("PUBLIC_URL", "http://pay.example.org"),
        ("REFUND_ROLES", ""),
        ("KAFKA_BROKERS", ""),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://u:s3cr3tpass@db/x"),
        ("METRICS_TOKEN", "1234"),
        ("ENCRYPTION_KEYS_OLD", "odd"),
        ("LEASE_S", "20"),
        ("PORT", "s3cr3tpass"),
        ("LOG_LEVEL", "loud"),
        ("EVENT_PUBLISHER_TYPE", "rabbit"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,proxy"),
    ],
)
def test_one_wrong_setting_is_one_named_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    found = problems(monkeypatch, **{**PRODUCTION, name: value})
    assert len(found) == 1
    assert name in found[0].partition(": ")[0] or name in found[0]
    assert not any(secret in line for line in found for secret in SECRET_WORDS)


@pytest.mark.parametrize("asked", ["PAYPAL_CLIENT_ID", "STRIPE_SECRET_KEY"])
def test_production_does_not_turn_a_named_provider_into_another(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    provider = asked.partition("_")[0].lower()
    given = {k: v for k, v in PRODUCTION.items() if not k.startswith("STRIPE")} | {"PAYMENT_PROVIDER": provider}
    found = problems(monkeypatch, **given)
    assert names(found) >= {asked}


def test_outside_production_a_half_configured_provider_is_logged_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, PAYMENT_PROVIDER="stripe", PAYPAL_CLIENT_ID="client-of-the-test")
    wanted = {"STRIPE_SECRET_KEY", "PAYPAL_CLIENT_ID", "PAYPAL_CLIENT_SECRET"}
    assert names(list(settings.warnings)) & {*wanted, "PAYMENT_PROVIDER"} == wanted
    assert not any("client-of-the-test" in line for line in settings.warnings)
    assert (settings.default_provider, settings.stripe_configured, settings.paypal_configured) == (
        "stripe",
        False,
        False,
    )


def test_what_cannot_be_read_does_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**PRODUCTION, "PORT": "x", "NODE_ENV": "prod", "RATE_LIMIT_MAX": "0", "TRUSTED_PROXIES": "nowhere"}
    assert names(problems(monkeypatch, **given, OCI_QUEUE_ID="", EVENT_CONSUMER_TYPE="oci-queue")) == {
        "PORT",
        "ENVIRONMENT",
        "RATE_LIMIT_MAX",
        "TRUSTED_PROXIES",
        "OCI_QUEUE_ID",
    }


def test_embedded_parts_must_be_asked_for_in_staging_and_never_in_production(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert names(problems(monkeypatch, NODE_ENV="staging")) == {"DATABASE_URL", "KAFKA_BROKERS"}
    assert load(monkeypatch, NODE_ENV="staging", EMBEDDED="true").embedded_database
    assert "KAFKA_BROKERS" in names(problems(monkeypatch, NODE_ENV="production", EMBEDDED="true"))


def test_oci_streaming_is_derived_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"EVENT_PUBLISHER_TYPE": "oci-streaming", "OCI_STREAM_ID": "ocid1.stream.x"}
    expected = {"OCI_TENANCY", "OCI_USER", "OCI_STREAM_POOL_ID", "OCI_AUTH_TOKEN"}
    assert names(problems(monkeypatch, **old)) == expected
    settings = load(
        monkeypatch, OCI_TENANCY="acme", OCI_USER="bot", OCI_STREAM_POOL_ID="ocid1.pool.x", OCI_AUTH_TOKEN="s3cr3tpass"
    )
    assert settings.kafka_brokers == ("streaming.ap-hyderabad-1.oci.oraclecloud.com:9092",)
    security = settings.kafka_security
    assert (security.protocol, security.mechanism) == ("SASL_SSL", "PLAIN")
    assert security.username == "acme/bot/ocid1.pool.x"
    assert "s3cr3tpass" not in repr(security)
    assert not settings.embedded_broker
    over = load(monkeypatch, KAFKA_BROKERS="127.0.0.1:9092")
    assert over.kafka_brokers == ("127.0.0.1:9092",)
    assert over.kafka_security.protocol == "PLAINTEXT"
    assert over.kafka_security.password is None


def test_kafka_needs_brokers_and_signs_on_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(problems(monkeypatch, EVENT_CONSUMER_TYPE="kafka")) == {"KAFKA_BROKERS"}
    settings = load(
        monkeypatch,
        KAFKA_BROKERS="b:9092",
        KAFKA_SASL_USERNAME="u",
        KAFKA_SASL_PASSWORD="s3cr3tpass",
        TOPIC_PREFIX="t.",
    )
    assert settings.kafka_security.protocol == "SASL_SSL"
    assert settings.topic("orders") == "t.orders"
    assert settings.consumer_group == "t.payment-service"


def test_an_odd_encryption_key_is_derived_as_the_old_service_did(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, ENCRYPTION_KEY="odd", JWT_SECRET=STRONG)
    old = hashlib.pbkdf2_hmac("sha256", b"odd", b"payment-service-salt", 100_000, dklen=32)
    assert settings.encryption_key_bytes == old
    assert names(list(settings.warnings)) == {"ENCRYPTION_KEY"}
    monkeypatch.delenv("ENCRYPTION_KEY")
    from_jwt = hashlib.pbkdf2_hmac("sha256", STRONG.encode(), b"payment-service-salt", 100_000, dklen=32)
    assert load(monkeypatch).encryption_key_bytes == from_jwt
    assert load(monkeypatch, ENCRYPTION_KEY=STRONG).encryption_key_bytes == STRONG.encode()
    # Whoever sets a key for the first time cannot name the one before it.
    assert load(monkeypatch, ENCRYPTION_KEY=STRONG, ENCRYPTION_KEYS_OLD="odd").encryption_keys_old == (old, from_jwt)
    assert load(monkeypatch, **PRODUCTION, ENCRYPTION_KEYS_OLD=STRONG).encryption_keys_old == (STRONG.encode(),)


def test_internal_tokens_are_kept_as_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"token").digest()
    tokens = load(monkeypatch, INTERNAL_TOKENS=f"token, sha256:{digest.hex()};exp=2026-12-31").internal_tokens
    assert [token.sha256 for token in tokens] == [digest, digest]
    assert tokens[0].expires_at_ms is None
    assert tokens[1].expires_at_ms == int(datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert parse_internal_token("t;exp=2026-12-31T12:00:00+01:00").expires_at_ms == int(
        datetime(2026, 12, 31, 11, tzinfo=UTC).timestamp() * 1000
    )
    with pytest.raises(ValueError, match="zone"):
        parse_internal_token("t;exp=2026-12-31T12:00:00")


def test_no_secret_is_in_any_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **PRODUCTION, INTERNAL_TOKENS=STRONG, ENCRYPTION_KEYS_OLD=STRONG)
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert not any(word in text for word in SECRET_WORDS)


def test_settings_are_frozen_and_can_point_at_started_services(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    started = settings.with_services(database_url="postgresql://u@127.0.0.1:5/p", kafka_brokers=("127.0.0.1:6",))
    assert started.database_dsn == "postgresql://u@127.0.0.1:5/p"
    assert started.kafka_brokers == ("127.0.0.1:6",)
    assert not started.embedded_broker
    assert started.warnings == settings.warnings
    assert settings.embedded_broker


def test_a_public_key_needs_no_jwt_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {name: value for name, value in PRODUCTION.items() if name != "JWT_SECRET"}
    settings = load(monkeypatch, **given, JWT_JWKS_URL="https://login.example.org/jwks.json")
    assert settings.jwt_secret is None
    assert list(tmp_path.iterdir()) == []
