"""No test sleeps and hopes: it asks again until something is so, and fails by saying what is not."""

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.02
WAIT_S = 30.0


def wait_until(is_so: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + wait_s
    while not is_so():
        assert time.monotonic() < deadline, f"after {wait_s:.0f} s still not so: {what}"
        time.sleep(POLL_S)


async def until(is_so: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    """The same on the event loop."""
    deadline = time.monotonic() + wait_s
    while not is_so():
        assert time.monotonic() < deadline, f"after {wait_s:.0f} s still not so: {what}"
        await asyncio.sleep(POLL_S)
