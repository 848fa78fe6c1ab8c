"""Real servers for tests and the bench: PostgreSQL out of a wheel, Apache Kafka out of Maven's jars.

Each yields an address, listens on a free loopback port, keeps its data in a folder of its own and dies with us.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from servers.kafka import KafkaServer
from servers.postgres import temporary_postgres

__all__ = ["KafkaServer", "kafka_for_tests", "postgres_for_tests"]


@contextmanager
def kafka_for_tests() -> Iterator[str]:
    """`host:port` of an Apache Kafka that lives as long as the block."""
    with KafkaServer() as server:
        yield server.address


@contextmanager
def postgres_for_tests() -> Iterator[str]:
    """The URL of an empty database, as its superuser."""
    with temporary_postgres() as url:
        yield url
