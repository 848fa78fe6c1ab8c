"""The sweep that tells the order service what became of its orders, until it has heard it (contract §3).

Room: core/use_cases. Awaits on ports only. Runs in every worker; a word is claimed by one of them at a time, so that an
older word is never sent beside a newer one. At least once: a worker may die between the answer and the row's leaving.
Nothing here is ever waited for by a payment.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from payment_service.core.errors import OutcomeUnknown, Refused, Unavailable
from payment_service.core.orders import ClaimedWord, Orders, OrderWords
from payment_service.core.ports import Clock, Metrics
from payment_service.core.resilience import backoff_s

TELLING_MAX = 50
"""Words claimed and not settled, in this worker: as many connections to the order service."""
LEASE_S = 30.0
"""A claimed word is somebody else's after this."""
START_S = 15.0
"""A word that was not sent by then, counted from its claim, is left to the lease: the call itself may take 10 s."""
SWEEP_S = 2.0
"""How often it is looked for words when nothing wakes us: other workers' leases, pauses that ended."""
PAUSE_S_MIN, PAUSE_S_MAX = 1.0, 300.0
"""After a failed try, twice as long each time: an order service that is back hears everything within five minutes."""
REFUSED_S = 3600.0
"""A word that it does not want is offered again so rarely: something has to be mended first, and nothing is lost."""
REPEAT_S = 60.0
"""After the newest word has been heard, it is told once more where an older one may still be on its way: no server
works on a request for longer than that."""
TIDY_EVERY_S = 30.0
SETTLE_TRIES_MAX = 3
"""A result that cannot be written is given up to the lease: the word is told again."""
SETTLE_DELAY_S = 0.5

UNREACHABLE, REFUSED = "UNREACHABLE", "REFUSED"


@dataclass(slots=True)
class TellOrders:
    words: OrderWords
    orders: Orders
    clock: Clock
    metrics: Metrics
    alarm: Callable[[str, str], None]
    """(what is the matter, order id): a person should look."""
    jitter: Callable[[], float]
    """From 0 to 1."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _more: bool = False
    """The last claim took all it was allowed to."""
    _stopping: bool = False

    def wake(self) -> None:
        """A word was committed, here."""
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled or stopped. A database that is away is waited for."""
        tidy_at = 0.0
        while not self._stopping:
            self._wake.clear()
            room = self.orders.room(TELLING_MAX - len(self._tasks))
            claimed: Sequence[ClaimedWord] = ()
            try:
                if room > 0:
                    started_s = self.clock.monotonic_s()
                    claimed = await self.words.claim(room, LEASE_S)
                    self._start(claimed, started_s + START_S)
                self._more = len(claimed) >= room
                if self.clock.monotonic_s() >= tidy_at:
                    tidy_at = self.clock.monotonic_s() + TIDY_EVERY_S
                    await self._count_waiting()
            except Unavailable:
                self.metrics.count("order_sweeps_failed")
            if not claimed or not self._more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_S):  # wait_for may swallow a cancellation
                        await self._wake.wait()

    async def stop(self, drain_s: float) -> None:
        """Claims nothing further; waits for what is being told, at most `drain_s`. The rest is the lease's."""
        self._stopping = True
        self._wake.set()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=drain_s)

    def _start(self, claimed: Sequence[ClaimedWord], start_by_s: float) -> None:
        for one in claimed:
            task = asyncio.get_running_loop().create_task(self._tell(one, start_by_s))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._more:
            self._wake.set()
        if not task.cancelled() and task.exception() is not None:  # a bug of ours: heard of, and the word comes back
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a word for the order service could not be told", "exception": task.exception()}
            )

    async def _tell(self, claimed: ClaimedWord, start_by_s: float) -> None:
        if self.clock.monotonic_s() > start_by_s:  # this process stood still: somebody else may be telling it
            return
        outcome, delay_s, late = "TOLD", 0.0, False
        pause_s = backoff_s(claimed.tries, PAUSE_S_MIN, PAUSE_S_MAX, self.jitter())
        try:
            await self.orders.tell(claimed.word)
        except Unavailable:
            outcome, delay_s = UNREACHABLE, pause_s
        except OutcomeUnknown:
            outcome, delay_s, late = UNREACHABLE, pause_s, True
        except Refused as refused:
            outcome, delay_s = f"{REFUSED}:{refused.message}", REFUSED_S
            self.alarm(outcome, claimed.word.order_id)
        self.metrics.count("order_words", outcome=outcome, word=claimed.word.word)
        await self._settle(claimed, outcome, delay_s, late)

    async def _settle(self, claimed: ClaimedWord, outcome: str, delay_s: float, late: bool) -> None:
        for tries_left in reversed(range(SETTLE_TRIES_MAX)):
            try:
                if outcome == "TOLD":
                    await self.words.told(claimed, REPEAT_S)
                else:
                    await self.words.again(claimed, delay_s, outcome, late=late)
                return
            except Unavailable:
                if tries_left:
                    await asyncio.sleep(SETTLE_DELAY_S)

    async def _count_waiting(self) -> None:
        waiting = await self.words.waiting()
        for problem in ("", UNREACHABLE, REFUSED):
            count, age_s = waiting.get(problem, (0, 0.0))
            self.metrics.gauge("order_words_waiting", count, problem=problem or "NONE")
            self.metrics.gauge("order_words_oldest_age_s", age_s, problem=problem or "NONE")
