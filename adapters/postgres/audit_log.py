"""The AuditLog port: attempts in a hash chain, written in batches beside the requests they are about.

Room: adapters/postgres. A chain is one process's: its rows need no lock, and a batch whose connection broke is written
again under the same numbers. It begins with `chain.opened`; `chain.closed` says that nothing came after it, so a chain
without it ended with its process (kill -9 loses at most what was recorded in the last LINGER_S) or was cut.
"""

import asyncio
import logging
import secrets
from collections import deque
from typing import Any

import orjson

from payment_service.adapters.audit_chain import next_audit_hash
from payment_service.adapters.background import serve_all
from payment_service.adapters.postgres import arrays
from payment_service.adapters.postgres.pool import ConnectionLost, Database, StatementRefused, TryAgain
from payment_service.adapters.postgres.queries import QUERIES
from payment_service.codecs.times import rfc3339
from payment_service.core.audit import OK, AuditEntry
from payment_service.core.errors import Unavailable
from payment_service.core.ids import payment_id_of
from payment_service.core.ports import Clock, Metrics

LINGER_S = 0.05
"""What comes within it shares a statement."""
BATCH_MAX = 250
"""Encoding, hashing and formatting a row takes 7 us (measured): so many hold the event loop for 2 ms."""
WAITING_MAX = 20_000
"""Attempts that wait while the database is away, about 10 MB."""
RETRY_DELAY_S_MIN = 0.2
RETRY_DELAY_S_MAX = 5.0
FLUSH_S = 10.0
CLOSE_S = 3.0
TEXT_MAX = 500
ALARM_EVERY = 1000
"""Of what is lost, every so many are told in the process's log too."""
FOLDED = frozenset({"UNAUTHORIZED", "RATE_LIMITED", "INVALID_SIGNATURE", "IP_NOT_ALLOWED"})
"""Of strangers: those of one batch that differ in nothing but their request id are one row with a count, so that
somebody who guesses tokens does not fill the disk."""
OPENED, CLOSED, LOST = "chain.opened", "chain.closed", "chain.lost"
WRITTEN = "audit_log_pkey"
"""The constraint that says that the batch was committed before, when its connection broke."""
SYSTEM = "system"
COMMAND = "cli:"
"""How the writer's name of a command begins (0004_audit_log.sql knows it too)."""
COMMANDS_MAX = 1000

_log = logging.getLogger(__name__)


