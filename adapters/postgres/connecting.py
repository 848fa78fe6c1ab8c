"""Opening a connection: what aiopg gets wrong while it connects, and while it waits.

Room: adapters/postgres. Four things, all seen:
- When a connection is refused or breaks, aiopg may leave its reader or writer in the event loop although libpq has
  closed the socket (its writer always, both where the number is 1024 or more, since it looks with `select`). uvloop
  then refuses later sockets of that number: a worker would not get back to a database that was away, and could not
  ask providers any more. So both are removed in the moment in which libpq closes it.
- When libpq goes on to a second address (`localhost` that is ::1 first, a list of hosts), it opens another socket that
  aiopg does not watch, and waits until its time is up. So every address is tried on its own here.
- It waits by `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes together with the answer:
  the task goes on, and whoever cancelled it and waits for its end waits for ever.
- Closed twice, it removes the reader of a number that is somebody else's: an error, or a connection that hears nothing.
"""

import asyncio
import socket
import weakref
from typing import Any

import aiopg
import psycopg2
from psycopg2 import extensions

ADDRESSES_MAX = 16
"""Tried one after another, all hosts of the URL together."""
PORT = "5432"


class _FreshConnection(extensions.connection):  # type: ignore[misc]  # psycopg2 has no types
    """Made on the event loop that will watch it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Just opened: whatever is watched under this number belongs to a socket that is gone.
        loop, number = asyncio.get_running_loop(), self.fileno()
        loop.remove_reader(number)
        loop.remove_writer(number)


class SteadyConnection(aiopg.Connection):
    """Ends when its task is cancelled, and leaves nothing in the event loop. Overrides private methods, read against
    aiopg 1.4."""

    @staticmethod
    def _ready(weak_self: "weakref.ref[Any]") -> None:
        self = weak_self()
        if self is None:
            return
        number = self._fileno
        try:
            aiopg.Connection._ready(weak_self)
            broken = self._fileno is None or self._conn.closed
        except ValueError:  # of `select`, which is asked only when libpq has failed
            broken = True
        if number is None or not broken:
            return
        self._fileno = None  # somebody else's from now on
        self._writing = False
        self._loop.remove_reader(number)
        self._loop.remove_writer(number)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(psycopg2.OperationalError("the connection broke"))

    def _close(self) -> None:
        super()._close()
        self._fileno = None  # closed again, it would take the reader of whoever has this number by then

    async def _poll(self, waiter: "asyncio.Future[None]", timeout: float) -> None:
        self._ready(self._weakref)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except (asyncio.CancelledError, TimeoutError):
            self.close()
            raise
        finally:
            self._waiter = None


async def connect(dsn: str, timeout_s: float, **options: Any) -> aiopg.Connection:
    """A connection to the first address that takes us. Raises what the driver raises, of the last one tried.

    Limits: `timeout_s` for all of them together, each its share; ADDRESSES_MAX.
    """
    places = await _places(dsn)
    failed: Exception = psycopg2.OperationalError("no host of the database is known")
    for place in places:
        try:
            return await SteadyConnection(
                dsn, timeout_s / len(places), connection_factory=_FreshConnection, enable_json=False,
                enable_hstore=False, enable_uuid=False, **place, **options,
            )  # fmt: skip
        except (psycopg2.Error, TimeoutError, OSError) as error:
            failed = error
    raise failed


async def _places(dsn: str) -> list[dict[str, Any]]:
    """What names each address alone, in the order of the URL. A host that is unknown is passed over."""
    given = extensions.parse_dsn(dsn)
    hosts = given.get("host", "").split(",")
    ports = given.get("port", PORT).split(",")
    if "hostaddr" in given or not all(hosts) or any(host.startswith(("/", "@")) for host in hosts):
        return [{}]  # a Unix socket, or an address that somebody chose: one socket, nothing to try
    places: list[dict[str, Any]] = []
    for number, host in enumerate(hosts):
        port = ports[number if len(ports) > 1 else 0] or PORT
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError:
            continue
        addresses = dict.fromkeys(str(one[4][0]) for one in found)
        places += [{"host": host, "hostaddr": address, "port": port} for address in addresses]
    return places[:ADDRESSES_MAX]


class AddressPool(aiopg.Pool):
    """aiopg's pool, connecting by `connect`. Overrides a private method, read against aiopg 1.4."""

    async def _fill_free_pool(self, override_min: bool) -> None:
        self._forget_broken()
        if self._free or not override_min or (self.maxsize and self.size >= self.maxsize):
            return
        self._acquiring += 1
        try:
            made = await connect(self._dsn, self._timeout, **self._conn_kwargs)
        finally:
            self._acquiring -= 1
        # aiopg takes the first one now and asserts that it is whole: not this one, if it broke before anybody could use
        # it, nor one that was given back meanwhile and broke.
        self._free.append(made)
        self._forget_broken()
        if not self._free:
            raise psycopg2.OperationalError("the connection broke as it was made")
        self._cond.notify()

    def _forget_broken(self) -> None:
        for free in [it for it in self._free if it.closed]:
            self._free.remove(free)
