"""How to reach the broker: one value that every Kafka client of ours is made from.

Room: adapters.
"""

import ssl
from dataclasses import dataclass, field
from typing import Any

import faust

PRODUCER_REQUEST_S = 30.0
LINGER_MS = 5
BATCH_BYTES_MAX = 256 * 1024
REQUEST_BYTES_MAX = 1_000_000
"""OCI Streaming takes messages and whole requests of at most 1 MB."""
METADATA_AGE_MS = 60_000


@dataclass(frozen=True, slots=True)
class KafkaClient:
    """`brokers`: "host:port,host:port". `security_protocol`: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""

    brokers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None

    def options(self) -> dict[str, Any]:
        """What producer, consumer and admin client of aiokafka have in common."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.brokers,
            "security_protocol": self.security_protocol,
            "metadata_max_age_ms": METADATA_AGE_MS,
            "request_timeout_ms": int(PRODUCER_REQUEST_S * 1000),
        }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return options

    def producer_options(self) -> dict[str, Any]:
        """Not idempotent: OCI Streaming has no InitProducerId; order per partition is kept all the same, since
        aiokafka has one batch of a partition under way."""
        return self.options() | {
            "acks": "all",
            "enable_idempotence": False,
            "linger_ms": LINGER_MS,
            "max_batch_size": BATCH_BYTES_MAX,
            "max_request_size": REQUEST_BYTES_MAX,
        }

    def faust_credentials(self) -> Any:
        """For broker_credentials. The ssl_context is what makes Faust use TLS."""
        context = self._ssl_context() if self.security_protocol.endswith("SSL") else None
        if self.security_protocol.startswith("SASL"):
            return faust.SASLCredentials(
                username=self.sasl_username, password=self.sasl_password, ssl_context=context,
                mechanism=self.sasl_mechanism,
            )  # fmt: skip
        return faust.SSLCredentials(context=context) if context is not None else None

    def _ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ssl_cafile)
