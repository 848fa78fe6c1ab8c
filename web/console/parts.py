"""What the console needs of the rest, in one value that the composition root makes.

Room: web. Protocols, use cases and plain values only. It must not import web/services.py, which holds this value.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from payment_service.core.audit import StoredEntry
from payment_service.core.dead_letters import DeadLetterDesk
from payment_service.core.health import ProviderHealth
from payment_service.core.ports import Cipher
from payment_service.core.use_cases.operator_desk import OperatorDesk
from payment_service.core.webhooks import WebhookRecords
from payment_service.web.console.live_windows import LiveWindows

ADMIN, SUPPORT = "admin", "support"
READERS = frozenset({ADMIN, SUPPORT})
LETTERS_AT_ONCE = 2
"""Readings of the dead letters' topic, in one worker."""
OWNER = "owner"
"""In REFUND_ROLES: the payment's own user. No operator is one."""


class EndedSessions(Protocol):
    """Sessions whose operators signed out, by digest: here at once, at the other workers moments later."""

    def is_ended(self, digest: str) -> bool: ...

    async def end(self, digest: str, ends_s: float) -> None:
        """Raises nothing. `ends_s`: when it would end by itself, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Console:
    desk: OperatorDesk
    cipher: Cipher
    """Seals the session's cookie."""
    refund_roles: frozenset[str]
    letters: DeadLetterDesk
    webhooks: WebhookRecords
    audit_entries: Callable[[str | None, int], Awaitable[Sequence[StoredEntry]]]
    """Of the audit log, newest first: what is about one payment, or anything."""
    live: LiveWindows
    health: Callable[[], Awaitable[Mapping[str, ProviderHealth] | None]]
    """How each provider did in the last minutes, for all workers together. None: nobody can say now."""
    ended: EndedSessions
    environment: str
    """Shown on every page, so that nobody refunds in production what was meant for staging."""
    reading_letters: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LETTERS_AT_ONCE))

    @property
    def roles(self) -> frozenset[str]:
        """Those that mean anything here."""
        return READERS | self.refunding

    @property
    def refunding(self) -> frozenset[str]:
        return self.refund_roles - {OWNER}
