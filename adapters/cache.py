"""Payments in Redis for `GET /payments/{id}` (REDIS_URL): the PaymentCache port.

Room: adapters. Needs the extra `redis`. PostgreSQL stays the truth; this may be lost, late or away at any time.

- An entry is `version:sealed state`, or `version:` alone: a mark that a newer version was committed. Every commit
  leaves a mark (PostgresPaymentStore.on_version), also one whose connection broke; entries and marks are set only over
  older versions, in one script, so that a slow reader never puts back what is past. Marks are batched and cost a
  commit nothing; the next reader fills the entry.
- Whoever committed reads PostgreSQL until its mark is in Redis. Where a mark is lost with its worker, another worker
  may read an entry that is past; it ends TTL_MS after it was read from PostgreSQL.
- A failure is a slower read: TIMEOUT_S once, then Redis is left alone for PAUSE_S.
One Redis, not a cluster: a script's keys must be in one place.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

from payment_service.adapters.background import serve_all
from payment_service.adapters.postgres.batching import Batches, Waiting
from payment_service.adapters.redis_client import redis_client
from payment_service.codecs.state import decode_state, encode_state
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.payment import Payment
from payment_service.core.ports import Cipher, Clock, Metrics

TTL_MS = 30_000
"""How long an entry or a mark lives: what a lost mark can cost at most."""
TIMEOUT_S = 0.25
"""A read from PostgreSQL takes a few milliseconds: Redis is worth no longer wait."""
PAUSE_S = 5.0
"""After a failure. One batch of reads waits TIMEOUT_S for nothing in this time, at most."""
BATCH_MAX = 500
READERS = 2
READS_WAITING_MAX = 5000
"""More than that go to PostgreSQL at once."""
KEY_BYTES = 128
"""Of one read in a batch, roughly."""
UNTOLD_MAX = 50_000
"""Marks and entries that wait for Redis, about 300 bytes each without entries; the oldest are forgotten first."""
STATE_BYTES_MAX = 32_768
"""A payment with a longer history is read from PostgreSQL."""
CONNECTIONS_MAX = 4
CLOSE_S = 1.0
"""For the last marks, when the worker ends."""

_SET_NEWER = """
for i, key in ipairs(KEYS) do
  local version, sealed = ARGV[2 * i], ARGV[2 * i + 1]
  local there = redis.call('GETRANGE', key, 0, 15)
  local known = tonumber(string.match(there, '^(%d+):')) or 0
  if tonumber(version) > known or there == version .. ':' then
    redis.call('SET', key, version .. ':' .. sealed, 'PX', ARGV[1])
  end