class PostgresAuditLog:
    """Limits: WAITING_MAX; what comes beyond is counted in the chain, in a metric and in the process's log.

    `writer` names the process. Nothing runs and nothing is written before the first `record`.
    """

    def __init__(self, database: Database, key: bytes, writer: str, clock: Clock, metrics: Metrics) -> None:
        self._database = database
        self._key = key
        self._clock = clock
        self._metrics = metrics
        self.chain = _text(f"{writer}:{clock.now_ms()}:{secrets.token_hex(4)}")
        self.count = 0
        """Rows of the chain that are durable."""
        self.head = b""
        """The hash of the last of them."""
        self._waiting: deque[AuditEntry] = deque()
        self._lost = 0
        self._writing: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._closed = False

    def record(self, entry: AuditEntry) -> None:
        if self._closed or len(self._waiting) >= WAITING_MAX:
            self._lose(1)
            return
        self._waiting.append(entry)
        if self._writing is None:
            self._start()

    async def flush(self) -> None:
        await self._drained(FLUSH_S)

    async def close(self) -> None:
        """Writes what waits and ends the chain, at most CLOSE_S. What cannot be written by then is lost, and told."""
        if self._closed:
            return
        if self.count or self._waiting:
            self._waiting.append(AuditEntry(self._clock.now_ms(), CLOSED, OK, SYSTEM))
        self._closed = True
        try:
            await self._drained(CLOSE_S)
        except Unavailable:
            _log.error("audit entries are lost entries=%d chain=%s", len(self._waiting), self.chain)
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})

    async def commands_since(self, at_ms: int) -> list[tuple[str, int, bytes]]:
        """(chain, count, head) of each command that wrote since then, COMMANDS_MAX of them: a command ends before it
        could anchor its chain itself. Raises Unavailable."""
        try:
            rows = await self._database.fetch(QUERIES["audit_of_commands"], (rfc3339(at_ms), COMMANDS_MAX))
        except (ConnectionLost, TryAgain):
            raise Unavailable("the database is away") from None
        return [(chain, number, bytes(head)) for chain, number, head in rows]

    def _lose(self, count: int) -> None:
        if self._lost % ALARM_EVERY == 0:
            _log.error("audit entries are lost: too many wait for the database chain=%s", self.chain)
        self._lost += count
        self._metrics.count("audit_lost", count)

    async def _drained(self, timeout_s: float) -> None:
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self._waiting:
                    task = self._writing or self._start()
                    await asyncio.wait({task})
                    if task.cancelled() or task.exception() is not None:
                        raise Unavailable("the audit log could not be written")
        except TimeoutError:
            raise Unavailable("the audit log could not be written") from None
        finally:
            self._hurry.clear()

    # --- writing ---------------------------------------------------------------------------------------------

    def _start(self) -> "asyncio.Task[None]":
        self._writing = serve_all(self._write(), self._ended, "audit log")
        return self._writing

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.error("the audit log failed: its entries wait", exc_info=task.exception())

    async def _write(self) -> None:
        """Lives as long as something waits."""
        try:
            while self._waiting:
                if len(self._waiting) < BATCH_MAX:
                    await self._linger()
                taken = min(len(self._waiting), BATCH_MAX)
                lost = self._lost
                documents = [self._own(OPENED, {"at": rfc3339(self._waiting[0].at_ms)})] if self.count == 0 else []
                documents += _encoded([self._waiting[position] for position in range(taken)])
                if lost:
                    documents.append(self._own(LOST, {"times": lost}))
                await self._store(documents)
                for _ in range(taken):
                    self._waiting.popleft()
                self._lost -= lost
        finally:
            self._writing = None  # now, not in the done callback: what is added in between would wait for the next

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _store(self, documents: list[bytes]) -> None:
        """Tried until it is durable."""
        hashes: list[str] = []
        head = self.head
        for number, document in enumerate(documents, start=self.count + 1):
            head = next_audit_hash(self._key, head, self.chain, number, document)
            hashes.append(head.hex())
        parameters = (self.chain, self.count, arrays.docs(documents), arrays.words(hashes))
        delay_s = RETRY_DELAY_S_MIN
        while True:
            try:
                await self._database.fetch(QUERIES["write_audit"], parameters)
                break
            except StatementRefused as error:
                if error.constraint == WRITTEN:
                    break
                # Every text is cleaned before; without this a mistake in that would stop the log for good.
                _log.error("audit entries are refused by the database: %s", error)
                self._lose(len(documents))
                return
            except (Unavailable, ConnectionLost, TryAgain) as error:
                self._metrics.count("audit_write_failures", reason=type(error).__name__)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_DELAY_S_MAX)
        self.count += len(documents)
        self.head = head
        self._metrics.count("audit_entries", len(documents))

    def _own(self, action: str, more: dict[str, Any] | None = None) -> bytes:
        fields = {"at": rfc3339(self._clock.now_ms()), "action": action, "result": OK, "actor": SYSTEM}
        return orjson.dumps(fields | (more or {}))


def _encoded(entries: list[AuditEntry]) -> list[bytes]:
    documents: list[bytes] = []
    folded: dict[tuple[str, ...], dict[str, Any]] = {}
    for entry in entries:
        if entry.result not in FOLDED:
            documents.append(orjson.dumps(_fields(entry)))
            continue
        same = (entry.action, entry.result, entry.actor, entry.client, entry.payment_id, entry.order_id)
        first = folded.get(same)
        if first is None:
            folded[same] = _fields(entry)
        else:
            first["times"] = first.get("times", 1) + 1
    return documents + [orjson.dumps(fields) for fields in folded.values()]


def _fields(entry: AuditEntry) -> dict[str, Any]:
    together = "".join((*entry[1:4], *entry[5:], *entry.roles))
    if len(together) > TEXT_MAX or not together.isprintable():
        entry = AuditEntry(
            entry.at_ms, _text(entry.action), _text(entry.result), _text(entry.actor), [*map(_text, entry.roles)],
            _text(entry.client), _text(entry.request_id), _text(entry.payment_id), _text(entry.order_id),
            _text(entry.refund_id), _text(entry.detail),
        )  # fmt: skip
    at_ms, action, result, actor, roles, client, request_id, payment_id, order_id, refund_id, detail = entry
    fields: dict[str, Any] = {"at": rfc3339(at_ms), "action": action, "result": result, "actor": actor}
    if roles:
        fields["roles"] = sorted(roles)
    if client:
        fields["client"] = client
    if request_id:
        fields["requestId"] = request_id
    if order_id:
        fields["orderId"] = order_id
        payment_id = payment_id or payment_id_of(order_id)
    if payment_id:
        fields["paymentId"] = payment_id
    if refund_id:
        fields["refundId"] = refund_id
    if detail:
        fields["detail"] = detail
    return fields


def _text(text: str) -> str:
    """Neither NUL nor a lone surrogate can be stored, nor a line break hide in a row."""
    text = text[:TEXT_MAX]
    return text if text.isprintable() else "".join(it if it.isprintable() else "?" for it in text)
