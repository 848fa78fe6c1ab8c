"""Tasks that serve whoever comes, whoever started them.

Room: adapters. A task runs in a copy of the context it was made in: one that a request makes and others use would log,
and be traced, in that request's name for as long as it lives.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


def serve_all(
    work: Coroutine[Any, Any, ResultT], on_end: "Callable[[asyncio.Task[ResultT]], object]", name: str | None = None
) -> "asyncio.Task[ResultT]":
    """A task of `work`, and `on_end` at its end, in nobody's name. Whoever asks keeps the task."""
    nobody = Context()
    task = asyncio.get_running_loop().create_task(work, name=name, context=nobody)
    task.add_done_callback(on_end, context=nobody)
    return task
