"""Is a webhook from PayPal? Its signature, the certificate that the sender names, and the chain to a root we trust.

Room: adapters/providers, beside paypal.py. Source: developer.paypal.com/api/rest/webhooks/rest. What is signed is
`transmission id|time|webhook id|crc32 of the body`. A CRC keeps nobody from writing another body with the same one, so
that a signature says who sent a webhook, and not what: what it says is asked for again (paypal_webhooks.py).
"""

import asyncio
import base64
import binascii
import contextlib
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from payment_service.adapters.providers.registration import Sessions
from payment_service.core.errors import Refused, Unavailable

ALGORITHM = "SHA256withRSA"
LATE_S_MAX = 3 * 24 * 3600 + 3600
"""PayPal delivers an event for three days; none of its pages says that a later try is signed at a later time."""
EARLY_S_MAX = 300
"""How far PayPal's clock may be ahead of ours."""
HEADER_MAX = 1024
CERT_BYTES_MAX = 65_536
CERT_FETCH_S = 5.0
CERT_TTL_S = 12 * 3600.0
CERTS_KEPT_MAX = 16
"""PayPal signs with one or two; the oldest goes first."""
FETCHES_MAX = 4
"""At once: whoever sends us names of certificates must not make us ask PayPal without end."""
CHAIN_MAX = 8
RETRY_AFTER_S = 5.0
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PATH = re.compile(r"/v1/notifications/certs/CERT-[A-Za-z0-9-]{1,100}", re.ASCII)
_LIVE = frozenset({"api.paypal.com", "api-m.paypal.com"})
_SANDBOX = frozenset({"api.sandbox.paypal.com", "api-m.sandbox.paypal.com"})
LIVE_NAME, SANDBOX_NAME = "messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com"


def _no(why: str) -> Refused:
    return Refused(why, code="INVALID_SIGNATURE")


@dataclass(frozen=True, slots=True)
class Transmission:
    """What the headers of one delivery say."""

    transmission_id: str
    time: str
    signature: str
    cert_url: str
    algorithm: str


def transmission_of(headers: Mapping[str, str], now_ms: int) -> Transmission:
    """Header names in small letters. Raises Refused INVALID_SIGNATURE."""
    given = [headers.get(f"paypal-{name}", "") for name in ("transmission-id", "transmission-time", "transmission-sig",
             "cert-url", "auth-algo")]  # fmt: skip
    if not all(0 < len(value) <= HEADER_MAX and value.isascii() and value.isprintable() for value in given):
        raise _no("the webhook is not signed as PayPal signs")
    made = Transmission(*given)
    if made.algorithm != ALGORITHM:
        raise _no("the webhook is signed by another algorithm")
    try:
        sent_at = datetime.fromisoformat(made.time)
    except ValueError:
        raise _no("the webhook's time cannot be read") from None
    if sent_at.tzinfo is None:
        raise _no("the webhook's time has no zone")
    age_s = now_ms / 1000 - sent_at.timestamp()
    if not -EARLY_S_MAX <= age_s <= LATE_S_MAX:
        raise _no("the webhook was sent at another time")
    return made


def check_cert_url(url: str, api_base: str) -> None:
    """A certificate is fetched from PayPal alone, of the mode in which we are; with another API base (a stand-in for
    PayPal) from that one alone. Raises Refused INVALID_SIGNATURE."""
    try:
        given, base = urlsplit(url), urlsplit(api_base)
        port, base_port = given.port, base.port
    except ValueError:
        raise _no("the certificate's address cannot be read") from None
    ours = _LIVE if base.hostname in _LIVE else _SANDBOX if base.hostname in _SANDBOX else None
    if ours is None:
        right = (given.scheme, given.hostname, port) == (base.scheme, base.hostname, base_port)
    else:
        right = given.scheme == "https" and given.hostname in ours and port in (None, 443)
    plain = not (given.query or given.fragment or "?" in url or "#" in url or "@" in given.netloc)
    if not right or not plain or not _PATH.fullmatch(given.path):
        raise _no("the certificate is not at PayPal's")


def signer_name(api_base: str) -> str:
    """Whose certificate it has to be."""
    return LIVE_NAME if urlsplit(api_base).hostname in _LIVE else SANDBOX_NAME


