"""Signed events on the embedded broker, as `make run` has it."""

from pathlib import Path

import pytest
from rigs.webhook_sender import ENV, JOINED_S, event, pay, send, status, webhooks
from rigs.worker import Installation


@pytest.mark.long
async def test_a_signed_event_settles_its_payment_whenever_it_comes(
    tansu_broker: str, database_url: str, tmp_path: Path
) -> None:
    async with Installation(tmp_path, tansu_broker, database_url, PROCESS_WAIT_S="0", **ENV) as site:
        worker = await site.started()
        await worker.streaming()
        await pay(worker, "o1")
        assert await send(worker, event("evt_1", "charge.succeeded", "o1")) == 200
        assert await send(worker, event("evt_2", "charge.succeeded", "o2")) == 200
        assert await send(worker, event("evt_3", "invoice.created", "o1")) == 200
        assert await send(worker, event("evt_4", "charge.succeeded", "o1"), secret="another") == 400
        await site.until(lambda: len(webhooks(site)) == 3, "all are kept")
        await pay(worker, "o2")
        await site.until(lambda: status(site, "o1") == status(site, "o2") == "SUCCEEDED", "both are paid", JOINED_S)
        await site.until(
            lambda: {word for word, _ in webhooks(site).values()} == {"PROCESSED", "IGNORED"}, "all are settled"
        )
