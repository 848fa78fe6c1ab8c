"""The handler of a stream, traced: each record's work goes on with the trace that its sender put into its headers.

Room: Kafka in. Made only where traces are collected; a stream without it is the handler itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any

from payment_service.agents.records import BatchHandler, Carried, Record, StreamHandler, Work

OnRecord = Callable[[str, str, Sequence[tuple[str, bytes]]], tuple[Context, Callable[[Any], None]]]
"""(stream, topic, headers) -> the context to work in, and whom to tell of the end: what came of it, or the error."""


@dataclass(frozen=True, slots=True)
class TracedHandler:
    handler: StreamHandler
    on_record: OnRecord

    @property
    def name(self) -> str:
        return self.handler.name

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.handler.__doc__

    def plan(self, record: Record) -> Work | None:
        work = self.handler.plan(record)
        return None if work is None else Work(work.lane, partial(self._start, record, work.start))

    def _start(self, record: Record, start: Callable[[], Awaitable[object]]) -> "asyncio.Future[object]":
        where, ended = self.on_record(self.name, record.topic, record.headers)
        try:
            doing = where.run(lambda: asyncio.ensure_future(start()))
        except BaseException as error:
            ended(error)
            raise
        doing.add_done_callback(lambda done: ended(asyncio.CancelledError() if done.cancelled() else done.exception()))
        return doing


@dataclass(frozen=True, slots=True)
class TracedBatches:
    handler: BatchHandler
    on_record: OnRecord

    @property
    def name(self) -> str:
        return self.handler.name

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.handler.__doc__

    async def carry_out(self, partition: int, records: Sequence[Any]) -> Carried:
        """A span for each record: they share the time of their batch."""
        ends = [self.on_record(self.name, record.topic, record.headers)[1] for record in records]
        error: BaseException | None = None
        try:
            return await self.handler.carry_out(partition, records)
        except BaseException as failed:
            error = failed
            raise
        finally:
            for ended in ends:
                ended(error)
