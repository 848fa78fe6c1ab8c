"""A real Prometheus for tests, where the machine has one (on Debian: apt-get install prometheus)."""

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml
from servers.waiting import until

from payment_service.adapters.embedded_process import accepts_connections, free_port, log_tail, spawn, stop

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
TERM_WAIT_S = 5.0
READY_WAIT_S = 30.0
SCRAPE_S = 1


async def promtool(*arguments: str) -> str:
    """What it says. Raises AssertionError, with the same, when it finds something wrong."""
    assert PROMTOOL is not None
    process = await asyncio.create_subprocess_exec(
        PROMTOOL, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


class Prometheus:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def ask(self, path: str, **parameters: str) -> tuple[str, object]:
        """(`success`, what it has), or (`error`, why not)."""
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        return answer["status"], answer.get("data", answer.get("error"))


@asynccontextmanager
async def prometheus_scraping(target: str, rules: Path, folder: Path) -> AsyncIterator[Prometheus]:
    """`target` is `host:port`."""
    assert PROMETHEUS is not None
    port = free_port()
    job = {"job_name": "payment-service", "static_configs": [{"targets": [target]}]}
    config = {"global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
              "rule_files": [str(rules)], "scrape_configs": [job]}  # fmt: skip
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    log = folder / "log"
    process = spawn(
        [
            *(PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"),
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        log=log,
        death_signal=signal.SIGKILL,
    )
    try:
        url = f"http://127.0.0.1:{port}"

        def listens() -> bool:
            assert process.poll() is None, f"Prometheus ended: {log_tail(log)}"
            return accepts_connections(port)

        await until(listens, "Prometheus listens")
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(READY_WAIT_S):
                while (await session.get(f"{url}/-/ready")).status != 200:  # noqa: ASYNC110 it has no event of its own
                    await asyncio.sleep(0.1)
            yield Prometheus(url, session)
    finally:
        stop(process, (signal.SIGTERM, TERM_WAIT_S))
