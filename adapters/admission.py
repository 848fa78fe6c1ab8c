"""Who may call a provider now: a bounded number of calls at once, at a bounded rate, the urgent ones first.

Room: adapters. Part of guarded.py; one per provider and process, for one event loop.

Rates are the account's, over all workers that are alive: each takes its part. Every endpoint has a bucket of its own,
and the account one for all of them; a call takes a token of both. Who waits for an endpoint that is tired does not hold
up those who want another.
"""

import asyncio
import heapq
import math
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import count

from payment_service.core.ports import Clock
from payment_service.core.resilience import Bucket, RateRule, full_bucket, refilled, slow_down, take

WAITERS_MAX = 10_000
"""Calls that wait for room; one more is turned away at once."""
STALE_MAX = 64
"""Waiters that gave up and are still in a queue, beyond half of them all; then they are taken out."""
ACCOUNT_RATES = 4
"""An account may do so many times an endpoint's rate in all (Stripe: 25 a second for each, 100 together)."""
ENDPOINTS_MAX = 16
"""Named in guarded.py."""


class Urgency(IntEnum):
    """The smaller, the sooner (design §4). Money that is promised before money that is asked for."""

    SETTLE = 0
    """Capture and void: an authorization expires, a shopper's money is blocked."""
    CHARGE = 1
    REFUND = 2
    LOOKUP = 3


_Waiter = tuple[Urgency, int, asyncio.Future[bool]]


class _Tokens:
    """A bucket, and this worker's part of its rate."""

    def __init__(self, whole: RateRule, workers: int, now_s: float) -> None:
        self._whole = whole
        self.rule = whole
        self.share(workers)
        self.bucket = full_bucket(self.rule, now_s)

    def share(self, workers: int) -> None:
        self.rule = RateRule(self._whole.per_s / workers, max(1.0, self._whole.burst / workers))

    def wait_s(self, now_s: float) -> float:
        """Until there is a token; takes none."""
        return take(self.bucket, self.rule, now_s)[1]

    def take(self, now_s: float) -> None:
        self.bucket, wait_s = take(self.bucket, self.rule, now_s)
        assert wait_s == 0.0, "taken only when there is one"


