"""What stands before a webhook: who may send, how often one may fail, how many are taken at once.

Room: web. The failures of an address are counted, never its successes, and never by anything that the sender writes:
who cannot sign can neither use up the real sender's share (from another address) nor fill our memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.ports import Clock
from payment_service.core.use_cases.receive_webhook import WebhookDoor
from payment_service.web.client_address import Address, Network, is_in, subscriber
from payment_service.web.rate_limits import Windows

QUOTA, WINDOW_S = "webhooks", 60.0
"""Of WEBHOOK_RATE_LIMIT_MAX."""
ACCEPTING_MAX = 200
"""Verified events that wait for Kafka or PostgreSQL at once; each may hold 256 KB for seconds."""
BUSY_RETRY_AFTER_S = 2.0


@dataclass(slots=True)
class WebhookGate:
    """`failures`: of each address, then nothing of it is looked at until its window ends. `allowed` empty: anybody may
    send, the signature decides."""

    door: WebhookDoor
    failures: Windows
    clock: Clock
    allowed: Sequence[Network] = ()
    trusted: Sequence[Network] = ()
    _accepting: int = 0

    def check(self, address: Address | None) -> None:
        """Before a byte of the body is read. Raises Refused (IP_NOT_ALLOWED), Unavailable (RATE_LIMITED)."""
        if self.allowed and (address is None or not is_in(address, self.allowed)):
            raise Refused("webhooks are not taken from this address", code="IP_NOT_ALLOWED")
        left = self.failures.look(subscriber(address), self.clock.monotonic_s())
        if left.remaining <= 0:
            message = "too many webhooks of this address failed"
            raise Unavailable(message, code="RATE_LIMITED", retry_after_s=left.resets_s)

    def failed(self, address: Address | None) -> None:
        self.failures.hit(subscriber(address), self.clock.monotonic_s())

    async def receive(self, provider: str, address: Address | None, headers: Mapping[str, str], body: bytes) -> None:
        """Durable when it returns. Raises Refused, Malformed (4xx), Unavailable (503: it must come again)."""
        try:
            webhook = await self.door.verify(provider, headers, body)
        except (Refused, Malformed, Unavailable):
            self.failed(address)
            raise
        if self._accepting >= ACCEPTING_MAX:
            raise Unavailable("too many webhooks at once", retry_after_s=BUSY_RETRY_AFTER_S)
        self._accepting += 1
        try:
            await self.door.accept(webhook)
        finally:
            self._accepting -= 1
