"""`make audit`: a finding fails, an unreachable service has an exit code of its own, and the bill of materials is of
the product alone."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from security.audit import NOTHING_KNOWN, ask, bill_of_materials, verdict, write_bill

from payment_service.adapters.embedded_process import free_port

pytestmark = pytest.mark.long

TESTS = Path(__file__).resolve().parents[1]
FINDING = {
    "vulns": [
        {
            "id": "GHSA-test", "modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z",
            "affected": [
                {
                    "package": {"ecosystem": "PyPI", "name": "thing"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
                }
            ],
        }
    ]
}  # fmt: skip


@contextmanager
def osv(answer: Any) -> Iterator[str]:
    """A service with OSV's one call, for pip-audit as it is."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def installed(tmp_path: Path) -> tuple[str, str]:
    """One package of our own making, so that nothing else is asked about."""
    folder = tmp_path / "thing-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (folder / "RECORD").write_text("")
    return "--path", str(tmp_path)


def test_a_finding_fails(installed: tuple[str, str]) -> None:
    with osv(FINDING) as url:
        code, lines = verdict(*ask(url, *installed))
    assert (code, lines) == (1, ["thing 1.0: GHSA-test, fixed in 1.1", "1 findings in 1 packages"])


def test_nothing_found_is_fine(installed: tuple[str, str]) -> None:
    with osv({}) as url:
        assert verdict(*ask(url, *installed)) == (0, ["0 findings in 1 packages"])


def test_a_service_that_is_away_is_neither_clean_nor_vulnerable(installed: tuple[str, str]) -> None:
    away = f"http://127.0.0.1:{free_port()}/v1/query"
    assert verdict(*ask(away, *installed)) == (3, [NOTHING_KNOWN])
    told = {}
    for more in ([], ["--may-be-unknown"]):
        command = [sys.executable, "-m", "security.audit", "--osv-url", away, *more]
        done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=120, check=False)
        assert NOTHING_KNOWN in done.stdout
        told[done.returncode] = more
    assert told == {3: [], 0: ["--may-be-unknown"]}


def test_a_tool_that_fails_does_not_pass_for_clean() -> None:
    code, lines = verdict(*ask("http://127.0.0.1:1/v1/query", "--no-such-option"))
    assert code == 1 and "no-such-option" in "\n".join(lines)


def test_the_bill_of_materials_is_of_the_product(tmp_path: Path) -> None:
    names = {component.name for component in bill_of_materials().components}
    assert {"aiohttp", "faust-streaming", "stripe", "redis", "multidict"} <= names
    assert not names & {"pytest", "schemathesis", "hypothesis", "ruff", "mypy"}
    written = json.loads(write_bill(tmp_path).read_text())
    assert written["bomFormat"] == "CycloneDX"
    assert written["metadata"]["component"]["name"] == "payment-service"
    (ours,) = [it for it in written["dependencies"] if it["ref"].startswith("pkg:pypi/payment-service@")]
    assert any(one.startswith("pkg:pypi/aiohttp@") for one in ours["dependsOn"])
