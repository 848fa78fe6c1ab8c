"""The topic `payment-webhooks`: verified events of providers become rows, and the sweep applies them.

Room: Kafka in. An event is finished when its row is committed: no provider is asked from here, so a rebalance waits
for commits alone. What cannot be unsealed was not put there by us, and goes to the dead letters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from payment_service.agents.records import Record, Work
from payment_service.codecs.webhooks import decode_webhook
from payment_service.core.ports import Cipher
from payment_service.core.webhooks import ReceivedWebhook, WebhookStore


@dataclass(frozen=True, slots=True)
class WebhookEvents:
    """Keeps each provider event once, by its provider's id."""

    store: WebhookStore
    cipher: Cipher
    kept: Callable[[], None]
    """Called when there is something new to apply."""
    name: str = "webhooks"

    def plan(self, record: Record) -> Work | None:
        if record.value is None:
            return None
        webhook = decode_webhook(record.key, record.value, self.cipher)
        return Work(f"{webhook.provider}:{webhook.event_id}", partial(self._keep, webhook))

    async def _keep(self, webhook: ReceivedWebhook) -> None:
        if await self.store.keep(webhook):
            self.kept()
