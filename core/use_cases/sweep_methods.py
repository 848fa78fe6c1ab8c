"""What is left of saving and removing methods of payment, by any worker: claimed by lease, a few at a time.

Room: core/use_cases. Awaits on ports only. At least once: a worker that dies leaves its claim to the lease, and what a
provider is asked twice it does once.

- PENDING: a worker died, or an answer was lost. Asked again under the same key; what stays unknown is given up.
- REQUIRES_ACTION: looked at until the shopper's time is up, then removed.
- REMOVED: detached at the provider, then the row goes. Tried until it is done, ever less often.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from payment_service.core.errors import PaymentError, Unavailable
from payment_service.core.payment_method import Method, MethodCall, MethodStatus
from payment_service.core.terms import Verdict
from payment_service.core.use_cases.payment_methods import LEASE_S, PaymentMethods

SWEEP_S = 5.0
"""How often it is looked for due ones when nothing wakes us."""
CLAIM_MAX = 20
"""Asked at once in this worker: charges come first at the provider."""
GIVE_UP_MS = 3600 * 1000
"""A saving that has no answer after this is forgotten: its token is no good any more, and its user has seen nothing."""
DELAY_FIRST_S, DELAY_MAX_S = 5.0, 6 * 3600.0
"""Pauses double from one try to the next, up to this."""
ALARM_TRIES = 10
"""After so many tries each further one is counted for a person to see."""


@dataclass(slots=True)
class MethodSweep:
    methods: PaymentMethods
    action_ttl_ms: int
    _stopping: bool = False

    async def run(self) -> None:
        """Until it is cancelled or stopped. A database that is away is waited for."""
        while not self._stopping:
            self.methods.due.clear()
            claimed: Sequence[Method] = ()
            try:
                claimed = await self.methods.store.claim(CLAIM_MAX, LEASE_S)
            except Unavailable:
                self.methods.metrics.count("method_sweeps_failed")
            await asyncio.gather(*map(self._one, claimed))
            if len(claimed) < CLAIM_MAX:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_S):
                        await self.methods.due.wait()

    async def stop(self) -> None:
        """Claims nothing further; what is under way is the lease's."""
        self._stopping = True
        self.methods.due.set()

    async def _one(self, method: Method) -> None:
        try:
            await self._settle(method)
        except PaymentError:  # the database is away: the lease brings it back
            self.methods.metrics.count("method_sweeps_failed")
        except Exception as error:  # a bug of ours: heard of, and the others go on; this one comes back too
            self.methods.metrics.count("method_sweeps_failed")
            report = {"message": f"the sweep fails on {method.method_id}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(report)

    async def _settle(self, method: Method) -> None:
        methods = self.methods
        if method.tries > ALARM_TRIES:
            methods.metrics.count("payment_alarms", reason=f"METHOD_{method.status}")
        if method.provider not in methods.keepers:
            await methods.store.later(method, _delay_s(method))
            return
        match method.status:
            case MethodStatus.PENDING:
                await self._keep(method)
            case MethodStatus.REQUIRES_ACTION:
                await self._look(method)
            case MethodStatus.REMOVED:
                await self._detach(method)
            case MethodStatus.ACTIVE:
                raise AssertionError("an ACTIVE one is never due")

    async def _keep(self, method: Method) -> None:
        methods = self.methods
        answer = await methods.ask_to_keep(method)
        if answer.verdict is Verdict.DECLINED:
            await methods.store.forget(method)
        elif answer.secrets is not None:
            await methods.record(method, answer)
        elif methods.clock.now_ms() - method.created_at_ms > GIVE_UP_MS:
            methods.metrics.count("methods_removed", reason="given_up")
            await methods.store.forget(method)
        else:
            await methods.store.later(method, _delay_s(method))

    async def _look(self, method: Method) -> None:
        methods = self.methods
        shown = await methods.settled(method)
        if shown is None or shown.method.status is not MethodStatus.REQUIRES_ACTION:
            return
        if methods.clock.now_ms() - method.created_at_ms > self.action_ttl_ms:
            methods.metrics.count("methods_removed", reason="expired")
            await methods.store.remove(method.user_id, method.method_id)
            methods.due.set()
        else:
            await methods.store.later(method, _delay_s(method))

    async def _detach(self, method: Method) -> None:
        methods = self.methods
        call = MethodCall(method.method_id, method.user_id, method.secrets)
        answer = await methods.keepers[method.provider].detach(call)
        methods.metrics.count("methods_detached", provider=method.provider, verdict=answer.verdict)
        if answer.verdict is Verdict.APPROVED:
            await methods.store.forget(method)
        else:
            await methods.store.later(method, _delay_s(method))


def _delay_s(method: Method) -> float:
    return min(DELAY_FIRST_S * 2.0 ** min(method.tries, 20), DELAY_MAX_S)
