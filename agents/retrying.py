"""How long to wait before what could not be done is tried again.

Room: Kafka in. There is no last try: losing a record is not allowed.
"""

import random

from payment_service.core.errors import PaymentError, Unavailable

RETRY_DELAY_S_MIN = 0.1
RETRY_DELAY_S_MAX = 30.0
RETRY_DOUBLINGS_MAX = 10
RETRY_SPREAD = 0.2
"""Delays differ by up to this share, so that a thousand events do not come back in the same moment."""


def retry_pause_s(attempts: int, error: PaymentError) -> float:
    """After `attempts` earlier ones that failed too; no shorter than what `error` asks for."""
    pause: float = RETRY_DELAY_S_MIN * 2 ** min(attempts, RETRY_DOUBLINGS_MAX)
    if isinstance(error, Unavailable):
        pause = max(pause, error.retry_after_s)
    return min(pause, RETRY_DELAY_S_MAX) * random.uniform(1 - RETRY_SPREAD, 1)  # noqa: S311 no secret
