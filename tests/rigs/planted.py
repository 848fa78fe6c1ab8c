"""The doctor as an operator calls it, on an installation in which something was planted."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from payment_service import offline
from payment_service.adapters.embedded_process import free_port
from payment_service.adapters.settings import Settings, environment_names
from payment_service.cli import main as entry
from payment_service.core.doctor import Area

KEY = "k" * 32
"""As the rigs of the store seal with."""
GOOD_KEY, GOOD_SECRET = "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "a-secret-of-these-tests-with-more-than-32-characters"
PRODUCTION = {
    "NODE_ENV": "production", "JWT_SECRET": GOOD_SECRET, "ENCRYPTION_KEY": GOOD_KEY, "REFUND_ROLES": "admin",
    "STRIPE_SECRET_KEY": "sk_live_4eC39HqLyjWDarjtT1z", "STRIPE_WEBHOOK_SECRET": "whsec_4eC39HqLyjWDarjtT1z",
    "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d", "KAFKA_BROKERS": "127.0.0.1:1",
}  # fmt: skip


class Told(NamedTuple):
    health: str
    what: str
    mend: str


class Examined(NamedTuple):
    exit_code: int
    found: Mapping[str, Told]
    """By check. Of several with one name the worst."""
    text: str

    def wrong(self, check: str) -> Told:
        told = self.found[check]
        assert told.health == "WRONG", self.text
        assert told.mend, f"{check} does not say how to mend it"
        assert self.exit_code == 1
        return told


class Doctor:
    """`env`: what the installation has set; nothing else is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = monkeypatch
        self._folder = folder
        self.env: dict[str, str] = {"NODE_ENV": "test", "PORT": str(free_port()), "DATA_DIR": str(folder / "data")}
        monkeypatch.chdir(folder)
        monkeypatch.setattr(offline, "prepare_quiet_logging", lambda: None)

    def __call__(self, *areas: Area, arguments: tuple[str, ...] = (), **env: str) -> Examined:
        for field in Settings.model_fields:
            for name in environment_names(field):
                self._patch.delenv(name, raising=False)
        for name, value in (self.env | env).items():
            self._patch.setenv(name, value)
        only = [word for area in areas for word in ("--only", area.value)]
        result = CliRunner().invoke(entry.program(), ["doctor", "--json", *only, *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        told = json.loads(result.stdout)
        order = ("SKIPPED", "OK", "WARNING", "WRONG")
        found: dict[str, Told] = {}
        for it in sorted(told["findings"], key=lambda one: order.index(one["health"])):
            found[it["check"]] = Told(it["health"], it["what"], it["mend"])
        assert told["ok"] is (result.exit_code == 0) or arguments, result.stdout
        return Examined(result.exit_code, found, result.stdout)


@contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """A port where everybody gets the same bytes."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(0.2)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    peer, _ = door.accept()
                except TimeoutError:
                    continue
                with peer:
                    peer.settimeout(5)
                    peer.recv(65_536)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(door.getsockname()[1])
        finally:
            ended.set()
            thread.join()


def http(body: str, *, status: str = "200 OK", date: str = "Mon, 01 Jan 2024 00:00:00 GMT") -> bytes:
    head = f"HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def in_loop(work: Any) -> Any:
    """The commands run loops of their own, so these tests are not coroutines."""
    return asyncio.run(work)


__all__ = ["GOOD_KEY", "KEY", "PRODUCTION", "Doctor", "Examined", "http", "in_loop", "listening"]
