"""A PostgreSQL that can be killed as a power cut would, and started again on its data and its port."""

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from servers.postgres import TEST_SETTINGS
from servers.waiting import wait_until

from payment_service.adapters.embedded_database import DATABASE, EmbeddedDatabase

READY_WAIT_S = 60.0
GONE_WAIT_S = 10.0
POLL_S = 0.05


class RestartablePostgres:
    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="payment-postgres-", ignore_cleanup_errors=True)
        settings = {**TEST_SETTINGS, "max_connections": "100", "shared_buffers": "64MB"}
        self._server = EmbeddedDatabase(Path(self._temporary.name), dies_with_us=True, server_settings=settings)

    def __enter__(self) -> Self:
        self._server.prepare()
        self._server.spawn()
        wait_until(self._server.is_ready, "PostgreSQL accepts connections", READY_WAIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._temporary.cleanup()

    @property
    def url(self) -> str:
        return self._server.url(DATABASE)

    @property
    def port(self) -> int:
        return self._server.port

    async def kill(self) -> None:
        """kill -9 of the server and of every process it started."""
        process = self._server._process
        assert process is not None
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        for child in children:
            if child.is_running():
                child.kill()
        process.wait()
        deadline = time.monotonic() + GONE_WAIT_S
        while any(child.is_running() for child in children):
            assert time.monotonic() < deadline, "a backend outlives SIGKILL"
            await asyncio.sleep(POLL_S)

    async def start(self) -> None:
        """On this thread: the server dies with it."""
        port = self.port
        self._server.spawn()
        deadline = time.monotonic() + READY_WAIT_S
        while not self._server.is_ready():
            assert time.monotonic() < deadline, "PostgreSQL does not come back"
            await asyncio.sleep(POLL_S)
        assert self.port == port, "it came back on another port"
