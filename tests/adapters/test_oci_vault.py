"""ENCRYPTION_KEY from a secret of OCI Vault, by the real SDK."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.oci_emulator import SECRET, OciEmulator

from payment_service.adapters import oci_vault
from payment_service.adapters.settings import Settings, SettingsInvalid

CURRENT, PREVIOUS = "the-new-key-of-exactly-32-chars-", "the-old-key-of-exactly-32-chars-"


@pytest.fixture
def oci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OciEmulator]:
    monkeypatch.setattr(oci_vault, "PAUSE_S", 0.01)
    with OciEmulator(tmp_path / "oci", secrets={"CURRENT": CURRENT.encode()}) as emulator:
        for name, value in (
            ("ENVIRONMENT", "test"), ("DATA_DIR", str(tmp_path)), ("OCI_ENCRYPTION_KEY_SECRET_ID", SECRET),
            ("OCI_SECRETS_ENDPOINT", emulator.url), ("OCI_CONFIG_FILE", str(emulator.config)),
        ):  # fmt: skip
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("ENCRYPTION_KEY", raising=False)
        yield emulator


def problems() -> list[str]:
    with pytest.raises(SettingsInvalid) as told:
        Settings.load(None)
    return told.value.problems


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (CURRENT.encode(), CURRENT.encode()),
        (CURRENT.encode() + b"\n", CURRENT.encode()),
        (b"ab" * 32, bytes.fromhex("ab" * 32)),
        (bytes(range(200, 232)), bytes(range(200, 232))),
    ],
    ids=["32 characters", "with a line end", "hexadecimal", "32 bytes"],
)
def test_the_key_is_the_secrets_content(oci: OciEmulator, content: bytes, key: bytes) -> None:
    oci.secrets["CURRENT"] = content
    settings = Settings.load(None)
    assert settings.encryption_key_bytes == key
    assert len(settings.encryption_keys_old) == 1, "that which came from JWT_SECRET before there was a vault"
    assert CURRENT not in repr(settings)
    assert not oci.refused


def test_the_version_before_opens_what_it_sealed(oci: OciEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    oci.secrets["PREVIOUS"] = PREVIOUS.encode()
    monkeypatch.setenv("ENCRYPTION_KEYS_OLD", "one-more-key-of-exactly-32-chars")
    settings = Settings.load(None)
    assert settings.encryption_key_bytes == CURRENT.encode()
    assert settings.encryption_keys_old[:2] == (PREVIOUS.encode(), b"one-more-key-of-exactly-32-chars")


def test_a_vault_that_is_away_for_a_moment_is_asked_again(oci: OciEmulator) -> None:
    oci.failures += [503, 429]
    assert Settings.load(None).encryption_key_bytes == CURRENT.encode()


def test_what_is_wrong_is_told_with_everything_else(oci: OciEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    oci.secrets.clear()
    monkeypatch.setenv("PORT", "nowhere")
    lines = problems()
    assert [line.partition(":")[0] for line in lines] == ["PORT", "ENCRYPTION_KEY"]
    assert "404 NotAuthorizedOrNotFound" in lines[1] and "OCI_ENCRYPTION_KEY_SECRET_ID" in lines[1]


def test_a_vault_that_stays_away_stops_the_start(oci: OciEmulator) -> None:
    oci.failures += [500] * 20
    (line,) = problems()
    assert "500" in line


def test_two_keys_are_one_too_many(oci: OciEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCRYPTION_KEY", CURRENT)
    (line,) = problems()
    assert "set one" in line and CURRENT not in line
    assert not oci.calls


def test_a_weak_key_of_the_vault_is_refused_in_production(oci: OciEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    oci.secrets["CURRENT"] = b"a" * 32
    monkeypatch.setenv("ENVIRONMENT", "production")
    assert any(line.startswith("ENCRYPTION_KEY: repeats") for line in problems())
