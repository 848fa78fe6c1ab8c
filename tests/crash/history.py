"""What happened in a run, written down as it happens: inputs, faults and answers, one JSON object a line.

The auditor reads nothing else of the traffic and the chaos, and a failure keeps the file. Kinds of lines (`what`):
- `begin`: seed and settings of the run.
- `order`: an event that the broker acked: `kind` (created, cancelled, junk, skipped), the fields that count, its place.
- `call`: a REST call as it leaves, with a number; then with the same number `answer` (status and body), `unknown` (a
  time-out, a broken connection: it may have happened) or `unreached` (nobody listened: nothing was sent).
- `shopper`, `dashboard`: what was done at the provider beside us, with its answer.
- `fault`: what was broken, and when. `quiet`, `settled`, `unsettled`: the end of the faults, and what it led to.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = "history.jsonl"


class History:
    """Appends; each line is on its way to the disk before the call returns, so a killed rig keeps it too."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._calls = 0
        self._started = time.monotonic()
        self.faults: dict[str, int] = {}

    def note(self, what: str, **fields: Any) -> None:
        line = {"what": what, "at_ms": round((time.monotonic() - self._started) * 1000), **fields}
        os.write(self._file, json.dumps(line, default=str).encode() + b"\n")

    def fault(self, kind: str, **fields: Any) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1
        self.note("fault", kind=kind, **fields)

    def call(self, **fields: Any) -> int:
        """The number under which its answer is noted."""
        self._calls += 1
        self.note("call", number=self._calls, **fields)
        return self._calls

    def close(self) -> None:
        os.close(self._file)


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines alone: the last one of a process that was killed may be half written."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield json.loads(line)
