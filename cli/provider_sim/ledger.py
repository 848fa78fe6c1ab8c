"""The ledger file: JSON lines, written before any answer leaves.

Room: cli/provider_sim.

What happens in one turn of the event loop goes to the file in one write and ends with a line `turn`. A replay takes
whole turns only: a kill in the middle of a write cuts off what nobody was told. The file is written to the operating
system, not synced: it survives the death of the process, not of the machine.
"""

import asyncio
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

Line = Mapping[str, Any]


class LedgerInUse(Exception):
    """Another process writes this file. Stop it, or name another file."""


class Ledger:
    """Append-only. Grows for as long as the tests run: it is the evidence, nothing in it is ever removed."""

    def __init__(self, path: Path) -> None:
        """Raises LedgerInUse, and OSError when the file cannot be opened."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise LedgerInUse(f"{path} is written by another process") from error
        self._waiting: list[bytes] = []
        self._written: asyncio.Future[None] | None = None
        self._turns = 0

    def replay(self) -> Iterator[dict[str, Any]]:
        """Every line of every whole turn, in order; what comes after the last one is cut off. Once, at the start."""
        turn: list[dict[str, Any]] = []
        position = whole = 0
        with self.path.open("rb") as file:
            for raw in file:
                position += len(raw)
                if not raw.endswith(b"\n"):
                    break
                try:
                    line = orjson.loads(raw)
                except orjson.JSONDecodeError:
                    break
                if line["line"] != "turn":
                    turn.append(line)
                    continue
                yield from turn
                turn.clear()
                whole, self._turns = position, line["n"]
        os.ftruncate(self._file, whole)

    def add(self, line: Line) -> None:
        """Taken as it is now. Call it inside the running loop, and await `written` before telling anybody."""
        self._waiting.append(orjson.dumps(line))
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self._write)

    async def written(self) -> None:
        """Returns once everything added is in the file. Raises OSError when it cannot be written."""
        if self._written is not None:
            await asyncio.shield(self._written)

    def close(self) -> None:
        if self._written is not None:
            self._write()
        os.close(self._file)

    def _write(self) -> None:
        written = self._written
        if written is None:
            return
        self._turns += 1
        self._waiting.append(orjson.dumps({"line": "turn", "n": self._turns}))
        block = memoryview(b"\n".join(self._waiting) + b"\n")
        self._waiting, self._written = [], None
        try:
            while block:  # ends: each write takes at least a byte or raises
                block = block[os.write(self._file, block) :]
        except OSError as error:
            written.set_exception(error)
            written.exception()  # whoever waits gets it; nobody waiting is no error of its own
            raise SystemExit(f"the ledger {self.path} cannot be written: {error.strerror}") from error
        written.set_result(None)
