"""The table of payments and what feeds it: only newer sequences count, nothing is finished before the changelog has
it, and rows leave."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from payment_service.adapters.sealing import AesGcmCipher
from payment_service.agents import durable_table
from payment_service.agents.faust_app import PaymentApp, stream_app
from payment_service.agents.payment_events import PaymentEvents
from payment_service.agents.records import Record
from payment_service.codecs.times import rfc3339
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.terms import Topic
from payment_service.tables.payments import LOOKS_MAX, OPEN_TTL_FACTOR, TOPICS, PaymentsTable, place_of

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
        await self.table.put(more.pop("partition", 0), payment_id, event(payment_id, sequence, status, **more))

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


def test_it_is_fed_from_every_published_topic() -> None:
    assert set(TOPICS) == {topic.value for topic in Topic}


async def test_the_highest_sequence_wins(rig: Rig) -> None:
    await rig.put("pay_1", 2)
    await rig.put("pay_1", 1, "PENDING")
    await rig.put("pay_1", 2, "FAILED")
    row = rig.table.get("pay_1")
    assert row is not None
    assert (row["status"], row["sequence"], row["eventType"]) == ("SUCCEEDED", 2, "payment.processed")
    assert row["amountMinor"] == 9999
    assert len(rig.written()) == 1
    await rig.put("pay_1", 3, "REFUNDED")
    assert rig.table.get("pay_1")["status"] == "REFUNDED"  # type: ignore[index]
    assert rig.table.get("pay_2") is None


async def test_rows_are_sealed_and_bound_to_their_payment(rig: Rig) -> None:
    await rig.put("pay_1", 1)
    [(key, value)] = rig.written()
    assert key == b"pay_1"
    assert value is not None
    assert b"SUCCEEDED" not in value
    assert orjson.loads(rig.cipher.unseal(value, "table.payments:pay_1"))["status"] == "SUCCEEDED"
    rig.rows[b"pay_2"] = value
    assert rig.table.get("pay_2") is None


async def test_a_row_that_cannot_be_opened_is_written_anew(rig: Rig) -> None:
    rig.rows[b"pay_1"] = AesGcmCipher(b"x" * 32).seal(b"{}", place_of("pay_1"))
    await rig.put("pay_1", 1)
    assert rig.table.get("pay_1")["sequence"] == 1  # type: ignore[index]


@given(st.lists(st.integers(1, 8), min_size=1, max_size=20), st.integers(0, 19))
def test_any_order_and_repetition_ends_with_the_last_event(sequences: list[int], restart_at: int) -> None:
    """Also with a restart in between, which reads the changelog back."""

    async def run() -> None:
        log: list[tuple[bytes, bytes | None]] = []
        table = loose_table(log)
        for number, sequence in enumerate(sequences):
            if number == restart_at:
                table = loose_table(log)
                for key, value in log:
                    assert value is not None
                    if table._keeps(0, key, value, NOW_MS):
                        table._table.data[key] = value
            await table.put(0, "pay_1", event("pay_1", sequence))
        row = table.get("pay_1")
        assert row is not None
        assert row["sequence"] == max(sequences)

    asyncio.run(run())


def loose_table(log: list[tuple[bytes, bytes | None]]) -> PaymentsTable:
    """The table on a dictionary."""

    class Table(SimpleNamespace):
        def on_recover(self, call: Any) -> None: ...

        def write(self, partition: int, key: bytes, value: bytes | None) -> "asyncio.Future[None]":
            log.append((key, value))
            self.data[key] = value
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done

    app = SimpleNamespace(Table=lambda name, **options: Table(data={}), conf=SimpleNamespace(topic_partitions=4))
    return PaymentsTable(app, cipher=AesGcmCipher(b"k" * 32), now_ms=lambda: NOW_MS, ttl_s=TTL_S)


# -- the handler


async def test_the_lane_is_the_payment_and_the_partition_the_records(rig: Rig) -> None:
    handler = PaymentEvents(rig.table)
    work = handler.plan(record(orjson.dumps(event("pay_9", 1))))
    assert work is not None
    assert work.lane == "pay_9"
    await work.start()
    assert [partition for partition, *_ in rig.producer.sent] == [2]
    assert handler.plan(record(None)) is None


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"sequence":"1","data":{"paymentId":"p"}}', b'{"sequence":1}',
                                   b'{"sequence":1,"data":{"paymentId":""}}'])  # fmt: skip
def test_what_is_no_event_goes_to_the_dead_letters(rig: Rig, value: bytes) -> None:
    with pytest.raises(Malformed):
        PaymentEvents(rig.table).plan(record(value))


# -- durable


async def test_nothing_is_done_or_seen_before_the_changelog_has_it(rig: Rig) -> None:
    rig.producer.automatic = False
    writing = rig.table.put(1, "pay_1", event("pay_1", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not writing.done()
    assert rig.table.get("pay_1") is None
    rig.producer.sent[0][2].set_result(SimpleNamespace(offset=0))
    await writing
    assert rig.table.get("pay_1") is not None


async def test_writes_gather_while_a_batch_is_on_its_way(rig: Rig) -> None:
    rig.producer.automatic = False
    first = rig.table.put(0, "pay_0", event("pay_0", 1))
    await asyncio.sleep(0.001)
    later = [rig.table.put(0, f"pay_{n}", event(f"pay_{n}", 1)) for n in range(1, 5)]
    beside = rig.table.put(3, "pay_x", event("pay_x", 1))
    await asyncio.sleep(0.001)
    assert [(partition, len(records)) for partition, records, _ in rig.producer.sent] == [(0, 1), (3, 1)]
    rig.producer.automatic = True
    for *_, future in list(rig.producer.sent):
        future.set_result(SimpleNamespace(offset=0))
    await asyncio.gather(first, beside, *later)
    assert [len(records) for _, records, _ in rig.producer.sent] == [1, 1, 3, 1]
    assert [key for key, _ in rig.written()] == [b"pay_0", b"pay_x", b"pay_1", b"pay_2", b"pay_3", b"pay_4"]
    assert rig.table._table._sending == {}


async def test_a_failed_write_leaves_no_trace_and_may_be_repeated(rig: Rig) -> None:
    rig.producer.error = KafkaTimeoutError()
    with pytest.raises(Unavailable):
        await rig.put("pay_1", 1)
    assert rig.table.get("pay_1") is None
    rig.producer.error = None
    await rig.put("pay_1", 1)
    assert rig.table.get("pay_1") is not None


async def test_a_batch_that_is_too_large_is_sent_one_by_one(rig: Rig) -> None:
    rig.producer.automatic = False
    rig.producer.error = MessageSizeTooLargeError()
    writes = [rig.table.put(0, f"pay_{n}", event(f"pay_{n}", 1)) for n in range(2)]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    with pytest.raises(Malformed):
        await rig.put("pay_1", 1)


async def test_a_value_that_fits_no_message_is_refused_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_table, "VALUE_BYTES_MAX", 50)
    with pytest.raises(Malformed, match="larger"):
        await rig.put("pay_1", 1)
    assert rig.producer.sent == []


async def test_a_producer_that_cannot_take_anything_fails_all_that_wait(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stopping() -> Any:
        return SimpleNamespace(should_stop=True, _producer=None)

    monkeypatch.setattr(rig.app, "maybe_start_producer", stopping)
    writes = [rig.table.put(0, f"pay_{n}", event(f"pay_{n}", 1)) for n in range(5)]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 5


async def test_a_bug_reaches_whoever_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.producer.error = KeyError("a bug")
    with pytest.raises(KeyError):
        await rig.put("pay_1", 1)


async def test_a_write_of_an_older_assignment_is_not_shown(rig: Rig) -> None:
    rig.producer.automatic = False
    writing = rig.table.put(0, "pay_1", event("pay_1", 1))
    await asyncio.sleep(0.001)
    rig.app.consumer_generation_id = 2
    rig.producer.sent[0][2].set_result(SimpleNamespace(offset=0))
    await writing
    assert rig.table.get("pay_1") is None


async def test_rows_know_their_partition_so_that_faust_can_take_them_away(rig: Rig) -> None:
    await rig.put("pay_1", 1, partition=1)
    await rig.put("pay_2", 1, partition=2)
    await rig.table._table.data.on_recovery_completed({TP(CHANGELOG, 2)}, set())
    assert rig.table.get("pay_1") is None
    assert rig.table.get("pay_2") is not None


# -- bounded


async def test_a_finished_payment_leaves_after_its_time(rig: Rig) -> None:
    await rig.put("pay_1", 1)
    rig.now["ms"] += HOUR_MS - 1
    await rig.put("pay_2", 1, at_ms=rig.now["ms"])
    assert len(rig.table) == 2
    rig.now["ms"] += 1
    await rig.put("pay_3", 1, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    assert rig.written()[-1] == (b"pay_1", None)
    assert set(rig.rows) == {b"pay_2", b"pay_3"}
    assert len(rig.table) == 2


async def test_its_time_begins_with_its_last_event(rig: Rig) -> None:
    await rig.put("pay_1", 1)
    rig.now["ms"] += HOUR_MS // 2
    await rig.put("pay_1", 2, "REFUNDED", at_ms=rig.now["ms"])
    rig.now["ms"] += HOUR_MS // 2
    await rig.put("pay_2", 1, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    assert rig.table.get("pay_1") is not None
    rig.now["ms"] += HOUR_MS // 2
    await rig.put("pay_3", 1, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    assert rig.table.get("pay_1") is None


async def test_an_open_payment_stays_longer_but_not_for_ever(rig: Rig) -> None:
    await rig.put("pay_1", 1, "PENDING")
    for hours, there in ((1, True), (OPEN_TTL_FACTOR - 2, True), (1, False)):
        rig.now["ms"] += hours * HOUR_MS
        await rig.put(f"pay_x{rig.now['ms']}", 1, at_ms=rig.now["ms"])
        await asyncio.sleep(0.001)
        assert (rig.table.get("pay_1") is not None) is there


async def test_one_event_looks_at_a_few_rows_only(rig: Rig) -> None:
    for number in range(10):
        await rig.put(f"pay_{number}", 1)
    rig.now["ms"] += HOUR_MS
    await rig.put("pay_x", 1, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    assert len(rig.rows) == 11 - LOOKS_MAX


async def test_another_partitions_rows_are_left_alone(rig: Rig) -> None:
    await rig.put("pay_1", 1, partition=1)
    rig.now["ms"] += 2 * HOUR_MS
    await rig.put("pay_2", 1, partition=2, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    assert rig.table.get("pay_1") is not None


async def test_a_full_partition_gives_up_the_row_first_due(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(rows_max=3)
    for number in range(6):
        rig.now["ms"] += 1000
        await rig.put(f"pay_{number}", 1, at_ms=rig.now["ms"])
        await asyncio.sleep(0.001)
    assert set(rig.rows) == {b"pay_3", b"pay_4", b"pay_5"}


async def test_an_old_event_does_not_bring_a_row_back(rig: Rig) -> None:
    await rig.put("pay_1", 3)
    rig.now["ms"] += HOUR_MS
    await rig.put("pay_2", 1, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    await rig.put("pay_1", 2)
    assert rig.table.get("pay_1") is None


async def test_a_payment_that_moves_again_while_its_row_leaves_stays(rig: Rig) -> None:
    await rig.put("pay_1", 1)
    rig.now["ms"] += HOUR_MS
    rig.producer.automatic = False
    other = rig.table.put(0, "pay_2", event("pay_2", 1, at_ms=rig.now["ms"]))
    again = rig.table.put(0, "pay_1", event("pay_1", 2, "REFUNDED", at_ms=rig.now["ms"]))
    await asyncio.sleep(0.001)
    rig.producer.automatic = True
    rig.producer.sent[-1][2].set_result(SimpleNamespace(offset=1))
    await asyncio.gather(other, again)
    assert rig.table.get("pay_1")["sequence"] == 2  # type: ignore[index]
    rig.now["ms"] += HOUR_MS
    await rig.put("pay_3", 1, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    assert set(rig.rows) == {b"pay_3"}


async def test_a_row_whose_leaving_failed_is_tried_again(rig: Rig) -> None:
    await rig.put("pay_1", 1)
    rig.now["ms"] += HOUR_MS
    rig.producer.error = KafkaTimeoutError()
    with pytest.raises(Unavailable):
        await rig.put("pay_2", 1, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    assert rig.table.get("pay_1") is not None
    rig.producer.error = None
    rig.now["ms"] += HOUR_MS
    await rig.put("pay_3", 1, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    assert set(rig.rows) == {b"pay_3"}


# -- read back


async def test_an_older_row_behind_a_newer_one_is_left_out(rig: Rig) -> None:
    rig.replay("pay_1", 3)
    rig.replay("pay_1", 2, "PENDING")
    rig.replay("pay_2", 1)
    rig.replay("pay_2", None)
    assert rig.table.get("pay_1")["sequence"] == 3  # type: ignore[index]
    assert rig.table.get("pay_2") is None


async def test_rows_that_were_read_back_leave_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.replay("pay_1", 1)
    rig.replay("pay_2", 1)
    rig.replay("pay_2", None)
    monkeypatch.setattr(rig.app.assignor, "assigned_actives", lambda: {TP(CHANGELOG, 0)})
    await rig.table._recovered()
    assert len(rig.table) == 1
    rig.now["ms"] += HOUR_MS
    await rig.put("pay_3", 1, at_ms=rig.now["ms"])
    await asyncio.sleep(0.001)
    assert set(rig.rows) == {b"pay_3"}


async def test_a_lost_partition_is_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.put("pay_1", 1, partition=1)
    monkeypatch.setattr(rig.app.assignor, "assigned_actives", lambda: {TP("payment.created", 1)})
    await rig.table._recovered()
    assert len(rig.table) == 0


async def test_what_cannot_be_opened_does_not_stop_the_reading_back(rig: Rig) -> None:
    message = SimpleNamespace(partition=0, key=b"pay_1", value=b"??", timestamp=1.0, tp=TP(CHANGELOG, 0), offset=1)
    rig.table._table.apply_changelog_batch([SimpleNamespace(key=b"pay_1", value=b"??", message=message)])
    assert rig.rows == {}
