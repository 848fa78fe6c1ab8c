"""Apache Kafka, made as narrow as OCI Streaming is: what a client may do there, and what it is refused.

Clients sign on by SASL_SSL (PLAIN with OCI's form of a user name; SCRAM-SHA-512 as on OCI's managed Kafka) and may
neither create topics nor have an idempotent producer or a transaction nor read or change configurations. Messages and
whole requests of more than 1 MB are refused, topics are never made by asking for them. `address` is a listener
without all that, for what Terraform and the console do on OCI: tests make topics and trim them there.

Every request is written down by the broker: `requests()` tells what clients really asked for.
Needs `javac` beside `java`: one small authorizer is compiled.
"""

import datetime
import ipaddress
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from servers.kafka import KafkaServer, found

from payment_service.adapters.embedded_process import free_port
from payment_service.adapters.kafka_client import KafkaClient

TENANCY, USER, POOL = "acme", "payments@example.com", "ocid1.streampool.oc1.ap-hyderabad-1.amaaaaaanarrow"
SASL_USER = f"{TENANCY}/{USER}/{POOL}"
AUTH_TOKEN = "T0ken;of-this(test)"
SCRAM_USER, SCRAM_PASSWORD = "scram-payments", "scram-password-of-this-test"
BYTES_MAX = 1_048_576
PRINCIPALS = (f"User:{SASL_USER}", f"User:{SCRAM_USER}")

LOGGING = """<Configuration status="WARN">
<Appenders>
 <Console name="c"><PatternLayout pattern="%d %p %m (%c)%n"/></Console>
 <File name="requests" fileName="REQUESTS" append="true"><PatternLayout pattern="%d{UNIX_MILLIS} %m%n"/></File>
</Appenders>
<Loggers>
 <Logger name="kafka.request.logger" level="DEBUG" additivity="false"><AppenderRef ref="requests"/></Logger>
 <Root level="WARN"><AppenderRef ref="c"/></Root>
</Loggers></Configuration>
"""


class Request(NamedTuple):
    """One request of a client, as the broker saw it."""

    began_ms: float
    kind: str
    client: str
    body: dict[str, Any]
    principal: str


class NarrowKafka(KafkaServer):
    """`advertised_port`: where clients are sent, if not to the broker itself (a wire that can be cut)."""

    def __init__(self, advertised_port: int | None = None) -> None:
        super().__init__()
        self.narrow_port = free_port()
        self.advertised_port = advertised_port
        self._requests = self._folder / "requests.log"
        self.logging = LOGGING.replace("REQUESTS", str(self._requests))
        self.format_options = ("--add-scram", f"SCRAM-SHA-512=[name={SCRAM_USER},password={SCRAM_PASSWORD}]")
        self.cafile = self._folder / "ca.pem"
        _make_certificates(self._folder)

    @property
    def narrow_address(self) -> str:
        return f"127.0.0.1:{self.advertised_port or self.narrow_port}"

    @property
    def log(self) -> str:
        """The broker's own, of warnings and errors."""
        return (self._folder / "kafka.log").read_text(errors="replace")

    @property
    def client(self) -> KafkaClient:
        return KafkaClient(self.narrow_address, "SASL_SSL", "PLAIN", SASL_USER, AUTH_TOKEN, str(self.cafile))

    @property
    def env(self) -> dict[str, str]:
        """Of a worker. OCI's own endpoint cannot be named here: so KAFKA_* say what would be derived from OCI_*."""
        return {
            "EVENT_PUBLISHER_TYPE": "oci-streaming",
            "EVENT_CONSUMER_TYPE": "oci-streaming",
            "KAFKA_BROKERS": self.narrow_address,
            "KAFKA_SASL_USERNAME": SASL_USER,
            "KAFKA_SASL_PASSWORD": AUTH_TOKEN,
            "KAFKA_SSL_CAFILE": str(self.cafile),
        }

    def properties(self, controller_port: int, data: Path) -> str:
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        changed = {
            "listeners": f"SASL_SSL://127.0.0.1:{self.narrow_port},PLAINTEXT://{self.address}"
            f",CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"SASL_SSL://{self.narrow_address},PLAINTEXT://{self.address}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{plain} "user_{SASL_USER}"="{AUTH_TOKEN}";',
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{scram};",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._folder / "server.pem"),
            "authorizer.class.name": "NarrowAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "true",
            "message.max.bytes": str(BYTES_MAX),
            "socket.request.max.bytes": str(BYTES_MAX),
            "log.retention.check.interval.ms": "1000",
            "log.initial.task.delay.ms": "500",
        }
        lines = dict(line.partition("=")[::2] for line in super().properties(controller_port, data).splitlines())
        return "\n".join(f"{name}={value}" for name, value in (lines | changed).items())

    def classes(self, jars: Path) -> tuple[str, ...]:
        folder = self._folder / "classes"
        if not folder.exists():
            source = Path(__file__).with_name("NarrowAuthorizer.java")
            subprocess.run([found("javac"), "-cp", f"{jars}/*", "-d", str(folder), str(source)], check=True)
        return (str(folder),)

    def requests(self, since_ms: float = 0) -> Iterator[Request]:
        """Of those who signed on, in the order in which the broker finished them; finished since then."""
        with self._requests.open() as lines:
            for line in lines:
                at_ms, _, told = line.partition(" Completed request:")
                if not told or int(at_ms) < since_ms:
                    continue
                it = json.loads(told)
                if it["securityProtocol"] == "SASL_SSL":
                    asked = it["requestHeader"]
                    yield Request(
                        int(at_ms) - it["totalTimeMs"], asked["requestApiKeyName"], asked["clientId"], it["request"],
                        it["principal"],
                    )  # fmt: skip

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """Who may do everything, as Terraform and the console may on OCI."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def make_topics(self, names: dict[str, dict[str, str]], partitions: int) -> None:
        """Name -> its configuration."""
        topics = [NewTopic(name, partitions, 1, topic_configs=configs) for name, configs in names.items()]
        async with self.operator() as admin:
            answer = await admin.create_topics(topics)
        assert all(error[1] == 0 for error in answer.topic_errors), answer.topic_errors


def _make_certificates(folder: Path) -> None:
    """ca.pem, and server.pem (key and certificate) for 127.0.0.1 and localhost; valid for a day."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "payment-service tests")])

    def certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(authority_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    key_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    (folder / "ca.pem").write_bytes(
        certificate(authority_name, authority_key, x509.BasicConstraints(ca=True, path_length=0), key_id)
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    signed = certificate(server_name, server_key, x509.SubjectAlternativeName(names), issuer_id)
    key = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(key + signed)
