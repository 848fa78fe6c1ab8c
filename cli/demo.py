"""`payment-service demo`: a small shop's traffic through a running service, judged at the end.

Room: cli. What happens in the shop is demo_stories.py's, how it is sent demo_traffic.py's, the verdict
demo_report.py's. aiohttp's client and aiokafka are imported when it runs.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from payment_service.cli import service
from payment_service.cli.outcome import NOTHING, OK, UNAVAILABLE, USAGE, Failed, end, explaining
from payment_service.cli.output import console, json_option, print_json
from payment_service.core.terms import Topic

if TYPE_CHECKING:
    import aiohttp

    from payment_service.cli.demo_stories import Story
    from payment_service.cli.demo_traffic import Ended, Shop
    from payment_service.offline import Settings

ORDERS_MAX = 5_000
START_TIMEOUT_S = 180.0
"""The first start unpacks a PostgreSQL."""
STOP_TIMEOUT_S = 40.0
PROBE_TIMEOUT_S = 5.0
PROBE_PAUSE_S = 0.3
WARM_UP_S = 60.0
QUIET_TIMEOUT_S = 20.0
"""How long the last events may take after the last answer."""
TOKEN_S = 3600
DEAD_LETTERS = "payment-dead-letters"


@click.command(short_help="Send a shop's traffic through it.")
@click.option("--url", help="The service's address; default: PORT on this machine.")
@click.option("--orders", type=click.IntRange(20, ORDERS_MAX), default=300, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed, the same shop.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Default: demo.svg in DATA_DIR.")
@json_option
@explaining
def demo(url: str | None, orders: int, seed: int, picture: Path | None, as_json: bool) -> None:
    """Send a small shop's traffic through the service and check what came of it.

    Orders, cancellations, duplicates and junk by Kafka; payments, declines, 3-D Secure, captures and refunds by
    REST. Uses the service that runs, else starts `payment-service dev` for the time of the demo. Exit 1 when a
    check fails.
    """
    settings = service.load_settings()
    if settings.is_production:
        raise Failed("the demo makes payments and tokens of its own; it does not run in production", USAGE)
    address = (url or f"http://127.0.0.1:{settings.port}").rstrip("/")
    file = picture or settings.data_dir / "demo.svg"
    end(OK if asyncio.run(_demo(settings, address, orders, seed, file, as_json)) else NOTHING)


async def _demo(settings: "Settings", url: str, orders: int, seed: int, file: Path, as_json: bool) -> bool:
    import aiohttp

    from payment_service.cli import demo_report as report
    from payment_service.cli.demo_picture import picture
    from payment_service.cli.demo_stories import stories

    plan = stories(f"demo-{uuid4().hex[:8]}", orders, seed)
    async with (
        aiohttp.ClientSession() as session,
        _service(settings, url, session),
        _shop(settings, url, session, plan[0].run) as shop,
    ):
        await _warm_up(shop, plan[0])
        started = time.monotonic()
        ended = await _with_progress(shop, plan)
        await _quiet(shop, ended)
        took_s = time.monotonic() - started
    watch = shop.watch
    checks = report.judge(ended, watch.events, watch.dead_letters)
    unique = {(seen.topic, seen.event["id"]): seen for all_seen in watch.events.values() for seen in all_seen}
    moments = [(seen.at_s - started, seen.topic) for seen in unique.values()]
    subtitle = f"{orders} orders, {shop.sent} messages, {len(shop.calls)} calls, {len(unique)} events in {took_s:.0f} s"
    await asyncio.to_thread(_write, file, picture(moments, "Events of the payment service", subtitle))
    if as_json:
        print_json(report.as_json(ended, watch.events, shop.calls, shop.seen_s, checks, str(file)))
    else:
        report.show(ended, watch.events, shop.calls, shop.seen_s, checks, str(file))
    return all(check.passed for check in checks)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


@contextlib.asynccontextmanager
async def _shop(settings: "Settings", url: str, session: "aiohttp.ClientSession", run: str) -> AsyncIterator["Shop"]:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    from payment_service.cli.demo_traffic import Shop
    from payment_service.cli.demo_watch import Watch

    options = service.broker_options(settings)
    consumer = AIOKafkaConsumer(**options, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(**options, acks="all")
    reading: asyncio.Task[None] | None = None
    tokens: dict[str, str] = {}

    def token_of(user_id: str) -> str:
        if user_id not in tokens:
            tokens[user_id] = service.make_token(settings, user_id, (), TOKEN_S)
        return tokens[user_id]

    try:
        await consumer.start()
        await producer.start()
        watch = Watch(consumer, run, settings.topic_prefix, settings.topic(DEAD_LETTERS))
        names = [settings.topic(topic) for topic in (*Topic, DEAD_LETTERS)]
        await watch.prepare(await service.partitions_of(settings, names))
        reading = asyncio.create_task(watch.read())
        yield Shop(url, session, producer, watch, settings.topic(settings.order_topics[0]), token_of)
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.wait({reading})
        await producer.stop()
        await consumer.stop()


async def _warm_up(shop: "Shop", story: "Story") -> None:
    try:
        await shop.warm_up(replace(story, number=ORDERS_MAX), WARM_UP_S)
    except TimeoutError:
        raise Failed(
            "an order that was sent did not become a payment",
            UNAVAILABLE,
            "Does the service read the same broker? KAFKA_BROKERS and TOPIC_PREFIX must be the same for both.",
        ) from None


async def _with_progress(shop: "Shop", plan: Any) -> "list[Ended]":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[events]} events"),
    )  # fmt: skip
    with Progress(*columns, console=console(stderr=True)) as progress:
        bar = progress.add_task("Shoppers served", total=len(plan), events=0)

        def told(_: "Ended") -> None:
            progress.update(bar, advance=1, events=shop.watch.count)

        return await shop.open(plan, told)


async def _quiet(shop: "Shop", ended: "list[Ended]") -> None:
    """Until the topics say what REST says, or no longer than a little while."""
    from payment_service.cli import demo_report as report
    from payment_service.cli.demo_watch import settled

    def said_all() -> bool:
        checks = report.judge(ended, shop.watch.events, shop.watch.dead_letters)
        return all(check.passed for check in checks[1:])

    await settled(said_all, QUIET_TIMEOUT_S, asyncio.sleep)


@contextlib.asynccontextmanager
async def _service(settings: "Settings", url: str, session: "aiohttp.ClientSession") -> AsyncIterator[None]:
    """The service that answers there, else one of our own for this block."""
    told = console(stderr=True)
    if await _probe(session, url) is not None:
        told.print(f"Using the service at {url}.")
        await _ready(session, url, lambda: None)
        yield
        return
    log = settings.data_dir / "demo-service.log"
    told.print(f"Nothing answers at {url}: starting `payment-service dev` for the demo (its log: {log}).")
    await asyncio.to_thread(_write, log, "")
    with log.open("ab") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "payment_service.cli.main", "dev",
            stdout=output, stderr=output, env={**os.environ, "PORT": url.rpartition(":")[2]},
        )  # fmt: skip
    try:
        await _ready(session, url, partial(_still_there, child, log))
        yield
    finally:
        await _stop(child)


def _still_there(child: asyncio.subprocess.Process, log: Path) -> None:
    if child.returncode is not None:
        raise Failed(f"`payment-service dev` ended at once with {child.returncode}", UNAVAILABLE, f"See {log}.")


async def _probe(session: "aiohttp.ClientSession", url: str) -> dict[str, Any] | None:
    """What /ready says; None: nobody answers."""
    import aiohttp

    try:
        async with session.get(f"{url}/ready", timeout=aiohttp.ClientTimeout(PROBE_TIMEOUT_S)) as response:
            answer = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else {}


async def _ready(session: "aiohttp.ClientSession", url: str, check: Any) -> None:
    """REST takes payments and the stream side runs."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        check()
        if _runs(await _probe(session, url)):
            return
        if time.monotonic() > deadline:
            raise Failed(f"the service at {url} is not ready after {START_TIMEOUT_S:.0f} s", UNAVAILABLE,
                         f"{url}/ready says why.")  # fmt: skip
        await asyncio.sleep(PROBE_PAUSE_S)


def _runs(answer: dict[str, Any] | None) -> bool:
    data = (answer or {}).get("data", {})
    stream = data.get("stream", {})
    waits = stream.get("rebalancing") or stream.get("recovering")
    return bool(data.get("ready") and stream.get("running") and not waits)


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(child.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        child.kill()
        await child.wait()
