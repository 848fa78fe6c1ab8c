"""What stands before a webhook: who may send, how often one may fail, how many are taken at once.

Room: web. The failures of an address are counted, never its successes, and never by anything that the sender writes:
who cannot sign can neither use up the real sender's share (from another address) nor fill our memory.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.ports import Clock
from payment_service.core.use_cases.receive_webhook import WebhookDoor
from payment_service.web.client_address import Address, Network, is_in, subscriber

WINDOW_S = 60.0
ADDRESSES_MAX = 10_000
"""Addresses whose failures are counted, about 200 bytes each; beyond it the one that failed first is forgotten."""
ACCEPTING_MAX = 200
"""Verified events that wait for Kafka or PostgreSQL at once; each may hold 256 KB for seconds."""
BUSY_RETRY_AFTER_S = 2.0


@dataclass(slots=True)
class FailureLimit:
    """So many failures of one address in a window, then nothing of it is looked at until the window ends."""

    failures_max: int
    clock: Clock
    _failures: OrderedDict[str, tuple[float, int]] = field(default_factory=OrderedDict)
    """Address -> (end of its window, failures)."""

    def check(self, address: Address | None) -> None:
        """Raises Unavailable (RATE_LIMITED)."""
        ends_at, failures = self._failures.get(subscriber(address), (0.0, 0))
        left_s = ends_at - self.clock.monotonic_s()
        if failures >= self.failures_max and left_s > 0:
            raise Unavailable("too many webhooks of this address failed", code="RATE_LIMITED", retry_after_s=left_s)

    def failed(self, address: Address | None) -> None:
        key, now = subscriber(address), self.clock.monotonic_s()
        ends_at, failures = self._failures.get(key, (0.0, 0))
        if ends_at <= now:
            self._failures.pop(key, None)
            ends_at, failures = now + WINDOW_S, 0
        self._failures[key] = (ends_at, failures + 1)
        if len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)


@dataclass(slots=True)
class WebhookGate:
    """`allowed` empty: anybody may send, the signature decides."""

    door: WebhookDoor
    failures: FailureLimit
    allowed: Sequence[Network] = ()
    trusted: Sequence[Network] = ()
    _accepting: int = 0

    def check(self, address: Address | None) -> None:
        """Before a byte of the body is read. Raises Refused (IP_NOT_ALLOWED), Unavailable (RATE_LIMITED)."""
        if self.allowed and (address is None or not is_in(address, self.allowed)):
            raise Refused("webhooks are not taken from this address", code="IP_NOT_ALLOWED")
        self.failures.check(address)

    async def receive(self, provider: str, address: Address | None, headers: Mapping[str, str], body: bytes) -> None:
        """Durable when it returns. Raises Refused, Malformed (4xx), Unavailable (503: it must come again)."""
        try:
            webhook = await self.door.verify(provider, headers, body)
        except (Refused, Malformed, Unavailable):
            self.failures.failed(address)
            raise
        if self._accepting >= ACCEPTING_MAX:
            raise Unavailable("too many webhooks at once", retry_after_s=BUSY_RETRY_AFTER_S)
        self._accepting += 1
        try:
            await self.door.accept(webhook)
        finally:
            self._accepting -= 1
