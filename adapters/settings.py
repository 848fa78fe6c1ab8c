"""The settings of the service: frozen, read once from the environment, then from `.env` in the working directory.

Room: adapters. Only app.py, worker.py and the CLI's entry read them; everything else is handed the values it needs.
An attribute is its name in the environment in small letters (`PROCESS_WAIT_S` -> `process_wait_s`); where what is
used differs from what was given, the field is called `..._given` and a property has the plain name.
env.txt says what each is for; tests/test_tidy.py keeps the two the same.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from pydantic import AliasChoices, PrivateAttr, SecretStr, ValidationError

from payment_service.adapters.kept_secret import kept_secret
from payment_service.adapters.oci_sign_on import NEEDS, OciRefused, OciSignOn
from payment_service.adapters.oci_vault import encryption_keys
from payment_service.adapters.settings_fields import SettingsFields
from payment_service.adapters.settings_rules import problems_of, warnings_of
from payment_service.adapters.settings_values import (
    InternalToken,
    database_address,
    legacy_encryption_key,
    oci_region_id,
    oci_streaming_host,
    parse_internal_token,
    raw_encryption_key,
)
from payment_service.core.errors import Unavailable

DEFAULT_ENV_FILE = Path(".env")
JWT_SECRET_FILE = "jwt_secret"  # noqa: S105 - the name of a file, not what is in it
"""Under DATA_DIR: the secret made for development, so that a token outlives a restart."""

_FOLLOWS_ANOTHER = "default_factory_not_called"
"""pydantic's word for a default that depends on a value which could not be read: that value is the problem."""

CONSUMER_GROUP = "payment-service"
SettingsT = TypeVar("SettingsT", bound="Settings")


class SettingsInvalid(Exception):
    """The service cannot start like this. `problems` lists everything wrong at once; no line holds a value. `given`:
    the settings themselves, with defaults for what could not be read, for whoever only looks."""

    def __init__(self, problems: list[str], given: "Settings | None" = None) -> None:
        self.problems = problems
        self.given = given
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"the settings are wrong in {len(problems)} place(s):\n{lines}")


class KafkaSecurity(NamedTuple):
    """How to sign on to the broker."""

    protocol: str
    mechanism: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    cafile: Path | None = None


class Settings(SettingsFields):
    """Everything that can be set. Made by `Settings.load()`, which also judges it."""

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
        given, without_key = _with_vault_key(given)
        unread |= without_key
        unread_names = tuple(f"{line.partition(':')[0]}:" for line in unread.values())
        problems = [*unread.values(), *(p for p in problems_of(given) if not p.startswith(unread_names))]
        if problems:
            raise SettingsInvalid(problems, given)
        warnings = warnings_of(given)
        verifies = given.jwt_secret or given.jwt_public_key or given.jwt_jwks_url
        settings = given
        if not given.is_production and not given.jwt_secret and not (verifies and given.encryption_key):
            settings = given.model_copy(update={"jwt_secret": _kept_jwt_secret(given)})
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
    def names_oci_streaming(self) -> bool:
        """The broker is OCI Streaming, wherever KAFKA_BROKERS says that it is."""
        return "oci-streaming" in (self.event_publisher_type, self.event_consumer_type)

    @property
    def _derives_broker(self) -> bool:
        return self.names_oci_streaming and not self.kafka_brokers_given

    @property
    def creates_topics(self) -> bool:
        """Never on OCI Streaming: what it would make has the pool's own retention and partitions."""
        return self.kafka_create_topics and not self.names_oci_streaming

    @property
    def oci_signing(self) -> OciSignOn:
        """For OCI Queue and Vault; OCI Streaming's Kafka endpoint takes a token instead."""
        region = oci_region_id(self.oci_region)
        return OciSignOn(self.oci_sign_on, self.oci_config_file, self.oci_config_profile, region)

    @property
    def embedded_broker(self) -> bool:
        """Nothing names a broker, so the embedded one has to be started."""
        kinds = {self.event_publisher_type, self.event_consumer_type}
        return not self.kafka_brokers_given and not kinds & {"kafka", "oci-streaming"}

    @property
    def may_embed(self) -> bool:
        """Embedded servers are for development and tests, elsewhere only if named; never for production."""
        return self.environment in ("development", "test") or (self.embedded and not self.is_production)

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
        if self._derives_broker:
            return (f"{oci_streaming_host(self.oci_region)}:9092",)
        return self.kafka_brokers_given

    @property
    def kafka_security(self) -> KafkaSecurity:
        """KAFKA_* as given; only where the broker itself is derived, its credentials are too."""
        if self._derives_broker:
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
        named = tuple(_key_of(key) for key in self.encryption_keys_old_given)
        if self.is_production or self.encryption_key is None or self.jwt_secret is None:
            return named
        # Before there was an ENCRYPTION_KEY here it came from JWT_SECRET, and nobody can write that one down.
        return (*named, legacy_encryption_key(self.jwt_secret.get_secret_value()))


def _with_vault_key(given: SettingsT) -> tuple[SettingsT, dict[str, str]]:
    """With the key of the vault where the settings name one. What went wrong, as a line of the field."""
    secret_id = given.oci_encryption_key_secret_id
    if secret_id is None:
        return given, {}
    if given.encryption_key is not None:
        return given, {"encryption_key": "ENCRYPTION_KEY: is set, and so is OCI_ENCRYPTION_KEY_SECRET_ID; set one"}
    told = "ENCRYPTION_KEY: OCI_ENCRYPTION_KEY_SECRET_ID names a secret, but"
    try:
        keys = encryption_keys(given.oci_signing, secret_id, given.oci_secrets_endpoint)
    except ImportError:
        return given, {"encryption_key": f"{told} {NEEDS}"}
    except (OciRefused, Unavailable) as error:
        return given, {"encryption_key": f"{told} {error.message}"}
    old = given.encryption_keys_old_given
    if keys.previous is not None and keys.previous != keys.current:
        old = (SecretStr(keys.previous), *old)
    update = {"encryption_key": SecretStr(keys.current), "encryption_keys_old_given": old}
    return given.model_copy(update=update), {}


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


def _kept_jwt_secret(given: Settings) -> SecretStr:
    try:
        return SecretStr(kept_secret(given.data_dir / JWT_SECRET_FILE))
    except OSError as error:
        line = f"DATA_DIR: cannot keep the made JWT_SECRET there ({error.strerror}); set JWT_SECRET"
        raise SettingsInvalid([line], given) from None
