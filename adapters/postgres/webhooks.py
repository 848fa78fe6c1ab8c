"""The kept events of providers: the WebhookStore port over `payment_webhooks`, and what operators ask of it.

Room: adapters/postgres. Bodies are sealed, with provider and event id bound in. A claim is a lease by the database's
clock; rows are locked for the claim alone.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from payment_service.adapters.postgres import arrays as a
from payment_service.adapters.postgres.batching import Batches, Waiting, answer_all
from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.core.errors import Malformed, Refused, Unavailable
from payment_service.core.ports import Cipher
from payment_service.core.webhooks import Applied, ClaimedWebhook, ListedWebhook, ReceivedWebhook, WebhookStatus

KEEP_MAX = 200
KEEP_BYTES_MAX = 1024 * 1024
"""Of one statement that keeps events."""
QUEUE_MAX = 2000
"""Events that may wait to be kept; more is refused as busy, and stays where it is durable."""
WRITERS = 1
TRIES_MAX = 2
"""Keeping, claiming and settling may simply be repeated when a connection breaks."""
STATEMENT_S = 5.0
"""A sender waits; providers give up after ten seconds or more."""
UNREADABLE_TRIES_MAX = 20
UNREADABLE_DELAY_S = 30.0
"""While keys are rotated, another worker may have the one that this worker lacks."""
FOUND_MAX = 20
REPLAY_PAGE = 1000
REPLAY_PAGES_MAX = 10_000

_log = logging.getLogger(__name__)


def body_place(provider: str, event_id: str) -> str:
    return f"payment_webhooks.body:{provider}:{event_id}"


_Keep = Waiting[ReceivedWebhook, bool]


class PostgresWebhooks:
    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher
        self._keeps: Batches[ReceivedWebhook, bool] = Batches(
            self._keep_batch, lambda keep: keep.fail(Unavailable("the store is closed")),
            workers=WRITERS, batch_max=KEEP_MAX, bytes_max=KEEP_BYTES_MAX, queue_max=QUEUE_MAX,
        )  # fmt: skip

    async def close(self, drain_s: float) -> None:
        await self._keeps.close(drain_s)

    async def keep(self, webhook: ReceivedWebhook) -> bool:
        texts = (webhook.provider, webhook.event_id, webhook.type, webhook.payment_id or "", webhook.object_id or "")
        if not all(a.is_storable(text) for text in texts):
            raise Refused("contains text that cannot be stored", code="VALIDATION_ERROR")
        key = f"{webhook.provider}:{webhook.event_id}"
        return await self._keeps.put(webhook, key, 2 * len(webhook.body))

    async def _keep_batch(self, batch: list[_Keep]) -> None:
        rows = [keep.item for keep in batch]
        bodies = [self._cipher.seal(row.body, body_place(row.provider, row.event_id)).hex() for row in rows]
        parameters = (
            a.texts([row.provider for row in rows]), a.texts([row.event_id for row in rows]),
            a.texts([row.type for row in rows]), a.optional_texts([row.payment_id for row in rows]),
            a.optional_texts([row.object_id for row in rows]), a.words(bodies),
            a.numbers([row.created_at_ms for row in rows]), a.numbers([row.received_at_ms for row in rows]),
        )  # fmt: skip
        try:
            kept = set(await self._run("keep_webhooks", parameters))
        except Unavailable as error:
            answer_all(batch, error)
            return
        for keep in batch:
            keep.answer((keep.item.provider, keep.item.event_id) in kept)

    async def claim(self, limit: int, lease_s: float) -> list[ClaimedWebhook]:
        claimed: list[ClaimedWebhook] = []
        for row in await self._run("claim_webhooks", (limit, lease_s)):
            row_id, provider, event_id, kind, payment_id, object_id, sealed, created, received, tries, waited = row
            webhook = ReceivedWebhook(provider, event_id, kind, created, received, payment_id, object_id, b"")
            one = ClaimedWebhook(row_id, webhook, tries, waited)
            try:
                body = self._cipher.unseal(bytes(sealed), body_place(provider, event_id))
            except Malformed:
                _log.error("the body of webhook %s %s cannot be unsealed", provider, event_id)
                unread = Applied(WebhookStatus.RECEIVED, "UNREADABLE", delay_s=UNREADABLE_DELAY_S)
                if tries >= UNREADABLE_TRIES_MAX:
                    unread = Applied(WebhookStatus.FAILED, "UNREADABLE")
                await self.settle(one, unread)
                continue
            opened = ReceivedWebhook(provider, event_id, kind, created, received, payment_id, object_id, body)
            claimed.append(ClaimedWebhook(row_id, opened, tries, waited))
        return claimed

    async def settle(self, claimed: ClaimedWebhook, applied: Applied) -> None:
        if applied.status is WebhookStatus.FAILED:
            _log.error(
                "webhook failed provider=%s event_id=%s type=%s reason=%s payment_id=%s",
                claimed.webhook.provider, claimed.webhook.event_id, claimed.webhook.type, applied.reason,
                applied.payment_id,
            )  # fmt: skip
        await self._run(
            "settle_webhook",
            (applied.status.value, applied.reason, applied.payment_id, applied.delay_s, claimed.row_id, claimed.tries),
        )

    async def payment_of(self, provider: str, provider_ids: Sequence[str]) -> str | None:
        if not all(a.is_storable(text) for text in provider_ids):
            return None
        found = await self._run("payment_of_provider_ids", (list(provider_ids), provider))
        return str(found[0][0]) if len(found) == 1 else None

    async def waiting(self) -> Mapping[str, tuple[int, float]]:
        return {status: (count, age_s) for status, count, age_s in await self._run("webhooks_waiting", ())}

    async def remove_old(self, age_s: float, limit: int) -> int:
        return len(await self._run("remove_old_webhooks", (limit, age_s)))

    # --- for operators ---------------------------------------------------------------------------------------

    async def listed(
        self, *, status: str | None = None, provider: str | None = None, row_id: int | None = None, limit: int
    ) -> list[ListedWebhook]:
        """Newest first."""
        parameters = (status, status, provider, provider, row_id, row_id, limit)
        return [ListedWebhook(*row) for row in await self._run("list_webhooks", parameters)]

    async def payments_of_provider_id(self, provider_id: str) -> list[str]:
        """At most FOUND_MAX, of whatever provider."""
        if not a.is_storable(provider_id):
            return []
        rows = await self._run("payments_of_provider_id", (provider_id, provider_id, FOUND_MAX))
        return [str(payment_id) for (payment_id,) in rows]

    async def replay(self, *, status: str | None = None, row_id: int | None = None) -> int:
        """How many are applied anew, by whichever worker sweeps next. What they did before they do not do again."""
        total, after = 0, 0
        for _ in range(REPLAY_PAGES_MAX):
            page = await self._run("replay_webhooks", (after, status, status, row_id, row_id, REPLAY_PAGE))
            total += len(page)
            if len(page) < REPLAY_PAGE:
                break
            after = max(row_id for (row_id,) in page)
        return total

    async def _run(self, name: str, parameters: tuple[Any, ...]) -> list[Any]:
        """Each statement may be repeated: the second time it finds what the first did."""
        error: Exception | None = None
        for _ in range(TRIES_MAX):
            try:
                return await self._database.fetch(QUERIES[name], parameters, STATEMENT_S)
            except (ConnectionLost, TryAgain) as again:
                error = again
            except StatementRefused as refused:
                error = refused
                break
        _log.warning("webhooks: %s was not done: %s", name, type(error).__name__)
        raise Unavailable("the webhooks' table did not answer")
