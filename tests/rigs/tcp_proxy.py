"""A wire between a worker and a server that can be cut and mended: what a network does to them."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536


class TcpProxy:
    """`async with TcpProxy("127.0.0.1", 5432) as wire:` listens on `wire.port`. One event loop, the test's own."""

    def __init__(self, host: str, port: int, listens_on: str = "127.0.0.1") -> None:
        self._target = host, port
        self._listens_on = listens_on
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.answers = asyncio.Event()
        """Cleared: what the server says is held back, as if the wire were slow in that direction."""
        self.answers.set()

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def mend(self) -> None:
        """Connections are taken again, on the same port."""
        self._server = await asyncio.start_server(self._carry, self._listens_on, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def aim(self, host: str, port: int) -> None:
        """At another server, for connections to come."""
        self._target = host, port

    async def cut(self) -> None:
        """Every connection breaks, and new ones are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()

    def drop(self) -> None:
        """Every connection breaks now; new ones are taken."""
        for writer in self._open:
            writer.transport.abort()
        self.answers.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            far, there = await asyncio.open_connection(*self._target)
            self._open.add(there)
            if self._server is None:  # cut while this one was taken
                return
            await asyncio.gather(_pump(reader, there), _pump(far, writer, self.answers))
        except OSError:
            pass  # the far side is away: this side sees its connection end
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()
                    self._open.discard(end)
            self._tasks.discard(task)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: asyncio.Event | None = None) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(CHUNK_BYTES):
            if gate is not None:
                await gate.wait()
            target.write(data)
            await target.drain()
    target.transport.abort()
