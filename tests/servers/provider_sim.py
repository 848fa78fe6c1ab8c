"""`payment-service provider-sim` as a process of its own, on a free port, with a ledger that outlives it."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from servers.waiting import wait_until

from payment_service.adapters.embedded_process import accepts_connections, free_port, log_tail, spawn, stop

TERM_WAIT_S = 5.0


class ProviderSim:
    """`stop()` or `kill()`, then `start()` again, keeps its port and its ledger. `options`: of the command line."""

    def __init__(self, folder: Path | None = None, **options: object) -> None:
        self._folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix="provider-sim-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.options: Mapping[str, object] = options
        self.ledger = self._folder / "ledger.jsonl"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        log = self._folder / "provider-sim.log"
        options = [part for name, value in self.options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        self._process = spawn(
            [
                *(sys.executable, "-m", "payment_service.cli.provider_sim", "--port", str(self.port)),
                *("--ledger", str(self.ledger), *options),
            ],
            log=log,
            death_signal=signal.SIGKILL,
        )
        started = self._process

        def ready() -> bool:
            assert started.poll() is None, f"provider-sim ended: {log_tail(log)}"
            return accepts_connections(self.port)

        wait_until(ready, "provider-sim listens")

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, (signal.SIGTERM, TERM_WAIT_S))

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def lines(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Of the ledger file, as it is on disk."""
        read = [orjson.loads(raw) for raw in self.ledger.read_bytes().splitlines()]
        return [line for line in read if kind in (None, line["line"])]

    def movements(self, payment_id: str | None = None) -> list[dict[str, Any]]:
        return [line for line in self.lines("movement") if payment_id in (None, line["payment_id"])]
