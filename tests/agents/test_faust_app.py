"""The stream app itself: its settings, its watch, and table writes that wait for their changelog."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faust.streams
import pytest
from faust.types import TP
from faust.types.tuples import FutureMessage, PendingMessage, RecordMetadata
from rigs.delivery_rig import Rig, rigs_in

from payment_service.agents.delivery import DeliveryLimits, Record
from payment_service.agents.faust_app import stream_app
from payment_service.core.errors import Unavailable


@pytest.fixture
def make_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    with rigs_in(tmp_path, monkeypatch) as make:
        yield make


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


async def test_the_app_names_what_stands_still(make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig(stuck_after_s=60)
    assert rig.app._standstill() is None
    monkeypatch.setattr(rig.delivery, "observe", lambda: 61.0)
    assert "orders: no progress for 61 s" in (rig.app._standstill() or "")


def test_limits_of_one_partition_follow_from_the_total() -> None:
    assert DeliveryLimits.of(2_000) == DeliveryLimits(2_000, 1_500, 6_000)
    assert DeliveryLimits.of(1).partition_in_flight_max == 1


async def test_a_topic_has_one_agent(rig: Rig) -> None:
    with pytest.raises(ValueError, match="fed already"):
        rig.delivery.attach()


async def test_names_carry_the_prefix(tmp_path: Any) -> None:
    app = stream_app(
        "payment-service",
        "a:1, b:2",
        topic_prefix="blue-",
        partitions=3,
        create_topics=True,
        instance_id="pod-1",
        datadir=str(tmp_path),
    )
    topic = app.raw_topic("orders", "orders-eu")
    assert (app.conf.id, list(topic.topics), topic.partitions) == (
        "blue-payment-service",
        ["blue-orders", "blue-orders-eu"],
        3,
    )
    assert app.conf.consumer_group_instance_id == "pod-1"
    assert [str(url) for url in app.conf.broker] == ["kafka://a:1", "kafka://b:2"]
    assert app.Table("payments").changelog_topic_name == "blue-payment-service-payments-changelog"


async def test_the_pure_python_stream_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faust.streams, "_CStreamIterator", None)
    with pytest.raises(RuntimeError, match="compiled"):
        await rig.app.on_first_start()


# -- tables


@pytest.fixture
def sends(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[FutureMessage]:
    sent: list[FutureMessage] = []

    def send_soon(self: Any, **message: Any) -> FutureMessage:
        pending = PendingMessage(
            self,
            message["key"],
            message["value"],
            partition=message["partition"],
            timestamp=None,
            headers=None,
            key_serializer=None,
            value_serializer=None,
            callback=None,
        )
        future = FutureMessage(pending)
        sent.append(future)
        return future

    monkeypatch.setattr(faust.Topic, "send_soon", send_soon)
    monkeypatch.setattr(type(rig.app.consumer), "topic_partitions", lambda self, topic: 4)
    return sent


SOURCE = Record("orders", 3, 17, b"k", b"v", (), 1_700_000_000_000)


def delivered(future: FutureMessage) -> None:
    future.set_result(RecordMetadata("t", 3, TP("t", 3), 1))


async def test_table_writes_wait_for_the_changelog(rig: Rig, sends: list[FutureMessage]) -> None:
    table = rig.app.Table("payments")

    async def write() -> None:
        async with rig.app.durable_writes(SOURCE):
            table["p1"] = {"status": "SUCCEEDED"}
            table["p2"] = 2
            del table["p2"]

    writing = asyncio.ensure_future(write())
    await rig.until(lambda: len(sends) == 3, "three sends")
    assert [future.message.partition for future in sends] == [3, 3, 3]
    delivered(sends[0])
    delivered(sends[2])
    await asyncio.sleep(0.01)
    assert not writing.done()
    delivered(sends[1])
    await writing
    assert table["p1"] == {"status": "SUCCEEDED"}


async def test_a_table_write_that_fails_is_not_done(rig: Rig, sends: list[FutureMessage]) -> None:
    table = rig.app.Table("payments")

    async def write() -> None:
        async with rig.app.durable_writes(SOURCE):
            table["p1"] = 1

    writing = asyncio.ensure_future(write())
    await rig.until(lambda: bool(sends), "a send")
    sends[0].set_exception(OSError("expired"))
    with pytest.raises(Unavailable):
        await writing


async def test_tables_are_written_nowhere_else(rig: Rig, sends: list[FutureMessage]) -> None:
    table = rig.app.Table("payments")
    with pytest.raises((RuntimeError, TypeError)):
        table["p1"] = 1
    assert sends == []
    assert "p1" not in table
