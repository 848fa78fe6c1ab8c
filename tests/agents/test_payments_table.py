"""Rows of the payments table leave in time, and are read back after a start or a rebalance."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaTimeoutError
from faust.types import TP
from rigs.table_rig import CHANGELOG, HOUR_MS, Rig

from payment_service.core.errors import Unavailable
from payment_service.tables.payments import LOOKS_MAX, OPEN_TTL_FACTOR, TAKE_SLICE


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


async def test_many_events_never_hold_the_loop(rig: Rig) -> None:
    count, turns = 20 * TAKE_SLICE, 0
    taking = asyncio.ensure_future(rig.take(*[(f"pay_{number}", 1, "SUCCEEDED") for number in range(count)]))
    while not taking.done():
        turns += 1
        await asyncio.sleep(0)
    assert await taking == []
    assert len(rig.rows) == len(rig.written()) == count
    assert turns > count / TAKE_SLICE


async def test_they_are_done_with_the_last_also_when_the_first_were_answered_before_it_was_handed_over(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow_turn(_: float, turn: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        await turn(0.01)
        rig.producer.automatic = False

    monkeypatch.setattr(asyncio, "sleep", slow_turn)
    taking = asyncio.ensure_future(rig.take(*[(f"pay_{number}", 1, "SUCCEEDED") for number in range(TAKE_SLICE + 1)]))
    await asyncio.wait({taking}, timeout=0.2)
    assert len(rig.rows) == TAKE_SLICE
    assert not taking.done()
    rig.producer.sent[-1][2].set_result(SimpleNamespace(offset=100))
    assert await taking == []
    assert len(rig.rows) == TAKE_SLICE + 1


async def test_what_is_left_when_the_assignment_ends_is_not_written_in_the_next_one(rig: Rig) -> None:
    taking = asyncio.ensure_future(rig.take(*[(f"pay_{number}", 1, "SUCCEEDED") for number in range(3 * TAKE_SLICE)]))
    await asyncio.sleep(0)
    rig.app.consumer_generation_id = 2
    with pytest.raises(Unavailable):
        await taking
    await asyncio.sleep(0.05)
    assert 0 < len(rig.written()) <= TAKE_SLICE


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
    other = rig.putting("pay_2", 1, at_ms=rig.now["ms"])
    again = rig.putting("pay_1", 2, "REFUNDED", at_ms=rig.now["ms"])
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
