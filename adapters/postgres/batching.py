"""Natural batching: while one statement runs, what comes next queues; the next statement takes it all. No timer.
What somebody waits for at a screen goes before what can wait, such as a backlog of orders.

Room: adapters/postgres. The workers are tasks of their own: whoever waits for a result may go away, which cancels
nothing. Nobody waits for ever: whatever ends a worker, each of its futures is answered.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from payment_service.adapters.background import serve_all
from payment_service.core.errors import Unavailable

_log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
BUSY_RETRY_AFTER_S = 1.0
URGENT_SHARE = 0.75
"""Of a batch, when something patient waits too: a flood of requests does not stop the stream."""


@dataclass(slots=True, eq=False)
class Waiting(Generic[ItemT, ResultT]):
    """One thing to do and the future of its result. `key`: of two with the same one, never both at a time."""

    item: ItemT
    key: str | None
    size: int
    future: "asyncio.Future[ResultT]"

    def answer(self, result: ResultT) -> None:
        if not self.future.done():  # its caller may have gone away; what happened stays
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batches(Generic[ItemT, ResultT]):
    """A bounded queue and at most `workers` batches of it under way. `run` must answer every one it is given.

    Limits: `batch_max` things and `bytes_max` (one thing of each queue may be larger) a batch, `queue_max` waiting in
    each queue.
    `on_cancel`: what those are told whose batch is cut off by `close`.
    """

    def __init__(
        self,
        run: Callable[[list[Waiting[ItemT, ResultT]]], Awaitable[None]],
        on_cancel: Callable[[Waiting[ItemT, ResultT]], None],
        *,
        workers: int,
        batch_max: int,
        bytes_max: int,
        queue_max: int,
    ) -> None:
        self._run = run
        self._on_cancel = on_cancel
        self._workers_max = workers
        self._batch_max = batch_max
        self._bytes_max = bytes_max
        self._queue_max = queue_max
        self._urgent: deque[Waiting[ItemT, ResultT]] = deque()
        self._patient: deque[Waiting[ItemT, ResultT]] = deque()
        self._under_way: set[str] = set()
        self._workers: set[asyncio.Task[None]] = set()
        self._closed = False

    def put(self, item: ItemT, key: str | None, size: int, *, patient: bool = False) -> "asyncio.Future[ResultT]":
        """Fails with Unavailable at once when too much waits already, or after `close`. `patient`: after the others."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()
        queue = self._patient if patient else self._urgent
        if self._closed or len(queue) >= self._queue_max:
            future.set_exception(Unavailable("the store is busy", retry_after_s=BUSY_RETRY_AFTER_S))
            return future
        queue.append(Waiting(item, key, size, future))
        if len(self._workers) < self._workers_max:
            self._workers.add(serve_all(self._work(), self._workers.discard))
        return future

    async def close(self, drain_s: float) -> None:
        """Takes nothing new; waits for what is queued, at most `drain_s`; then gives up the rest."""
        self._closed = True
        if self._workers:
            _, late = await asyncio.wait(list(self._workers), timeout=drain_s)
            for worker in late:
                worker.cancel()
            if late:
                await asyncio.wait(late)
        for queue in (self._urgent, self._patient):
            while queue:
                queue.popleft().fail(Unavailable("the store is closed", retry_after_s=BUSY_RETRY_AFTER_S))

    async def _work(self) -> None:
        """One worker: lives as long as something waits."""
        try:
            while batch := self._take():
                await self._work_on(batch)
        finally:
            # Now, not in the task's done callback: what an answer puts in between would wait behind a dead worker.
            task = asyncio.current_task()
            assert task is not None
            self._workers.discard(task)

    async def _work_on(self, batch: list[Waiting[ItemT, ResultT]]) -> None:
        try:
            await self._run(batch)
        except asyncio.CancelledError:
            for waiting in batch:
                self._on_cancel(waiting)
            raise
        except Exception as error:  # a bug: told to those it hit, and the next batch is not held up by it
            _log.exception("a batch failed in a way that was not foreseen")
            for waiting in batch:
                waiting.fail(error)
        finally:
            self._under_way.difference_update([waiting.key for waiting in batch if waiting.key is not None])

    def _take(self) -> list[Waiting[ItemT, ResultT]]:
        """The next batch: at most one of a key, also across the workers, sorted by key."""
        batch: list[Waiting[ItemT, ResultT]] = []
        share = URGENT_SHARE if self._patient else 1.0
        size = self._fill(batch, self._urgent, 0, share)
        self._fill(batch, self._patient, size, 1.0)
        if batch and batch[0].key is not None:
            batch.sort(key=_key)  # every writer locks rows in the same order
        return batch

    def _fill(
        self, batch: list[Waiting[ItemT, ResultT]], queue: deque[Waiting[ItemT, ResultT]], size: int, share: float
    ) -> int:
        """Take from a queue, the first in any case, until so much of the batch is full. Returns its size in bytes."""
        before = len(batch)
        count_max, bytes_max = max(before + 1, int(self._batch_max * share)), self._bytes_max * share
        under_way = self._under_way
        later: list[Waiting[ItemT, ResultT]] = []
        while queue and len(batch) < count_max and len(later) < self._batch_max:
            waiting = queue.popleft()
            if waiting.key in under_way:
                later.append(waiting)
                continue
            if len(batch) > before and size + waiting.size > bytes_max:
                queue.appendleft(waiting)
                break
            size += waiting.size
            if waiting.key is not None:
                under_way.add(waiting.key)
            batch.append(waiting)
        queue.extendleft(reversed(later))
        return size


def _key(waiting: Waiting[Any, Any]) -> str:
    return waiting.key or ""


def answer_all(batch: Sequence[Waiting[Any, Any]], error: Unavailable) -> None:
    """An error of its own for each: one exception object raised in many tasks would mix up their tracebacks."""
    for waiting in batch:
        waiting.fail(Unavailable(error.message, code=error.code, retry_after_s=error.retry_after_s))
