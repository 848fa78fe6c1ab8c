"""The settings of the service: frozen, read once from the environment, then from `.env` in the working directory.

Room: adapters. Only app.py, worker.py and the CLI's entry read them; everything else is handed the values it needs.
An attribute is its name in the environment in small letters (`PROCESS_WAIT_S` -> `process_wait_s`); where what is
used differs from what was given, the field is called `..._given` and a property has the plain name.
env.txt says what each is for; tests/test_tidy.py keeps the two the same.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    PrivateAttr,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from payment_service.adapters.kept_secret import kept_secret
from payment_service.adapters.settings_rules import problems_of, warnings_of
from payment_service.adapters.settings_values import (
    InternalToken,
    database_address,
    legacy_encryption_key,
    normal_log_level,
    oci_region_id,
    parse_internal_token,
    raw_encryption_key,
    split_commas,
    web_address,
)

DEFAULT_ENV_FILE = Path(".env")
JWT_SECRET_FILE = "jwt_secret"  # noqa: S105 - the name of a file, not what is in it
"""Under DATA_DIR: the secret made for development, so that a token outlives a restart."""

_FOLLOWS_ANOTHER = "default_factory_not_called"
"""pydantic's word for a default that depends on a value which could not be read: that value is the problem."""

CONSUMER_GROUP = "payment-service"

Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas)]
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(split_commas)]
Url = Annotated[str, AfterValidator(web_address)]
Lower = BeforeValidator(lambda value: value.strip().lower() if isinstance(value, str) else value)
Upper = BeforeValidator(lambda value: value.strip().upper() if isinstance(value, str) else value)


