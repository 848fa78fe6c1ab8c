"""A driver connection that clears what the event loop still watches under its socket's number.

Room: adapters/postgres. aiopg forgets to remove its writer when a connection fails while it connects (seen with a
refused one): its socket is closed by libpq, the watcher stays. uvloop then refuses every later socket of that number,
so a worker would not get back to a database that was away.
"""

import asyncio
from typing import Any

from psycopg2 import extensions


class FreshConnection(extensions.connection):  # type: ignore[misc]  # psycopg2 has no types
    """The `connection_factory` of every aiopg connection of ours. Made on the event loop that will watch it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Just opened: whatever is watched under this number belongs to a socket that is gone.
        loop, number = asyncio.get_running_loop(), self.fileno()
        loop.remove_reader(number)
        loop.remove_writer(number)
