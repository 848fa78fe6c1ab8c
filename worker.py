"""The worker's life: web, executor, effects and publisher first, as plain tasks; then the stream side, started anew
inside the process when it fails; signals; drain.

Room: root. Faust ends the process when it has no broker (seen); nothing of ours may depend on that, so Faust is a
guest here: REST takes payments while Kafka is away, also when the worker starts without it.
"""

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
import uvloop
from aiohttp import web
from mode.threads import WorkerThread

from payment_service.adapters.embedded import EmbeddedServices
from payment_service.adapters.measuring import watch_loop
from payment_service.adapters.postgres.call_watch import CallWatch
from payment_service.adapters.settings import Settings
from payment_service.agents.faust_app import PaymentApp
from payment_service.app import Services, build_services, create_app
from payment_service.core.errors import Unavailable
from payment_service.core.use_cases.forget_old import ForgetOld
from payment_service.offline import make_token, migrate
from payment_service.web.serving import SiteRunner
from payment_service.web.site import build_site

DRAIN_S = 16.0
"""SIGTERM to exit is at most 30 s: this for what runs, the rest for closing."""
CLOSE_S = 2.0
END_S = 29.0
"""From the signal until the process ends by force, with a report of where it hung: a thread of a library, a task that
swallows its cancellation."""
LEFT_SHOWN_MAX = 5
STREAM_START_S = 60.0
STREAM_STOP_S = 15.0
RESTART_DELAY_S_MIN = 1.0
RESTART_DELAY_S_MAX = 30.0
STREAM_CRASHES_MAX = 20
"""Faust leaves about nine tasks behind each crash of a running app: after so many the process ends, and whoever
supervises it starts a clean one. A start that failed leaves nothing and is not counted."""
STEADY_S = 300.0
"""A stream side that ran this long starts with a fresh delay and count."""
KEEP_ALIVE_S = 75.0
GC_THRESHOLDS = (200_000, 20, 100)
"""Objects made before the youngest generation is looked at, and how many such looks before an older one's."""
MIGRATE_AGAIN_S = 2.0
DEMO_TOKEN_S = 24 * 3600
HOST = "0.0.0.0"  # noqa: S104 - the service is behind a proxy or in a container

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class StreamSide:
    """Faust's part: one App at a time from `create_app`, on our loop."""

    services: Services
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Returns when it was stopped, raises when it crashed too often."""
        delay, crashes = RESTART_DELAY_S_MIN, 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started_at = loop.time()
            reason, was_running = await self._once()
            if self._stopping.is_set():
                return
            if loop.time() - started_at > STEADY_S:
                delay, crashes = RESTART_DELAY_S_MIN, 0
            crashes += was_running
            if crashes > STREAM_CRASHES_MAX:
                raise RuntimeError(f"the stream side crashed {crashes} times, last: {reason}")
            self.services.metrics.count("stream_restarts", reason=reason)
            _log.warning("stream side starts again", reason=reason, delay_s=delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            delay = min(delay * 2, RESTART_DELAY_S_MAX)

    async def _once(self) -> tuple[str, bool]:
        """One App from start to end: why it ended, and whether it had been running."""
        app = create_app(self.services)
        self.services.stream = app
        running = False
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await _within(self._start(app), STREAM_START_S, stopping)
            running = True
            crashed = asyncio.ensure_future(app._crashed.wait())
            await asyncio.wait((stopping, crashed), return_when=asyncio.FIRST_COMPLETED)
            crashed.cancel()
            reason = type(app.crash_reason).__name__ if app.crash_reason is not None else "stopped"
            if app.crash_reason is not None:
                _log.error("stream side crashed", error=repr(app.crash_reason), exc_info=app.crash_reason)
        except Exception as error:
            reason = type(error).__name__
            _log.warning("stream side did not start", error=repr(error))
        finally:
            stopping.cancel()
            self.services.stream = None
            # After a crash Faust's stop raises what it finds half torn down; the App is never used again.
            with contextlib.suppress(Exception):
                await _within(app.stop(), STREAM_STOP_S)
        return reason, running

    async def _start(self, app: PaymentApp) -> None:
        await self.services.ensure_topics()
        await app.start()

    def stop(self) -> None:
        self._stopping.set()


async def _within(
    work: Coroutine[Any, Any, None], limit_s: float, stopping: "asyncio.Future[Any] | None" = None
) -> None:
    """Faust's work, as a task of its own, until it ends or `stopping` does. Faust swallows cancellations, and may end
    as if it had been cancelled when nobody did: neither reaches, or holds up, whoever waits here.

    Raises what the work raises; TimeoutError; RuntimeError when it was cancelled from inside.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        awaited = (task,) if stopping is None else (task, stopping)
        await asyncio.wait(awaited, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = task.done()
        task.cancel()
    if not ended:
        await asyncio.wait((task,), timeout=CLOSE_S)
        if stopping is None or not stopping.done():
            raise TimeoutError(f"not done in {limit_s:.0f} s")
    elif task.cancelled():
        raise RuntimeError("cancelled from inside")
    else:
        task.result()


@contextlib.asynccontextmanager
async def serving(services: Services) -> AsyncIterator[None]:
    """The web server. Started first and stopped last: it answers 503 while the rest drains."""
    of_web = services.web()
    runner = SiteRunner(build_site(of_web), of_web, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=CLOSE_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, services.settings.port, reuse_port=False).start()
        _log.info("web is up", port=services.settings.port)
        yield
    finally:
        await runner.cleanup()


def calm_garbage_collection() -> None:
    """Thousands of payments under way are hundreds of thousands of live objects; with Python's own thresholds they
    are walked through again and again, which halved the rate (measured: 2,700 against 5,200 orders/s). What was made
    at the start is never walked through, the rest less often. Cycles are still found, so memory stays bounded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _migrated(settings: Settings, stop: asyncio.Event) -> None:
    """Migrations, waiting for the database as long as it takes: /ready says meanwhile what is missing."""
    while not stop.is_set():
        try:
            for name in await migrate(settings):
                _log.info("migrated", file=name)
            return
        except Unavailable as error:
            _log.warning("the migrations wait", error=error.message)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MIGRATE_AGAIN_S):
                await stop.wait()


async def run_worker(
    settings: Settings, on_ready: Callable[[Services], Awaitable[None]] | None = None,
    on_drain: Callable[[], None] = lambda: None,
) -> int:  # fmt: skip
    """Until a signal, or until something of ours dies. Returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    calm_garbage_collection()
    async with build_services(settings) as services, serving(services):
        if settings.migrate_on_start:
            await _migrated(settings, stop)
        streams = StreamSide(services)
        services.metrics.watch("stream_running", lambda: services.stream_running)
        watch = CallWatch(services.database, services.metrics, services.hold_orders)
        queue = services.order_queue()
        tasks = _started(services, {"watch": watch, "streams": streams, "queue": queue})
        stopping = asyncio.create_task(stop.wait(), name="signal")
        if on_ready is not None:
            await on_ready(services)
        done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        code = 0
        for task in done - {stopping}:
            error = None if task.cancelled() else task.exception()
            _log.error("a part of the worker ended", part=task.get_name(), error=repr(error), exc_info=error)
            code = 1
        _log.info("draining", seconds=DRAIN_S)
        on_drain()
        services.draining = True
        services.live.end()
        streams.stop()
        await asyncio.wait(
            {
                asyncio.create_task(services.effects.stop(DRAIN_S)),
                asyncio.create_task(services.webhook_sweep.stop(DRAIN_S)),
                asyncio.create_task(services.method_sweep.stop()),
                *([asyncio.create_task(services.tell_orders.stop(DRAIN_S))] if services.tell_orders else []),
                *([asyncio.create_task(queue.stop(DRAIN_S))] if queue else []),
                *(task for task in tasks if task.get_name() == "streams"),
            },
            timeout=DRAIN_S,
        )
        last = (services.anchors.last(), services.provider_stats.last(), services.facts.last())
        for error in filter(None, await asyncio.gather(*last, return_exceptions=True)):
            _log.error("something was not told at the end", error=repr(error), exc_info=error)
        await services.publisher.stop()
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.wait({*tasks, stopping}, timeout=CLOSE_S)
    return code


class _Part(Protocol):
    async def run(self) -> None:
        """Until it is cancelled or stopped; whatever else ends it ends the worker."""


def _started(services: Services, more: Mapping[str, _Part | None]) -> set[asyncio.Task[None]]:
    """Everything that runs as long as the worker, each part under its name. None: there is no such part here."""
    parts: dict[str, _Part | None] = {
        "effects": services.effects,
        "publisher": services.publisher,
        "anchors": services.anchors,
        "webhooks": services.webhook_sweep,
        "methods": services.method_sweep,
        "token keys": services.token_keys,
        "orders": services.tell_orders,
        "counts": services.counts,
        "live": services.live,
        "ended sessions": services.ended_sessions,
        "provider stats": services.provider_stats,
        "payment facts": services.facts,
        "old rows": ForgetOld(services.keys, services.webhook_store, services.metrics),
        **more,
    }
    running = {asyncio.create_task(part.run(), name=name) for name, part in parts.items() if part is not None}
    return running | {asyncio.create_task(watch_loop(services.metrics), name="loop")}


def run(settings: Settings) -> int:
    """The worker as a process: on uvloop. Once it drains it ends, whatever hangs."""
    return uvloop.run(
        _to_the_end(run_worker(settings, on_drain=lambda: faulthandler.dump_traceback_later(END_S, exit=True)))
    )


async def _to_the_end(work: Coroutine[Any, Any, int]) -> int:
    """asyncio waits for every task, and Python for every thread. All of ours has ended with `work`; what Faust has left
    may never end (seen: its consumer, while the broker is away), so then the process ends without it."""
    code = await work
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CLOSE_S)
    names = [task.get_name() for task in left if not task.done()]
    names += [thread.name for thread in threading.enumerate() if isinstance(thread, WorkerThread)]
    if names:
        _log.warning("the process ends without what Faust has left", left=names[:LEFT_SHOWN_MAX])
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    return code


