"""The key that seals stored tokens, from a secret of OCI Vault.

Room: adapters. Asked once, while the settings are read, before anything of ours runs: it may block.
"""

import base64
import binascii
import time
from dataclasses import dataclass, field
from typing import Any

from payment_service.adapters.oci_sign_on import OciRefused, OciSignOn, asked
from payment_service.core.errors import Unavailable

TRIES = 4
PAUSE_S = 1.0
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class VaultKeys:
    """As they may stand in ENCRYPTION_KEY. `previous`: of the secret's version before, if it has one that is kept."""

    current: str = field(repr=False)
    previous: str | None = field(repr=False)


def encryption_keys(sign_on: OciSignOn, secret_id: str, endpoint: str | None) -> VaultKeys:
    """Raises: OciRefused (no such secret, or no right to read it), Unavailable (after TRIES)."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return _asked_keys(sign_on, secret_id, endpoint)
        except Unavailable:
            if not left:
                raise
            time.sleep(PAUSE_S)
    raise AssertionError("unreachable: the last try returns or raises")


def _asked_keys(sign_on: OciSignOn, secret_id: str, endpoint: str | None) -> VaultKeys:
    import oci

    client = sign_on.client(oci.secrets.SecretsClient, endpoint)

    def stage(name: str) -> Any:
        what = f"show the secret of OCI_ENCRYPTION_KEY_SECRET_ID ({name.lower()} version)"
        return asked(lambda: client.get_secret_bundle(secret_id, stage=name), what).data

    current = stage("CURRENT")
    try:
        previous = stage("PREVIOUS")
    except OciRefused as error:
        if error.status != NOT_FOUND:
            raise
        return VaultKeys(_text_of(current), None)
    return VaultKeys(_text_of(current), _text_of(previous))


def _text_of(bundle: Any) -> str:
    """A text of the right form as it is (an editor's line end is not part of it); any other 32 bytes as hexadecimal."""
    try:
        data = base64.b64decode(bundle.secret_bundle_content.content, validate=True)
    except (AttributeError, TypeError, binascii.Error):
        raise OciRefused("OCI_ENCRYPTION_KEY_SECRET_ID: what the vault gives is no base64 content") from None
    try:
        return data.decode("ascii").rstrip("\r\n")
    except UnicodeDecodeError:
        return data.hex()
