"""The provider simulator as a process: killed and started again on its ledger, as providers fail."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from payment_service.adapters.embedded_process import LAUNCHER, free_port

READY_WAIT_S = 30.0
CALL_S = 10.0
POLL_S = 0.05
SIM = (sys.executable, "-m", "payment_service.cli.provider_sim")


class SimProcess:
    """`start()` again after `kill()` keeps its port and its ledger. It dies with the tests."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._session = session
        self._port = free_port()
        self.options = list(options)
        self._process: subprocess.Popen[bytes] | None = None
        self.ledger = folder / "ledger.jsonl"
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        dying_with_us = (str(LAUNCHER), str(os.getpid()), f"{signal.SIGKILL:d}", "-1", "-1", "-1")
        with (self._folder / "sim.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", *dying_with_us, *SIM, "--port", str(self._port)),
                    *("--ledger", str(self.ledger), *self.options),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )  # fmt: skip

    def kill(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def ready(self, wait_s: float = READY_WAIT_S) -> dict[str, Any]:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return await self.ask("GET", "/_sim/health")
            except (aiohttp.ClientError, TimeoutError):
                assert time.monotonic() < deadline, (self._folder / "sim.log").read_text()[-2000:]
            await asyncio.sleep(POLL_S)

    async def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        async with self._session.request(method, self.url + path, json=body, timeout=timeout) as response:
            assert response.status < 300, (response.status, await response.text())
            return dict(await response.json())
