"""The one way in which this service connects to Redis (the extra `redis`).

Room: adapters.
"""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def redis_client(url: str, timeout_s: float, connections_max: int) -> Redis:
    """Opens nothing yet; `timeout_s` is for connecting. A failure comes out at once: whoever asks can do without, and
    bounds its wait by `asyncio.timeout`. The client's own bound of an answer is `asyncio.wait_for`, which on Python
    3.11 now and then swallows the cancellation of whoever asked. Raises ValueError for an address that is none."""
    return Redis.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        max_connections=connections_max,
        health_check_interval=0,
        decode_responses=False,
    )
