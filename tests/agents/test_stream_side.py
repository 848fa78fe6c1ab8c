"""The stream side under a Faust that misbehaves as it was seen to: it is started anew, and never holds up the end.

The App is scripted: what is tested is what Faust does once in a thousand starts.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from payment_service import worker
from payment_service.services import Services

Step = Callable[[], Coroutine[Any, Any, None]]


async def works() -> None: ...


async def is_cancelled_from_inside() -> None:
    raise asyncio.CancelledError


async def swallows_cancellations() -> None:
    """The first one: with the second, at the end of the test, it ends."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(600)
    await asyncio.sleep(600)


class ScriptedApp:
    def __init__(self, start: Step, stop: Step) -> None:
        self.start, self.stop = start, stop
        self._crashed = asyncio.Event()
        self.crash_reason: BaseException | None = None


class ScriptedServices:
    """What StreamSide asks of Services."""

    def __init__(self) -> None:
        self.stream: Any = None
        self.metrics = self

    def count(self, name: str, **labels: str) -> None: ...

    async def ensure_topics(self) -> None: ...


@asynccontextmanager
async def streams(monkeypatch: pytest.MonkeyPatch, *apps: tuple[Step, Step]) -> AsyncIterator[list[ScriptedApp]]:
    """These Apps one after another; then one that works."""
    monkeypatch.setattr(worker, "RESTART_DELAY_S_MIN", 0.01)
    monkeypatch.setattr(worker, "STREAM_START_S", 0.2)
    monkeypatch.setattr(worker, "STREAM_STOP_S", 0.2)
    monkeypatch.setattr(worker, "CLOSE_S", 0.1)
    script, made = iter(apps), list[ScriptedApp]()

    def create_app(_: object) -> ScriptedApp:
        made.append(ScriptedApp(*next(script, (works, works))))
        return made[-1]

    monkeypatch.setattr(worker, "create_app", create_app)
    side = worker.StreamSide(cast(Services, ScriptedServices()))
    running = asyncio.create_task(side.run())
    try:
        yield made
        assert not running.done(), "the worker would end"
    finally:
        side.stop()
        _, late = await asyncio.wait((running,), timeout=3)
        assert not late, "it holds up the end of the worker"


async def until_made(made: list[ScriptedApp], count: int) -> None:
    async with asyncio.timeout(5):
        while len(made) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("start", [is_cancelled_from_inside, swallows_cancellations])
async def test_a_start_that_goes_wrong_is_made_again(monkeypatch: pytest.MonkeyPatch, start: Step) -> None:
    async with streams(monkeypatch, (start, works)) as made:
        await until_made(made, 2)


@pytest.mark.parametrize("stop", [is_cancelled_from_inside, swallows_cancellations])
async def test_a_crashed_app_that_cannot_be_stopped_is_left(monkeypatch: pytest.MonkeyPatch, stop: Step) -> None:
    async with streams(monkeypatch, (works, stop)) as made:
        await until_made(made, 1)
        await asyncio.sleep(0.05)
        made[0].crash_reason = RuntimeError("scripted")
        made[0]._crashed.set()
        await until_made(made, 2)


async def test_the_end_does_not_wait_for_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async with streams(monkeypatch, (swallows_cancellations, works)) as made:
        await until_made(made, 1)
        monkeypatch.setattr(worker, "STREAM_START_S", 600)


HANGS = """
import asyncio, sys, threading, time
from mode.threads import WorkerThread
from payment_service import worker
worker.END_S = 5.0
worker.CLOSE_S = 0.2
async def swallows_cancellations():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass
def a_thread_that_never_ends():
    time.sleep(600)
class Consumers(WorkerThread):
    run = lambda self: a_thread_that_never_ends()
async def run_worker(settings, on_drain):
    on_drain()
    {left}
    await asyncio.sleep(0)
    return 7
worker.run_worker = run_worker
sys.exit(worker.run(None))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("left", "code"),
    [
        ("asyncio.create_task(swallows_cancellations(), name='left')", 7),
        ("Consumers(None, name='left').start()", 7),
        ("threading.Thread(target=a_thread_that_never_ends).start()", 1),
        ("await swallows_cancellations()", 1),
    ],
    ids=["a task of Faust's", "its thread", "another thread", "something of ours"],
)
def test_a_worker_ends_whatever_hangs_and_says_what(left: str, code: int) -> None:
    """What Faust has left is no failure; anything else is, and where it hangs is reported."""
    program, started = HANGS.format(left=left), time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    said = "'left'" in ended.stdout + ended.stderr if code == 7 else "Timeout (0:00:05)" in ended.stderr
    assert (ended.returncode, said) == (code, True), ended
    assert time.monotonic() - started < 40
