"""Texts of the environment turned into values: lists, log levels, internal tokens, keys, Prisma's database URL.

Room: adapters, beside settings.py. Pure functions: they read no environment and no file. A `ValueError` from
here becomes a line of `SettingsInvalid`, so its text says what is wrong and never repeats the value.
"""

import hashlib
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

ENCRYPTION_KEY_BYTES = 32

LEGACY_KEY_SALT = b"payment-service-salt"
LEGACY_KEY_ROUNDS = 100_000
"""How the old service stretched a key; tokens it stored can only be opened with the same numbers."""

_LOG_LEVELS = {
    "silly": "DEBUG",
    "trace": "DEBUG",
    "verbose": "DEBUG",
    "debug": "DEBUG",
    "http": "INFO",
    "info": "INFO",
    "warn": "WARNING",
    "warning": "WARNING",
    "error": "ERROR",
    "fatal": "CRITICAL",
    "critical": "CRITICAL",
}
"""The words of Node's loggers, which an old `.env` carries, beside Python's."""

_PRISMA_PARAMETERS = frozenset(
    {
        "schema",
        "connection_limit",
        "pool_timeout",
        "pgbouncer",
        "socket_timeout",
        "statement_cache_size",
        "sslaccept",
        "sslidentity",
        "sslpassword",
    }
)
"""What Prisma reads from a database URL and libpq refuses. `sslmode`, `sslcert` and so on are libpq's too."""


_OCI_REGION_IDS = {"in-hyderabad-1": "ap-hyderabad-1", "in-mumbai-1": "ap-mumbai-1"}
"""The old service's default names no region that OCI knows; its endpoint in Hyderabad is this one's."""

_OCI_DOMAINS = {"us-gov-": "oraclegovcloud.com", "us-l": "oraclegovcloud.com", "uk-gov-": "oraclegovcloud.uk"}
"""Realms of governments, by the start of their regions' names (us-langley-1, us-luke-1)."""


class InternalToken(NamedTuple):
    """One accepted token of another service: only its digest is kept, so no dump of memory shows it."""

    sha256: bytes
    expires_at_ms: int | None


def split_commas(value: object) -> object:
    """`a, b` -> `("a", "b")`; a value that is no text is left to the validator."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def normal_log_level(value: object) -> object:
    """Python's name of a log level, from any of the words in use."""
    if not isinstance(value, str):
        return value
    level = _LOG_LEVELS.get(value.strip().lower())
    if level is None:
        raise ValueError("must be one of " + ", ".join(sorted(_LOG_LEVELS)))
    return level


def oci_region_id(region: str) -> str:
    """A region as it stands in OCI's host names."""
    word = region.strip().lower()
    return _OCI_REGION_IDS.get(word, word)


def oci_streaming_host(region: str) -> str:
    """Of the Kafka endpoint that all pools of a region share. A private pool has a name of its own (KAFKA_BROKERS)."""
    name = oci_region_id(region)
    domain = next((it for start, it in _OCI_DOMAINS.items() if name.startswith(start)), "oraclecloud.com")
    return f"streaming.{name}.oci.{domain}"


def web_address(value: str) -> str:
    """An http(s) address without its last slash, so that paths can be put behind it."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address that starts with http:// or https://")
    return value.rstrip("/")


def parse_internal_token(entry: str) -> InternalToken:
    """`token`, `sha256:<hex>` or either with `;exp=<date>`.

    A bare date lasts to its end (UTC); a time with a zone is taken as it is.

    Raises: ValueError, without the token in its text.
    """
    text, _, option = entry.partition(";")
    expires_at_ms = None
    if option:
        name, _, moment = option.partition("=")
        if name.strip() != "exp":
            raise ValueError("an entry may end in ;exp=<date> and nothing else")
        expires_at_ms = _end_of(moment.strip())
    if not text.startswith("sha256:"):
        return InternalToken(hashlib.sha256(text.encode()).digest(), expires_at_ms)
    try:
        digest = bytes.fromhex(text.removeprefix("sha256:"))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise ValueError("sha256: must be followed by 64 hexadecimal digits")
    return InternalToken(digest, expires_at_ms)


def _end_of(moment: str) -> int:
    try:
        if len(moment) == len("2026-01-31"):
            day = date.fromisoformat(moment) + timedelta(days=1)
            return int(datetime.combine(day, time(), UTC).timestamp() * 1000)
        when = datetime.fromisoformat(moment)
    except ValueError:
        raise ValueError("exp must be a date, as in 2026-12-31") from None
    if when.tzinfo is None:
        raise ValueError("exp with a time must carry a zone, as in 2026-12-31T12:00:00Z")
    return int(when.timestamp() * 1000)


def raw_encryption_key(text: str) -> bytes | None:
    """The 32 bytes of a key of the right form (32 characters, or 64 hexadecimal digits), else None."""
    data = text.encode()
    if len(data) == ENCRYPTION_KEY_BYTES:
        return data
    if len(text) == ENCRYPTION_KEY_BYTES * 2:
        try:
            return bytes.fromhex(text)
        except ValueError:
            return None
    return None


def legacy_encryption_key(text: str) -> bytes:
    """The key the old service made from a text that is not 64 hexadecimal digits. Takes about 50 ms."""
    return hashlib.pbkdf2_hmac("sha256", text.encode(), LEGACY_KEY_SALT, LEGACY_KEY_ROUNDS, dklen=ENCRYPTION_KEY_BYTES)


class DatabaseAddress(NamedTuple):
    """What a database URL says, for libpq and for the reader of the old tables."""

    dsn: str
    legacy_schema: str
    """Where the old service's tables are: Prisma's `?schema=`, else `public`."""
    lost: tuple[str, ...]
    """Parameters that were removed although they ask for something libpq would need to know."""


def database_address(url: str) -> DatabaseAddress:
    """A database URL as libpq takes it: Prisma's parameters are understood and removed, all others kept.

    Raises: ValueError, without the URL in its text (it holds a password).
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("must start with postgresql://")
    kept: list[tuple[str, str]] = []
    prisma: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _PRISMA_PARAMETERS:
            prisma[name] = value
        else:
            kept.append((name, value))
    if prisma.get("sslaccept") == "accept_invalid_certs" and dict(kept).get("sslmode") is None:
        kept.append(("sslmode", "require"))
    query = urlencode(kept, quote_via=quote)
    lost = tuple(name for name in ("sslidentity", "sslpassword") if prisma.get(name))
    return DatabaseAddress(
        dsn=urlunsplit(("postgresql", parts.netloc, parts.path, query, "")),
        legacy_schema=prisma.get("schema") or "public",
        lost=lost,
    )
