"""The order service over HTTP: the Orders port (ORDER_SERVICE_URL; contract §3, last paragraph).

Room: adapters. On the process's one session; no redirect is followed, no more than BODY_MAX is read. Asking and telling
have a circuit breaker each: a creation is not refused because outcomes cannot be told, nor the other way round.
Tokens go into headers and nowhere else; what is logged is a status or the name of an error.
"""

import logging
from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
from yarl import URL

from payment_service.adapters.providers.registration import Sessions
from payment_service.codecs.orders import decode_order, encode_word, says_no
from payment_service.core.errors import Malformed, OutcomeUnknown, PaymentError, Refused, Unavailable
from payment_service.core.orders import Order, OrderWord
from payment_service.core.ports import Clock, Metrics
from payment_service.core.resilience import (
    CLOSED,
    BreakerRule,
    Passage,
    abandoned,
    failed,
    is_barred,
    pass_through,
    succeeded,
)

ASK_S = 3.0
"""A shopper waits for the check of the order."""
TELL_S = 10.0
"""Nobody waits; the claim's lease is longer."""
CONNECT_S = 2.0
BODY_MAX = 262_144
"""Bytes of an answer: an order with its items."""
BREAKER = BreakerRule(failures_max=5, open_s=2.0, open_s_max=30.0)
RETRY_AFTER_S = 5.0
_LATER = frozenset({408, 425, 429})
"""Nothing was done, and the same may be asked again (RFC 9110 §15.5.9, RFC 8470, RFC 6585)."""

_log = logging.getLogger(__name__)


class OrdersApi:
    """For one event loop. Opens nothing before the first call, and has nothing of its own to close."""

    def __init__(self, base: str, token: str | None, sessions: Sessions, clock: Clock, metrics: Metrics) -> None:
        self._base = base
        self._service = {"X-Internal-Token": token} if token else {}
        self._sessions = sessions
        self._metrics = metrics
        self._asking = _Line("find", clock)
        self._telling = _Line("tell", clock)

    def __repr__(self) -> str:
        return f"OrdersApi({self._base})"

    @property
    def available(self) -> bool:
        """For /ready."""
        return not self._asking.barred and not self._telling.barred

    def room(self, limit: int) -> int:
        return self._telling.room(limit)

    async def find(self, order_id: str, bearer: str | None) -> Order:
        if order_id in (".", ".."):  # they would be a part of another path
            raise _no_such_order()
        own = {"Authorization": f"Bearer {bearer}"} if bearer is not None else self._service
        try:
            status, body = await self._carried(
                self._asking, "GET", f"{self._base}/api/v1/orders/{quote(order_id, safe='')}", own, None, ASK_S
            )
        except OutcomeUnknown as error:  # asking changes nothing
            raise Unavailable(error.message, retry_after_s=RETRY_AFTER_S) from None
        match status:
            case 200:
                return self._read(body, order_id)
            case 404:
                raise _no_such_order()
            case 403:
                raise Refused("no such payment", code="PAYMENT_NOT_FOUND")
            case _:
                _log.warning("the order service answered the question for an order with %s", status)
                raise Unavailable("the order service cannot say now", retry_after_s=RETRY_AFTER_S)

    def _read(self, body: bytes, order_id: str) -> Order:
        try:
            return decode_order(body, order_id)
        except Malformed as error:
            self._metrics.count("order_service_calls", operation="find", outcome="ODD")
            _log.error("order %r: %s", order_id, error.message)
            raise Unavailable("the order service cannot say now", retry_after_s=RETRY_AFTER_S) from None

    async def tell(self, word: OrderWord) -> None:
        if word.order_id in (".", ".."):
            raise Refused("no path can name this order", code="NOT_FOUND")
        url = f"{self._base}/api/v1/orders/{quote(word.order_id, safe='')}/payment-status"
        headers = {
            **self._service,
            "Content-Type": "application/json",
            # The same for every repetition of one word, higher for a newer one.
            "Idempotency-Key": f"{word.payment_id}:{word.version}",
        }
        status, body = await self._carried(self._telling, "PATCH", url, headers, encode_word(word), TELL_S)
        if status in _LATER or 300 <= status < 400:
            raise Unavailable(f"HTTP {status}")
        if 400 <= status < 500:
            raise Refused(f"HTTP {status}")
        if not 200 <= status < 300:
            raise OutcomeUnknown(f"HTTP {status}")
        if says_no(body):
            raise Unavailable(f"HTTP {status}, success: false")

    async def _carried(
        self, line: "_Line", method: str, url: str, headers: Mapping[str, str], data: bytes | None, total_s: float
    ) -> tuple[int, bytes]:
        """Status and body. Raises Unavailable (certainly not sent), OutcomeUnknown (no whole answer)."""
        passage = line.enter()
        outcome = "GIVEN_UP"
        try:
            status, body = await self._asked(method, url, headers, data, total_s)
            outcome = str(status)
        except PaymentError as error:
            outcome = error.code
            raise
        finally:
            if outcome == "GIVEN_UP":
                line.abandon(passage)
            else:
                line.leave(passage, fine=outcome.isdigit() and int(outcome) < 500)
            self._metrics.count("order_service_calls", operation=line.name, outcome=outcome)
        return status, body

    async def _asked(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None, total_s: float
    ) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=total_s, connect=min(CONNECT_S, total_s))
        try:
            async with self._sessions().request(
                method, URL(url, encoded=True), headers=headers, data=data, timeout=timeout, allow_redirects=False
            ) as response:
                body = bytearray()
                async for part in response.content.iter_any():
                    body += part
                    if len(body) > BODY_MAX:
                        raise aiohttp.ClientPayloadError("too long")
                return response.status, bytes(body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise Unavailable("the order service cannot be reached", retry_after_s=RETRY_AFTER_S) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise OutcomeUnknown(f"the order service gave no whole answer: {type(error).__name__}") from None


def _no_such_order() -> Refused:
    return Refused("no such order", code="NOT_FOUND")


class _Line:
    """One kind of call with its circuit breaker."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self._breaker = CLOSED

    @property
    def barred(self) -> bool:
        return is_barred(self._breaker, self._clock.monotonic_s())

    def room(self, limit: int) -> int:
        if self._breaker.open_until_s is None:
            return limit
        return 0 if self.barred else min(1, limit)

    def enter(self) -> Passage:
        """Raises Unavailable while it is known to be away."""
        self._breaker, passage = pass_through(self._breaker, self._clock.monotonic_s())
        if passage is Passage.BARRED:
            raise Unavailable("the order service cannot be reached", retry_after_s=RETRY_AFTER_S)
        return passage

    def leave(self, passage: Passage, *, fine: bool) -> None:
        before = self._breaker
        if fine:
            self._breaker = succeeded(before, passage)
        else:
            self._breaker = failed(before, passage, BREAKER, self._clock.monotonic_s())
        if (before.open_until_s is None) != (self._breaker.open_until_s is None):
            _log.warning("order service, %s: the breaker is %s", self.name, "closed" if fine else "open")

    def abandon(self, passage: Passage) -> None:
        self._breaker = abandoned(self._breaker, passage)
