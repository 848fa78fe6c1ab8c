"""The service as others meet it: worker processes on a topic prefix and a database of their own, spoken to by HTTP.

A worker has a process group of its own, so that `kill()` is what a power cut is, and it dies with the tests.
"""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from servers.postgres import execute
from servers.topics import create_topics

from payment_service.adapters.embedded_process import LAUNCHER, free_port
from payment_service.web.tokens import TokenRules, issue_token

READY_WAIT_S = 40.0
STOP_WAIT_S = 30.0
"""Contract §6: SIGTERM to exit."""
CALL_WAIT_S = 40.0
WAIT_S = 60.0
POLL_S = 0.02
LOG_BYTES_SHOWN = 6000
PARTITIONS = 4
MESSAGE_BYTES_MAX = 1_048_576
JWT_SECRET = "a-secret-of-these-tests-with-more-than-32-characters"
ENCRYPTION_KEY = "0123456789abcdef0123456789abcdef"
PROGRAM = (sys.executable, "-m", "payment_service.cli.main")


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def data(self) -> Any:
        assert self.body.get("success") is True, self
        return self.body["data"]

    @property
    def code(self) -> str:
        assert self.body.get("success") is False, self
        return str(self.body["code"])


class Worker:
    """One process. `start()` again after `stop()` or `kill()` keeps its port, its name and its folder."""

    def __init__(self, folder: Path, command: str, env: Mapping[str, str], session: aiohttp.ClientSession) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._command = command
        self._session = session
        self._port = free_port()
        self.data = folder / "data"
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "DATA_DIR": str(self.data),
            "PORT": str(self._port),
            "PYTHONFAULTHANDLER": "1",
            **env,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def log(self) -> str:
        path = self._folder / "log"
        return path.read_bytes()[-LOG_BYTES_SHOWN:].decode(errors="replace") if path.exists() else "(no log)"

    def start(self, **env: str) -> None:
        """With these changes of the environment, for this start alone."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        dying_with_us = (str(LAUNCHER), str(os.getpid()), f"{signal.SIGKILL:d}", "-1", "-1", "-1")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", *dying_with_us, *PROGRAM, self._command],
                env={**self._env, **env},
                cwd=self._folder,  # no .env of anybody is there
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self, wait_s: float = READY_WAIT_S) -> dict[str, Any]:
        """Until REST takes payments; the answer of /ready."""
        deadline = time.monotonic() + wait_s
        while True:
            answer = await self.try_call("GET", "/ready")
            if answer is not None and answer.status == 200:
                return dict(answer.data)
            self._still(deadline, f"/ready says {answer}")
            await asyncio.sleep(POLL_S)

    async def streaming(self, wait_s: float = WAIT_S) -> None:
        """Until it reads from the broker."""
        await self.until_ready_says(
            lambda now: now["broker"] and now["stream"]["running"] and not now["stream"]["rebalancing"],
            "it reads from the broker", wait_s,
        )  # fmt: skip

    async def until_ready_says(
        self, is_so: Callable[[dict[str, Any]], bool], what: str, wait_s: float = WAIT_S
    ) -> dict[str, Any]:
        deadline = time.monotonic() + wait_s
        while True:
            answer = await self.try_call("GET", "/ready")
            if answer is not None:
                now = dict(answer.body["data"])
                if is_so(now):
                    return now
            self._still(deadline, f"{what}: /ready says {answer}")
            await asyncio.sleep(POLL_S)

    def _still(self, deadline: float, what: str) -> None:
        assert self._process is not None
        assert self._process.poll() is None, f"the worker ended with {self._process.returncode}:\n{self.log}"
        assert time.monotonic() < deadline, f"not in time: {what}\n{self.log}"

    async def stop(self) -> tuple[int, float]:
        """SIGTERM. (exit code, seconds it took)."""
        assert self._process is not None
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        while self._process.poll() is None:
            self._still_ends(started)
            await asyncio.sleep(POLL_S)
        return self._process.returncode, time.monotonic() - started

    def _still_ends(self, started: float) -> None:
        if time.monotonic() - started > STOP_WAIT_S:
            self.kill()
            raise AssertionError(f"SIGTERM did not end it in {STOP_WAIT_S:.0f} s:\n{self.log}")

    def kill(self) -> None:
        """kill -9, of it and everything it started in its group."""
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def freeze(self) -> None:
        """It stands still, as in a long pause of its machine, and knows nothing of it."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def call(
        self, method: str, path: str, body: Any = None, *, user: str | None = None, roles: tuple[str, ...] = (),
        **headers: str,
    ) -> Answer:  # fmt: skip
        """Raises aiohttp.ClientError when nobody answers."""
        if user is not None:
            headers["Authorization"] = f"Bearer {token_of(user, roles)}"
        async with self._session.request(method, self.url + path, json=body, headers=headers) as response:
            return Answer(response.status, await response.json(), response.headers)

    async def numbers(self, *, of_http: bool = False) -> str:
        """Its metrics: those of HTTP, or all others but the interpreter's."""
        try:
            async with self._session.get(self.url + "/metrics", timeout=aiohttp.ClientTimeout(total=5)) as response:
                lines = (await response.text()).splitlines()
        except (aiohttp.ClientError, TimeoutError) as error:
            return repr(error)
        left_out = ("#", "python_", "process_")
        return "\n".join(
            line for line in lines if line.startswith("http_") is of_http and not line.startswith(left_out)
        )

    async def try_call(self, method: str, path: str) -> Answer | None:
        try:
            return await self.call(method, path)
        except (aiohttp.ClientError, TimeoutError):
            return None