class Admission:
    """Slots and rate tokens. Whoever got in must `leave`.

    `rate`: an endpoint's, for the whole account; None: there is none. `workers`: how many share it now.
    Limits: `slots` calls inside, WAITERS_MAX waiting, each no longer than it says.
    """

    def __init__(self, slots: int, rate: RateRule | None, clock: Clock, workers: Callable[[], int] = lambda: 1) -> None:
        assert slots >= 1, "a provider nobody may call is not configured"
        self._slots = slots
        self._rate = rate
        self._clock = clock
        self._workers = workers
        self._counted = workers()
        self._account: _Tokens | None = None
        if rate is not None:
            together = RateRule(rate.per_s * ACCOUNT_RATES, rate.burst * ACCOUNT_RATES)
            self._account = _Tokens(together, self._counted, clock.monotonic_s())
        self._endpoints: dict[str, _Tokens] = {}
        self._queues: dict[str, list[_Waiter]] = {}
        self._arrivals = count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        """Of the loop; kept here, since not every loop's handles tell it (seen: uvloop's, for what is due at once)."""
        self.waiting = 0
        self.inside = 0
        """Calls under way."""

    @property
    def bucket(self) -> Bucket:
        """The emptiest one, as it is now; where there is no rate limit, one that never ends."""
        now_s = self._clock.monotonic_s()
        known = [*self._endpoints.values(), *([self._account] if self._account is not None else [])]
        buckets = [refilled(tokens.bucket, tokens.rule, now_s) for tokens in known]
        return min(buckets, key=lambda bucket: bucket.tokens, default=Bucket(math.inf, math.inf, now_s))

    def enter_now(self, endpoint: str) -> bool:
        """In without waiting, if nobody waits and there is room."""
        if self.waiting or self.inside >= self._slots or not self.take_token(endpoint):
            return False
        self.inside += 1
        return True

    async def enter(self, endpoint: str, urgency: Urgency, wait_s: float) -> bool:
        """In as soon as there is room. False: there was none within `wait_s`, and the caller is not in."""
        if self.enter_now(endpoint):
            return True
        if self.waiting >= WAITERS_MAX:
            return False
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        heapq.heappush(self._queues.setdefault(endpoint, []), (urgency, next(self._arrivals), turn))
        self.waiting += 1
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
            self.waiting -= 1
            if sum(map(len, self._queues.values())) > 2 * self.waiting + STALE_MAX:
                self._tidy()

    def leave(self) -> None:
        self.inside -= 1
        if self._queues:
            self._let_in()

    def take_token(self, endpoint: str) -> bool:
        """Rate tokens alone, for another try of a call that is in."""
        if self._account is None:
            return True
        now_s = self._clock.monotonic_s()
        if self._wait_s(endpoint, now_s) > 0:
            return False
        self._account.take(now_s)
        self._endpoints[endpoint].take(now_s)
        return True

    def slow_down(self, endpoint: str) -> None:
        """The provider said "too many requests" of this."""
        tokens = self._endpoints.get(endpoint)
        if tokens is not None:
            tokens.bucket = slow_down(tokens.bucket, tokens.rule, self._clock.monotonic_s())

    # --- tokens ------------------------------------------------------------------------------------------------

    def _wait_s(self, endpoint: str, now_s: float) -> float:
        """Until there is a token of the endpoint and one of the account."""
        account, rate = self._account, self._rate
        if account is None or rate is None:
            return 0.0
        workers = max(1, self._workers())
        if workers != self._counted:
            self._counted = workers
            for tokens in (account, *self._endpoints.values()):
                tokens.share(workers)
        if endpoint not in self._endpoints:
            assert len(self._endpoints) < ENDPOINTS_MAX, "endpoints are named in code"
            self._endpoints[endpoint] = _Tokens(rate, workers, now_s)
        return max(account.wait_s(now_s), self._endpoints[endpoint].wait_s(now_s))

    # --- those who wait ----------------------------------------------------------------------------------------

    def _let_in(self) -> None:
        """As many waiters as there is room for; one timer for the next token, however many wait."""
        while self.inside < self._slots:
            wait_s = math.inf
            for endpoint in self._by_urgency():
                if self.take_token(endpoint):
                    self._admit(endpoint)
                    break
                wait_s = min(wait_s, self._wait_s(endpoint, self._clock.monotonic_s()))
            else:
                self._come_back(wait_s)
                return

    def _by_urgency(self) -> Iterator[str]:
        """Endpoints that somebody waits for, whose first is the most urgent first."""
        firsts = []
        for endpoint, queue in list(self._queues.items()):
            while queue and queue[0][2].done():
                heapq.heappop(queue)
            if queue:
                firsts.append((queue[0][:2], endpoint))
            else:
                del self._queues[endpoint]
        return (endpoint for _, endpoint in sorted(firsts))

    def _admit(self, endpoint: str) -> None:
        _, _, turn = heapq.heappop(self._queues[endpoint])
        self.inside += 1
        turn.set_result(True)

    def _come_back(self, wait_s: float) -> None:
        if wait_s == math.inf:
            return
        loop = asyncio.get_running_loop()
        at_s = loop.time() + wait_s
        if self._timer is not None:
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._timer, self._timer_at_s = loop.call_later(wait_s, self._token_due), at_s

    def _token_due(self) -> None:
        self._timer = None
        self._let_in()

    def _tidy(self) -> None:
        for endpoint, queue in list(self._queues.items()):
            self._queues[endpoint] = [entry for entry in queue if not entry[2].done()]
            heapq.heapify(self._queues[endpoint])


def _give_up(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)
