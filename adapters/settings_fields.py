"""Every setting with its name, type and default. An attribute is its name in the environment in small letters.

Room: adapters. Read through adapters/settings.py alone, which completes and judges them.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, FilePath, IPvAnyNetwork, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from payment_service.adapters.settings_values import normal_log_level, split_commas, web_address

Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas)]
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(split_commas)]
Url = Annotated[str, AfterValidator(web_address)]
Lower = BeforeValidator(lambda value: value.strip().lower() if isinstance(value, str) else value)
Upper = BeforeValidator(lambda value: value.strip().upper() if isinstance(value, str) else value)

OCI_FETCHES_PER_S = 5.0
"""What OCI Streaming allows for a partition and consumer group."""


def _outside_production(so_far: dict[str, Any]) -> bool:
    return so_far.get("environment") != "production"


def _names_oci_streaming(so_far: dict[str, Any]) -> bool:
    return "oci-streaming" in (so_far.get("event_publisher_type"), so_far.get("event_consumer_type"))


def _may_create_topics(so_far: dict[str, Any]) -> bool:
    return _outside_production(so_far) and not _names_oci_streaming(so_far)


def _fetches_per_s(so_far: dict[str, Any]) -> float:
    return OCI_FETCHES_PER_S if _names_oci_streaming(so_far) else 0.0


def _paypal_host(so_far: dict[str, Any]) -> str:
    return "https://api-m.paypal.com" if so_far.get("paypal_mode") == "live" else "https://api-m.sandbox.paypal.com"


class SettingsFields(BaseSettings):
    """Everything that can be set, by section."""

    model_config = SettingsConfigDict(
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
        validate_default=False,
    )

    environment: Annotated[Literal["development", "staging", "production", "test"], Lower] = Field(
        "development", validation_alias=AliasChoices("ENVIRONMENT", "NODE_ENV")
    )
    port: int = Field(3005, ge=0, le=65_535)
    log_level: Annotated[str, BeforeValidator(normal_log_level)] = "INFO"
    public_url: Url | None = None
    data_dir: Path = Path(".data")
    embedded: bool = False
    pod_name: str | None = None

    # PostgreSQL, Redis
    database_url: SecretStr | None = None
    migration_database_url: SecretStr | None = None
    migrate_on_start: bool = Field(default_factory=_outside_production)
    redis_url: SecretStr | None = None

    # Kafka
    event_publisher_type: Annotated[Literal["mock", "oci-streaming", "kafka"], Lower] = "mock"
    event_consumer_type: Annotated[Literal["mock", "oci-queue", "oci-streaming", "kafka"], Lower] = "mock"
    kafka_brokers_given: Words = Field((), validation_alias="KAFKA_BROKERS")
    kafka_security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None, Upper] = None
    kafka_sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, Upper] = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: FilePath | None = None
    kafka_create_topics: bool = Field(default_factory=_may_create_topics)
    kafka_fetches_per_s: float = Field(default_factory=_fetches_per_s, ge=0, le=1000)
    topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,100}$")
    topic_partitions: int = Field(4, ge=1, le=1000)
    order_topics: Words = Field(("orders",), min_length=1, max_length=20)
    event_aliases: bool = False
    dead_letters_plain: bool = Field(default_factory=_outside_production)
    stream_in_flight_max: int = Field(2000, ge=1, le=100_000)
    outbox_shards: int = Field(16, ge=1, le=256)

    # Traces
    otel_exporter_otlp_endpoint: Url | None = None
    otel_exporter_otlp_headers: SecretStr | None = None
    otel_service_name: str = Field("payment-service", min_length=1, max_length=100)
    otel_traces_sampler_arg: float = Field(1, ge=0, le=1)

    # OCI
    oci_region: str = "IN-HYDERABAD-1"
    oci_compartment_id: str | None = None
    oci_stream_id: str | None = None
    oci_queue_id: str | None = None
    oci_queue_endpoint: Url | None = None
    oci_queue_deliveries_max: int = Field(4, ge=2, le=1000)
    oci_tenancy: str | None = None
    oci_user: str | None = None
    oci_stream_pool_id: str | None = None
    oci_auth_token: SecretStr | None = None
    oci_sign_on: Annotated[
        Literal["config-file", "instance-principal", "resource-principal", "workload-identity"], Lower
    ] = "config-file"
    oci_config_file: Path = Path("~/.oci/config")
    oci_config_profile: str = "DEFAULT"
    oci_encryption_key_secret_id: str | None = None
    oci_secrets_endpoint: Url | None = None

    # Tables
    table_store: Literal["memory://", "rocksdb://"] = "memory://"
    table_ttl_h: int = Field(72, ge=1, le=8760)

    # Who may call
    jwt_secret: SecretStr | None = None
    jwt_public_key: str | None = None
    jwt_jwks_url: Url | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    internal_tokens_given: Secrets = Field((), validation_alias="INTERNAL_TOKENS", max_length=100)
    refund_roles_given: Words = Field((), validation_alias="REFUND_ROLES")
    allowed_origins: Words = ()
    trusted_proxies: Networks = ()
    webhook_ip_allowlist: Networks = ()
    metrics_token: SecretStr | None = None
    rate_limit_max: int = Field(100, ge=1)
    rate_limit_window_ms: int = Field(900_000, ge=1000)
    webhook_rate_limit_max: int = Field(100, ge=1)

    # Sealing
    encryption_key: SecretStr | None = None
    encryption_keys_old_given: Secrets = Field((), validation_alias="ENCRYPTION_KEYS_OLD", max_length=20)

    # Providers
    payment_provider: Annotated[str | None, Lower] = Field(None, pattern=r"^[a-z0-9_]{1,30}$")
    stripe_secret_key: SecretStr | None = None
    stripe_publishable_key: str | None = None
    stripe_webhook_secret: Secrets = ()
    stripe_api_base: Url = "https://api.stripe.com"
    stripe_rate_per_s: float = Field(25, gt=0)
    paypal_client_id: str | None = None
    paypal_client_secret: SecretStr | None = None
    paypal_mode: Annotated[Literal["sandbox", "live"], Lower] = "sandbox"
    paypal_webhook_id: str | None = None
    paypal_webhook_verification: Annotated[Literal["offline", "postback"], Lower] = "offline"
    paypal_webhook_roots: FilePath | None = None
    paypal_api_base: Url = Field(default_factory=_paypal_host)
    paypal_rate_per_s: float = Field(25, gt=0)
    mock_latency_ms: int = Field(0, ge=0, le=600_000)
    mock_settle_ms: int = Field(5000, ge=0, le=86_400_000)
    mock_provider_url: Url | None = None
    mock_webhook_secret: SecretStr | None = None
    provider_concurrency: int = Field(1000, ge=1, le=100_000)
    provider_deadline_s: float = Field(20, gt=0, le=300)
    lease_s: float = Field(30, gt=0, le=600)
    process_wait_s: float = Field(25, ge=0, le=300)
    action_ttl_s: int = Field(3600, ge=1)
    resend_window_s: int = Field(120, ge=0, le=18_000)

    # Orders
    order_service_url: Url | None = None
    order_service_token: SecretStr | None = None
    auto_process_orders: bool = False
    cancel_refunds_succeeded: bool = False
