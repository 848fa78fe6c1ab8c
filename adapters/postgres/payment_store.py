"""The truth, in PostgreSQL: the PaymentStore port with natural batching for writes and reads.

Room: adapters/postgres. While one statement runs, the next commands queue; the next statement takes them all. The
writers are tasks of their own: a caller that goes away cancels nothing.

- The statement first inserts or updates the payment rows on the version they were decided on; inbox, events, outbox,
  transactions and refunds come only from its RETURNING. A change without a returned row did not happen.
- Deadlock, serialization failure, lock time-out: the batch again, then in halves, so that a broken change fails alone.
- A connection lost during the statement: LOST for the whole batch; the caller loads and sees.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import errorcodes

from payment_service.adapters.postgres.finding import find_payments
from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.adapters.postgres.statement import (
    Encoded,
    Encoder,
    build_statement,
    encode_change,
    plain_array,
    secrets_place,
    text_array,
)
from payment_service.codecs.events import decode_event
from payment_service.codecs.state import decode_secrets, decode_state
from payment_service.core.errors import PaymentError, Refused, Unavailable
from payment_service.core.ports import (
    NO_SECRETS,
    Change,
    Cipher,
    Committed,
    Loaded,
    OutboxRow,
    PaymentFilter,
    PaymentPage,
    StoredEvent,
)

BATCH_MAX = 500
BATCH_BYTES_MAX = 512 * 1024
"""Of array text, in which binary values are doubled: 256 KB of content. Formatting it holds the event loop."""
QUEUE_MAX = 20_000
"""Changes or reads that may wait; more is refused as busy."""
WRITERS = 2
READERS = 2
TRIES_MAX = 3
"""Of a batch that ended in a deadlock or the like, before it is halved."""
READ_TRIES_MAX = 2

OnOutbox = Callable[[Sequence[tuple[OutboxRow, bool]]], None]
"""Told of committed events; True: nothing older of that payment waits, it may go out at once."""
ForeignShards = Callable[[set[int]], set[int]]
"""Which of these shards another worker owns, and must be woken for."""


@dataclass(slots=True)
class _Write:
    encoded: Encoded
    future: "asyncio.Future[Committed]"


@dataclass(slots=True)
class _Read:
    payment_id: str
    command_id: str
    future: "asyncio.Future[Loaded]"


class PostgresPaymentStore:
    """Limits: BATCH_MAX and BATCH_BYTES_MAX a statement, WRITERS and READERS statements at once, QUEUE_MAX waiting."""

    def __init__(
        self, database: Database, cipher: Cipher, chain_key: bytes, shards: int,
        on_outbox: OnOutbox, foreign_shards: ForeignShards = lambda shards: shards,
    ) -> None:  # fmt: skip
        self._database = database
        self._cipher = cipher
        self._encoder = Encoder(cipher, chain_key, shards)
        self._on_outbox = on_outbox
        self._foreign_shards = foreign_shards
        self._writes: deque[_Write] = deque()
        self._reads: deque[_Read] = deque()
        self._writing: set[str] = set()
        self._writers = self._readers = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # --- writing ---------------------------------------------------------------------------------------------

    def submit(self, change: Change) -> "asyncio.Future[Committed]":
        """Raises nothing: what goes wrong is in the future (Refused for text that cannot be stored, Unavailable)."""
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        if len(self._writes) >= QUEUE_MAX:
            future.set_exception(Unavailable("too many writes wait"))
            return future
        try:
            encoded = encode_change(change, self._encoder)
            _refuse_unstorable(change)
        except (PaymentError, TypeError) as error:
            # TypeError: orjson meets text that is no Unicode (a lone surrogate).
            refused = error if isinstance(error, PaymentError) else _unstorable()
            future.set_exception(refused)
            return future
        self._writes.append(_Write(encoded, future))
        if self._writers < WRITERS:
            self._writers += 1
            self._spawn(self._write())
        return future

    async def _write(self) -> None:
        """One writer: lives as long as something waits."""
        try:
            while batch := self._take():
                try:
                    await self._commit(batch)
                finally:
                    self._writing.difference_update(write.encoded.change.payment_id for write in batch)
        finally:
            self._writers -= 1

    def _take(self) -> list[_Write]:
        """The next batch: at most one change of a payment, also across the writers, sorted by payment id."""
        batch: list[_Write] = []
        later: list[_Write] = []
        size = 0
        while self._writes and len(batch) < BATCH_MAX and len(later) < BATCH_MAX:
            write = self._writes.popleft()
            payment_id = write.encoded.change.payment_id
            if payment_id in self._writing:
                later.append(write)
                continue
            if batch and size + write.encoded.size > BATCH_BYTES_MAX:
                self._writes.appendleft(write)
                break
            size += write.encoded.size
            self._writing.add(payment_id)
            batch.append(write)
        self._writes.extendleft(reversed(later))
        batch.sort(key=lambda write: write.encoded.change.payment_id)
        return batch

    async def _commit(self, batch: list[_Write], tries: int = 1) -> None:
        """Commit a batch; halve it when it does not go as a whole."""
        try:
            rows = await self._run(batch)
        except Unavailable as error:
            for write in batch:
                _fail(write.future, Unavailable(error.message, retry_after_s=error.retry_after_s))
        except ConnectionLost:
            for write in batch:
                _answer(write.future, Committed.LOST)
        except (TryAgain, StatementRefused) as error:
            if isinstance(error, TryAgain) and tries < TRIES_MAX:
                await self._commit(batch, tries + 1)
            elif len(batch) > 1:
                half = len(batch) // 2
                await self._commit(batch[:half])
                await self._commit(batch[half:])
            else:
                self._fail_alone(batch[0], error)
        else:
            self._committed(batch, rows)

    async def _run(self, batch: list[_Write]) -> list[Any]:
        shards = {row.shard for write in batch for row in write.encoded.outbox}
        foreign = self._foreign_shards(shards) if shards else set()
        notify = ",".join(str(shard) for shard in sorted(foreign)) if foreign else None
        text, parameters = build_statement([write.encoded for write in batch], notify)
        return await self._database.fetch(text, parameters)

    def _fail_alone(self, write: _Write, error: TryAgain | StatementRefused) -> None:
        if isinstance(error, TryAgain):
            _fail(write.future, Unavailable("the payment is locked", retry_after_s=1.0))
        elif error.code == errorcodes.UNIQUE_VIOLATION:
            _answer(write.future, Committed.CONFLICT)
        elif error.code.startswith("22"):  # data exception: something in it cannot be stored
            _fail(write.future, _unstorable())
        else:
            _fail(write.future, RuntimeError(f"the database refuses a statement of ours: SQLSTATE {error.code}"))

    def _committed(self, batch: list[_Write], rows: list[Any]) -> None:
        won: dict[str, bool] = dict(rows)
        offered: list[tuple[OutboxRow, bool]] = []
        for write in batch:
            change = write.encoded.change
            if change.steps and change.payment_id not in won:
                _answer(write.future, Committed.CONFLICT)
                continue
            if write.encoded.outbox:
                direct = not won[change.payment_id]
                offered += [(row, direct) for row in write.encoded.outbox]
            _answer(write.future, Committed.COMMITTED)
        if offered:
            self._on_outbox(offered)

    # --- reading ---------------------------------------------------------------------------------------------

    async def load(self, payment_id: str, command_id: str = "") -> Loaded:
        if len(self._reads) >= QUEUE_MAX:
            raise Unavailable("too many reads wait")
        if "\x00" in payment_id or not payment_id.isascii():
            return Loaded(None)  # no id of ours
        future: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._reads.append(_Read(payment_id, command_id, future))
        if self._readers < READERS:
            self._readers += 1
            self._spawn(self._read())
        return await future

    async def _read(self) -> None:
        try:
            while self._reads:
                batch = [self._reads.popleft() for _ in range(min(BATCH_MAX, len(self._reads)))]
                await self._load_batch(batch)
        finally:
            self._readers -= 1

    async def _load_batch(self, batch: list[_Read]) -> None:
        parameters = (
            plain_array(range(len(batch))),
            text_array(read.payment_id for read in batch),
            text_array(read.command_id for read in batch),
        )
        try:
            rows = await self._read_rows("load", parameters)
        except Unavailable as error:
            for read in batch:
                _fail(read.future, Unavailable(error.message, retry_after_s=error.retry_after_s))
            return
        for position, state, secrets, head, marked in rows:
            read = batch[position]
            try:
                _answer(read.future, self._loaded(read.payment_id, state, secrets, head, marked))
            except PaymentError as error:
                _fail(read.future, error)

    def _loaded(self, payment_id: str, state: str | None, secrets: Any, head: Any, marked: bool) -> Loaded:
        if state is None:
            return Loaded(None, marked=marked)
        unsealed = NO_SECRETS
        if secrets is not None:
            unsealed = decode_secrets(self._cipher.unseal(bytes(secrets), secrets_place(payment_id)))
        return Loaded(decode_state(state), unsealed, bytes(head), marked)

    async def events(self, payment_id: str) -> list[StoredEvent]:
        return [
            StoredEvent(version, sequence, event.at_ms, name, event)
            for version, sequence, name, data, _, _ in await self._read_rows("events", (payment_id,))
            for event in (decode_event(name, bytes(data)),)
        ]

    async def find(self, query: PaymentFilter) -> PaymentPage:
        return await find_payments(self._read_query, query)

    async def _read_rows(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        return await self._read_query(QUERIES[name], parameters)

    async def _read_query(self, query: str, parameters: Sequence[Any]) -> list[Any]:
        """A read may simply be repeated when its connection breaks."""
        for _ in range(READ_TRIES_MAX):
            try:
                return await self._database.fetch(query, parameters)
            except (ConnectionLost, TryAgain):
                continue
        raise Unavailable("the database is away")

    # --- both ------------------------------------------------------------------------------------------------

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _answer(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():  # its caller may have gone away; what was committed stays committed
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _unstorable() -> Refused:
    return Refused("contains text that cannot be stored", code="VALIDATION_ERROR")


def _refuse_unstorable(change: Change) -> None:
    """NUL cannot be stored as text in PostgreSQL: refused before it takes a batch with it."""
    texts = [change.command_id]
    if change.steps:
        payment = change.steps[-1].after
        texts += [payment.order_id, payment.user_id, payment.currency]
        texts += [refund.reason or "" for refund in payment.refunds]
    for text in texts:
        if "\x00" in text:
            raise _unstorable()
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _unstorable() from None
