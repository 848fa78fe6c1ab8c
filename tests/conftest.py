"""One fixture per outside system: started once a session, with a fresh database for each test that asks."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from servers import kafka_for_tests, postgres_for_tests
from servers.postgres import at_database, database_on, execute, migrate
from servers.redis import RedisServer, redis_for_tests
from servers.waiting import wait_until

from payment_service.adapters.embedded_broker import EmbeddedBroker
from payment_service.adapters.logging import ACCESS_LOGGER, LOUD

# How fast examples are made says something about the machine, not about us: on a fresh one the first text alone makes
# Hypothesis write its tables of characters.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

TEMPLATE = f"payment_template_{os.getpid()}"


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A test that runs a command, or the service's own logging, leaves both libraries as they were. No logger is kept
    meanwhile: each would log for ever as it was first used."""
    loggers = [logging.getLogger(name) for name in ("", ACCESS_LOGGER, *LOUD)]
    kept = [(it, it.handlers[:], it.level, it.propagate) for it in loggers]
    raises, configure = logging.raiseExceptions, structlog.configure
    structlog.configure = lambda **given: configure(**given | {"cache_logger_on_first_use": False})
    yield
    structlog.configure = configure
    structlog.reset_defaults()
    for logger, handlers, level, propagate in kept:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    logging.raiseExceptions = raises


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL whose user may create databases: TEST_DATABASE_URL, else an embedded one."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with postgres_for_tests() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_server: str) -> Iterator[str]:
    """The name of a database that the migrations ran on, to copy from."""
    execute(postgres_server, f"create database {TEMPLATE}")
    try:
        migrate(at_database(postgres_server, TEMPLATE))
        yield TEMPLATE
    finally:
        execute(postgres_server, f"drop database {TEMPLATE} with (force)")


@pytest.fixture
def database_url(postgres_server: str, migrated_template: str) -> Iterator[str]:
    """A fresh, migrated database of this test's own."""
    with database_on(postgres_server, migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: str) -> Iterator[str]:
    """A fresh database without any table, for tests of the migrations themselves."""
    with database_on(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def tansu_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of an embedded broker: good for streams, wrong about latest offsets (no recovery tests here)."""
    broker = EmbeddedBroker(Path(tmp_path_factory.mktemp("broker")))
    broker.spawn()
    try:
        wait_until(broker.is_ready, "the embedded broker accepts connections")
        yield broker.address
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    with redis_for_tests() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """A Redis with nothing in it, running; the test may stop, freeze and start it."""
    shared_redis.stop()
    shared_redis.start()
    return shared_redis


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[str]:
    """`host:port` of an Apache Kafka: KAFKA_BROKERS, else one of our own. Mark the test `kafka`."""
    given = os.environ.get("KAFKA_BROKERS")
    if given:
        yield given
        return
    with kafka_for_tests() as address:
        yield address