end
"""

_log = logging.getLogger(__name__)


class _Untold(NamedTuple):
    version: int
    sealed: bytes
    """Empty: a mark."""
    until_s: float
    """What it would replace has ended by itself then."""


_Read = Waiting[str, Payment | None]


def _place(payment_id: str, version: int) -> str:
    return f"cache.payments:{payment_id}:{version}"


class RedisCache:
    """For one event loop. Opens nothing before it is first used. Raises ValueError for an address that is none."""

    def __init__(self, url: str, prefix: str, cipher: Cipher, clock: Clock, metrics: Metrics) -> None:
        self._redis = redis_client(url, TIMEOUT_S, CONNECTIONS_MAX)
        self._set_newer = self._redis.register_script(_SET_NEWER)
        self._prefix = f"{prefix}payment:"
        self._cipher = cipher
        self._clock = clock
        self._metrics = metrics
        self._paused_until_s = float("-inf")
        self._untold: dict[str, _Untold] = {}
        self._being_told: dict[str, _Untold] = {}
        self._telling: asyncio.Task[None] | None = None
        self._reads: Batches[str, Payment | None] = Batches(
            self._read_batch, lambda read: read.answer(None), workers=READERS, batch_max=BATCH_MAX,
            bytes_max=BATCH_MAX * KEY_BYTES, queue_max=READS_WAITING_MAX,
        )  # fmt: skip

    @property
    def available(self) -> bool:
        """For /ready."""
        return self._clock.monotonic_s() >= self._paused_until_s

    # --- reading ---------------------------------------------------------------------------------------------

    async def get(self, payment_id: str) -> Payment | None:
        if payment_id in self._untold or payment_id in self._being_told or not self.available:
            self._metrics.count("cache_operations_total", operation="get", result="skipped")
            return None
        try:
            found = await self._reads.put(payment_id, None, KEY_BYTES)
        except Unavailable:
            found = None
        # What was committed here meanwhile must not be answered with what was before it.
        newer = self._untold.get(payment_id) or self._being_told.get(payment_id)
        if found is not None and newer is not None and newer.version > found.version:
            found = None
        self._metrics.count("cache_operations_total", operation="get", result="hit" if found is not None else "miss")
        return found

    async def _read_batch(self, batch: list[_Read]) -> None:
        values: Sequence[bytes | None] = [None] * len(batch)
        if self.available:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    values = await self._redis.mget([self._prefix + read.item for read in batch])
            except Exception as error:  # whatever it is, the reads go on without it
                self._failed(error)
        for read, value in zip(batch, values, strict=True):
            read.answer(self._opened(read.item, value) if value is not None else None)

    def _opened(self, payment_id: str, value: bytes) -> Payment | None:
        """None for a mark, and for what was sealed with another key, or written by a worker of another release."""
        version, _, sealed = value.partition(b":")
        if not sealed:
            return None
        try:
            payment = decode_state(self._cipher.unseal(sealed, _place(payment_id, int(version))))
        except (Malformed, ValueError):
            self._metrics.count("cache_operations_total", operation="get", result="unreadable")
            return None
        return payment if payment.payment_id == payment_id else None

    # --- writing ---------------------------------------------------------------------------------------------

    def changed(self, payment_id: str, version: int) -> None:
        """This version was committed, or may have been."""
        if version > 1:  # nobody can have read an older one
            self._tell(payment_id, version, b"")

    def offer(self, payment: Payment) -> None:
        """As it was just read from the truth. Kept unless a newer version is known."""
        payment_id, version = payment.payment_id, payment.version
        for known in (self._untold.get(payment_id), self._being_told.get(payment_id)):
            if known is not None and (known.version > version or (known.version == version and known.sealed)):
                return
        state = encode_state(payment)
        if self.available and len(state) <= STATE_BYTES_MAX:
            self._tell(payment_id, version, self._cipher.seal(state, _place(payment_id, version)))

    def _tell(self, payment_id: str, version: int, sealed: bytes) -> None:
        known = self._untold.pop(payment_id, None)
        told = _Untold(version, sealed, self._clock.monotonic_s() + TTL_MS / 1000)
        self._untold[payment_id] = told if known is None or version >= known.version else known
        if len(self._untold) > UNTOLD_MAX:
            del self._untold[next(iter(self._untold))]
        if self._telling is None:
            self._telling = serve_all(self._tell_all(), self._stopped_telling)

    def _stopped_telling(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            _log.error("the cache's writer ended", exc_info=task.exception())

    async def _tell_all(self) -> None:
        """As long as something waits. What fails waits for the end of the pause, and no longer than it matters."""
        try:
            while self._untold:
                pause_s = self._paused_until_s - self._clock.monotonic_s()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                batch = {key: self._untold.pop(key) for key in list(self._untold)[:BATCH_MAX]}
                self._being_told = batch
                try:
                    async with asyncio.timeout(TIMEOUT_S):
                        await self._set_newer(
                            keys=[self._prefix + payment_id for payment_id in batch],
                            args=[TTL_MS, *(part for one in batch.values() for part in (one.version, one.sealed))],
                        )
                except Exception as error:  # whatever it is, payments go on without it
                    self._failed(error)
                    self._put_back(batch)
                finally:
                    self._being_told = {}
        finally:
            self._telling = None  # now, not in the done callback: what is told in between would wait for ever

    def _put_back(self, batch: dict[str, _Untold]) -> None:
        """Marks alone, before what came meanwhile: entries are made again by whoever reads."""
        now_s = self._clock.monotonic_s()
        marks = {key: one._replace(sealed=b"") for key, one in batch.items() if one.until_s > now_s}
        self._untold = {**marks, **{key: one for key, one in self._untold.items() if one.until_s > now_s}}

    def _failed(self, error: Exception) -> None:
        self._metrics.count("cache_failures", reason=type(error).__name__)
        if self.available:
            _log.warning("the cache is left alone for %s s: %s", PAUSE_S, type(error).__name__)
        self._paused_until_s = self._clock.monotonic_s() + PAUSE_S

    async def close(self, drain_s: float = CLOSE_S) -> None:
        """Marks that cannot be told in time are lost: their entries end by themselves."""
        await self._reads.close(drain_s)
        if self._telling is not None:
            await asyncio.wait((self._telling,), timeout=drain_s)
        if self._telling is not None:
            self._telling.cancel()
        with contextlib.suppress(Exception):  # what is broken needs no closing
            await self._redis.aclose()