class SettingsInvalid(Exception):
    """The service cannot start like this. `problems` lists everything wrong at once; no line holds a value."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"the settings are wrong in {len(problems)} place(s):\n{lines}")


class KafkaSecurity(NamedTuple):
    """How to sign on to the broker."""

    protocol: str
    mechanism: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    cafile: Path | None = None


def _outside_production(so_far: dict[str, Any]) -> bool:
    return so_far.get("environment") != "production"


def _paypal_host(so_far: dict[str, Any]) -> str:
    return "https://api-m.paypal.com" if so_far.get("paypal_mode") == "live" else "https://api-m.sandbox.paypal.com"


class Settings(BaseSettings):
    """Everything that can be set. Made by `Settings.load()`, which also judges it."""

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
    kafka_ssl_cafile: Path | None = None
    kafka_create_topics: bool = Field(default_factory=_outside_production)
    topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,100}$")
    topic_partitions: int = Field(4, ge=1, le=1000)
    order_topics: Words = Field(("orders",), min_length=1, max_length=20)
    event_aliases: bool = False
    dead_letters_plain: bool = Field(default_factory=_outside_production)
    stream_in_flight_max: int = Field(2000, ge=1, le=100_000)
    outbox_shards: int = Field(16, ge=1, le=256)

    # OCI
    oci_region: str = "IN-HYDERABAD-1"
    oci_compartment_id: str | None = None
    oci_stream_id: str | None = None
    oci_queue_id: str | None = None
    oci_tenancy: str | None = None
    oci_user: str | None = None
    oci_stream_pool_id: str | None = None
    oci_auth_token: SecretStr | None = None

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
    paypal_api_base: Url = Field(default_factory=_paypal_host)
    paypal_rate_per_s: float = Field(25, gt=0)
    mock_latency_ms: int = Field(0, ge=0, le=600_000)
    mock_settle_ms: int = Field(5000, ge=0, le=86_400_000)
    provider_concurrency: int = Field(1000, ge=1, le=100_000)
    provider_deadline_s: float = Field(20, gt=0, le=300)
    lease_s: float = Field(30, gt=0, le=600)
    process_wait_s: float = Field(25, ge=0, le=300)
    action_ttl_s: int = Field(3600, ge=1)
    resend_window_s: int = Field(120, ge=0, le=82_800)

    # Orders
    order_service_url: Url | None = None
    order_service_token: SecretStr | None = None
    auto_process_orders: bool = False
    cancel_refunds_succeeded: bool = False

    _warnings: tuple[str, ...] = PrivateAttr(())

    @classmethod
    def load(cls, env_file: Path | None = DEFAULT_ENV_FILE) -> Self:
        """Read, complete and judge the settings. The environment wins over `env_file`.

        Outside production a missing JWT_SECRET is made and kept in DATA_DIR (mode 0600).

        Raises: SettingsInvalid, with everything that is wrong.
        """
        unread: dict[str, str] = {}
        try:
            given = cls(_env_file=env_file)
        except ValidationError as error:
            unread = dict(_line_of(dict(one)) for one in error.errors() if one["type"] != _FOLLOWS_ANOTHER)
            given = cls(_env_file=env_file, **{field: _default_of(cls, field) for field in unread})
        unread_names = tuple(f"{line.partition(':')[0]}:" for line in unread.values())
        problems = [*unread.values(), *(p for p in problems_of(given) if not p.startswith(unread_names))]
        if problems:
            raise SettingsInvalid(problems)
        warnings = warnings_of(given)
        verifies = given.jwt_secret or given.jwt_public_key or given.jwt_jwks_url
        settings = given
        if not given.is_production and not given.jwt_secret and not (verifies and given.encryption_key):
            settings = given.model_copy(update={"jwt_secret": _kept_jwt_secret(given.data_dir)})
            warnings.append("JWT_SECRET: is missing; one was made at random and is kept in DATA_DIR")
        settings._warnings = tuple(warnings)
        return settings

    def with_services(self, *, database_url: str | None = None, kafka_brokers: tuple[str, ...] = ()) -> Self:
        """The same settings, pointing at the embedded services that were started for them."""
        update: dict[str, object] = {}
        if database_url is not None:
            update["database_url"] = SecretStr(database_url)
        if kafka_brokers:
            update["kafka_brokers_given"] = kafka_brokers
        return self.model_copy(update=update)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should read once at the start."""
        return self._warnings

    @property
    def is_production(self) -> bool:
        return self.environment == "production"

    @property
    def _uses_oci_streaming(self) -> bool:
        kinds = (self.event_publisher_type, self.event_consumer_type)
        return "oci-streaming" in kinds and not self.kafka_brokers_given

    @property
    def embedded_broker(self) -> bool:
        """Nothing names a broker, so the embedded one has to be started."""
        kinds = {self.event_publisher_type, self.event_consumer_type}
        return not self.kafka_brokers_given and not kinds & {"kafka", "oci-streaming"}

    @property
    def embedded_database(self) -> bool:
        return self.database_url is None

    @property
    def database_dsn(self) -> str:
        """For libpq. Holds a password: never log it."""
        assert self.database_url is not None, "the embedded PostgreSQL was not started"
        return database_address(self.database_url.get_secret_value()).dsn

    @property
    def migration_database_dsn(self) -> str:
        """The owner of the tables, where it is not the same role as the service's."""
        url = self.migration_database_url or self.database_url
        assert url is not None, "the embedded PostgreSQL was not started"
        return database_address(url.get_secret_value()).dsn

    @property
    def legacy_schema(self) -> str:
        """Where the old service's tables are looked for."""
        url = self.database_url.get_secret_value() if self.database_url else None
        return database_address(url).legacy_schema if url else "public"

    @property
    def kafka_brokers(self) -> tuple[str, ...]:
        """`host:port` each; empty while the embedded broker has not been started."""
        if self._uses_oci_streaming:
            return (f"streaming.{oci_region_id(self.oci_region)}.oci.oraclecloud.com:9092",)
        return self.kafka_brokers_given

    @property
    def kafka_security(self) -> KafkaSecurity:
        """KAFKA_* as given; only where the broker itself is derived, its credentials are too."""
        if self._uses_oci_streaming:
            return KafkaSecurity(
                protocol="SASL_SSL",
                mechanism="PLAIN",
                username=f"{self.oci_tenancy}/{self.oci_user}/{self.oci_stream_pool_id}",
                password=self.oci_auth_token,
                cafile=self.kafka_ssl_cafile,
            )
        signs_on = self.kafka_sasl_username is not None
        return KafkaSecurity(
            protocol=self.kafka_security_protocol or ("SASL_SSL" if signs_on else "PLAINTEXT"),
            mechanism=(self.kafka_sasl_mechanism or "PLAIN") if signs_on else None,
            username=self.kafka_sasl_username,
            password=self.kafka_sasl_password,
            cafile=self.kafka_ssl_cafile,
        )

    def topic(self, name: str) -> str:
        """The name of a topic on the broker: every one carries the prefix, changelogs included."""
        return self.topic_prefix + name

    @property
    def consumer_group(self) -> str:
        return self.topic(CONSUMER_GROUP)

    @property
    def refund_roles(self) -> frozenset[str]:
        """Who may refund; `owner` stands for the payment's own user."""
        return frozenset(self.refund_roles_given or ("owner",))

    @property
    def internal_tokens(self) -> tuple[InternalToken, ...]:
        return tuple(parse_internal_token(entry.get_secret_value()) for entry in self.internal_tokens_given)

    @property
    def stripe_configured(self) -> bool:
        return self.stripe_secret_key is not None

    @property
    def paypal_configured(self) -> bool:
        return self.paypal_client_id is not None and self.paypal_client_secret is not None

    @property
    def default_provider(self) -> str:
        """Of a payment that names none. Never a silent mock for a provider that was named but has no keys."""
        if self.payment_provider is not None:
            return self.payment_provider
        if self.stripe_configured:
            return "stripe"
        return "paypal" if self.paypal_configured else "mock"

    @cached_property
    def encryption_key_bytes(self) -> bytes:
        """The 32 bytes that seal tokens now. The first use may take 50 ms."""
        if self.encryption_key is not None:
            return _key_of(self.encryption_key)
        assert self.jwt_secret is not None, "load() makes one where no key is given"
        assert not self.is_production, "load() refuses to derive a key in production"
        return legacy_encryption_key(self.jwt_secret.get_secret_value())

    @cached_property
    def encryption_keys_old(self) -> tuple[bytes, ...]:
        """Keys that only open what was sealed before a rotation."""
        return tuple(_key_of(key) for key in self.encryption_keys_old_given)


