"""How PayPal signs its events, and how it can be asked whether one is its own.

Room: cli/provider_sim. developer.paypal.com/api/rest/webhooks/rest: `id|time|webhook id|crc32 of the body`, RSA with
SHA-256, a certificate to be fetched from the URL that a header names. The certificates are of the simulator's own root,
which `/_sim/paypal/root.pem` shows.
"""

import base64
import binascii
import uuid
import zlib
from datetime import UTC, datetime, timedelta

import orjson
from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from payment_service.cli.provider_sim.paypal_ask import Ask
from payment_service.cli.provider_sim.paypal_books import kind_of
from payment_service.cli.provider_sim.world import Thing, World

SIGNER_NAME = "messageverificationcerts.sandbox.paypal.com"
CERTS_PATH = "/v1/notifications/certs/"
ALGORITHM = "SHA256withRSA"
KEY_BITS = 2048
VALID = timedelta(days=365)
KEPT_AS = "CERT-SIMULATED"
VERIFIED = ("transmission_id", "transmission_time", "transmission_sig", "cert_url", "auth_algo", "webhook_id")


class Authority:
    """A root, and the certificates it signs."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, KEY_BITS)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider-sim root")])
        self.root = self._signed(self._name, self._key.public_key(), None, datetime.now(UTC))

    def certify(self, name: str, key: rsa.RSAPrivateKey, since: datetime | None = None) -> x509.Certificate:
        """Valid for a year from `since` on."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._signed(subject, key.public_key(), name, since or datetime.now(UTC))

    def _signed(self, subject: x509.Name, key: rsa.RSAPublicKey, name: str | None, since: datetime) -> x509.Certificate:
        ours = self._key.public_key()
        usage = x509.KeyUsage(
            digital_signature=name is not None, key_cert_sign=name is None, crl_sign=name is None,
            content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(since - timedelta(hours=1))
            .not_valid_after(since + VALID)
            .add_extension(x509.BasicConstraints(ca=name is None, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ours), critical=False)
        )
        if name is not None:
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return made.sign(self._key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def signed_headers(key: rsa.RSAPrivateKey, cert_url: str, webhook_id: str, body: bytes, at: datetime) -> dict[str, str]:
    transmission_id, moment = str(uuid.uuid4()), at.strftime("%Y-%m-%dT%H:%M:%SZ")
    message = f"{transmission_id}|{moment}|{webhook_id}|{zlib.crc32(body)}".encode()
    signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    return {
        "PAYPAL-TRANSMISSION-ID": transmission_id, "PAYPAL-TRANSMISSION-TIME": moment,
        "PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode(), "PAYPAL-CERT-URL": cert_url,
        "PAYPAL-AUTH-ALGO": ALGORITHM,
    }  # fmt: skip


class Signing:
    def __init__(self, world: World) -> None:
        self._world = world
        self._key: rsa.RSAPrivateKey | None = None

    @property
    def _cert_url(self) -> str:
        return self._world.settings.public_url + CERTS_PATH + KEPT_AS

    def sign(self, body: bytes) -> dict[str, str]:
        now, webhook_id = datetime.now(UTC), self._world.settings.paypal_webhook_id
        return signed_headers(self._private_key(), self._cert_url, webhook_id, body, now)

    async def certificate(self, request: web.Request) -> web.Response:
        if request.match_info["name"] != KEPT_AS:
            raise web.HTTPNotFound
        return await self._say(self._kept()["leaf"])

    async def root(self, _: web.Request) -> web.Response:
        return await self._say(self._kept()["root"])

    def verify(self, ask: Ask, raw: bytes) -> Thing:
        """Of the request's raw body: the event must be its last field, just as it was received."""
        event = raw[raw.find(b'"webhook_event":') + len(b'"webhook_event":') : raw.rfind(b"}")]
        given = {name: str(ask.body.get(name, "")) for name in VERIFIED}
        message = "|".join(
            (given["transmission_id"], given["transmission_time"], given["webhook_id"], str(zlib.crc32(event)))
        )
        known = (self._world.settings.paypal_webhook_id, self._cert_url, ALGORITHM)
        fits = (given["webhook_id"], given["cert_url"], given["auth_algo"]) == known
        try:
            signature = base64.b64decode(given["transmission_sig"], validate=True)
            public = self._private_key().public_key()
            public.verify(signature, message.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, binascii.Error):
            fits = False
        return {"verification_status": "SUCCESS" if fits else "FAILURE"}

    def _kept(self) -> Thing:
        """Made once: a restart signs with the same key, under the same URL."""
        kept = self._world.get(kind_of("certificate"), KEPT_AS)
        if kept is None:
            authority, key = Authority(), rsa.generate_private_key(65537, KEY_BITS)
            private = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            kept = {
                "id": KEPT_AS, "root": pem(authority.root), "leaf": pem(authority.certify(SIGNER_NAME, key)),
                "_key": private.decode(),
            }  # fmt: skip
            self._world.put(kind_of("certificate"), kept)
        return kept

    def _private_key(self) -> rsa.RSAPrivateKey:
        if self._key is None:
            loaded = serialization.load_pem_private_key(self._kept()["_key"].encode(), None)
            assert isinstance(loaded, rsa.RSAPrivateKey)
            self._key = loaded
        return self._key

    async def _say(self, text: str) -> web.Response:
        await self._world.ledger.written()
        return web.Response(text=text, content_type="application/x-pem-file")


def canonical(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