def run_dev(settings: Settings) -> int:
    """Everything on this machine: embedded broker and PostgreSQL where none is named, migrations, the worker."""
    return uvloop.run(_to_the_end(_dev(settings)))


async def _dev(settings: Settings) -> int:
    async with EmbeddedServices(
        settings.data_dir, broker=settings.embedded_broker, database=settings.embedded_database
    ) as embedded:
        pointed = settings.with_services(
            database_url=embedded.database_url if settings.embedded_database else None,
            kafka_brokers=embedded.kafka_brokers,
        )
        return await run_worker(pointed, _greet)


async def _greet(services: Services) -> None:
    """What somebody who starts this for the first time wants to know."""
    url = f"http://127.0.0.1:{services.settings.port}"
    token = make_token(services.settings, "demo-user", [], DEMO_TOKEN_S)
    print(  # noqa: T201 - for the person at the terminal
        f"\nThe payment service answers at {url}\n\n"
        f"A token for the user demo-user (24 h):\n  {token}\n\n"
        "A first payment:\n"
        f"  TOKEN={token}\n"
        f'  curl -s {url}/api/v1/payments -H "Authorization: Bearer $TOKEN" '
        "-H 'Content-Type: application/json' \\\n"
        '    -d \'{"orderId":"order-1","amount":99.99,"currency":"USD"}\'\n\n'
        f"How to pay it, and all else: {url}/api-docs\n"
        f"For operators: {url}/console, with a token of `payment-service token --user YOU --role admin`\n\n"
        "Ctrl-C stops everything.\n",
        flush=True,
    )
