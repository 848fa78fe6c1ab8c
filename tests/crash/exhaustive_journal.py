"""What one run did, in one file that outlives every process of it: asked, told, moved, published, killed, in order.

A line is one JSON object, written with one `write` to a file opened for appending: what a process did before it died
is there, and nothing it did not do.
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Journal:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)

    def write(self, line: str, **fields: Any) -> None:
        known = {"line": line, "at_ms": time.monotonic_ns() // 1_000_000, "by": os.getpid()}
        os.write(self._file, json.dumps(known | fields, separators=(",", ":")).encode() + b"\n")

    def lines(self, *kinds: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.path.read_bytes().splitlines()]
        return [line for line in found if not kinds or line["line"] in kinds]

    def close(self) -> None:
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class Kill:
    """Die at the `number`-th call of `call`: before it, or when its effect is done and nobody has heard of it.

    `stands_still`: do not die there, but stop until somebody says "go on", knowing nothing of it.
    """

    call: str
    number: int
    after: bool
    stands_still: bool = False

    def __str__(self) -> str:
        how = "standing still " if self.stands_still else ""
        return f"{how}{'after' if self.after else 'before'} {self.call} {self.number}"


@dataclass(slots=True)
class Deaths:
    """Counts every call of a port in this process, and ends the process at the one that was asked for."""

    journal: Journal
    kill: Kill | None = None
    counts: Counter[str] = field(default_factory=Counter)
    inside: int = 0
    """Calls under way."""
    stood_still: bool = False

    @contextmanager
    def at(self, call: str) -> Iterator[None]:
        """Around one call. An error that comes out of it passes: there is no result that could be lost."""
        number = self.begin(call)
        try:
            yield
        finally:
            self.inside -= 1
        self._die_if(call, number, after=True)

    def begin(self, call: str) -> int:
        self.counts[call] += 1
        number = self.counts[call]
        self._die_if(call, number, after=False)
        self.inside += 1
        return number

    def end(self, call: str, number: int) -> None:
        self.inside -= 1
        self._die_if(call, number, after=True)

    def _die_if(self, call: str, number: int, *, after: bool) -> None:
        kill = self.kill
        if kill is None or (kill.call, kill.number, kill.after) != (call, number, after):
            return
        if not kill.stands_still:
            self.journal.write("killed", at=str(kill))
            os.kill(os.getpid(), signal.SIGKILL)
        self.journal.write("stands", at=str(kill))
        os.kill(os.getpid(), signal.SIGSTOP)
        self.stood_still, self.kill = True, None
        self.journal.write("goes on")
