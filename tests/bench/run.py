"""`make bench`: how fast, beside what an ordinary service reaches and what the machine allows, all in one run.

Everything is on real Apache Kafka and PostgreSQL with fsync. Only ratios within one run count: the machine is shared
by the service, the load, the broker and the database. Prints a table, writes .data/bench.json. Never asserts.

Environment: BENCH_ORDERS (50000), BENCH_SECONDS (8, each REST load), BASELINES_DIR (another folder of the same
programs), DATABASE_URL and KAFKA_BROKERS (else both are started).
"""

import asyncio
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import jwt
import psycopg2
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # what the tests start their servers with starts ours

from servers import kafka_for_tests, postgres_for_tests  # noqa: E402
from servers.topics import create_topics  # noqa: E402

BASELINES = Path(os.environ.get("BASELINES_DIR", HERE / "baselines"))
ORDERS = int(os.environ.get("BENCH_ORDERS", "50000"))
PLAIN_ORDERS = 8000
PARTITIONS = 4
SECONDS = int(os.environ.get("BENCH_SECONDS", "8"))
SECRET = "bench-secret-of-at-least-32-characters"
WAIT_S = 300.0
WORKER = [sys.executable, "-m", "payment_service.cli.main", "worker"]
console = Console()


@dataclass
class Bench:
    broker: str
    dsn: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    results: dict[str, float] = field(default_factory=dict)

    def database(self, name: str) -> str:
        """A fresh database of its own for each program, so that none measures another's rows."""
        full = f"bench_{self.run}_{name}"
        connection = psycopg2.connect(self.dsn)
        connection.autocommit = True
        connection.cursor().execute(f'create database "{full}"')
        connection.close()
        return re.sub(r"/[^/?]*(\?|$)", rf"/{full}\1", self.dsn, count=1) if "://" in self.dsn else self.dsn

    def env(self, **more: str) -> dict[str, str]:
        return {**os.environ, "BROKER": self.broker, "JWT_SECRET": SECRET, "RATE_LIMIT_MAX": "1000000000", **more}


