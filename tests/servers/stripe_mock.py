"""stripe-mock: Stripe's own checker of requests, from its published OpenAPI (github.com/stripe/stripe-mock).

A Go program. `python -m servers.stripe_mock` (in tests/, as `make test-providers` does) builds it once into
${XDG_CACHE_HOME:-~/.cache}/payment-service/bin, with the Go of tools.py; tests only use what is there, or what
STRIPE_MOCK_URL names.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.tools import cache, fetched
from servers.waiting import wait_until

from payment_service.adapters.embedded_process import accepts_connections, free_port, log_tail, spawn, stop

VERSION = "v0.203.0"
MODULE = f"github.com/stripe/stripe-mock@{VERSION}"
ADDRESS = "STRIPE_MOCK_URL"
INSTALL_WAIT_S = 600.0
TERM_WAIT_S = 5.0
HOW_TO_GET = f"no stripe-mock: `make test-providers` builds it, or set {ADDRESS}"


def folder() -> Path:
    return cache() / "bin"


def program() -> str | None:
    built = folder() / "stripe-mock"
    return str(built) if built.exists() else shutil.which("stripe-mock")


def is_there() -> bool:
    return bool(os.environ.get(ADDRESS)) or program() is not None


@contextmanager
def stripe_mock_for_tests() -> Iterator[str]:
    """Its URL, for as long as the block lives. Only when it `is_there()`."""
    given, found = os.environ.get(ADDRESS), program()
    if given:
        yield given
        return
    assert found is not None, HOW_TO_GET
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="stripe-mock-", ignore_cleanup_errors=True) as logs:
        log = Path(logs) / "log"
        process = spawn(
            [
                *(found, "-http-addr", f"127.0.0.1:{port}", "-strict-version-check=false"),
                *("-https-addr", f"127.0.0.1:{free_port()}"),  # else a fixed port, and a second one would end at once
            ],
            log=log,
            death_signal=signal.SIGKILL,
        )
        try:

            def ready() -> bool:
                assert process.poll() is None, f"stripe-mock ended: {log_tail(log)}"
                return accepts_connections(port)

            wait_until(ready, "stripe-mock listens")
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process, (signal.SIGTERM, TERM_WAIT_S))


def install() -> str:
    """What came of it, for a person. Nothing is wrong without it but that its tests are skipped."""
    if is_there():
        return "stripe-mock is there"
    go = fetched("go")
    if go is None:
        return "no Go 1.22 or newer: Stripe's OpenAPI will not be asked"
    environment = {**os.environ, "GOBIN": str(folder())}
    subprocess.run(
        [str(go), "install", MODULE], env=environment, cwd=tempfile.gettempdir(), check=True, timeout=INSTALL_WAIT_S
    )
    return f"stripe-mock {VERSION} is built"


if __name__ == "__main__":
    sys.stdout.write(install() + "\n")