def token_of(user: str, roles: tuple[str, ...] = ()) -> str:
    return issue_token(TokenRules(secret=JWT_SECRET), user, roles, now_ms=int(time.time() * 1000))


class Installation:
    """What several workers share: a topic prefix on a broker, and a database. Everything of it ends with the block."""

    def __init__(self, folder: Path, broker: str, database_url: str, **env: str) -> None:
        self.broker = broker
        self.database_url = database_url
        self.prefix = f"t{secrets.token_hex(4)}-"
        self.workers: list[Worker] = []
        self._folder = folder
        self.env = {
            "ENVIRONMENT": "test",
            "KAFKA_BROKERS": broker,
            "DATABASE_URL": database_url,
            "TOPIC_PREFIX": self.prefix,
            "TOPIC_PARTITIONS": str(PARTITIONS),
            "JWT_SECRET": JWT_SECRET,
            "ENCRYPTION_KEY": ENCRYPTION_KEY,
            "PAYMENT_PROVIDER": "mock",
            "RATE_LIMIT_MAX": "1000000",
            "LOG_LEVEL": "WARNING",
            **env,
        }
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_WAIT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        for number, worker in enumerate(self.workers):
            if error is not None:  # pytest shows what is printed
                print(f"--- the numbers of worker {number} ---\n{await worker.numbers()}")  # noqa: T201
                print(f"--- the end of the log of worker {number} ---\n{worker.log}")  # noqa: T201
            if worker.running:
                worker.kill()
        await self._session.close()

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def orders(self) -> str:
        return f"{self.prefix}orders"

    def worker(self, command: str = "worker", **env: str) -> Worker:
        """A further one, not started yet."""
        assert self._session is not None
        worker = Worker(self._folder / f"worker-{len(self.workers)}", command, {**self.env, **env}, self._session)
        self.workers.append(worker)
        return worker

    async def started(self, **env: str) -> Worker:
        worker = self.worker(**env)
        worker.start()
        await worker.ready()
        return worker

    # --- Kafka -----------------------------------------------------------------------------------------------

    async def make_order_topic(self) -> None:
        await create_topics(self.broker, [self.orders], partitions=PARTITIONS)

    async def produce(self, *messages: "Message", compression: str | None = None) -> None:
        """All of them acked, in this order within each partition."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.broker, acks="all", linger_ms=20, max_request_size=MESSAGE_BYTES_MAX,
            compression_type=compression,
        )  # fmt: skip
        async with producer:
            sent = [
                await producer.send(
                    self.orders, one.value, key=one.key, partition=one.partition, headers=list(one.headers)
                )
                for one in messages
            ]
            await asyncio.gather(*sent)

    @property
    def group(self) -> str:
        return f"{self.prefix}payment-service"

    async def until_members(self, count: int, wait_s: float = WAIT_S) -> None:
        """Until so many workers share the partitions, and each has some."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.broker)
        await client.start()
        try:
            deadline = time.monotonic() + wait_s
            while True:
                try:
                    (answer,) = await client.describe_consumer_groups([self.group])
                    _, _, state, _, _, members = answer.groups[0][:6]
                    if state == "Stable" and len(members) == count and all(member[4] for member in members):
                        return
                except GroupCoordinatorNotAvailableError:  # while a fresh broker makes its topic of offsets
                    state, members = "not there", []
                assert time.monotonic() < deadline, f"the group is {state} with {len(members)} members"
                await asyncio.sleep(POLL_S)
        finally:
            await client.close()

    async def all_committed(self, wait_s: float = WAIT_S) -> None:
        """Until a restart would read no order event again."""
        tps = [TopicPartition(self.orders, number) for number in range(PARTITIONS)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker, group_id=self.group, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(tps)
            ends = {tp: end for tp, end in (await consumer.end_offsets(tps)).items() if end}
            deadline = time.monotonic() + wait_s
            while (committed := {tp: await consumer.committed(tp) for tp in ends}) != ends:
                assert time.monotonic() < deadline, f"committed {committed}, end {ends}"
                await asyncio.sleep(0.2)
        finally:
            await consumer.stop()

    # --- PostgreSQL ------------------------------------------------------------------------------------------

    def rows(self, query: str) -> list[Any]:
        return execute(self.database_url, query)

    def count(self, table: str) -> int:
        ((count,),) = self.rows(f"select count(*) from payment_service.{table}")
        return int(count)

    async def until(self, is_so: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + wait_s
        while not is_so():
            assert time.monotonic() < deadline, f"after {wait_s:.0f} s still not so: {what}"
            await asyncio.sleep(POLL_S)

    async def until_told(self, payments: int, wait_s: float = WAIT_S) -> None:
        """Until there are so many payments and every event of theirs was acked by the broker."""
        await self.until(
            lambda: self.count("payments") == payments and not self.count("outbox"),
            f"{payments} payments and an empty outbox", wait_s,
        )  # fmt: skip


class Message(NamedTuple):
    """What is put into the order topic."""

    value: bytes | None
    partition: int | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