def _key_of(secret: SecretStr) -> bytes:
    """A key of the right form as it is, any other as the old service stretched it (production refuses those)."""
    text = secret.get_secret_value()
    return raw_encryption_key(text) or legacy_encryption_key(text)


def _line_of(error: dict[str, Any]) -> tuple[str, str]:
    """The field and a line of pydantic's report, by the name in the environment and without the value."""
    given_as = str(error["loc"][0])
    field = next(
        (name for name in Settings.model_fields if given_as in (name, *environment_names(name))), given_as.lower()
    )
    place = error["loc"][1:]
    entry = f": entry {place[0] + 1}" if place and isinstance(place[0], int) else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    return field, f"{environment_names(field)[0]}{entry}: {message}"


def environment_names(field: str) -> tuple[str, ...]:
    """The names a setting is read from, the one that wins first."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (str(alias or field.upper()),)


def _default_of(settings: type[Settings], field: str) -> Any:
    """What stands in for a value that cannot be read, so that the rest is judged in the same message."""
    return settings.model_fields[field].get_default(call_default_factory=True, validated_data={})


def _kept_jwt_secret(data_dir: Path) -> SecretStr:
    try:
        return SecretStr(kept_secret(data_dir / JWT_SECRET_FILE))
    except OSError as error:
        line = f"DATA_DIR: cannot keep the made JWT_SECRET there ({error.strerror}); set JWT_SECRET"
        raise SettingsInvalid([line]) from None