@cache
def trusted_roots(path: Path | None) -> Store:
    """The well-known authorities, or those of a file. Some old ones have serial numbers that RFC 5280 forbids: left
    out, since a later version of the library refuses the whole list for them.

    Raises: OSError when the file cannot be read, ValueError when no certificate is in it: at the start.
    """
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", CryptographyDeprecationWarning)
        for pem in _CERTIFICATE.findall((path or Path(certifi.where())).read_bytes()):
            with contextlib.suppress(CryptographyDeprecationWarning, ValueError):
                found.append(x509.load_pem_x509_certificate(pem))
    return Store(found)


def public_key_of(pem: bytes, roots: Store, name: str, now: datetime) -> tuple[rsa.RSAPublicKey, datetime]:
    """(key, until when it is good) of the first certificate, if the others lead from it to a root. Raises Refused."""
    try:
        certificates: Sequence[x509.Certificate] = x509.load_pem_x509_certificates(pem)[:CHAIN_MAX]
        leaf, others = certificates[0], list(certificates[1:])
        policy = PolicyBuilder().store(roots).time(now.astimezone(UTC).replace(tzinfo=None)).max_chain_depth(CHAIN_MAX)
        policy.build_server_verifier(x509.DNSName(name)).verify(leaf, others)
        key = leaf.public_key()
    except (ValueError, VerificationError, x509.UnsupportedGeneralNameType):
        raise _no("the certificate is not PayPal's") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise _no("the certificate holds no RSA key")
    return key, leaf.not_valid_after_utc


def check_signature(key: rsa.RSAPublicKey, sent: Transmission, webhook_id: str, body: bytes) -> None:
    """Raises Refused INVALID_SIGNATURE."""
    message = f"{sent.transmission_id}|{sent.time}|{webhook_id}|{zlib.crc32(body)}".encode()
    try:
        key.verify(base64.b64decode(sent.signature, validate=True), message, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        raise _no("the webhook's signature does not fit") from None


@dataclass(slots=True)
class _Kept:
    key: rsa.RSAPublicKey
    until_s: float


class Certificates:
    """PayPal's public keys, by the address of their certificate; fetched once, kept for hours."""

    def __init__(self, api_base: str, roots_path: Path | None, sessions: Sessions) -> None:
        self._api_base = api_base
        self._roots = trusted_roots(roots_path)
        self._sessions = sessions
        self._kept: dict[str, _Kept] = {}
        self._places = asyncio.Semaphore(FETCHES_MAX)

    async def key(self, url: str, now_ms: int) -> rsa.RSAPublicKey:
        """Raises Refused INVALID_SIGNATURE; Unavailable when it cannot be fetched now."""
        check_cert_url(url, self._api_base)
        kept = self._kept.get(url)
        if kept is not None and now_ms / 1000 < kept.until_s:
            return kept.key
        async with self._places:
            kept = self._kept.get(url)
            if kept is not None and now_ms / 1000 < kept.until_s:
                return kept.key
            pem = await self._fetch(url)
        now_s = now_ms / 1000
        now = datetime.fromtimestamp(now_s, UTC)
        key, ends = public_key_of(pem, self._roots, signer_name(self._api_base), now)
        self._kept.pop(url, None)
        while len(self._kept) >= CERTS_KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[url] = _Kept(key, min(now_s + CERT_TTL_S, ends.timestamp()))
        return key

    async def _fetch(self, url: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=CERT_FETCH_S)
        try:
            async with self._sessions().get(url, timeout=timeout, allow_redirects=False) as response:
                if response.status >= 500 or response.status == 429:
                    raise _away()
                if response.status != 200:
                    raise _no("PayPal has no such certificate")
                body = bytearray()
                async for part in response.content.iter_any():
                    body += part
                    if len(body) > CERT_BYTES_MAX:
                        raise _no("the certificate is too large")
                return bytes(body)
        except (aiohttp.ClientError, TimeoutError):
            raise _away() from None


def _away() -> Unavailable:
    return Unavailable(
        "PayPal's certificate cannot be fetched", code="PROVIDER_UNAVAILABLE", retry_after_s=RETRY_AFTER_S
    )
