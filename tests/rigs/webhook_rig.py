"""Webhooks on a real PostgreSQL: store, sweep and state machine, with a reader that says what it is told."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from rigs.counted import CountedMetrics
from rigs.desk_rig import Clock, ScriptedProvider
from rigs.stores import KEY, SHARDS
from servers.postgres import execute as run_sql

from payment_service.adapters.audit_chain import chain_key
from payment_service.adapters.postgres.call_queue import PostgresCallQueue
from payment_service.adapters.postgres.payment_store import PostgresPaymentStore
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.webhooks import PostgresWebhooks
from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core import commands as c
from payment_service.core.errors import Malformed
from payment_service.core.ids import payment_id_of
from payment_service.core.payment import Payment, status_of
from payment_service.core.ports import Answer
from payment_service.core.terms import Kind, Source, Status, Verdict
from payment_service.core.use_cases.execute import Execute
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.core.use_cases.receive_webhook import ApplyWebhook
from payment_service.core.use_cases.sweep_webhooks import WebhookSweep
from payment_service.core.webhooks import AttemptNews, MethodNews, Notice, ReceivedWebhook

ID = payment_id_of("o1")
YES = Answer(Verdict.APPROVED, "ch_1", "obj_1", 9999, "USD")
PAID = AttemptNews(Kind.CHARGE, YES)


@dataclass
class ScriptedReader:
    """A body is the name of a notice. `fresh`: what the provider says when it is asked; an error is raised."""

    notices: dict[bytes, Notice] = field(default_factory=dict)
    fresh: dict[str, Notice | Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def verify(self, headers: Mapping[str, str], body: bytes, now_ms: int) -> Notice:
        return self.read(body)

    def read(self, body: bytes) -> Notice:
        try:
            return self.notices[body]
        except KeyError:
            raise Malformed("no event") from None

    async def refetch(self, notice: Notice) -> Notice:
        self.asked.append(notice.event_id)
        fresh = self.fresh.get(notice.event_id, replace(notice, refetch=False))
        if isinstance(fresh, Exception):
            raise fresh
        return fresh


@dataclass
class WebhookRig:
    url: str
    store: PostgresPaymentStore
    webhooks: PostgresWebhooks
    execute: Execute
    effects: Effects
    provider: ScriptedProvider
    reader: ScriptedReader
    apply: ApplyWebhook
    sweep: WebhookSweep
    metrics: CountedMetrics
    methods: list[tuple[str, MethodNews]]
    cipher: AesGcmCipher

    def notice(self, event_id: str, *news: Any, **more: Any) -> ReceivedWebhook:
        """Scripted, and as it is after verification."""
        clock_ms = Clock().now_ms()
        fields: dict[str, Any] = {
            "provider": "MOCK", "event_id": event_id, "type": "t", "created_at_ms": clock_ms, "payment_id": ID,
            "object_id": "obj_1", "charge_id": None, "news": news, **more,
        }  # fmt: skip
        notice = Notice(**fields)
        body = event_id.encode()
        self.reader.notices[body] = notice
        return ReceivedWebhook(
            notice.provider, event_id, notice.type, notice.created_at_ms, clock_ms, notice.payment_id,
            notice.object_id, body,
        )  # fmt: skip

    async def swept(self, *webhooks: ReceivedWebhook) -> None:
        """Kept, claimed and settled, once."""
        for webhook in webhooks:
            await self.webhooks.keep(webhook)
        self.sweep._start(await self.webhooks.claim(100, 40.0))
        while self.sweep._tasks:
            await asyncio.wait(list(self.sweep._tasks))

    async def swept_later(self, passed_s: float = 0.0) -> None:
        """Once more, as if so much time had passed since they came."""
        self.sql(f"update payment_service.payment_webhooks set since = since - interval '{passed_s} s'")
        self.sql("update payment_service.payment_webhooks set due_at = now() where due_at is not null")
        await self.swept()

    def rows(self) -> list[tuple[Any, ...]]:
        return self.sql("select event_id, status, reason from payment_service.payment_webhooks order by id")

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        return run_sql(self.url, text)

    async def create(self) -> None:
        await self.execute(c.CreatePayment(ID, "", Clock().now_ms(), "user:u", "o1", "u", 9999, "USD", "MOCK"))

    async def start(self, *answers: Verdict, object_id: str = "obj_1") -> None:
        """A charge under way on its object; answered, if the test says so."""
        now = Clock().now_ms()
        outcome = await self.execute(c.StartCharge(ID, "", now, "user:u", has_method=True))
        number = len(outcome.payment.attempts)
        await self.execute(c.RecordObject(ID, "", now, number, object_id))
        for verdict in answers:
            said = c.RecordAnswer(
                ID, "", now, Kind.CHARGE, number, verdict, Source.LIVE, "ch_1", 9999, "USD", object_closed=True
            )
            await self.execute(said)

    async def is_in(self, status: Status) -> bool:
        return status_of(await self.payment()) is status

    async def payment(self) -> Payment:
        payment = (await self.store.load(ID)).payment
        assert payment is not None
        return payment


@asynccontextmanager
async def webhook_rig(url: str) -> AsyncIterator[WebhookRig]:
    database, cipher, clock, metrics = Database(url), AesGcmCipher(KEY), Clock(), CountedMetrics()
    store = PostgresPaymentStore(database, cipher, chain_key(KEY), SHARDS, lambda rows: None)
    execute = Execute(store, clock, "w1", 30.0)
    provider, reader = ScriptedProvider(), ScriptedReader()
    effects = Effects(
        execute, PostgresCallQueue(database, cipher), {"MOCK": provider}, clock, metrics, "w1", 30.0, 20.0, 3_600_000,
        concurrency=10,
    )  # fmt: skip
    webhooks = PostgresWebhooks(database, cipher)
    methods: list[tuple[str, MethodNews]] = []

    async def method_changed(name: str, news: MethodNews) -> None:
        methods.append((name, news))

    apply = ApplyWebhook({"MOCK": reader}, webhooks, execute, effects, method_changed, clock, metrics)
    sweep = WebhookSweep(webhooks, apply, clock, metrics)
    yield WebhookRig(url, store, webhooks, execute, effects, provider, reader, apply, sweep, metrics, methods, cipher)
    await effects.stop(1.0)
    await webhooks.close(1.0)
    await store.close()
    await database.close()
