"""Where a webhook is durable before its sender hears 200: in Kafka; in PostgreSQL while the broker is away.

Room: adapters. Both may have it (the broker can take a message whose ack came too late): its provider and event id make
one of the two copies.
"""

import asyncio
import logging
from collections.abc import Callable

from payment_service.adapters.kafka_message import NeverTaken
from payment_service.adapters.publisher import OutboxPublisher
from payment_service.codecs.webhooks import TOPIC, encode_webhook
from payment_service.core.errors import Refused, Unavailable
from payment_service.core.ports import Cipher, Clock
from payment_service.core.webhooks import ReceivedWebhook, WebhookStore

KAFKA_S = 2.0
"""How long the broker may take (design §4); the sender's own patience must reach for PostgreSQL after it."""
KAFKA_PAUSE_S = 5.0
"""A broker that did not answer is not asked again for so long, or every sender would wait those seconds."""
DATABASE_S = 6.0
RETRY_AFTER_S = 5.0
KAFKA, DATABASE = "kafka", "database"

_log = logging.getLogger(__name__)


class KafkaThenPostgres:
    """The WebhookLog port. `on_kept`: called when PostgreSQL has a new one, so that it is applied at once."""

    def __init__(
        self, publisher: OutboxPublisher, store: WebhookStore, cipher: Cipher, clock: Clock,
        on_kept: Callable[[], None],
    ) -> None:  # fmt: skip
        self._publisher = publisher
        self._store = store
        self._cipher = cipher
        self._clock = clock
        self._on_kept = on_kept
        self._kafka_from = 0.0
        self.traceparent: Callable[[], str | None] = lambda: None
        """Of what is done now, where traces are collected."""

    async def append(self, webhook: ReceivedWebhook) -> str:
        if self._clock.monotonic_s() >= self._kafka_from:
            key, value = encode_webhook(webhook, self._cipher)
            trace = self.traceparent()
            headers = [] if trace is None else [("traceparent", trace.encode())]
            try:
                async with asyncio.timeout(KAFKA_S):
                    await self._publisher.send(TOPIC, key, value, headers)
                return KAFKA
            except NeverTaken:
                pass  # the broker's limit is lower than ours
            except (Unavailable, TimeoutError):
                self._kafka_from = self._clock.monotonic_s() + KAFKA_PAUSE_S
        try:
            async with asyncio.timeout(DATABASE_S):
                await self._store.keep(webhook)
        except (Unavailable, TimeoutError):
            _log.error("a webhook could be stored nowhere provider=%s", webhook.provider)
            raise Unavailable("it cannot be stored now; send it again", retry_after_s=RETRY_AFTER_S) from None
        except Refused as error:
            raise Unavailable(error.message, retry_after_s=RETRY_AFTER_S) from None
        self._on_kept()
        return DATABASE
