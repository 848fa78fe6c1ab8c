"""The MethodStore port in a dictionary: for fast tests, and for one process that needs no database.

Room: adapters/memory. The same contract suite as the real one. Limits: those of the process's memory.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from payment_service.core.errors import Refused
from payment_service.core.payment_method import METHODS_MAX, Card, Method, MethodStatus, Usable

OPEN = (MethodStatus.PENDING, MethodStatus.REQUIRES_ACTION)


@dataclass(slots=True)
class _Row:
    method: Method
    given: str
    due_at: float | None = None


class MemoryMethods:
    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._customers: dict[tuple[str, str], str] = {}

    async def begin(self, method: Method, limit: int, lease_s: float) -> Method:
        given = method.secrets.given or method.method_id
        _refuse_unstorable(method.user_id + given)
        seen = [row for row in self._rows.values() if row.method.user_id == method.user_id and _is_seen(row.method)]
        for row in seen:
            if (row.method.provider, row.given) == (method.provider, given):
                return row.method
        if len(seen) >= limit:
            raise Refused(f"a user has at most {limit} payment methods", code="INVALID_STATE")
        self._rows[method.method_id] = _Row(method, given, time.monotonic() + lease_s)
        return method

    async def settle(self, method: Method, due_s: float | None = None) -> Method | None:
        row = self._rows.get(method.method_id)
        if row is None or row.method.status not in OPEN:
            return None
        becomes_default = row.method.wants_default and method.status is MethodStatus.ACTIVE
        if becomes_default:
            self._clear_default(method.user_id)
        row.due_at = None if due_s is None else time.monotonic() + due_s
        row.method = replace(
            row.method, status=method.status, card=method.card, secrets=method.secrets, is_default=becomes_default,
            wants_default=row.method.wants_default and not becomes_default, tries=0,
        )  # fmt: skip
        return row.method

    async def listed(self, user_id: str) -> Sequence[Method]:
        found = [row.method for row in self._rows.values() if row.method.user_id == user_id and _is_seen(row.method)]
        found.sort(key=lambda method: (not method.is_default, -method.created_at_ms, method.method_id))
        return found[:METHODS_MAX]

    async def find(self, user_id: str, method_id: str) -> Method | None:
        row = self._rows.get(method_id)
        return row.method if row is not None and row.method.user_id == user_id and _is_seen(row.method) else None

    async def usable(self, user_id: str, method_id: str | None) -> Usable | None:
        for method in await self.listed(user_id):
            wanted = method.is_default if method_id is None else method.method_id == method_id
            if wanted and method.status is MethodStatus.ACTIVE and method.secrets.token is not None:
                return Usable(method.method_id, method.provider, method.secrets.token, method.secrets.customer)
        return None

    async def set_default(self, user_id: str, method_id: str) -> Method | None:
        method = await self.find(user_id, method_id)
        if method is None or method.status is not MethodStatus.ACTIVE:
            return None
        self._clear_default(user_id)
        changed = self._rows[method_id].method = replace(method, is_default=True)
        return changed

    async def remove(self, user_id: str, method_id: str) -> bool:
        method = await self.find(user_id, method_id)
        if method is None or method.status is MethodStatus.PENDING:
            return False
        row = self._rows[method_id]
        row.method = replace(
            method, status=MethodStatus.REMOVED, is_default=False, wants_default=False, tries=0
        )  # fmt: skip
        row.due_at = time.monotonic()
        return True

    async def forget(self, method: Method) -> None:
        row = self._rows.get(method.method_id)
        if row is not None and row.method.status is method.status:
            del self._rows[method.method_id]

    async def claim(self, limit: int, lease_s: float) -> Sequence[Method]:
        now = time.monotonic()
        due = [row for row in self._rows.values() if row.due_at is not None and row.due_at <= now]
        due.sort(key=lambda row: row.due_at or 0.0)
        for row in due[:limit]:
            row.due_at = now + lease_s
            row.method = replace(row.method, tries=row.method.tries + 1)
        return [row.method for row in due[:limit]]

    async def later(self, method: Method, delay_s: float) -> None:
        row = self._rows.get(method.method_id)
        if row is not None and (row.method.status, row.method.tries) == (method.status, method.tries):
            row.due_at = time.monotonic() + delay_s

    async def detached(self, provider: str, token: str) -> int:
        gone = self._with(provider, token)
        for method in gone:
            del self._rows[method.method_id]
        return len(gone)

    async def card_changed(self, provider: str, token: str, card: Card) -> int:
        changed = self._with(provider, token)
        for method in changed:
            was = method.card
            now = Card(
                card.brand or was.brand, card.last4 or was.last4, card.exp_month or was.exp_month,
                card.exp_year or was.exp_year,
            )  # fmt: skip
            self._rows[method.method_id].method = replace(method, card=now)
        return len(changed)

    async def customer_of(self, user_id: str, provider: str) -> str | None:
        return self._customers.get((user_id, provider))

    async def keep_customer(self, user_id: str, provider: str, customer: str) -> None:
        self._customers[(user_id, provider)] = customer

    def _with(self, provider: str, token: str) -> list[Method]:
        methods = [row.method for row in self._rows.values()]
        return [one for one in methods if (one.provider, one.secrets.token) == (provider, token)]

    def _clear_default(self, user_id: str) -> None:
        for row in self._rows.values():
            if row.method.user_id == user_id and row.method.is_default:
                row.method = replace(row.method, is_default=False)


def _is_seen(method: Method) -> bool:
    return method.status is not MethodStatus.REMOVED


def _refuse_unstorable(text: str) -> None:
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise Refused("contains text that cannot be stored", code="VALIDATION_ERROR")
