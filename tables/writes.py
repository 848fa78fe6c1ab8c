"""What waits for many writes of a table: one future for all of them.

Room: tables.
"""

import asyncio

from payment_service.core.errors import Malformed


class Writes:
    """Handed to each write before the first of them is answered, or held open meanwhile by an `add` of one's own; the
    table answers every one with `told`.

    `done`: when the changelog has all of them but those in `refused`. Its error is the last one of another kind
    (Unavailable, or a bug): any of them may be there or not, and the same writes again are right.
    """

    __slots__ = ("_error", "_open", "done", "refused")

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refused: list[tuple[bytes, Malformed]] = []
        """Keys whose value the broker never takes."""
        self._open = 0
        self._error: Exception | None = None

    def __len__(self) -> int:
        """Those that are not answered."""
        return self._open

    def add(self) -> None:
        self._open += 1

    def told(self, key: bytes, error: Exception | None) -> None:
        if error is not None:
            self._note(key, error)
        self._open -= 1
        if self._open or self.done.done():
            return
        if self._error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(self._error)

    def _note(self, key: bytes, error: Exception) -> None:
        if isinstance(error, Malformed):
            self.refused.append((key, error))
        else:
            self._error = error


class LoneWrite(Writes):
    """Of one write, whose every error is its result's."""

    __slots__ = ()

    def _note(self, key: bytes, error: Exception) -> None:
        self._error = error
