"""The sweep: kept events that are due, claimed in small batches by any worker and applied a bounded number at a time.

Room: core/use_cases. Awaits on ports only. Lives outside the streams: an event is acked in Kafka when its row is
committed, and no provider is asked inside a stream handler. A worker that dies leaves its events to the lease.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from payment_service.core.errors import Unavailable
from payment_service.core.ports import Clock, Metrics
from payment_service.core.use_cases.receive_webhook import BUG_TRIES_MAX, DELAY_S_MIN
from payment_service.core.webhooks import Applied, ClaimedWebhook, WebhookStatus, WebhookStore

CLAIM_MAX = 100
"""Events claimed in one statement; each brings its body, at most 256 KB."""
APPLYING_MAX = 200
"""Events claimed and not settled, in this worker."""
LEASE_S = 40.0
"""A claimed event is somebody else's after this: longer than a refetch and the commands that follow."""
SWEEP_S = 5.0
"""How often it is looked for due events when nothing wakes us."""
TIDY_EVERY_S = 30.0
"""How often the gauges are set."""
SETTLE_TRIES_MAX = 3
"""A result that cannot be written is given up to the lease: applying the event again changes nothing."""
SETTLE_DELAY_S = 0.5


@dataclass(slots=True)
class WebhookSweep:
    store: WebhookStore
    apply: Callable[[ClaimedWebhook], Awaitable[Applied]]
    clock: Clock
    metrics: Metrics
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _inside: int = 0
    _more: bool = False
    """The last claim took all it was allowed to."""
    _stopping: bool = False

    def wake(self) -> None:
        """Something was kept, here."""
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled or stopped. A database that is away is waited for."""
        tidy_at = 0.0
        while not self._stopping:
            self._wake.clear()
            room = min(CLAIM_MAX, APPLYING_MAX - self._inside)
            claimed: Sequence[ClaimedWebhook] = ()
            try:
                if room > 0:
                    claimed = await self.store.claim(room, LEASE_S)
                self._more = len(claimed) >= room
                self._start(claimed)
                if self.clock.monotonic_s() >= tidy_at:
                    tidy_at = self.clock.monotonic_s() + TIDY_EVERY_S
                    await self._tidy()
            except Unavailable:
                self.metrics.count("webhook_sweeps_failed")
            if not claimed or not self._more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_S):  # wait_for may swallow a cancellation
                        await self._wake.wait()

    async def stop(self, drain_s: float) -> None:
        """Claims nothing further; waits for what is being applied, at most `drain_s`. The rest is the lease's."""
        self._stopping = True
        self._wake.set()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=drain_s)

    def _start(self, claimed: Sequence[ClaimedWebhook]) -> None:
        """Events of one payment one after another, in the order in which they came; different payments side by side."""
        groups: dict[str, list[ClaimedWebhook]] = {}
        for one in sorted(claimed, key=lambda it: it.row_id):
            webhook = one.webhook
            groups.setdefault(webhook.payment_id or webhook.object_id or webhook.event_id, []).append(one)
        for group in groups.values():
            self._inside += len(group)
            task = asyncio.get_running_loop().create_task(self._work(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, group: list[ClaimedWebhook]) -> None:
        try:
            for one in group:
                await self._settle(one, await self._applied(one))
        finally:
            self._inside -= len(group)
            if self._more:
                self._wake.set()

    async def _applied(self, claimed: ClaimedWebhook) -> Applied:
        try:
            applied = await self.apply(claimed)
            if applied.status is WebhookStatus.PARKED:
                # Park commits, then looks again: its payment may have been committed between the look and the parking.
                await self.store.settle(claimed, applied)
                applied = await self.apply(claimed)
            return applied
        except Unavailable:
            return Applied(WebhookStatus.RECEIVED, "SERVICE_UNAVAILABLE", claimed.webhook.payment_id, DELAY_S_MIN)
        except Exception as error:  # a bug of ours: heard of, and the others go on
            row = f"webhook {claimed.webhook.provider} {claimed.webhook.event_id}"
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{row} could not be applied", "exception": error}
            )
            failed = Applied(WebhookStatus.FAILED, f"BUG:{type(error).__name__}", claimed.webhook.payment_id)
            if claimed.tries < BUG_TRIES_MAX:
                return replace(failed, status=WebhookStatus.RECEIVED, delay_s=DELAY_S_MIN * claimed.tries)
            return failed

    async def _settle(self, claimed: ClaimedWebhook, applied: Applied) -> None:
        webhook = claimed.webhook
        self.metrics.count(
            "webhooks_applied", provider=webhook.provider, type=webhook.type, status=applied.status,
            reason=applied.reason,
        )  # fmt: skip
        for tries_left in reversed(range(SETTLE_TRIES_MAX)):
            try:
                await self.store.settle(claimed, applied)
                return
            except Unavailable:
                if tries_left:
                    await asyncio.sleep(SETTLE_DELAY_S)

    async def _tidy(self) -> None:
        waiting = await self.store.waiting()
        for status in (WebhookStatus.RECEIVED, WebhookStatus.PARKED, WebhookStatus.FAILED):
            count, age_s = waiting.get(status.value, (0, 0.0))
            self.metrics.gauge("webhooks_waiting", count, status=status)
            self.metrics.gauge("webhooks_oldest_age_s", age_s, status=status)
