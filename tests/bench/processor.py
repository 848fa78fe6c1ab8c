"""Whose processor time a payment costs: ours, Kafka's, PostgreSQL's. The kernel counts it anyway; reading costs none of
them anything. A server on another machine has no figure."""

from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Spent(NamedTuple):
    """Seconds of processor time."""

    own: float
    kafka: float | None
    postgres: float | None

    def each_us(self, before: "Spent", payments: int) -> dict[str, float]:
        """Microseconds for one payment, by who spent them."""
        pairs = zip(self._fields, self, before, strict=True)
        spent = {who: now - then for who, now, then in pairs if now is not None and then is not None}
        return {who: seconds / payments * 1e6 for who, seconds in spent.items()} if payments else {}


class Processors:
    """Found once, by the ports they listen on."""

    def __init__(self, broker: str, dsn: str) -> None:
        try:
            listening = {one.laddr.port: one.pid for one in psutil.net_connections("tcp") if one.status == "LISTEN"}
        except psutil.AccessDenied:  # some systems show them to root alone
            listening = {}
        database = urlsplit(dsn)
        self._kafka = _here(broker.rpartition(":")[0], int(broker.rpartition(":")[2]), listening)
        self._postgres = _here(database.hostname, database.port or 5432, listening)

    def spent(self, own: int) -> Spent:
        return Spent(
            _seconds(psutil.Process(own)),
            None if self._kafka is None else _seconds(self._kafka),
            None if self._postgres is None else _seconds(self._postgres),
        )


def _here(host: str | None, port: int, listening: dict[int, int | None]) -> psutil.Process | None:
    pid = listening.get(port) if host in LOOPBACK else None
    return None if pid is None else psutil.Process(pid)


def _seconds(process: psutil.Process) -> float:
    """Of a program with its children: PostgreSQL has one for each connection, and counts those that are gone."""
    times = process.cpu_times()
    seconds = times.user + times.system + times.children_user + times.children_system
    for child in process.children():
        try:
            own = child.cpu_times()
        except psutil.NoSuchProcess:  # its parent counts it now, and the next look sees that
            continue
        seconds += own.user + own.system
    return float(seconds)
