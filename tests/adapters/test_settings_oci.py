"""Settings of OCI: what is derived, what never happens there, and what is told when it cannot be derived."""

import importlib.util
from pathlib import Path
from typing import Any

import oci
import pytest

from payment_service.adapters import settings_rules
from payment_service.adapters.settings import Settings, SettingsInvalid
from payment_service.adapters.settings_values import oci_streaming_host
from payment_service.services import kafka_client

STREAMING = {"EVENT_PUBLISHER_TYPE": "oci-streaming", "EVENT_CONSUMER_TYPE": "oci-streaming"}
SIGN_ON = {
    "OCI_TENANCY": "acme", "OCI_USER": "oracleidentitycloudservice/pay@example.com",
    "OCI_STREAM_POOL_ID": "ocid1.streampool.x", "OCI_AUTH_TOKEN": "tok;en(1)",
}  # fmt: skip


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def loaded(**env: str) -> Settings:
        monkeypatch.setenv("DATA_DIR", str(tmp_path))
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return Settings.load(None)

    return loaded


def test_the_client_of_oci_streaming_signs_on_over_tls(load: Any) -> None:
    settings = load(**STREAMING, **SIGN_ON, OCI_REGION="eu-frankfurt-1")
    client = kafka_client(settings)
    options = client.options()
    assert client.brokers == "streaming.eu-frankfurt-1.oci.oraclecloud.com:9092"
    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "PLAIN")
    assert options["sasl_plain_username"] == f"acme/{SIGN_ON['OCI_USER']}/ocid1.streampool.x"
    assert options["ssl_context"].check_hostname and options["ssl_context"].verify_mode.name == "CERT_REQUIRED"
    assert client.producer_options()["enable_idempotence"] is False
    assert client.faust_credentials().protocol.value == "SASL_SSL"
    assert "tok;en(1)" not in repr(client) + repr(settings)


@pytest.mark.parametrize("kind", ["EVENT_PUBLISHER_TYPE", "EVENT_CONSUMER_TYPE"])
def test_nothing_is_created_there_and_fetches_are_paced(load: Any, kind: str) -> None:
    settings = load(**{kind: "oci-streaming"}, **SIGN_ON)
    assert not settings.kafka_create_topics and not settings.creates_topics
    assert settings.kafka_fetches_per_s == 5


def test_not_even_when_somebody_says_so(load: Any) -> None:
    settings = load(**STREAMING, **SIGN_ON, KAFKA_CREATE_TOPICS="true", KAFKA_BROKERS="cell-1.streaming.example:9092")
    assert not settings.creates_topics
    assert settings.kafka_fetches_per_s == 5


def test_elsewhere_nothing_changes(load: Any) -> None:
    settings = load(KAFKA_BROKERS="127.0.0.1:9092")
    assert settings.creates_topics and settings.kafka_fetches_per_s == 0


def test_scram_for_ocis_managed_kafka(load: Any) -> None:
    settings = load(
        EVENT_PUBLISHER_TYPE="kafka", KAFKA_BROKERS="bootstrap-clstr-x.kafka.eu-frankfurt-1.oci.oraclecloud.com:9092",
        KAFKA_SASL_MECHANISM="scram-sha-512", KAFKA_SASL_USERNAME="u", KAFKA_SASL_PASSWORD="p",
    )  # fmt: skip
    options = kafka_client(settings).options()
    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")


def test_every_public_region_of_the_sdk_has_its_host() -> None:
    """Oracle's commercial and government realms; a realm of somebody's own names its servers in KAFKA_BROKERS."""
    seen = set()
    for region, realm in oci.regions.REGION_REALMS.items():
        if realm in ("oc1", "oc2", "oc3", "oc4"):
            seen.add(realm)
            assert oci_streaming_host(region) == f"streaming.{region}.oci.{oci.regions.REALMS[realm]}", region
    assert seen == {"oc1", "oc2", "oc3", "oc4"}


def test_the_queue_needs_its_sdk_and_a_key(load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    queue = {"EVENT_CONSUMER_TYPE": "oci-queue", "OCI_QUEUE_ID": "ocid1.queue.x", "KAFKA_BROKERS": "127.0.0.1:9092"}
    with pytest.raises(SettingsInvalid, match="OCI_CONFIG_FILE: there is no such file"):
        load(**queue, OCI_CONFIG_FILE=str(tmp_path / "none"))
    assert load(OCI_SIGN_ON="workload-identity").oci_signing.method == "workload-identity"
    monkeypatch.setattr(settings_rules, "is_installed", lambda: False)
    with pytest.raises(SettingsInvalid, match=r"payment-service\[oci\]"):
        load()
    assert importlib.util.find_spec("oci") is not None


@pytest.mark.parametrize("name", ["OCI_QUEUE_ENDPOINT", "OCI_SECRETS_ENDPOINT"])
def test_production_speaks_https_to_oci(load: Any, name: str) -> None:
    with pytest.raises(SettingsInvalid) as told:
        load(ENVIRONMENT="production", **{name: "http://queue.example"})
    assert any(line.startswith(f"{name}: must start with https") for line in told.value.problems)


def test_an_authority_that_is_not_there_is_told(load: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="KAFKA_SSL_CAFILE"):
        load(KAFKA_SSL_CAFILE=str(tmp_path / "none.pem"))
