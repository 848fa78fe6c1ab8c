"""The process's one HTTP session for whatever we ask of others: providers, the order service.

Room: adapters.
"""

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

CONNECTIONS_MAX = 2000
"""Over all hosts; what may be asked of one provider at once is its guard's business."""
KEEP_ALIVE_S = 30.0
CONNECT_S = 5.0
TOTAL_S = 60.0
"""The last resort. Whoever calls has a deadline of their own, which is shorter."""


class Outbound:
    """Opened at the first request, inside the running loop. Follows no cookies; redirects are the caller's choice."""

    def __init__(self) -> None:
        self._session: ClientSession | None = None

    def session(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEP_ALIVE_S),
                timeout=ClientTimeout(total=TOTAL_S, connect=CONNECT_S),
                cookie_jar=DummyCookieJar(),
                auto_decompress=True,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
