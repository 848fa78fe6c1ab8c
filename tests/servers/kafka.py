"""Apache Kafka, one node in KRaft mode, run from Maven's jars: what the embedded broker is not.

Needs `java` (17 or newer) and, once, `mvn`; the jars are kept in ${XDG_CACHE_HOME:-~/.cache}/payment-service/kafka.
The embedded broker answers "latest offset" wrongly, has no transactions and forgets; so recovery, lag, ordering over
restarts and rebalances are tested here.
"""

import asyncio
import base64
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from payment_service.adapters.embedded_process import FileLock, accepts_connections, free_port, log_tail, spawn, stop

KAFKA_VERSION = "4.4.0"
LOG4J_VERSION = "2.25.5"
HEAP = "512m"
READY_WAIT_S = 90.0
INSTALL_WAIT_S = 600.0
TERM_WAIT_S = 30.0
STARTS_MAX = 3

HOW_TO_GET = (
    "Apache Kafka needs a JDK of 17 or newer, and Maven once for its jars: `apt-get install default-jdk-headless"
    " maven` (as root `make test-kafka` does it), `brew install openjdk maven`, or set KAFKA_BROKERS to a broker"
    " that tests may make topics on."
)

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>payment-service</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
<dependencies>
 <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
 </dependency>
 <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
  <version>{LOG4J_VERSION}</version></dependency>
</dependencies></project>
"""

LOG4J = """<Configuration status="WARN">
<Appenders><Console name="c"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>
<Loggers><Root level="WARN"><AppenderRef ref="c"/></Root></Loggers></Configuration>
"""


class KafkaServer:
    """One broker. `stop()` or `kill()`, then `start()` again, keeps its port and its data."""

    logging = LOG4J
    format_options: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="payment-kafka-", ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._temporary.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._temporary.cleanup()

    def start(self) -> None:
        """Raises: RuntimeError, with the end of its log."""
        jars = installed_jars()
        for _ in range(STARTS_MAX):
            self._launch(jars)
            if self._became_ready():
                return
            self.stop()
        raise RuntimeError(f"Kafka does not start:\n{log_tail(self._folder / 'kafka.log')}")

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, (signal.SIGTERM, TERM_WAIT_S))
            self._process = None

    def kill(self) -> None:
        """As a power cut would end it."""
        assert self._process is not None
        stop(self._process)
        self._process = None

    def properties(self, controller_port: int, data: Path) -> str:
        """Asked anew at each start."""
        return _properties(self._port, controller_port, data)

    def classes(self, jars: Path) -> tuple[str, ...]:
        """What is put behind Kafka's own jars in the class path."""
        return ()

    def _launch(self, jars: Path) -> None:
        properties = self._folder / "server.properties"
        data = self._folder / "data"
        properties.write_text(self.properties(free_port(), data))
        (self._folder / "log4j2.xml").write_text(self.logging)
        classes = ":".join((f"{jars}/*", *self.classes(jars)))
        java = [found("java"), f"-Dlog4j2.configurationFile={self._folder / 'log4j2.xml'}", "-cp", classes]
        if not (data / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(b"k" + secrets.token_bytes(15)).decode().rstrip("=")
            subprocess.run(
                [
                    *(*java, "-Xmx128m", "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)),
                    *self.format_options,
                ],
                check=True,
                capture_output=True,
            )
        self._process = spawn(
            [*java, f"-Xms{HEAP}", f"-Xmx{HEAP}", "-XX:+UseG1GC", "kafka.Kafka", str(properties)],
            log=self._folder / "kafka.log",
            death_signal=signal.SIGKILL,
        )

    def _became_ready(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + READY_WAIT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if accepts_connections(self._port):
                with ThreadPoolExecutor(1) as executor:  # the loop of this thread may be pytest's
                    if executor.submit(lambda: asyncio.run(_answers(self.address))).result():
                        return True
            time.sleep(0.1)
        return False


async def _answers(address: str) -> bool:
    client = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=5000)
    try:
        await client.start()
        await client.list_topics()
    except KafkaError:
        return False
    finally:
        await client.close()
    return True


def installed_jars() -> Path:
    """The folder of the jars, fetched by Maven on the first call of this machine's user."""
    folder = _cache_folder() / "kafka"
    jars = folder / f"libs-{KAFKA_VERSION}"
    if (jars / ".complete").exists():
        return jars
    found("java")
    maven = found("mvn")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "install.lock")
    lock.acquire(INSTALL_WAIT_S)
    try:
        if not (jars / ".complete").exists():
            (folder / "pom.xml").write_text(POM)
            shutil.rmtree(jars, ignore_errors=True)
            # The repository goes beside the jars and away again: it is three times their size.
            repository = folder / "repository"
            done = subprocess.run(
                [
                    *(maven, "-q", "-B", f"-Dmaven.repo.local={repository}", "dependency:copy-dependencies"),
                    *(f"-DoutputDirectory={jars}", "-DincludeScope=runtime"),
                ],
                cwd=folder,
                check=False,
                capture_output=True,
                text=True,
                timeout=INSTALL_WAIT_S,
            )
            if done.returncode != 0:
                raise RuntimeError(f"Maven could not fetch Kafka's jars:\n{(done.stdout + done.stderr)[-2000:]}")
            shutil.rmtree(repository, ignore_errors=True)
            (jars / ".complete").touch()
    finally:
        lock.release()
    return jars


def _cache_folder() -> Path:
    for name, below in (("XDG_CACHE_HOME", ""), ("HOME", ".cache")):
        if Path(os.environ.get(name, "")).is_absolute():
            return Path(os.environ[name]) / below / "payment-service"
    return Path(tempfile.gettempdir()) / f"payment-service-{os.getuid()}"


def found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise RuntimeError(f"`{program}` is not on the PATH. {HOW_TO_GET}")
    return path


def _properties(port: int, controller_port: int, data: Path) -> str:
    return f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
log.retention.hours=24
log.segment.bytes=268435456
"""
