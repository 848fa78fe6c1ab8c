"""Published events back into the outbox, made anew from the history: same id, same sequence, same bytes.

Room: adapters/postgres. The workers send them as they send all: in order per payment, kept until the broker's ack.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

from payment_service.adapters.postgres import arrays
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.codecs.history import published_steps
from payment_service.codecs.published import encode_published
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.ids import shard_of
from payment_service.core.ports import Step
from payment_service.core.republishing import Chosen, Republished

PAGE = 200
"""Payments in one step, about ten events each."""
SLICE_MS = 3_600_000
SLICE_MS_MIN = 1_000
IDS_MAX = 5_000
"""Payments of a slice of time; a slice with more is halved."""
WAITING_MAX = 5_000
"""Rows of the outbox beyond which nothing is added: what happens now must not wait for what happened once."""
STALLED_S = 60.0
"""So long nothing may leave the outbox before somebody is told that no worker publishes."""
POLL_S = 0.5
TRIES_MAX = 3


def _is_chosen(step: Step, chosen: Chosen) -> bool:
    at_ms = step.event.at_ms
    return chosen.from_ms <= at_ms and (chosen.to_ms is None or at_ms < chosen.to_ms)


class Republishing:
    """The Republisher. `shards`: OUTBOX_SHARDS, as the workers have it."""

    def __init__(self, database: Database, shards: int) -> None:
        self._database = database
        self._shards = shards

    async def republish(self, chosen: Chosen, *, dry_run: bool) -> AsyncGenerator[Republished, None]:
        if chosen.payments:
            ids = sorted(set(chosen.payments))
            for first in range(0, len(ids), PAGE):
                page = ids[first : first + PAGE]
                step, found = await self._page(page, chosen, dry_run=dry_run)
                unknown = tuple(one for one in page if one not in found)
                yield replace(step, unknown=unknown)
            return
        seen: set[str] = set()  # of one slice: a payment may have published in several, and its other events are others
        start_ms, slice_ms = chosen.from_ms, SLICE_MS
        end_ms = chosen.to_ms if chosen.to_ms is not None else time.time_ns() // 1_000_000
        while start_ms < end_ms:
            until_ms = min(start_ms + slice_ms, end_ms)
            limit = IDS_MAX if slice_ms > SLICE_MS_MIN else None
            ids = sorted(it for (it,) in await self._fetch("published_between", (start_ms, until_ms, limit)))
            if limit is not None and len(ids) == limit:
                slice_ms = max(SLICE_MS_MIN, slice_ms // 4)
                continue
            part = Chosen((), start_ms, until_ms)
            for first in range(0, len(ids), PAGE):
                page = ids[first : first + PAGE]
                step, _ = await self._page(page, part, dry_run=dry_run)
                yield replace(step, payments=len(set(page) - seen))
                seen.update(page)
            start_ms = until_ms
            if len(ids) * 4 < IDS_MAX:
                slice_ms = min(SLICE_MS, slice_ms * 2)

    async def _page(self, ids: Sequence[str], chosen: Chosen, *, dry_run: bool) -> tuple[Republished, set[str]]:
        """And which of the payments there are."""
        steps: list[tuple[str, Step]] = []
        found: set[str] = set()
        unreadable: list[str] = []
        for payment_id, versions, sequences, types, data in await self._fetch("histories_of", (list(ids),)):
            found.add(payment_id)
            rows = zip(versions, sequences, types, map(bytes, data), strict=True)
            try:
                steps += [(payment_id, it) for it in published_steps(payment_id, rows) if _is_chosen(it, chosen)]
            except Malformed:  # of a newer version of ours: the others do not wait for it
                unreadable.append(payment_id)
        added = len(steps)
        if steps and not dry_run:
            await self._room()
            added = len(await self._fetch("put_into_outbox", self._columns(steps)))
        return Republished(len(found), len(steps), len(steps) - added, unreadable=tuple(unreadable)), found

    def _columns(self, steps: Sequence[tuple[str, Step]]) -> tuple[str, ...]:
        return (
            arrays.numbers([shard_of(payment_id, self._shards) for payment_id, _ in steps]),
            arrays.texts([payment_id for payment_id, _ in steps]),
            arrays.numbers([step.sequence for _, step in steps]),
            arrays.words([str(step.topic) for _, step in steps]),
            arrays.numbers([step.event.at_ms for _, step in steps]),
            arrays.docs([encode_published(step) for _, step in steps]),
        )

    async def _room(self) -> None:
        """Wait until the workers have sent most of what there is."""
        least, since = WAITING_MAX + 1, time.monotonic()
        while True:
            ((waiting, _),) = await self._fetch("outbox_depth", ())
            if waiting <= WAITING_MAX:
                return
            if waiting < least:
                least, since = waiting, time.monotonic()
            if time.monotonic() - since > STALLED_S:
                raise Unavailable(f"{waiting} events wait for the broker, and no worker publishes them")
            await asyncio.sleep(POLL_S)

    async def _fetch(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        """Each may be repeated: what was put into the outbox is there, or was sent."""
        return await self._database.fetch_again(QUERIES[name], parameters, tries=TRIES_MAX)
