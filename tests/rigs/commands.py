"""Our commands beside a test's own event loop: in a thread, where they run a loop of theirs. A process would take a
second to start."""

import asyncio
import json
from typing import Any

from click.testing import CliRunner
from rigs.worker import Installation

from payment_service.cli.main import program


async def command(site: Installation, *arguments: str, **env: str) -> tuple[int, Any]:
    """Exit code, and what was printed as JSON; the words on stderr where there was none."""
    there = {**site.env, "DATA_DIR": str(site.folder / "cli"), **env}
    given = [*arguments, "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, program(), given, env=there)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout else result.stderr
