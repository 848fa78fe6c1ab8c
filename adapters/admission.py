"""Who may call a provider now: a bounded number of calls at once, at a bounded rate, the urgent ones first.

Room: adapters. Part of guarded.py; one per provider and process, for one event loop.
"""

import asyncio
import heapq
from enum import IntEnum
from itertools import count

from payment_service.core.ports import Clock
from payment_service.core.resilience import RateRule, full_bucket, slow_down, take

WAITERS_MAX = 10_000
"""Calls that wait for room; one more is turned away at once."""
STALE_MAX = 64
"""Waiters that gave up and are still in the queue, beyond half of it; then they are taken out."""


class Urgency(IntEnum):
    """The smaller, the sooner (design §4). Money that is promised before money that is asked for."""

    SETTLE = 0
    """Capture and void: an authorization expires, a shopper's money is blocked."""
    CHARGE = 1
    REFUND = 2
    LOOKUP = 3


class Admission:
    """Slots and rate tokens. Whoever got in must `leave`.

    Limits: `slots` calls inside, WAITERS_MAX waiting, each no longer than it says.
    """

    def __init__(self, slots: int, rate: RateRule | None, clock: Clock) -> None:
        assert slots >= 1, "a provider nobody may call is not configured"
        self._slots = slots
        self._rate = rate
        self._clock = clock
        self._bucket = full_bucket(rate, clock.monotonic_s()) if rate is not None else None
        self._queue: list[tuple[Urgency, int, asyncio.Future[bool]]] = []
        self._arrivals = count()
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self.inside = 0
        """Calls under way."""

    def enter_now(self) -> bool:
        """In without waiting, if nobody waits and there is room."""
        if self._waiting or self.inside >= self._slots or not self.take_token():
            return False
        self.inside += 1
        return True

    async def enter(self, urgency: Urgency, wait_s: float) -> bool:
        """In as soon as there is room. False: there was none within `wait_s`, and the caller is not in."""
        if self.enter_now():
            return True
        if self._waiting >= WAITERS_MAX:
            return False
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        heapq.heappush(self._queue, (urgency, next(self._arrivals), turn))
        self._waiting += 1
        end = loop.call_later(wait_s, _give_up, turn)
        self._let_in()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave()
            raise
        finally:
            end.cancel()
            self._waiting -= 1
            if len(self._queue) > 2 * self._waiting + STALE_MAX:
                self._queue = [entry for entry in self._queue if not entry[2].done()]
                heapq.heapify(self._queue)

    def leave(self) -> None:
        self.inside -= 1
        if self._queue:
            self._let_in()

    def take_token(self) -> bool:
        """A rate token alone, for another try of a call that is in."""
        return self._wait_for_token_s() == 0.0

    def slow_down(self) -> None:
        """The provider said "too many requests"."""
        if self._bucket is not None and self._rate is not None:
            self._bucket = slow_down(self._bucket, self._rate, self._clock.monotonic_s())

    def _wait_for_token_s(self) -> float:
        if self._bucket is None or self._rate is None:
            return 0.0
        self._bucket, wait_s = take(self._bucket, self._rate, self._clock.monotonic_s())
        return wait_s

    def _let_in(self) -> None:
        """As many waiters as there is room for; one timer for the next token, however many wait."""
        while self._queue:
            turn = self._queue[0][2]
            if turn.done():
                heapq.heappop(self._queue)
                continue
            if self.inside >= self._slots or self._timer is not None:
                return
            wait_s = self._wait_for_token_s()
            if wait_s > 0:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._token_due)
                return
            heapq.heappop(self._queue)
            self.inside += 1
            turn.set_result(True)

    def _token_due(self) -> None:
        self._timer = None
        self._let_in()


def _give_up(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)
