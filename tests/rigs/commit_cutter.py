"""A wire to PostgreSQL that can break at the worst moment: the statement has arrived, its answer has not."""

import asyncio
import re

from rigs.tcp_proxy import CHUNK_BYTES, TcpProxy

COMMIT = re.compile(rb"PaymentCreated|AttemptStarted|AttemptApproved|AttemptDeclined|RefundRequested|RefundCompleted")
"""What only a statement that commits a change of a payment contains: the names of stored events."""


class CommitCutter(TcpProxy):
    """A TcpProxy that sees commits go by. `cut_at_commit` arms it for the next one."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._armed: asyncio.Future[None] | None = None
        self._wait_s = 0.0
        self._mending = asyncio.Lock()
        self.far_ports: set[int] = set()
        """Our own ports towards the server: by them its list of sessions tells which worker one belongs to."""

    async def mend(self) -> None:
        """Two who cut it may both mend it."""
        async with self._mending:
            if self._server is None:
                await super().mend()

    def cut_at_commit(self, wait_s: float) -> asyncio.Future[None]:
        """The connection of the next commit breaks `wait_s` after its bytes went out, with the server's answers held
        back from then on. Done when that has happened."""
        self._wait_s = wait_s
        self._armed = asyncio.get_running_loop().create_future()
        return self._armed

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        port = 0
        try:
            far, there = await asyncio.open_connection(*self._target)
            port = there.get_extra_info("sockname")[1]
            self.far_ports.add(port)
            self._open.add(there)
            if self._server is None:  # cut while this one was taken
                return
            quiet = asyncio.Event()
            await asyncio.gather(self._ask(reader, there, writer, quiet), self._answer(far, writer, quiet))
        except OSError:
            pass  # the far side is away: this side sees its connection end
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()
                    self._open.discard(end)
            self.far_ports.discard(port)
            self._tasks.discard(task)

    async def _ask(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        near: asyncio.StreamWriter,
        quiet: asyncio.Event,
    ) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                armed = self._armed
                fires = armed is not None and COMMIT.search(data) is not None
                if fires:
                    self._armed = None
                    quiet.set()
                target.write(data)
                await target.drain()
                if fires:
                    assert armed is not None
                    await asyncio.sleep(self._wait_s)
                    near.transport.abort()
                    if not armed.done():
                        armed.set_result(None)
        except ConnectionError:
            near.transport.abort()
        target.transport.abort()

    async def _answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, quiet: asyncio.Event) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                if quiet.is_set():
                    continue
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        target.transport.abort()
