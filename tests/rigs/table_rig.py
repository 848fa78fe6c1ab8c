"""The table of payments on a Faust App that is never started, with a producer that answers as the test says."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from faust.types import TP

from payment_service.adapters.sealing import AesGcmCipher
from payment_service.agents.faust_app import PaymentApp, stream_app
from payment_service.agents.records import Record
from payment_service.codecs.times import rfc3339
from payment_service.core.errors import Malformed
from payment_service.tables.payments import PaymentsTable, place_of

NOW_MS = 1_700_000_000_000
TTL_S = 3600.0
HOUR_MS = 3_600_000
CHANGELOG = "payment-service-payments-changelog"


@dataclass
class Batch:
    records: list[tuple[bytes, bytes | None]] = field(default_factory=list)

    def append(self, *, timestamp: float | None, key: bytes, value: bytes | None) -> object | None:
        if len(self.records) == 3:
            return None
        self.records.append((key, value))
        return object()


@dataclass
class Producer:
    """aiokafka's, with answers given by the test: `answer` for every batch, or by hand from `sent`."""

    sent: list[tuple[int, list[tuple[bytes, bytes | None]], "asyncio.Future[Any]"]] = field(default_factory=list)
    automatic: bool = True
    error: Exception | None = None

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        assert topic == CHANGELOG
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent.append((partition, batch.records, future))
        if self.error is not None:
            future.set_exception(self.error)
        elif self.automatic:
            future.set_result(SimpleNamespace(offset=len(self.sent)))
        return future


@dataclass
class Rig:
    app: PaymentApp
    producer: Producer
    table: PaymentsTable
    cipher: AesGcmCipher
    now: dict[str, int]

    @property
    def rows(self) -> dict[bytes, bytes]:
        return self.table._table.data.data  # type: ignore[no-any-return]

    def written(self) -> list[tuple[bytes, bytes | None]]:
        return [record for _, records, _ in self.producer.sent for record in records]

    async def put(self, payment_id: str, sequence: int, status: str = "SUCCEEDED", **more: Any) -> None:
        """Raises Malformed when it is refused."""
        for _, error in await self.take((payment_id, sequence, status), **more):
            raise error

    async def take(
        self, *events: tuple[str, int, str], partition: int = 0, at_ms: int = NOW_MS
    ) -> list[tuple[Any, Malformed]]:
        named = [((it[0], it[1]), it[0], event(*it, at_ms=at_ms)) for it in events]
        return await self.table.take(partition, named)

    def putting(self, payment_id: str, sequence: int, status: str = "SUCCEEDED", **more: Any) -> "asyncio.Task[None]":
        return asyncio.ensure_future(self.put(payment_id, sequence, status, **more))

    def replay(self, payment_id: str, sequence: int | None, status: str = "SUCCEEDED") -> None:
        """A record of the changelog, read back; None: a deleted row."""
        value = None
        if sequence is not None:
            row = {"paymentId": payment_id, "status": status, "sequence": sequence, "timestamp": rfc3339(NOW_MS)}
            value = self.cipher.seal(orjson.dumps(row), place_of(payment_id))
        message = SimpleNamespace(
            partition=0, key=payment_id.encode(), value=value, timestamp=NOW_MS / 1000, tp=TP(CHANGELOG, 0), offset=1
        )
        self.table._table.apply_changelog_batch(
            [SimpleNamespace(key=payment_id.encode(), value=value, message=message)]
        )


def event(payment_id: str, sequence: int, status: str = "SUCCEEDED", at_ms: int = NOW_MS) -> dict[str, Any]:
    return {
        "id": f"evt_{payment_id}_{sequence}",
        "eventType": "payment.processed",
        "timestamp": rfc3339(at_ms),
        "sequence": sequence,
        "data": {"paymentId": payment_id, "status": status, "amountMinor": 9999},
    }


def record(value: bytes | None) -> Record:
    return Record("payment.processed", 2, 7, b"other-key", value, (), NOW_MS)


@pytest.fixture
def make_rig(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    apps: list[PaymentApp] = []

    def make(**options: Any) -> Rig:
        app = stream_app(
            "payment-service", "127.0.0.1:1", topic_prefix="", partitions=4, create_topics=False, instance_id=None,
            datadir=str(tmp_path),
        )  # fmt: skip
        apps.append(app)
        producer = Producer()

        async def started() -> Any:
            return SimpleNamespace(should_stop=False, _producer=producer)

        monkeypatch.setattr(app, "maybe_start_producer", started)
        app.consumer_generation_id = 1
        now = {"ms": NOW_MS}
        cipher = AesGcmCipher(b"k" * 32)
        table = PaymentsTable(app, cipher=cipher, now_ms=lambda: now["ms"], ttl_s=TTL_S, **options)
        return Rig(app, producer, table, cipher, now)

    yield make
    for app in apps:
        app.discard()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


# -- the snapshot
