"""PayPal's own OpenAPI documents between our client and our simulator, served by Prism (npm @stoplight/prism-cli).

A request that breaks the documents comes back as 422 with `sl-violations`, an answer of the simulator that does as 500.
`python -m servers.prism` (in tests/, as `make test-providers` does) installs Prism once into
${XDG_CACHE_HOME:-~/.cache}/payment-service/prism, with the Node of tools.py; tests only use what is there.

The documents are those of github.com/paypal/paypal-rest-api-specifications at commit ec4d8f36 (February 2024,
Apache-2.0), unchanged and compressed. What is repaired on the way is in `documents`.
"""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers.tools import cache, fetched, found
from servers.waiting import wait_until

from payment_service.adapters.embedded_process import accepts_connections, free_port, log_tail, spawn, stop

VERSION = "5.16.0"
DOCUMENTS = Path(__file__).parent / "paypal_openapi"
INSTALL_WAIT_S = 600.0
START_WAIT_S = 120.0
"""Prism reads 900 KB of schemas, on a machine that does other things."""
TERM_WAIT_S = 5.0
HOW_TO_GET = "no Prism: `make test-providers` installs it"
_EMAIL_BEGINS, _SIMPLER_EMAIL = "(?:[a-zA-Z0-9!#$%", '^.+@[^"\\-].+$'
"""The second is PayPal's own pattern for the same field elsewhere in these documents."""


def home() -> Path:
    return cache() / "prism"


def program() -> list[str] | None:
    script = home() / "node_modules" / "@stoplight" / "prism-cli" / "dist" / "index.js"
    node = found("node") if script.exists() else None
    return None if node is None else [str(node), str(script)]


def is_there() -> bool:
    return program() is not None


def documents() -> dict[str, Any]:
    """All of them as one: each brings components of the same names, so that each gets its own.

    Repaired: escapes in patterns that JavaScript's /u mode rejects (Prism would then take any body, in silence); an
    email pattern that it rejects too; and setup tokens, which the vault's document of that day does not list as what
    may be exchanged (developer.paypal.com/docs/api/payment-tokens/v3 does).
    """
    whole: dict[str, Any] = {
        "openapi": "3.0.3", "info": {"title": "PayPal", "version": "2024-02"}, "paths": {}, "components": {},
    }  # fmt: skip
    for file in sorted(DOCUMENTS.glob("*.json.gz")):
        name = file.name.partition(".")[0]
        one = _repaired(json.loads(gzip.decompress(file.read_bytes())), name)
        assert not whole["paths"].keys() & one["paths"].keys(), "no two documents have the same path"
        whole["paths"] |= one["paths"]
        for kind, components in one["components"].items():
            named = {key if kind == "securitySchemes" else f"{name}.{key}": it for key, it in components.items()}
            whole["components"].setdefault(kind, {}).update(named)
    types = whole["components"]["schemas"]["vault_payment_tokens_v3.token_id_request"]["properties"]["type"]["enum"]
    types.append("SETUP_TOKEN")
    return whole


def _repaired(part: Any, document: str) -> Any:
    if isinstance(part, list):
        return [_repaired(one, document) for one in part]
    if not isinstance(part, dict):
        return part
    made = {key: _repaired(one, document) for key, one in part.items()}
    pattern, ref = made.get("pattern"), made.get("$ref")
    if isinstance(pattern, str):
        made["pattern"] = (
            _SIMPLER_EMAIL if pattern.startswith(_EMAIL_BEGINS) else re.sub(r"\\([!\"',:; ])", r"\1", pattern)
        )
    if isinstance(ref, str):
        made["$ref"] = re.sub(r"^#/components/(\w+)/", rf"#/components/\1/{document}.", ref)
    return made


@contextmanager
def paypal_documents(upstream: str) -> Iterator[str]:
    """The proxy's URL, for as long as the block lives. Only when it `is_there()`."""
    command, port = program(), free_port()
    assert command is not None, HOW_TO_GET
    with tempfile.TemporaryDirectory(prefix="prism-", ignore_cleanup_errors=True) as kept:
        log, document = Path(kept) / "log", Path(kept) / "paypal.json"
        document.write_text(json.dumps(documents()))
        process = spawn(
            [*command, "proxy", "-p", str(port), "-h", "127.0.0.1", "-v", "warn", str(document), upstream, "--errors"],
            log=log,
            death_signal=signal.SIGKILL,
        )
        try:

            def ready() -> bool:
                assert process.poll() is None, f"Prism ended: {log_tail(log)}"
                return accepts_connections(port)

            wait_until(ready, "Prism listens", START_WAIT_S)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process, (signal.SIGTERM, TERM_WAIT_S))


def install() -> str:
    """What came of it, for a person. Nothing is wrong without it but that its tests are skipped."""
    if is_there():
        return "Prism is there"
    node = fetched("node")
    if node is None or not (npm := node.with_name("npm")).exists():
        return "no Node 20 or newer with npm: PayPal's OpenAPI will not be asked"
    home().mkdir(parents=True, exist_ok=True)
    (home() / "package.json").write_text('{"private": true}\n')
    wanted = f"@stoplight/prism-cli@{VERSION}"
    subprocess.run(
        [str(npm), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", wanted],
        cwd=home(), env={**os.environ, "PATH": f"{node.parent}:{os.environ.get('PATH', '')}"}, check=True,
        timeout=INSTALL_WAIT_S,
    )  # fmt: skip
    return f"Prism {VERSION} is installed"


if __name__ == "__main__":
    sys.stdout.write(install() + "\n")
