"""The truth, in PostgreSQL: the PaymentStore port with natural batching for writes and reads (batching.py).

Room: adapters/postgres.

- The statement first inserts or updates the payment rows on the version they were decided on; inbox, events, outbox,
  transactions and refunds come only from its RETURNING. A change without a returned row did not happen.
- Deadlock, serialization failure, lock time-out: the batch again, then in halves, so that a broken change fails alone.
- A connection lost during the statement: LOST for the whole batch; the caller loads and sees.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from payment_service.adapters.postgres import arrays
from payment_service.adapters.postgres.batching import Batches, Waiting, answer_all
from payment_service.adapters.postgres.finding import find_payments
from payment_service.adapters.postgres.idempotency import bound_of
from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.statement import (
    Encoded,
    Encoder,
    build_statement,
    encode_change,
    secrets_place,
    unstorable,
)
from payment_service.adapters.postgres.verifying import history_of, problems_of
from payment_service.codecs.events import decode_event
from payment_service.codecs.state import decode_secrets, decode_state
from payment_service.core.errors import PaymentError, Refused, Unavailable
from payment_service.core.idempotency import PREFIX, Bound
from payment_service.core.ports import (
    NO_SECRETS,
    NOT_THERE,
    Change,
    Cipher,
    Committed,
    Loaded,
    OutboxRow,
    PaymentFilter,
    PaymentPage,
    Step,
    StoredEvent,
)

BATCH_MAX = 500
BATCH_BYTES_MAX = 256 * 1024
"""Formatting a statement holds the event loop, about 2 ms at this size."""
QUEUE_MAX = 20_000
"""Changes or reads that may wait; more is refused as busy."""
WRITERS = 2
READERS = 2
TRIES_MAX = 2
"""Of a whole batch, and of a change alone, that ends in a deadlock or the like. The halves between are tried once:
each lock time-out takes a second."""
READ_TRIES_MAX = 2
LOCKED_RETRY_AFTER_S = 1.0
DRAIN_S = 10.0
DUPLICATE_COMMAND = frozenset({"inbox_pkey", "idempotency_keys_pkey"})
"""The constraints that say that a command was carried out before."""

OnOutbox = Callable[[Sequence[tuple[OutboxRow, bool]]], None]
"""Told of committed events; True: nothing older of that payment waits, it may go out at once."""
ForeignShards = Callable[[set[int]], set[int]]
"""Which of these shards another worker owns, and must be woken for."""

_log = logging.getLogger(__name__)
_Write = Waiting[Encoded, Committed]
_Read = Waiting[tuple[str, str], Loaded]


class CommitSpan(Protocol):
    """What tracing.py makes."""

    @property
    def traceparent(self) -> str: ...

    def end(self, done: "asyncio.Future[Committed]") -> None: ...


class PostgresPaymentStore:
    """Limits: BATCH_MAX and BATCH_BYTES_MAX a statement, WRITERS and READERS statements at once, QUEUE_MAX waiting."""

    def __init__(
        self, database: Database, cipher: Cipher, chain_key: bytes, shards: int,
        on_outbox: OnOutbox, foreign_shards: ForeignShards = lambda shards: shards, *, tells_orders: bool = False,
        old_chain_keys: Sequence[bytes] = (),
    ) -> None:  # fmt: skip
        self._database = database
        self._cipher = cipher
        self._chain_keys = (chain_key, *old_chain_keys)
        self._encoder = Encoder(cipher, chain_key, shards, tells_orders)
        self._on_outbox = on_outbox
        self._foreign_shards = foreign_shards
        self.on_head: Callable[[str, int, str], None] | None = None
        """Told of each committed payment: its version, and the head of its audit chain."""
        self.on_version: Callable[[str, int], None] | None = None
        """Told of each payment that has, or may have, a newer version, before anybody is answered."""
        self.on_batch: Callable[[str, int], None] | None = None
        """Told of each statement: `write` or `read`, and how many commands share it."""
        self.on_steps: Callable[[Sequence[Step]], None] | None = None
        """Told of the facts of each committed change."""
        self.on_submit: Callable[[str], CommitSpan] | None = None
        """Makes the span of a commit, by its payment. None: nobody traces."""
        self.on_word: Callable[[], None] | None = None
        """Told that a word for the order service was committed."""
        self._writes: Batches[Encoded, Committed] = Batches(
            self._commit_batch, self._lost,
            workers=WRITERS, batch_max=BATCH_MAX, bytes_max=BATCH_BYTES_MAX, queue_max=QUEUE_MAX,
        )  # fmt: skip
        self._reads: Batches[tuple[str, str], Loaded] = Batches(
            self._load_batch, lambda read: read.fail(Unavailable("the store is closed")),
            workers=READERS, batch_max=BATCH_MAX, bytes_max=BATCH_BYTES_MAX, queue_max=QUEUE_MAX,
        )  # fmt: skip

    async def close(self, drain_s: float = DRAIN_S) -> None:
        """Takes nothing new and finishes what waits, at most `drain_s`; what is cut off is LOST to its caller."""
        await asyncio.gather(self._writes.close(drain_s), self._reads.close(drain_s))

    # --- writing ---------------------------------------------------------------------------------------------

    def submit(self, change: Change) -> "asyncio.Future[Committed]":
        """Raises nothing: what goes wrong is in the future (Refused for text that cannot be stored, Unavailable).

        A cancelled future cancels nothing: the change is committed all the same.
        """
        span = self.on_submit(change.payment_id) if self.on_submit is not None else None
        try:
            encoded = encode_change(change, self._encoder, None if span is None else span.traceparent)
        except Refused as error:
            future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
            future.set_exception(error)
        else:
            future = self._writes.put(encoded, change.payment_id, encoded.size, patient=change.patient)
        if span is not None:
            future.add_done_callback(span.end)
        return future

    async def commit(self, change: Change) -> Committed:
        return await self.submit(change)

    async def _commit_batch(self, batch: list[_Write]) -> None:
        """Commit a batch; halve it when it does not go as a whole. At most 2 * BATCH_MAX statements."""
        parts = [batch]
        while parts:
            part = parts.pop()
            tries = TRIES_MAX if part is batch or len(part) == 1 else 1
            for left in reversed(range(tries)):
                try:
                    self._committed(part, await self._run(part))
                except Unavailable as error:
                    answer_all(part, error)
                except ConnectionLost:
                    for write in part:
                        self._lost(write)
                except (TryAgain, StatementRefused) as error:
                    if isinstance(error, TryAgain) and left:
                        continue
                    if len(part) > 1:
                        half = len(part) // 2
                        parts += [part[half:], part[:half]]
                    else:
                        _fail_alone(part[0], error)
                break

    async def _run(self, batch: Sequence[_Write]) -> list[Any]:
        shards = {row.shard for write in batch for row in write.item.outbox}
        foreign = self._foreign_shards(shards) if shards else set()
        notify = ",".join(str(shard) for shard in sorted(foreign)) if foreign else None
        if self.on_batch is not None:
            self.on_batch("write", len(batch))
        text, parameters = build_statement([write.item for write in batch], notify)
        return await self._database.fetch(text, parameters, hot=True)

    def _committed(self, batch: Sequence[_Write], rows: list[Any]) -> None:
        won: dict[str, bool] = dict(rows)
        offered: list[tuple[OutboxRow, bool]] = []
        words = False
        for write in batch:
            encoded = write.item
            if encoded.row is not None and encoded.change.payment_id not in won:
                write.answer(Committed.CONFLICT)
                continue
            if encoded.row is not None and self.on_head is not None:
                self.on_head(encoded.change.payment_id, encoded.change.steps[-1].version, encoded.events[-1][6])
            if encoded.row is not None and self.on_version is not None:
                self.on_version(encoded.change.payment_id, encoded.change.steps[-1].version)
            if self.on_steps is not None:
                self.on_steps(encoded.change.steps)
            words = words or encoded.order is not None
            if encoded.outbox:
                direct = won[encoded.change.payment_id]
                for row in encoded.outbox:
                    offered.append((row, direct))
                    direct = False  # the one before it is older, and waits
            write.answer(Committed.COMMITTED)
        if offered:
            try:
                self._on_outbox(offered)
            except Exception:  # its rows are in the outbox, and are read from there
                _log.exception("the publisher did not take committed events")
        if words and self.on_word is not None:
            self.on_word()

    def _lost(self, write: _Write) -> None:
        if write.item.row is not None and self.on_version is not None:
            self.on_version(write.item.change.payment_id, write.item.change.steps[-1].version)
        write.answer(Committed.LOST)

    # --- reading ---------------------------------------------------------------------------------------------

    async def load(self, payment_id: str, command_id: str = "") -> Loaded:
        """Raises Unavailable, Refused (a command id that cannot be stored), Malformed (a row that cannot be read)."""
        if not arrays.is_storable(command_id):
            raise unstorable()
        if not arrays.is_storable(payment_id):
            return NOT_THERE
        return await self._reads.put((payment_id, command_id), None, len(payment_id) + len(command_id))

    async def _load_batch(self, batch: list[_Read]) -> None:
        parameters = (
            arrays.numbers(range(len(batch))),
            arrays.texts([read.item[0] for read in batch]),
            arrays.texts([read.item[1] for read in batch]),
        )
        if self.on_batch is not None:
            self.on_batch("read", len(batch))
        keyed = any(read.item[1].startswith(PREFIX) for read in batch)
        try:
            rows = await self._read_query(QUERIES["load_with_keys" if keyed else "load"], parameters, hot=True)
        except Unavailable as error:
            answer_all(batch, error)
            return
        for position, state, secrets, head, marked, *key in rows:
            read = batch[position]
            payment_id, command_id = read.item
            try:
                bound = bound_of(command_id, key, self._cipher) if key else None
                read.answer(self._loaded(payment_id, state, secrets, head, marked, bound))
            except PaymentError as error:
                read.fail(error)

    def _loaded(
        self, payment_id: str, state: str | None, secrets: Any, head: Any, marked: bool, bound: Bound | None
    ) -> Loaded:
        if state is None:
            return Loaded(None, marked=marked, bound=bound)
        unsealed = NO_SECRETS
        if secrets is not None:
            unsealed = decode_secrets(self._cipher.unseal(bytes(secrets), secrets_place(payment_id)))
        return Loaded(decode_state(state), unsealed, bytes(head), marked, bound)

    async def events(self, payment_id: str) -> list[StoredEvent]:
        if not arrays.is_storable(payment_id):
            return []
        return [
            StoredEvent(version, sequence, event.at_ms, name, event)
            for version, sequence, name, data, _ in await self._read_query(QUERIES["events"], (payment_id,))
            for event in (decode_event(name, bytes(data)),)
        ]

    async def find(self, query: PaymentFilter) -> PaymentPage:
        for text in (query.user_id, query.status, query.provider):
            if text is not None and not arrays.is_storable(text):
                raise unstorable()
        return await find_payments(self._read_query, query)

    async def under_way_s(self, key: str) -> float:
        rows = await self._read_query(QUERIES["call_under_way"], (key,))
        return float(rows[0][0]) if rows else 0.0

    async def verify_chain(self, payment_id: str) -> list[str]:
        """What is wrong with the payment's audit chain; empty when nothing is."""
        (row,) = await self._read_query(QUERIES["history"], (payment_id,))
        return problems_of(self._chain_keys, history_of(payment_id, row))

    async def _read_query(self, query: str, parameters: Sequence[Any], *, hot: bool = False) -> list[Any]:
        """A read may simply be repeated when its connection breaks."""
        return await self._database.fetch_again(query, parameters, tries=READ_TRIES_MAX, hot=hot)


def _fail_alone(write: _Write, error: TryAgain | StatementRefused) -> None:
    if isinstance(error, TryAgain):
        write.fail(Unavailable("the payment is locked", retry_after_s=LOCKED_RETRY_AFTER_S))
    elif error.constraint in DUPLICATE_COMMAND:
        write.answer(Committed.CONFLICT)
    elif error.is_data:
        write.fail(unstorable())
    else:
        write.fail(RuntimeError(f"the database refuses a change of ours: {error}"))
