"""The Auditor: every chain in the database, walked in bounded batches and held against what was anchored outside it.

Room: adapters/postgres. Reads only. Anchors are read first: what the database holds then can only be more.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import orjson

from payment_service.adapters.audit_anchors import HEAD_HEX, Anchored
from payment_service.adapters.audit_chain import next_audit_hash
from payment_service.adapters.postgres.audit_log import CLOSED
from payment_service.adapters.postgres.pool import Database
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.verifying import StoredHistory, history_of, problems_of
from payment_service.core.audit import Problem, StoredEntry, Verified

PAYMENTS_PAGE = 500
ENTRIES_PAGE = 2_000
READ_TRIES_MAX = 3


class AuditVerifier:
    """`keys`: the chain key of the present encryption key first, then those of the old ones."""

    def __init__(
        self, database: Database, keys: Sequence[bytes], read_anchors: Callable[[], Awaitable[Anchored]]
    ) -> None:
        self._database = database
        self._keys = keys
        self._read = read_anchors
        self._anchors = Anchored()

    async def read_anchors(self) -> None:
        self._anchors = await self._read()

    async def sizes(self) -> tuple[int, int]:
        ((payments, entries),) = await self._fetch("sizes")
        return max(0, payments), max(0, entries)

    async def entries(self, payment_id: str | None, limit: int) -> list[StoredEntry]:
        if payment_id is None:
            rows = await self._fetch("audit_newest", (limit,))
        else:
            rows = await self._fetch("audit_of_payment", (payment_id, limit))
        return [StoredEntry(chain, number, orjson.loads(entry)) for chain, number, entry in rows]

    async def verify(self, payment_id: str | None) -> AsyncIterator[Verified]:
        anchors = self._anchors
        if payment_id is not None:
            history = history_of(payment_id, (await self._fetch("history", (payment_id,)))[0])
            yield Verified(payments=1, problems=tuple(self._payment(history, anchors)))
            return
        yield Verified(problems=tuple(anchors.problems))
        async for verified in self._payments(anchors):
            yield verified
        async for verified in self._audit_log(anchors):
            yield verified

    # --- payments --------------------------------------------------------------------------------------------

    async def _payments(self, anchors: Anchored) -> AsyncIterator[Verified]:
        after = ""
        while rows := await self._fetch("histories", (after, PAYMENTS_PAGE, after, PAYMENTS_PAGE, PAYMENTS_PAGE)):
            problems = [problem for row in rows for problem in self._payment(history_of(row[0], row[1:]), anchors)]
            yield Verified(payments=len(rows), problems=tuple(problems))
            after = rows[-1][0]
        gone = [
            Problem("payment", payment_id, f"removed: it had come to version {version} when it was anchored")
            for payment_id, (version, _) in anchors.payments.items()
        ]
        yield Verified(problems=tuple(gone))

    def _payment(self, history: StoredHistory, anchors: Anchored) -> Iterator[Problem]:
        for what in problems_of(self._keys, history):
            yield Problem("payment", history.payment_id, what)
        told = anchors.payments.pop(history.payment_id, None)
        if told is None:
            return
        version, head = told
        stored = next((digest for number, *_, digest in history.events if number == version), None)
        if stored is None:
            yield Problem(
                "payment", history.payment_id,
                f"its end is missing: it had come to version {version} when it was anchored",
            )  # fmt: skip
        elif stored.hex()[:HEAD_HEX] != head:
            yield Problem("payment", history.payment_id, f"version {version}: another one was anchored")

    # --- the audit log ---------------------------------------------------------------------------------------

    async def _audit_log(self, anchors: Anchored) -> AsyncIterator[Verified]:
        walk = _Walk(self._keys, anchors)
        after: tuple[str, int] = ("", 0)
        while rows := await self._fetch("audit_page", (*after, ENTRIES_PAGE)):
            problems = [
                problem
                for chain, number, entry, digest in rows
                for problem in walk.step(chain, number, entry, bytes(digest))
            ]
            yield Verified(entries=len(rows), problems=tuple(problems))
            after = (rows[-1][0], rows[-1][1])
        problems = list(walk.end())
        problems += [
            Problem("audit", chain, f"removed: it had {count} rows when it was anchored")
            for chain, (count, _) in anchors.chains.items()
        ]
        notes = (
            [f"{walk.open} chains of the audit log are open: their process runs, or was killed"] if walk.open else []
        )
        yield Verified(problems=tuple(problems), notes=tuple(notes))

    async def _fetch(self, name: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return await self._database.fetch_again(QUERIES[name], parameters, tries=READ_TRIES_MAX)


class _Walk:
    """Along the rows of the audit log, chain by chain."""

    def __init__(self, keys: Sequence[bytes], anchors: Anchored) -> None:
        self._keys = keys
        self._anchors = anchors
        self._chain: str | None = None
        self._number = 0
        self._head = b""
        self._last = ""
        self._told: tuple[int, str] | None = None
        self.open = 0

    def step(self, chain: str, number: int, entry: str, digest: bytes) -> Iterator[Problem]:
        if chain != self._chain:
            yield from self.end()
            self._chain, self._number, self._head = chain, 0, b""
            self._told = self._anchors.chains.pop(chain, None)
        if number != self._number + 1:
            missing = f"{self._number + 1}" if number == self._number + 2 else f"{self._number + 1} to {number - 1}"
            yield Problem("audit", chain, f"missing: {missing}")
        elif all(digest != next_audit_hash(key, self._head, chain, number, entry.encode()) for key in self._keys):
            yield Problem("audit", chain, f"{number} was changed: its hash does not fit")
        if self._told is not None and number == self._told[0] and digest.hex()[:HEAD_HEX] != self._told[1]:
            yield Problem("audit", chain, f"{number}: another one was anchored")
        self._number, self._head, self._last = number, digest, entry

    def end(self) -> Iterator[Problem]:
        """The chain ends here."""
        if self._chain is None:
            return
        if self._told is not None and self._number < self._told[0]:
            yield Problem(
                "audit",
                self._chain,
                f"its end is missing: it had {self._told[0]} rows when it was anchored, now {self._number}",
            )
        self.open += f'"action":"{CLOSED}"' not in self._last