def spawn(arguments: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments, env=env, cwd=tempfile.gettempdir(), stdout=log.open("wb"), stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def baseline(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(BASELINES / name), *arguments]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def produce(bench: Bench, topic: str, count: int, *others: str) -> None:
    """Make the topic, and those a program writes to, and fill it."""
    await create_topics(bench.broker, [topic, *others], partitions=PARTITIONS)
    subprocess.run(
        baseline("orders_load.py"), env=bench.env(TOPIC=topic, N=str(count)), check=True, capture_output=True
    )


# --- orders ----------------------------------------------------------------------------------------------------


async def plain_faust(bench: Bench, folder: Path) -> None:
    """The median of its own figures for 2,000 events each."""
    topic, dsn = f"plain-{bench.run}", bench.database("plain_faust")
    apply_sql(dsn, BASELINES / "schema.sql")
    await produce(bench, topic, PLAIN_ORDERS, f"created-{bench.run}")
    log = folder / "plain_faust.log"
    env = bench.env(DATABASE_URL=dsn, ORDERS=topic, CREATED=f"created-{bench.run}", GROUP=f"plain-{bench.run}")
    process = spawn(baseline("plain_faust.py", "worker", "--without-web", "-l", "warn"), env, log)
    deadline = time.time() + WAIT_S
    rates: list[float] = []
    while time.time() < deadline and len(rates) < PLAIN_ORDERS // 2000 and process.poll() is None:
        time.sleep(0.5)
        rates = [float(rate) for rate in re.findall(r"plain faust: (\d+)", log.read_text())]
    stop(process)
    rates = sorted(rates[1:])  # the first includes joining the group
    bench.results["orders: plain Faust /s"] = rates[len(rates) // 2] if rates else 0


def apply_sql(dsn: str, path: Path) -> None:
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    connection.cursor().execute(path.read_text())
    connection.close()


async def order_limit(bench: Bench) -> None:
    topic, dsn = f"limit-{bench.run}", bench.database("order_limit")
    apply_sql(dsn, BASELINES / "schema.sql")
    await produce(bench, topic, ORDERS, f"limit-created-{bench.run}")
    env = bench.env(DATABASE_URL=dsn, TOPIC=topic, CREATED=f"limit-created-{bench.run}", N=str(ORDERS))
    done = subprocess.run(baseline("order_limit.py"), env=env, capture_output=True, text=True, timeout=WAIT_S)
    found = re.search(r"(\d+)/s", done.stdout)
    bench.results["orders: limit /s"] = float(found.group(1)) if found else 0


def service_env(bench: Bench, dsn: str, port: int, folder: Path) -> dict[str, str]:
    return bench.env(
        DATABASE_URL=dsn, KAFKA_BROKERS=bench.broker, TOPIC_PREFIX=f"b{bench.run}.", PORT=str(port),
        DATA_DIR=str(folder / "data"), NODE_ENV="development", ENCRYPTION_KEY="0" * 64, LOG_LEVEL="warning",
        RATE_LIMIT_MAX="100000000",
    )  # fmt: skip


async def until_ready(port: int) -> None:
    deadline = time.time() + WAIT_S
    async with aiohttp.ClientSession() as session:
        while time.time() < deadline:
            try:
                async with session.get(f"http://127.0.0.1:{port}/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the service did not become ready")


def payments_count(dsn: str) -> int:
    connection = psycopg2.connect(dsn)
    cursor = connection.cursor()
    cursor.execute("select count(*) from payment_service.payments")
    (count,) = cursor.fetchone() or (0,)
    connection.close()
    return int(count)


async def end_of(bench: Bench, topic: str) -> int:
    """Records in a topic, by its end offsets."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bench.broker)
    await consumer.start()
    try:
        await consumer._client.force_metadata_update()
        partitions = consumer.partitions_for_topic(topic) or await wait_partitions(consumer, topic)
        ends = await consumer.end_offsets([TopicPartition(topic, number) for number in partitions])
        return sum(ends.values())
    finally:
        await consumer.stop()


async def wait_partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    consumer.subscribe([topic])
    await asyncio.sleep(1)
    return consumer.partitions_for_topic(topic) or set()


async def our_orders(bench: Bench, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """From the first payment to the last published event and the last table row. Leaves the worker running."""
    prefix, dsn = f"b{bench.run}.", bench.database("service")
    await produce(bench, prefix + "orders", ORDERS)
    process = spawn(
        WORKER,
        service_env(bench, dsn, port, folder), folder / "service.log",
    )  # fmt: skip
    await until_ready(port)
    started = counted = 0.0
    first = 0
    deadline = time.time() + WAIT_S
    while time.time() < deadline:
        count = payments_count(dsn)
        now = time.time()
        if not started and count:
            started, first, cpu = now, count, cpu_s(process.pid)
        if count >= ORDERS:
            counted = now
            break
        await asyncio.sleep(0.02 if not started else 0.1)
    committed_rate = (ORDERS - first) / (counted - started) if counted > started else 0
    table = f"{prefix}payment-service-payments-changelog"
    while time.time() < deadline:
        if await end_of(bench, prefix + "payment.created") >= ORDERS and await end_of(bench, table) >= ORDERS:
            break
        await asyncio.sleep(0.1)
    ended = time.time()
    bench.results["orders: ours, committed /s"] = committed_rate
    bench.results["orders: ours, published and in the table /s"] = (ORDERS - first) / (ended - started)
    bench.results["orders: ours, own CPU us each"] = (cpu_s(process.pid) - cpu) / (ORDERS - first) * 1e6
    return process


# --- REST ------------------------------------------------------------------------------------------------------


def token() -> str:
    return jwt.encode({"sub": "bench", "exp": int(time.time()) + 3600}, SECRET, algorithm="HS256")


async def wrk_reads(bench: Bench, name: str, port: int) -> None:
    order = {"orderId": f"read-{bench.run}", "amount": 99.99, "currency": "USD"}
    headers = {"Authorization": f"Bearer {token()}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"http://127.0.0.1:{port}/api/v1/payments", json=order) as answer,
    ):
        payment = (await answer.json())["data"]["id"]
    for connections in (1, 64):
        wrk(bench, name, port, connections, "read", PAYMENT=payment)


def wrk(bench: Bench, name: str, port: int, connections: int, what: str = "create", **env: str) -> None:
    threads, script = 1, {"create": "post.lua", "read": "get.lua"}[what]
    done = subprocess.run(
        ["wrk", f"-t{threads}", f"-c{connections}", f"-d{SECONDS}s", "-s", str(HERE / script),
         f"http://127.0.0.1:{port}"],
        env={**os.environ, "TOKEN": token(), "RUN": f"{name}-{connections}-{uuid.uuid4().hex[:6]}", **env},
        capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if found is None:
        console.print(done.stdout, done.stderr)
        return
    requests, duration_us, p50_us, p99_us = map(int, found.groups())
    errors = re.search(r"ERRORS (\d+)", done.stdout)
    bench.results[f"rest {what}: {name} at {connections} /s"] = requests / duration_us * 1e6
    bench.results[f"rest {what}: {name} at {connections} p50 ms"] = p50_us / 1000
    bench.results[f"rest {what}: {name} at {connections} p99 ms"] = p99_us / 1000
    if errors and int(errors.group(1)):
        bench.results[f"rest {what}: {name} at {connections} errors"] = int(errors.group(1))


async def rest_baseline(bench: Bench, name: str, port: int, folder: Path) -> None:
    dsn = bench.database(name)
    apply_sql(dsn, BASELINES / "schema.sql")
    process = spawn(baseline(f"{name}.py"), bench.env(DATABASE_URL=dsn, PORT=str(port)), folder / f"{name}.log")
    await until_answers(port)
    for connections in (1, 64):
        wrk(bench, name, port, connections)
    if name == "plain_rest":
        await wrk_reads(bench, name, port)
    stop(process)


async def until_answers(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            await asyncio.sleep(0.1)
    raise SystemExit(f"nothing listens on {port}")


def pg_limit(bench: Bench) -> None:
    dsn = bench.database("pg_limit")
    done = subprocess.run(baseline("pg_limit.py"), env=bench.env(DATABASE_URL=dsn), capture_output=True, text=True)
    for batch, rate in re.findall(r"batch\s+(\d+):\s+(\d+)", done.stdout):
        bench.results[f"postgresql: limit at batch {batch} /s"] = float(rate)


# --- the run ---------------------------------------------------------------------------------------------------


def need_wrk() -> None:
    if shutil.which("wrk"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "wrk"], check=False, capture_output=True)
    if not shutil.which("wrk"):
        raise SystemExit("make bench needs wrk as load generator: install the package wrk")


def show(bench: Bench) -> None:
    results = bench.results

    def ratio(ours: str, theirs: str) -> str:
        return f"{results[ours] / results[theirs]:.2f}" if results.get(ours) and results.get(theirs) else "-"

    table = Table(title=f"bench, {ORDERS} orders, {platform.machine()}, {os.cpu_count()} cores, one run")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in results.items():
        table.add_row(name, f"{value:,.1f}")
    table.add_section()
    ours = "orders: ours, published and in the table /s"
    table.add_row("orders: ours / plain Faust", ratio(ours, "orders: plain Faust /s"))
    table.add_row("orders: ours / limit", ratio(ours, "orders: limit /s"))
    for connections in (1, 64):
        mine = f"rest create: ours at {connections} /s"
        for name in ("plain_rest", "rest_limit"):
            table.add_row(
                f"rest create at {connections}: ours / {name}", ratio(mine, f"rest create: {name} at {connections} /s")
            )
        theirs = f"rest read: plain_rest at {connections} /s"
        table.add_row(
            f"rest read at {connections}: ours / plain_rest", ratio(f"rest read: ours at {connections} /s", theirs)
        )
    console.print(table)
    target = ROOT / ".data"
    target.mkdir(exist_ok=True)
    (target / "bench.json").write_text(json.dumps(results, indent=1))
    console.print(f"written to {target / 'bench.json'}")


async def main() -> None:
    need_wrk()
    async with AsyncExitStack() as stack:
        kept = tempfile.TemporaryDirectory(prefix="payment-bench-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(kept))
        broker = os.environ.get("KAFKA_BROKERS") or stack.enter_context(kafka_for_tests())
        dsn = os.environ.get("DATABASE_URL") or stack.enter_context(postgres_for_tests())
        bench = Bench(broker, dsn)
        console.print("plain Faust …")
        await plain_faust(bench, folder)
        console.print("order limit …")
        await order_limit(bench)
        console.print("our orders …")
        process = await our_orders(bench, folder, 3997)
        stack.callback(stop, process)
        console.print("REST …")
        for connections in (1, 64):
            wrk(bench, "ours", 3997, connections)
        await wrk_reads(bench, "ours", 3997)
        stop(process)
        await rest_baseline(bench, "plain_rest", 3999, folder)
        await rest_baseline(bench, "rest_limit", 3998, folder)
        pg_limit(bench)
        show(bench)


if __name__ == "__main__":
    asyncio.run(main())
