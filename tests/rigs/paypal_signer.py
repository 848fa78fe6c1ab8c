"""Certificates and signatures as PayPal's, made by the simulator's own code, for tests that bend them."""

from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from payment_service.cli.provider_sim.paypal_signing import Authority, pem, signed_headers

WEBHOOK_ID = "WEBHOOKOFTHETEST1"
NAME = "messageverificationcerts.sandbox.paypal.com"


class Signer:
    """One root and one key. `leaf`: a certificate of the key, signed by that root."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.key = rsa.generate_private_key(65537, 2048)

    @property
    def root(self) -> bytes:
        return pem(self.authority.root).encode()

    def leaf(self, name: str = NAME, since: datetime | None = None) -> bytes:
        return pem(self.authority.certify(name, self.key, since)).encode()

    def headers(
        self, url: str, body: bytes, webhook_id: str = WEBHOOK_ID, at: datetime | None = None, **changed: Any
    ) -> dict[str, str]:
        """Names in small letters, as a WebhookReader is given them. `changed`: what is not as it was signed."""
        signed = signed_headers(self.key, url, webhook_id, body, at or datetime.now(UTC))
        made = {name.lower(): value for name, value in signed.items()}
        return made | {f"paypal-{name.replace('_', '-')}": value for name, value in changed.items()}
