"""Rows of a Faust table that one topic feeds: sealed in the changelog, opened in memory, written a batch at a time.

Room: tables. What a partition's batch changes is one batch of its changelog, and is seen only once the broker has it;
one batch of a partition at a time, so no write ever waits behind another of its row. The store is always Faust's
memory one: these tables are small, and read back whole.

Bounded: a row leaves when `leaves_ms` says so, or as the one written longest ago when its partition has more than
`rows_max`. Faust refuses table writes outside an event, so rows leave while events of their partition are handled.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from payment_service.core.errors import Malformed
from payment_service.core.ports import Cipher
from payment_service.tables.payments import place_of
from payment_service.tables.writes import Writes

Row = Mapping[str, Any]

LOOKS_MIN = 16
"""Rows looked at for leaving with each batch, and one for each row that is written: more than come in."""


class SealedRows:
    """`newer_or_same(row, held)`: whether a row that is read back may take the place of the one that is held."""

    def __init__(
        self, app: Any, name: str, *, text: str, cipher: Cipher, now_ms: Callable[[], int],
        leaves_ms: Callable[[Row], int], newer_or_same: Callable[[Row, Row], bool], rows_max: int,
    ) -> None:  # fmt: skip
        """`app`: a PaymentApp, not started yet. `rows_max`: of one partition."""
        table = app.Table(
            name,
            key_type=bytes,
            value_type=bytes,
            partitions=app.conf.topic_partitions,
            store="memory://",
            help=text,
        )
        table.keeps = self._keeps
        table.on_recover(self._recovered)
        self.name = name
        self.on_row: Callable[[int, str, Row | None], None] = lambda partition, key, row: None
        """Told of each row that is new here, and (None) of each that went."""
        self._app = app
        self._table = table
        self._cipher = cipher
        self._now_ms = now_ms
        self._leaves_ms = leaves_ms
        self._newer_or_same = newer_or_same
        self._rows_max = rows_max
        self._rows: dict[int, dict[str, Row]] = {}
        """By partition, the one written longest ago first."""

    def get(self, partition: int, key: str) -> Row | None:
        return self._rows.get(partition, {}).get(key)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def __iter__(self) -> Iterator[Row]:
        for rows in self._rows.values():
            yield from rows.values()

    async def put(self, partition: int, rows: Mapping[str, Row]) -> Sequence[tuple[str, Malformed]]:
        """Set these rows of a partition whose event is being handled. Done when they are durable; returns the keys of
        those that no message can hold.

        Raises: Unavailable; the same again is always right.
        """
        refused: list[tuple[str, Malformed]] = []
        writes = Writes()
        for key, row in rows.items():
            sealed = self._cipher.seal(orjson.dumps(row), place_of(key, self.name))
            try:
                self._table.write(partition, key.encode(), sealed, writes)
            except Malformed as error:
                refused.append((key, error))
        leaving = self._leaving(partition, rows)
        for key in leaving:
            self._table.write(partition, key.encode(), None, writes)
        generation = self._app.consumer_generation_id
        if writes:
            await writes.done
        refused += [(key.decode(), error) for key, error in writes.refused]
        if generation == self._app.consumer_generation_id:  # else whoever has the partition reads them back
            not_held = {key for key, _ in refused}
            for key in leaving:
                self._forget(partition, key)
            for key, row in rows.items():
                if key not in not_held:
                    self._hold(partition, key, row)
        return refused

    def _leaving(self, partition: int, coming: Mapping[str, Row]) -> list[str]:
        held, now = self._rows.get(partition, {}), self._now_ms()
        over = len(held) + sum(key not in held for key in coming) - self._rows_max
        leaving: list[str] = []
        for key, row in held.items():
            looked_at_all = len(leaving) >= LOOKS_MIN + len(coming)
            if looked_at_all or not (self._leaves_ms(row) <= now or len(leaving) < over):
                break
            if key not in coming:
                leaving.append(key)
        return leaving

    def _hold(self, partition: int, key: str, row: Row) -> None:
        rows = self._rows.setdefault(partition, {})
        rows.pop(key, None)
        rows[key] = row
        self.on_row(partition, key, row)

    def _forget(self, partition: int, key: str) -> None:
        if self._rows.get(partition, {}).pop(key, None) is not None:
            self.on_row(partition, key, None)

    # -- read back after a start or a rebalance

    def _keeps(self, partition: int, key: bytes, value: bytes | None, at_ms: int) -> bool:
        """A worker that lost this partition may still have written an older row behind a newer one."""
        name = key.decode(errors="replace")
        if value is None:
            self._forget(partition, name)
            return True
        try:
            row: Row = orjson.loads(self._cipher.unseal(value, place_of(name, self.name)))
        except (Malformed, ValueError):  # sealed with a key that was taken away
            return False
        held = self.get(partition, name)
        if held is not None and not self._newer_or_same(row, held):
            return False
        self._hold(partition, name, row)
        return True

    async def _recovered(self) -> None:
        ours = self._table.changelog_topic_name
        actives = {tp.partition for tp in self._app.assignor.assigned_actives() if tp.topic == ours}
        self._forget_partitions(it for it in list(self._rows) if it not in actives)

    def _forget_partitions(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            for key in list(self._rows[partition]):
                self._forget(partition, key)
            del self._rows[partition]
