"""Rows of a table that one topic feeds: bounded, seen only when they are durable, and read back as they were last."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from payment_service.adapters.sealing import AesGcmCipher
from payment_service.core.errors import Malformed, Unavailable
from payment_service.tables.payments import place_of
from payment_service.tables.sealed_rows import LOOKS_MIN, SealedRows
from payment_service.tables.writes import Writes

CIPHER = AesGcmCipher(b"k" * 32)
CHANGELOG = "changelog"


class Table(SimpleNamespace):
    """DurableTable, as far as it is asked. `error`: what the broker answers."""

    log: list[tuple[int, bytes, bytes | None]]
    error: Exception | None = None
    too_large: bytes = b"-"

    def on_recover(self, call: Any) -> None: ...

    def write(self, partition: int, key: bytes, value: bytes | None, writes: Writes) -> None:
        if key == self.too_large:
            raise Malformed("too large")
        writes.add()
        if self.error is None:
            self.log.append((partition, key, value))
        asyncio.get_running_loop().call_soon(writes.told, key, self.error)


class Rig:
    def __init__(self, log: list[tuple[int, bytes, bytes | None]] | None = None, rows_max: int = 100) -> None:
        self.now = 0
        self.table = Table(log=[] if log is None else log, changelog_topic_name=CHANGELOG)
        self.app = SimpleNamespace(
            Table=lambda name, **options: self.table, conf=SimpleNamespace(topic_partitions=4),
            consumer_generation_id=1, assignor=SimpleNamespace(assigned_actives=lambda: {TP(CHANGELOG, 0)}),
        )  # fmt: skip
        self.rows = SealedRows(
            self.app, "t", text="", cipher=CIPHER, now_ms=lambda: self.now, leaves_ms=lambda row: int(row["at"]) + 100,
            newer_or_same=lambda row, held: bool(row["v"] >= held["v"]), rows_max=rows_max,
        )  # fmt: skip
        self.told: list[tuple[str, bool]] = []
        self.rows.on_row = lambda partition, key, row: self.told.append((key, row is not None))

    async def put(self, *keys: str, partition: int = 0, v: int = 1) -> Any:
        return await self.rows.put(partition, {key: {"at": self.now, "v": v} for key in keys})

    def replay(self) -> None:
        for partition, key, value in self.table.log:
            self.rows._keeps(partition, key, value, 0)

    def held(self, partition: int = 0) -> Mapping[str, int]:
        return {key: row["v"] for key, row in self.rows._rows.get(partition, {}).items()}


async def test_rows_are_sealed_and_bound_to_table_and_key() -> None:
    rig = Rig()
    await rig.put("a")
    [(_, key, value)] = rig.table.log
    assert orjson.loads(CIPHER.unseal(value or b"", place_of("a", "t"))) == {"at": 0, "v": 1}
    assert rig.rows._keeps(0, b"b", value, 0) is False
    assert rig.rows._keeps(0, key, b"?", 0) is False
    assert rig.held() == {"a": 1}


async def test_nothing_is_seen_of_a_write_that_failed() -> None:
    rig = Rig()
    rig.table.error = Unavailable("away")
    with pytest.raises(Unavailable):
        await rig.put("a")
    assert (len(rig.rows), rig.told) == (0, [])
    rig.table.error = None
    await rig.put("a")
    assert rig.held() == {"a": 1}


async def test_one_that_is_too_large_is_refused_alone() -> None:
    rig = Rig()
    rig.table.too_large = b"b"
    refused = await rig.put("a", "b")
    assert [(key, type(error)) for key, error in refused] == [("b", Malformed)]
    assert rig.held() == {"a": 1}


async def test_a_write_of_an_assignment_that_is_over_is_not_seen() -> None:
    rig = Rig()
    putting = asyncio.ensure_future(rig.put("a"))
    rig.app.consumer_generation_id = 1
    await asyncio.sleep(0)
    rig.app.consumer_generation_id = 2
    await putting
    assert len(rig.rows) == 0


async def test_rows_leave_in_time_a_bounded_number_with_each_batch() -> None:
    rig = Rig()
    await rig.put(*(f"k{number}" for number in range(40)))
    rig.now = 99
    await rig.put("x")
    assert len(rig.rows) == 41
    rig.now = 100
    await rig.put("y")
    assert len(rig.rows) == 42 - LOOKS_MIN - 1
    await rig.put("z")
    await rig.put("w")
    assert set(rig.held()) == {"x", "y", "z", "w"}
    assert sum(value is None for _, _, value in rig.table.log) == 40
    assert rig.told.count(("k0", False)) == 1


async def test_a_full_partition_gives_up_what_was_written_longest_ago_and_only_its_own() -> None:
    rig = Rig(rows_max=3)
    await rig.put("other", partition=1)
    await rig.put("a", "b", "c")
    await rig.put("a", v=2)
    await rig.put("d")
    assert rig.held() == {"c": 1, "a": 2, "d": 1}
    assert rig.held(1) == {"other": 1}


async def test_a_lost_partition_is_forgotten() -> None:
    rig = Rig()
    await rig.put("a")
    await rig.put("b", partition=1)
    await rig.rows._recovered()
    assert (rig.held(), rig.held(1)) == ({"a": 1}, {})
    assert ("b", False) in rig.told


async def test_an_older_row_behind_a_newer_one_is_left_out() -> None:
    """Of a worker that had lost the partition and did not know it."""
    rig = Rig()
    await rig.put("a", v=2)
    older = CIPHER.seal(orjson.dumps({"at": 0, "v": 1}), place_of("a", "t"))
    assert rig.rows._keeps(0, b"a", older, 0) is False
    assert rig.held() == {"a": 2}


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 60)), max_size=30))
def test_what_is_read_back_is_what_was_there(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        rig = Rig(rows_max=3)
        for number, (key, pause) in enumerate(steps):
            rig.now += pause
            await rig.put(key, v=number)
        again = Rig(rig.table.log, rows_max=3)
        again.replay()
        assert again.held() == rig.held()
        assert list(again.held()) == list(rig.held()), "and leaves in the same order"
        again.replay()
        assert again.held() == rig.held(), "also over what was held already"

    asyncio.run(run())
