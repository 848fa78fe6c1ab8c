"""The service in this process, on real servers, with what feeds and fills the tables: REST, publisher, stream side.

In this process, so that a test may shorten the times after which a difference is looked at again and is an alarm.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rigs.worker import ENCRYPTION_KEY, JWT_SECRET, PARTITIONS, token_of
from servers.postgres import execute

from payment_service.adapters.embedded_process import free_port
from payment_service.adapters.settings import Settings
from payment_service.app import build_services
from payment_service.core import reconciliation
from payment_service.core.ids import payment_id_of
from payment_service.offline import read_table
from payment_service.services import Services
from payment_service.tables import reconciliation as table
from payment_service.worker import StreamSide, serving

WAIT_S = 60.0
POLL_S = 0.1


@dataclass
class ReconciledSite:
    services: Services
    database_url: str
    session: aiohttp.ClientSession

    async def charged(self, order: str, token: str = "tok_visa") -> str:
        """The payment's id."""
        await self.post("/api/v1/payments", {"orderId": order, "amount": 99.99, "currency": "USD"})
        payment_id = payment_id_of(order)
        await self.post(f"/api/v1/payments/{payment_id}/process", {"paymentMethodId": token})
        return payment_id

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        url = f"http://127.0.0.1:{self.services.settings.port}{path}"
        headers = {"Authorization": f"Bearer {token_of('ann', ('admin',))}"}
        async with self.session.post(url, json=body, headers=headers) as response:
            assert response.status in (200, 201), await response.text()
            return (await response.json())["data"]

    def change(self, statement: str) -> None:
        """In the database, behind the service's back."""
        execute(self.database_url, statement)

    def touch(self, payment_id: str) -> None:
        """Its calls look as if they had changed, so that it is compared again."""
        self.change(f"update payment_service.transactions set updated_at = now() where payment_id = '{payment_id}'")

    async def rows(self) -> dict[str, dict[str, Any]]:
        """As the command shows them, from the changelog."""
        return await read_table(self.services.settings, table.NAME)

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < deadline, f"not in time: {what}"
            await asyncio.sleep(POLL_S)

    def account(self, payment_id: str) -> Mapping[str, Any]:
        accounts = self.services.facts.accounts
        assert isinstance(accounts, table.ReconciliationTable)
        return next((row for row in accounts.rows if row["paymentId"] == payment_id), {})

    async def until_state(self, payment_id: str, *states: str) -> Mapping[str, Any]:
        await self.until(lambda: self.account(payment_id).get("status") in states, f"{payment_id} is {states}")
        return self.account(payment_id)

    def alarms(self) -> dict[str, float]:
        """What is on /metrics now, without what is 0."""
        found = self.services.metrics.values("reconciliation_differences")
        return {what: count for (what,), count in found if count}


@asynccontextmanager
async def reconciled_site(
    broker: str,
    database_url: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    alarm_ms: int = 3_000,
    prefix: str | None = None,
) -> AsyncIterator[ReconciledSite]:
    monkeypatch.setattr(reconciliation, "ALARM_MS", alarm_ms)
    monkeypatch.setattr(reconciliation, "CONFIRMED_MS", alarm_ms // 2)
    monkeypatch.setattr(table, "LOOK_AGAIN_MS", 500)
    env = {
        "ENVIRONMENT": "test", "KAFKA_BROKERS": broker, "DATABASE_URL": database_url, "DATA_DIR": str(folder),
        "TOPIC_PREFIX": prefix or f"t{secrets.token_hex(4)}-", "TOPIC_PARTITIONS": str(PARTITIONS),
        "JWT_SECRET": JWT_SECRET, "ENCRYPTION_KEY": ENCRYPTION_KEY, "PAYMENT_PROVIDER": "mock",
        "PORT": str(free_port()), "POD_NAME": "", "RATE_LIMIT_MAX": "1000000", "MIGRATE_ON_START": "false",
    }  # fmt: skip
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    async with (
        build_services(Settings.load(None)) as services,
        aiohttp.ClientSession() as session,
        serving(services),
    ):
        streams = StreamSide(services)
        parts = (services.effects, services.publisher, services.facts, services.provider_stats, streams)
        tasks = [asyncio.create_task(part.run()) for part in parts]
        site = ReconciledSite(services, database_url, session)
        try:
            await site.until(lambda: services.stream_running, "the stream side runs")
            yield site
            for task in tasks:
                if task.done():
                    await task
        finally:
            streams.stop()
            await asyncio.wait(tasks[-1:], timeout=WAIT_S)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=WAIT_S)
