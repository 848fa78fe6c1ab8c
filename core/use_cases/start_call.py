"""Commit an intent and start its call, for whoever wants it now: a shopper who waits, an approval that came.

Room: core/use_cases. Awaits on ports only.
"""

import asyncio
from collections.abc import Callable

from payment_service.core.commands import RequestRefund, StartCapture, StartCharge
from payment_service.core.use_cases.execute import Execute, Outcome
from payment_service.core.use_cases.perform_effects import Effects
from payment_service.core.use_cases.provider_calls import CallContext


async def commit_and_call(
    execute: Execute,
    effects: Effects,
    command: StartCharge | StartCapture | RequestRefund,
    context: CallContext,
    release: Callable[[], None],
) -> Outcome:
    """The commit's outcome; the call runs on. `release`, from `effects.admit`: the room for the call is given back
    at its end, or at once if there is none to make. Raises as Execute does."""
    committing = execute.submit(command, context)

    def committed(done: asyncio.Future[Outcome]) -> None:
        # A callback, not code after an await: the caller may go away between commit and call.
        if done.cancelled() or done.exception() is not None or not done.result().intents:
            release()
            return
        outcome = done.result()
        effects.start(outcome.intents[0].call, outcome.claimed_at, release)

    committing.add_done_callback(committed)
    return await asyncio.shield(committing)
