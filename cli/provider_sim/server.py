"""One process of everything: the ledger read again, the routes, what runs beside them.

Room: cli/provider_sim.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web

from payment_service.cli.provider_sim import control, mock, paypal, stripe
from payment_service.cli.provider_sim.ledger import Ledger
from payment_service.cli.provider_sim.world import SimSettings, World

PROVIDERS: tuple[Callable[[web.Application, World], None], ...] = (mock.register, stripe.register, paypal.register)
BACKLOG = 2048
"""Connections that wait to be accepted: a thousand callers begin at once."""
KEEP_ALIVE_S = 75.0
"""Longer than a client keeps an idle connection, so that none is closed while a request is on its way."""
SHUTDOWN_S = 1.0
"""For answers under way; whoever does not get one sees what a death of the provider looks like."""


@contextlib.asynccontextmanager
async def running(
    settings: SimSettings, ledger_path: Path, host: str, port: int
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The server, listening; gives the tasks beside it, which end only by a fault of ours. Raises LedgerInUse and
    OSError (the port or the file)."""
    ledger = Ledger(ledger_path)
    world = World(settings, ledger)
    app = web.Application()
    for register in (control.register, *PROVIDERS):
        register(app, world)
    world.replay()
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=SHUTDOWN_S)
    beside: list[asyncio.Task[None]] = []
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        beside += [asyncio.create_task(world.run_due()), asyncio.create_task(world.webhooks.run())]
        yield beside
    finally:
        await runner.cleanup()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        ledger.close()


async def serve(settings: SimSettings, ledger_path: Path, host: str, port: int, started: Callable[[], None]) -> None:
    """Until SIGTERM or SIGINT. A judge that is broken in one part ends whole, with that part's exception."""
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    async with running(settings, ledger_path, host, port) as beside:
        started()
        stop = asyncio.create_task(signalled.wait())
        done, _ = await asyncio.wait({stop, *beside}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for ended in done:
            ended.result()
