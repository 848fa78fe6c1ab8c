"""The embedded broker and PostgreSQL as real processes: data are kept, and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
from aiokafka import AIOKafkaProducer
from servers.postgres import execute
from servers.waiting import wait_until

from payment_service.adapters import embedded_broker, embedded_database
from payment_service.adapters.embedded import EmbeddedServices
from payment_service.adapters.embedded_broker import running_broker
from payment_service.adapters.embedded_process import EmbeddedError, FileLock, free_port

GONE_WAIT_S = 10.0
END_WAIT_S = 40.0
"""What a broker and a PostgreSQL on a slow disk may take together before they are killed."""

OWNER = """
import asyncio, signal, sys
from pathlib import Path
from payment_service.adapters.embedded import EmbeddedServices

async def main():
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    async with EmbeddedServices(Path(sys.argv[1])) as services:
        print(services.kafka_brokers[0], services.database_url, flush=True)
        await asked_to_stop.wait()

asyncio.run(main())
"""


class Owner:
    """Another process that has the embedded services of a folder."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.broker, self.database_url = self.process.stdout.readline().split()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=END_WAIT_S)
        return self.process.returncode


def ours(folder: Path) -> list[str]:
    """Every live process that works for this folder: PostgreSQL by its data, the broker by its recorded pid."""
    found = []
    recorded = folder / "embedded" / "broker.json"
    for process in psutil.process_iter(["pid", "name", "cmdline", "status"]):
        if process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        if str(folder) in " ".join(process.info["cmdline"] or []) and process.info["name"] == "postgres":
            found.append("postgres")
        if recorded.exists() and f'"pid": {process.info["pid"]},' in recorded.read_text():
            found.append("broker")
    return sorted(found)


def wait_for(folder: Path, expected: list[str]) -> None:
    wait_until(lambda: ours(folder) == expected, f"{expected} runs and nothing else", GONE_WAIT_S)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        if process.info["name"] == "postgres" and str(tmp_path) in " ".join(process.info["cmdline"] or []):
            process.send_signal(signal.SIGQUIT)


async def test_a_second_start_finds_the_data_and_nothing_stays_behind(folder: Path) -> None:
    async with EmbeddedServices(folder) as first:
        url = first.database_url
        assert ours(folder) == ["broker", "postgres"]
        execute(url, "create table kept (x int)")
        execute(url, "insert into kept values (7)")
        assert execute(url, "show fsync") == [("on",)]
        async with AIOKafkaProducer(bootstrap_servers=first.kafka_brokers[0]) as producer:
            sent = await producer.send_and_wait("orders", b"one")
            assert sent.offset == 0
    wait_for(folder, [])
    started = time.monotonic()
    async with EmbeddedServices(folder) as second:
        assert time.monotonic() - started < 10
        assert second.database_url == url
        assert execute(url, "select x from kept") == [(7,)]
    wait_for(folder, [])


def test_ctrl_c_and_sigterm_stop_everything(folder: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        owner = Owner(folder)
        assert ours(folder) == ["broker", "postgres"]
        owner.end(number)
        wait_for(folder, [])


async def test_after_kill_9_the_broker_is_gone_and_the_database_is_adopted(folder: Path) -> None:
    owner = Owner(folder)
    execute(owner.database_url, "create table kept as select 7 as x")
    owner.end(signal.SIGKILL)
    wait_for(folder, ["postgres"])
    async with EmbeddedServices(folder) as services:
        assert services.database_url == owner.database_url
        assert execute(services.database_url, "select x from kept") == [(7,)]
    wait_for(folder, [])


async def test_after_a_power_cut_the_log_brings_everything_back(folder: Path) -> None:
    owner = Owner(folder)
    execute(owner.database_url, "create table kept as select 7 as x")
    owner.end(signal.SIGKILL)
    postmaster = int((folder / "embedded/postgres/data/postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)
    wait_for(folder, [])
    async with EmbeddedServices(folder, broker=False) as services:
        assert execute(services.database_url, "select x from kept") == [(7,)]


async def test_a_second_process_uses_the_first_ones_services(folder: Path) -> None:
    assert running_broker(folder) is None
    owner = Owner(folder)
    assert running_broker(folder) == owner.broker
    async with EmbeddedServices(folder) as guest:
        assert guest.kafka_brokers == (owner.broker,)
        assert guest.database_url == owner.database_url
    assert ours(folder) == ["broker", "postgres"]
    async with EmbeddedServices(folder, broker=False) as guest:
        owner.end(signal.SIGTERM)
        wait_for(folder, ["postgres"])
        assert execute(guest.database_url, "select 1") == [(1,)]
    wait_for(folder, [])


async def test_a_pid_file_of_somebody_else_is_no_server(folder: Path) -> None:
    async with EmbeddedServices(folder, broker=False):
        pid_file = folder / "embedded/postgres/data/postmaster.pid"
        lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    async with EmbeddedServices(folder, broker=False) as services:
        assert execute(services.database_url, "select 1") == [(1,)]


async def test_the_database_wants_its_password(folder: Path) -> None:
    async with EmbeddedServices(folder, broker=False) as services:
        for path in (folder / "embedded", folder / "embedded/postgres", folder / "embedded/postgres/password"):
            assert path.stat().st_mode & 0o077 == 0
        wrong = services.database_url.replace(":", ":x", 2).replace(":x//", "://")
        with pytest.raises(psycopg2.OperationalError, match="password"):
            execute(wrong, "select 1")


async def test_data_that_cannot_be_used_are_named_and_left_alone(folder: Path) -> None:
    async with EmbeddedServices(folder, broker=False):
        pass
    version = folder / "embedded/postgres/data/PG_VERSION"
    version.write_text("12\n")
    with pytest.raises(EmbeddedError, match="version 12"):
        async with EmbeddedServices(folder):
            pass
    wait_for(folder, [])
    assert version.read_text() == "12\n"


async def test_a_missing_wheel_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (embedded_broker, embedded_database):
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match=r"\[embedded\].*KAFKA_BROKERS"):
        async with EmbeddedServices(folder):
            pass
    with pytest.raises(EmbeddedError, match=r"\[embedded\].*DATABASE_URL"):
        async with EmbeddedServices(folder, broker=False):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts it as another user")
async def test_as_root_closed_folders_stay_closed(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    async with EmbeddedServices(closed / "data", broker=False) as services:
        assert execute(services.database_url, "select 1") == [(1,)]
        pid = int((closed / "data/embedded/postgres/data/postmaster.pid").read_text().splitlines()[0])
        assert psutil.Process(pid).uids().effective != 0
    assert closed.stat().st_mode & 0o077 == 0


def test_a_taken_port_is_not_offered_and_a_lock_goes_with_its_holder(tmp_path: Path) -> None:
    port = free_port()
    assert free_port(port) == port
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert one.try_acquire()
    assert not other.try_acquire()
    with pytest.raises(EmbeddedError, match="held by another process"):
        other.acquire(0.05)
    one.release()
    assert other.try_acquire(shared=True)
    assert one.try_acquire(shared=True)
    assert not one.try_acquire()
