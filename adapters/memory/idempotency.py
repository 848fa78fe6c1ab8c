"""Idempotency-Keys in a dictionary: part of the memory store, and its KeptAnswers.

Room: adapters/memory.
"""

import time
from dataclasses import dataclass, field, replace

from payment_service.core.idempotency import Bound, RequestKey
from payment_service.core.ports import Change


@dataclass(slots=True)
class MemoryKeys:
    _rows: dict[str, tuple[Bound, float]] = field(default_factory=dict)
    """By command id, with when it was bound."""

    def bound(self, command_id: str) -> Bound | None:
        row = self._rows.get(command_id)
        return None if row is None else replace(row[0], age_s=time.monotonic() - row[1])

    def is_taken(self, change: Change) -> bool:
        """By somebody else, since the change was decided."""
        return change.bound is not None and change.loaded.bound is None and change.command_id in self._rows

    def bind(self, change: Change) -> None:
        """With the change. One that starts nothing leaves a key that is bound meanwhile as it is."""
        bound, before = change.bound, change.loaded.bound
        if bound is None:
            return
        known = self._rows.get(change.command_id)
        if before is not None and (known is None or known[0].answered or known[0].subject != before.subject):
            return
        if before is not None or known is None:
            self._rows[change.command_id] = (bound, time.monotonic())

    async def find(self, key: RequestKey) -> Bound | None:
        return self.bound(key.command_id)

    async def keep(self, bound: Bound, answer: bytes | None) -> bytes | None:
        row = self._rows.get(bound.key.command_id)
        if row is None or row[0].subject != bound.subject:
            return None
        kept = replace(row[0], answered=True, answer=answer if row[0].answer is None else row[0].answer)
        self._rows[bound.key.command_id] = (kept, row[1])
        return kept.answer

    async def keep_unbound(self, key: RequestKey, subject: str, payment_id: str, answer: bytes) -> bool:
        if key.command_id in self._rows:
            return False
        self._rows[key.command_id] = (Bound(key, subject, 0, answered=True, answer=answer), time.monotonic())
        return True

    async def remove_old_keys(self, age_s: float, limit: int) -> int:
        now = time.monotonic()
        old = [name for name, (_, at) in self._rows.items() if now - at > age_s][:limit]
        for name in old:
            del self._rows[name]
        return len(old)
