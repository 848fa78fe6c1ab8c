"""Child processes of the embedded services: starting, stopping, ports and locks.

Room: adapters. Nothing here knows Kafka or PostgreSQL. A child gets a process group of its own, so that Ctrl-C
reaches only us and we stop it in our order; only processes that were started or adopted here are ever signalled.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, NamedTuple

LAUNCHER = Path(__file__).with_name("embedded_launch.py")
LOG_BYTES_MAX = 10_000_000
LOG_TAIL_BYTES = 2000
POLL_S = 0.02
KILL_WAIT_S = 5.0
"""How long a process may take to vanish after SIGKILL."""


class EmbeddedError(Exception):
    """An embedded service cannot be started; the text says why and what to do instead."""


class RunAs(NamedTuple):
    """Another user for a child, who may keep one Linux capability."""

    uid: int = -1
    gid: int = -1
    capability: int = -1


OURSELVES = RunAs()


def spawn(
    command: list[str], *, log: Path, death_signal: int = 0, run_as: RunAs = OURSELVES
) -> subprocess.Popen[bytes]:
    """Start a program in the background, its output going to the end of `log`.

    `death_signal` is sent to it by the kernel (Linux only) when the calling *thread* ends, so call this from the
    thread that lives as long as the service: the event loop's.
    """
    with _opened_log(log) as output:
        return subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(death_signal)),
                *(str(run_as.uid), str(run_as.gid), str(run_as.capability)),
                *command,
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        )


def _opened_log(log: Path) -> IO[bytes]:
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    return open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))


def log_tail(log: Path) -> str:
    """The end of a child's log, for the text of an error."""
    try:
        return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    except OSError:
        return "(no log)"


def stop(process: subprocess.Popen[bytes], *steps: tuple[signal.Signals, float]) -> None:
    """Send each signal in turn until the child is gone, waiting its seconds; SIGKILL comes last."""
    for number, wait_s in (*steps, (signal.SIGKILL, KILL_WAIT_S)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue


def free_port(preferred: int | None = None) -> int:
    """A loopback port that nobody listens on now: the preferred one if it can be had."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise EmbeddedError("no free port on 127.0.0.1")


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class FileLock:
    """A lock that the kernel drops when its holder dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take or change the lock if that needs no waiting. A failed change leaves no lock held."""
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def acquire(self, wait_s: float) -> None:
        """Raises: EmbeddedError, when another process keeps it for longer than `wait_s`."""
        deadline = time.monotonic() + wait_s
        while not self.try_acquire():
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self._path} is held by another process for more than {wait_s:.0f} s")
            time.sleep(POLL_S)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
