"""REST with all its middleware, and beside it an ordinary service and the least work that could do it."""

import asyncio

import aiohttp
from bench.harness import (
    BASELINES,
    POLL_S,
    SETTLE_S,
    WAIT_S,
    Bench,
    Site,
    apply_sql,
    baseline,
    running,
)
from bench.load import Load, token, wrk

from payment_service.adapters.embedded_process import free_port

CONNECTIONS = (1, 64)


async def ours(bench: Bench, site: Site) -> None:
    for connections in CONNECTIONS:
        create = await metered(bench, site, "post.lua", connections, "all", "create")
        create.keep(bench, "all", f"rest create: ours at {connections}")
    await reads(bench, "ours", site.port)
    for connections in CONNECTIONS:
        flow = await metered(bench, site, "flow.lua", connections, "both", "create + process", MIX="create process")
        for kind, name in (("create", "create of it"), ("process", "process of it"), ("both", "create + process")):
            flow.keep(bench, kind, f"rest {name}: ours at {connections}", rate=kind == "both")
        bench.results[f"rest create + process: client CPU us a request at {connections}"] = flow.client_us


async def metered(
    bench: Bench, site: Site, script: str, connections: int, kind: str, name: str, **env: str
) -> Load:  # fmt: skip
    """With the processor time of everybody for each of this kind that was answered, at the largest load alone."""
    before = bench.processors.spent(site.pid)
    load = wrk(script, site.port, connections, **env)
    await asyncio.sleep(SETTLE_S)
    spent = bench.processors.spent(site.pid)
    if connections == CONNECTIONS[-1] and kind in load.timings:
        for who, us in spent.each_us(before, load.timings[kind].count).items():
            bench.results[f"rest {name}: {who} CPU us each"] = us
    return load


async def reads(bench: Bench, name: str, port: int) -> None:
    order = {"orderId": f"read-{bench.run}", "amount": 99.99, "currency": "USD"}
    headers = {"Authorization": f"Bearer {token()}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"http://127.0.0.1:{port}/api/v1/payments", json=order) as answer,
    ):
        payment = (await answer.json())["data"]["id"]
    for connections in CONNECTIONS:
        load = wrk("get.lua", port, connections, PAYMENT=payment)
        load.keep(bench, "all", f"rest read: {name} at {connections}")


async def other(bench: Bench, *, name: str, has_reads: bool) -> None:
    dsn, port = bench.database(name), free_port()
    apply_sql(dsn, BASELINES / "schema.sql")
    env = bench.env(DATABASE_URL=dsn, PORT=str(port))
    with running(baseline(f"{name}.py"), env, bench.folder / f"{name}.log"):
        await until_answers(port)
        for connections in CONNECTIONS:
            wrk("post.lua", port, connections).keep(bench, "all", f"rest create: {name} at {connections}")
        if has_reads:
            await reads(bench, name, port)


async def until_answers(port: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(POLL_S)
            else:
                writer.close()
                return
