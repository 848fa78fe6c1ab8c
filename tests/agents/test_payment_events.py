"""The table of payments and what feeds it: only newer sequences count, nothing is finished before the changelog has
it, and rows leave."""

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from rigs.table_rig import CHANGELOG, NOW_MS, TTL_S, Rig, event, record

from payment_service.adapters.sealing import AesGcmCipher
from payment_service.agents import durable_table
from payment_service.agents.payment_events import PaymentEvents
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.terms import Topic
from payment_service.tables.payments import TOPICS, PaymentsTable, place_of
from payment_service.tables.writes import Writes


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
            await table.take(0, [(None, "pay_1", event("pay_1", sequence))])
        row = table.get("pay_1")
        assert row is not None
        assert row["sequence"] == max(sequences)

    asyncio.run(run())


def loose_table(log: list[tuple[bytes, bytes | None]]) -> PaymentsTable:
    """The table on a dictionary."""

    class Table(SimpleNamespace):
        def on_recover(self, call: Any) -> None: ...

        def write(self, partition: int, key: bytes, value: bytes | None, writes: Writes) -> None:
            log.append((key, value))
            self.data[key] = value
            writes.add()
            asyncio.get_running_loop().call_soon(writes.told, key, None)

    app = SimpleNamespace(
        Table=lambda name, **options: Table(data={}), conf=SimpleNamespace(topic_partitions=4), consumer_generation_id=1
    )
    return PaymentsTable(app, cipher=AesGcmCipher(b"k" * 32), now_ms=lambda: NOW_MS, ttl_s=TTL_S)


# -- the handler


async def test_rows_go_to_the_partition_of_their_records(rig: Rig) -> None:
    carried = await PaymentEvents(rig.table).carry_out(
        2, [record(orjson.dumps(event("pay_9", 1))), record(None), record(orjson.dumps(event("pay_8", 1)))]
    )
    assert (carried.refused, carried.skipped) == ([], 1)
    assert [partition for partition, *_ in rig.producer.sent] == [2]
    assert [key for key, _ in rig.written()] == [b"pay_9", b"pay_8"]


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"sequence":"1","data":{"paymentId":"p"}}', b'{"sequence":1}',
                                   b'{"sequence":1,"data":{"paymentId":""}}'])  # fmt: skip
async def test_what_is_no_event_goes_to_the_dead_letters_alone(rig: Rig, value: bytes) -> None:
    bad = record(value)
    carried = await PaymentEvents(rig.table).carry_out(0, [bad, record(orjson.dumps(event("pay_1", 1)))])
    assert [(it, type(error)) for it, error in carried.refused] == [(bad, Malformed)]
    assert rig.table.get("pay_1") is not None


async def test_of_several_events_of_a_payment_the_last_is_written_whatever_their_order(rig: Rig) -> None:
    await rig.take(
        ("pay_1", 2, "SUCCEEDED"), ("pay_2", 1, "PENDING"), ("pay_1", 3, "REFUNDED"), ("pay_1", 1, "PENDING")
    )
    assert [key for key, _ in rig.written()] == [b"pay_1", b"pay_2"]
    assert rig.table.get("pay_1")["sequence"] == 3  # type: ignore[index]
    assert len(rig.table) == 2


# -- events of one payment from two topics, that is in two batches


async def test_an_older_event_waits_for_the_newer_one_that_is_on_its_way(rig: Rig) -> None:
    """Else it would be finished although nothing is durable, or its row would end up on top."""
    rig.producer.automatic = False
    newer = rig.putting("pay_1", 2)
    await asyncio.sleep(0.001)
    older, same = rig.putting("pay_1", 1, "PENDING"), rig.putting("pay_1", 2)
    await asyncio.sleep(0.001)
    assert (older.done(), same.done()) == (False, False)
    rig.producer.sent[0][2].set_result(SimpleNamespace(offset=0))
    await asyncio.gather(newer, older, same)
    assert len(rig.written()) == 1
    assert rig.table.get("pay_1")["sequence"] == 2  # type: ignore[index]
    assert rig.table._pending == {}


async def test_an_older_event_takes_the_place_of_a_newer_one_that_failed(rig: Rig) -> None:
    rig.producer.automatic = False
    newer = rig.putting("pay_1", 2)
    await asyncio.sleep(0.001)
    older = rig.putting("pay_1", 1, "PENDING")
    await asyncio.sleep(0.001)
    rig.producer.automatic = True
    rig.producer.sent[0][2].set_exception(KafkaTimeoutError())
    with pytest.raises(Unavailable):
        await newer
    await older
    assert rig.table.get("pay_1")["sequence"] == 1  # type: ignore[index]
    await rig.put("pay_1", 2)
    assert rig.table.get("pay_1")["sequence"] == 2  # type: ignore[index]


async def test_a_newer_event_goes_behind_an_older_one_that_is_on_its_way(rig: Rig) -> None:
    rig.producer.automatic = False
    older = rig.putting("pay_1", 1, "PENDING")
    await asyncio.sleep(0.001)
    newer = rig.putting("pay_1", 2)
    await asyncio.sleep(0.001)
    rig.producer.automatic = True
    rig.producer.sent[0][2].set_result(SimpleNamespace(offset=0))
    await asyncio.gather(older, newer)
    assert [len(records) for _, records, _ in rig.producer.sent] == [1, 1]
    assert rig.table.get("pay_1")["sequence"] == 2  # type: ignore[index]
    assert len(rig.table) == 1


# -- durable


async def test_nothing_is_done_or_seen_before_the_changelog_has_it(rig: Rig) -> None:
    rig.producer.automatic = False
    writing = rig.putting("pay_1", 1, partition=1)
    await asyncio.sleep(0.001)
    assert not writing.done()
    assert rig.table.get("pay_1") is None
    rig.producer.sent[0][2].set_result(SimpleNamespace(offset=0))
    await writing
    assert rig.table.get("pay_1") is not None


async def test_writes_gather_while_a_batch_is_on_its_way(rig: Rig) -> None:
    rig.producer.automatic = False
    first = rig.putting("pay_0", 1)
    await asyncio.sleep(0.001)
    later = [rig.putting(f"pay_{n}", 1) for n in range(1, 5)]
    beside = rig.putting("pay_x", 1, partition=3)
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
    writes = [rig.putting(f"pay_{n}", 1) for n in range(2)]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]
    with pytest.raises(Malformed):
        await rig.put("pay_1", 1)


async def test_one_row_that_is_too_large_for_the_topic_is_refused_and_the_others_of_its_batch_are_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rig.table._table
    table._batch_max = 1
    send = rig.producer.send_batch

    async def picky(batch: Any, topic: str, *, partition: int) -> Any:
        if batch.records[0][0] == b"pay_1":
            raise MessageSizeTooLargeError
        return await send(batch, topic, partition=partition)

    monkeypatch.setattr(rig.producer, "send_batch", picky)
    refused = await rig.take(*((f"pay_{n}", 1, "PENDING") for n in range(3)))
    assert [(named, type(error)) for named, error in refused] == [(("pay_1", 1), Malformed)]
    assert set(rig.rows) == {b"pay_0", b"pay_2"}


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
    writes = [rig.putting(f"pay_{n}", 1) for n in range(5)]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 5


async def test_a_bug_reaches_whoever_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.producer.error = KeyError("a bug")
    with pytest.raises(KeyError):
        await rig.put("pay_1", 1)


async def test_a_write_of_an_older_assignment_is_not_shown(rig: Rig) -> None:
    rig.producer.automatic = False
    writing = rig.putting("pay_1", 1)
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
