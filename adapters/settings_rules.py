"""What makes a set of settings wrong, and what is only worth a warning (contract §5).

Room: adapters, beside settings.py. Pure: settings in, lines of text out, and never a value of a secret in one.
Every line starts with the name in the environment, then says what is wrong and how to mend it.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from payment_service.adapters.oci_sign_on import NEEDS, is_installed
from payment_service.adapters.settings_values import (
    database_address,
    parse_internal_token,
    raw_encryption_key,
)

if TYPE_CHECKING:
    from payment_service.adapters.settings import Settings

SECRET_CHARS_MIN = 32
"""Of secrets that we or our operators make up: below it, one can be guessed off line from one signed token."""

SECRET_DISTINCT_CHARS_MIN = 6
"""32 times the same letter is long and still no secret; a random one of hexadecimal digits has about 14."""

_PLACEHOLDER = re.compile(
    r"change[-_ ]?(me|this|in)|your[-_ ]|placeholder|example|replace[-_ ]|insecure|default[-_ ]?secret", re.I
)

_OCI_STREAMING = "oci-streaming"
_MOCK = "PAYMENT_PROVIDER: the mock"


def problems_of(settings: "Settings") -> list[str]:
    """Everything that must stop the start, not only the first of it."""
    problems = [
        *_database_problems(settings),
        *_broker_problems(settings),
        *_token_problems(settings),
        *_time_problems(settings),
    ]
    if settings.is_production:
        problems += [
            *_production_secrets(settings),
            *_production_providers(settings),
            *_production_mixtures(settings),
            *_production_surroundings(settings),
        ]
    elif settings.environment == "staging" and not settings.embedded:
        problems += _unasked_embedded(settings)
    return problems


def warnings_of(settings: "Settings") -> list[str]:
    """What works, but not as somebody may believe."""
    return [*_key_warnings(settings), *_provider_warnings(settings), *_address_warnings(settings)]


def weakness_of(secret: SecretStr | None, *, chars_min: int = SECRET_CHARS_MIN) -> str | None:
    """Why a secret is no secret, or None."""
    if secret is None:
        return "is missing"
    text = secret.get_secret_value()
    if len(text) < chars_min:
        return f"is shorter than {chars_min} characters"
    if len(set(text)) < SECRET_DISTINCT_CHARS_MIN:
        return "repeats a few characters and can be guessed"
    if _PLACEHOLDER.search(text):
        return "looks like the placeholder of an example file"
    return None


def _database_problems(settings: "Settings") -> Iterator[str]:
    for name, secret in (
        ("DATABASE_URL", settings.database_url),
        ("MIGRATION_DATABASE_URL", settings.migration_database_url),
    ):
        if secret is None:
            continue
        try:
            database_address(secret.get_secret_value())
        except ValueError as error:
            yield f"{name}: {error}"


def _broker_problems(settings: "Settings") -> Iterator[str]:
    kinds = (settings.event_publisher_type, settings.event_consumer_type)
    if not settings.kafka_brokers_given and _OCI_STREAMING in kinds:
        for name, value in (
            ("OCI_TENANCY", settings.oci_tenancy),
            ("OCI_USER", settings.oci_user),
            ("OCI_STREAM_POOL_ID", settings.oci_stream_pool_id),
            ("OCI_AUTH_TOKEN", settings.oci_auth_token),
        ):
            if not value:
                yield (
                    f"{name}: is missing; OCI Streaming is reached through its Kafka endpoint, and this"
                    " cannot be derived from the old service's settings (or set KAFKA_BROKERS)"
                )
    elif not settings.kafka_brokers_given and "kafka" in kinds:
        yield "KAFKA_BROKERS: is missing, and EVENT_PUBLISHER_TYPE or EVENT_CONSUMER_TYPE says kafka"
    if settings.event_consumer_type == "oci-queue" and not settings.oci_queue_id:
        yield "OCI_QUEUE_ID: is missing, and EVENT_CONSUMER_TYPE says oci-queue"
    yield from _oci_problems(settings)
    if (settings.kafka_sasl_username is None) != (settings.kafka_sasl_password is None):
        yield "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: set both or neither"


def _oci_problems(settings: "Settings") -> Iterator[str]:
    if settings.event_consumer_type != "oci-queue" or not settings.oci_queue_id:
        return
    if not is_installed():
        yield f"EVENT_CONSUMER_TYPE: says oci-queue, but {NEEDS}"
    elif settings.oci_sign_on == "config-file" and not settings.oci_config_file.expanduser().is_file():
        yield (
            "OCI_CONFIG_FILE: there is no such file; `oci setup config` writes one, or set OCI_SIGN_ON to the"
            " principal of the machine"
        )


def _token_problems(settings: "Settings") -> Iterator[str]:
    for number, entry in enumerate(settings.internal_tokens_given, start=1):
        try:
            parse_internal_token(entry.get_secret_value())
        except ValueError as error:
            yield f"INTERNAL_TOKENS: entry {number}: {error}"
    for number, entry in enumerate(settings.encryption_keys_old_given, start=1):
        if settings.is_production and raw_encryption_key(entry.get_secret_value()) is None:
            yield f"ENCRYPTION_KEYS_OLD: entry {number} is neither 32 characters nor 64 hexadecimal digits"


def _time_problems(settings: "Settings") -> Iterator[str]:
    if settings.provider_deadline_s >= settings.lease_s:
        yield (
            "PROVIDER_DEADLINE_S: must be shorter than LEASE_S, or another worker takes over a call that"
            " is still running"
        )


def _production_secrets(settings: "Settings") -> Iterator[str]:
    if (settings.jwt_public_key is None and settings.jwt_jwks_url is None) or settings.jwt_secret is not None:
        weakness = weakness_of(settings.jwt_secret)
        if weakness:
            yield f"JWT_SECRET: {weakness} (or set JWT_PUBLIC_KEY or JWT_JWKS_URL)"
    key = settings.encryption_key
    if key is None:
        yield "ENCRYPTION_KEY: is missing; it must be exactly 32 characters or 64 hexadecimal digits"
    elif raw_encryption_key(key.get_secret_value()) is None:
        yield (
            "ENCRYPTION_KEY: must be exactly 32 characters or 64 hexadecimal digits; tokens sealed with"
            " another one are read by `import-legacy --old-key`"
        )
    elif weakness := weakness_of(key):
        yield f"ENCRYPTION_KEY: {weakness}"
    for number, entry in enumerate(settings.internal_tokens_given, start=1):
        text = entry.get_secret_value()
        plain = SecretStr(text.partition(";")[0])
        if not text.startswith("sha256:") and (weakness := weakness_of(plain)):
            yield f"INTERNAL_TOKENS: entry {number} {weakness}"
    for name, token in (
        ("METRICS_TOKEN", settings.metrics_token),
        ("ORDER_SERVICE_TOKEN", settings.order_service_token),
    ):
        if token is not None and (weakness := weakness_of(token, chars_min=16)):
            yield f"{name}: {weakness}"


def _production_providers(settings: "Settings") -> Iterator[str]:
    """A provider is either left out or complete: half a set of keys would fail at the first webhook."""
    provider = settings.default_provider
    if provider == "mock":
        yield (
            f"{_MOCK} takes no money; set STRIPE_SECRET_KEY or PAYPAL_CLIENT_ID and"
            " PAYPAL_CLIENT_SECRET, and PAYMENT_PROVIDER=stripe or paypal"
        )
    if (settings.stripe_configured or provider == "stripe") and not settings.stripe_configured:
        yield "STRIPE_SECRET_KEY: is missing, and PAYMENT_PROVIDER says stripe"
    if settings.stripe_configured and not settings.stripe_webhook_secret:
        yield "STRIPE_WEBHOOK_SECRET: is missing; no webhook of Stripe could be verified"
    paypal_names = (settings.paypal_client_id, settings.paypal_client_secret)
    if (provider == "paypal" or any(paypal_names)) and not all(paypal_names):
        yield "PAYPAL_CLIENT_ID, PAYPAL_CLIENT_SECRET: one is missing"
    if settings.paypal_configured and not settings.paypal_webhook_id:
        yield "PAYPAL_WEBHOOK_ID: is missing; no webhook of PayPal could be verified"
    for name, secrets in (
        ("STRIPE_SECRET_KEY", (settings.stripe_secret_key,)),
        ("STRIPE_WEBHOOK_SECRET", settings.stripe_webhook_secret),
        ("PAYPAL_CLIENT_SECRET", (settings.paypal_client_secret,)),
    ):
        if any(secret and _PLACEHOLDER.search(secret.get_secret_value()) for secret in secrets):
            yield f"{name}: looks like the placeholder of an example file"


def _production_mixtures(settings: "Settings") -> Iterator[str]:
    """What is meant for trying out beside what is meant in earnest, and keys that would go in the clear."""
    secret, publishable = settings.stripe_secret_key, settings.stripe_publishable_key
    if secret is not None and publishable and _is_test_key(secret.get_secret_value()) != _is_test_key(publishable):
        yield "STRIPE_SECRET_KEY, STRIPE_PUBLISHABLE_KEY: one is a test key, the other is not"
    live, sandboxed = settings.paypal_mode == "live", "sandbox" in (urlsplit(settings.paypal_api_base).hostname or "")
    if settings.paypal_configured and live and sandboxed:
        yield "PAYPAL_MODE, PAYPAL_API_BASE: live, at the address of the sandbox"
    for name, address in _provider_addresses(settings):
        if address.startswith("http://") and not _is_loopback(address):
            yield f"{name}: must start with https://, or the provider's key can be read on the way"
    for name, endpoint in (
        ("OCI_QUEUE_ENDPOINT", settings.oci_queue_endpoint),
        ("OCI_SECRETS_ENDPOINT", settings.oci_secrets_endpoint),
    ):
        if endpoint is not None and endpoint.startswith("http://") and not _is_loopback(endpoint):
            yield f"{name}: must start with https://"


def _is_test_key(key: str) -> bool:
    """Of Stripe: sk_test_…, rk_test_…, pk_test_…"""
    return "_test_" in key[:8]


def _provider_addresses(settings: "Settings") -> tuple[tuple[str, str], ...]:
    return ("STRIPE_API_BASE", settings.stripe_api_base), ("PAYPAL_API_BASE", settings.paypal_api_base)


def _production_surroundings(settings: "Settings") -> Iterator[str]:
    if settings.embedded_database:
        yield "DATABASE_URL: is missing; the embedded PostgreSQL is for development"
    if settings.embedded_broker:
        yield (
            "KAFKA_BROKERS: is missing (EVENT_PUBLISHER_TYPE and EVENT_CONSUMER_TYPE are mock); the"
            " embedded broker forgets everything when it stops"
        )
    if not settings.refund_roles_given:
        yield "REFUND_ROLES: is missing; name who may refund (owner, admin, service, ...)"
    if settings.public_url is not None and settings.public_url.startswith("http://"):
        yield "PUBLIC_URL: must start with https://"


def _unasked_embedded(settings: "Settings") -> Iterator[str]:
    if settings.embedded_database:
        yield "DATABASE_URL: is missing (set EMBEDDED=true to use the embedded PostgreSQL here)"
    if settings.embedded_broker:
        yield "KAFKA_BROKERS: is missing (set EMBEDDED=true to use the embedded broker here)"


def _key_warnings(settings: "Settings") -> Iterator[str]:
    if settings.is_production:
        if settings.stripe_secret_key is not None and _is_test_key(settings.stripe_secret_key.get_secret_value()):
            yield "STRIPE_SECRET_KEY: is a test key; no real card will be charged"
        if settings.order_service_url and settings.order_service_token is None:
            yield "ORDER_SERVICE_TOKEN: is missing; the order service may refuse to be told of outcomes"
        return
    if settings.encryption_key is None:
        yield (
            "ENCRYPTION_KEY: is missing; a key is derived from JWT_SECRET, so changing that makes stored"
            " tokens unreadable"
        )
    elif raw_encryption_key(settings.encryption_key.get_secret_value()) is None:
        yield (
            "ENCRYPTION_KEY: is neither 32 characters nor 64 hexadecimal digits; a key is derived from it"
            " as the old service did, and production will refuse it"
        )


def _provider_warnings(settings: "Settings") -> Iterator[str]:
    """What stops the start in production. Elsewhere the provider is left out: 422 PROVIDER_NOT_CONFIGURED."""
    if not settings.is_production:
        yield from (line for line in _production_providers(settings) if not line.startswith(_MOCK))


def _address_warnings(settings: "Settings") -> Iterator[str]:
    if settings.database_url is not None:
        for name in database_address(settings.database_url.get_secret_value()).lost:
            yield f"DATABASE_URL: {name} is ignored; give libpq's sslcert and sslkey instead"
    if "*" in settings.allowed_origins:
        yield "ALLOWED_ORIGINS: * is no origin, and no web page may call because of it; name each of them"


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
