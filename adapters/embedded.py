"""The embedded services: a broker and a PostgreSQL for development and tests, started and stopped with the service.

Room: adapters. Out of pip's wheels, on loopback ports, with their data under DATA_DIR/embedded.
"""

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from payment_service.adapters.embedded_broker import EmbeddedBroker
from payment_service.adapters.embedded_database import EmbeddedDatabase
from payment_service.adapters.embedded_process import POLL_S, EmbeddedError

READY_WAIT_S = 60.0
"""PostgreSQL may have to recover from its log after a kill -9."""


class EmbeddedServices:
    """`async with EmbeddedServices(data_dir) as services:` has both running, and stopped at the end.

    Enter it in the thread that lives as long as the service: the broker dies with that thread. It installs no
    signal handlers: whoever runs the loop turns SIGTERM into the end of the `async with`. A second process on the
    same DATA_DIR uses the first one's services; the broker ends with the first, PostgreSQL with the last.

    Raises: EmbeddedError, when one cannot be started; what had been started is stopped then.
    Limits: READY_WAIT_S for the start.
    """

    def __init__(self, data_dir: Path, *, broker: bool = True, database: bool = True) -> None:
        self._folder = data_dir.expanduser().absolute() / "embedded"
        self._broker = EmbeddedBroker(self._folder) if broker else None
        self._database = EmbeddedDatabase(self._folder / "postgres") if database else None

    @property
    def kafka_brokers(self) -> tuple[str, ...]:
        return (self._broker.address,) if self._broker else ()

    @property
    def database_url(self) -> str:
        """Holds the password: never log it."""
        assert self._database is not None, "the database was not asked for"
        return self._database.url()

    async def __aenter__(self) -> Self:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if self._broker:
                self._broker.spawn()
            if self._database:
                # Not in another thread: a cancelled start would stop what that thread still makes.
                self._database.prepare()
                self._database.spawn()
            await self._all_ready()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # On the loop's own thread: a cancelled task must not leave children behind.
        self._stop()

    async def _all_ready(self) -> None:
        waiting: list[EmbeddedBroker | EmbeddedDatabase] = [one for one in (self._broker, self._database) if one]
        deadline = time.monotonic() + READY_WAIT_S
        while waiting := [one for one in waiting if not one.is_ready()]:
            if time.monotonic() > deadline:
                names = ", ".join(type(one).__name__ for one in waiting)
                raise EmbeddedError(f"{names}: not ready after {READY_WAIT_S:.0f} s; see the logs in {self._folder}")
            await asyncio.sleep(POLL_S)

    def _stop(self) -> None:
        try:
            if self._broker:
                self._broker.stop()
        finally:
            if self._database:
                self._database.stop()
