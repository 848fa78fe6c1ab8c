"""What a run breaks: two workers, each with a wire of its own to PostgreSQL, a broker, a database and a provider."""

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import psycopg2
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from crash.chaos import WORKERS
from crash.history import History
from crash.traffic_client import CALL_S
from rigs.commit_cutter import CommitCutter
from rigs.restartable_postgres import RestartablePostgres
from rigs.sim_process import SimProcess
from rigs.tcp_proxy import TcpProxy
from rigs.worker import Installation, Worker
from servers.kafka import KafkaServer, installed_jars

SHORT = {
    "LEASE_S": "4", "PROVIDER_DEADLINE_S": "2", "PROCESS_WAIT_S": "4", "ACTION_TTL_S": "12",
    "STREAM_IN_FLIGHT_MAX": "40", "OUTBOX_SHARDS": "8",
}  # fmt: skip
"""What a dead worker was doing is taken over within seconds, so that a run ends."""
GROUP_EMPTY_WAIT_S = 40.0
POLL_S = 0.2
WEBHOOK_SECRET = "whsec_of_the_crash_rig"


@dataclass(slots=True)
class Servers:
    """They outlive a run: each has its own database and topics."""

    kafka: KafkaServer
    postgres: RestartablePostgres
    restarting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One restart of the broker at a time; both faults may be under way."""

    async def restart_kafka(self, *, kill: bool, away_s: float) -> None:
        async with self.restarting:
            if kill:
                self.kafka.kill()
            else:
                await asyncio.to_thread(self.kafka.stop)
            await asyncio.sleep(away_s)
            self.kafka._launch(installed_jars())  # on this thread: the broker dies with it
            ready = await asyncio.to_thread(self.kafka._became_ready)
            assert ready, "the broker does not come back"


class Site:
    """`async with` starts everything; at its end all of it that is of this run is gone."""

    def __init__(
        self, folder: Path, servers: Servers, database_url: str, history: History, chance: random.Random, provider: str,
        *, auto: bool, webhooks: bool,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.servers = servers
        self.history = history
        self.chance = chance
        self.provider = provider
        self._database_url = database_url
        self._auto = auto
        self._webhooks = webhooks
        self.env: dict[str, str] = {}
        self._stack = AsyncExitStack()
        self.wires: list[CommitCutter] = []
        self.workers: list[Worker] = []
        self.session: aiohttp.ClientSession
        self.sim: SimProcess
        self.installation: Installation
        self.frozen: set[int] = set()
        self._down: set[int] = set()
        """Those that were killed or stopped here and not started again: any other that does not run ended by itself."""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        enter = self._stack.enter_async_context
        self.session = await enter(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_S)))
        latency = self.chance.choice(("0", "20", "80", "200"))
        self.sim = SimProcess(
            self.folder, self.session, "--latency-ms", latency, "--settle-ms", "1500", "--seed",
            str(self.chance.randrange(10**6)), "--webhook-secret", WEBHOOK_SECRET,
            "--paypal-webhook-id", WEBHOOK_SECRET,
        )  # fmt: skip
        self.installation = await enter(
            Installation(self.folder, self.servers.kafka.address, self._database_url, **self._env())
        )
        self.env = self.installation.env
        await self.installation.make_order_topic()
        address = urlsplit(self._database_url)
        assert address.hostname is not None and address.port is not None
        static = self.chance.random() < 0.5
        for number in range(WORKERS):
            wire = await enter(CommitCutter(address.hostname, address.port))
            near = f"{address.username}:{address.password}@127.0.0.1:{wire.port}"
            through = urlunsplit(("postgresql", near, address.path, address.query, ""))
            names = {"POD_NAME": f"pod-{number}"} if static else {}
            self.wires.append(wire)
            self.workers.append(self.installation.worker(DATABASE_URL=through, **names))
        if self._webhooks:
            front = await enter(Front(self.workers))
            self.sim.options += ["--webhook-url", f"http://127.0.0.1:{front.port}/api/v1/webhooks/{self.provider}"]
        self.sim.start()
        self._stack.callback(self.sim.kill)
        await self.sim.ready()
        for worker in self.workers:
            worker.start()
        await asyncio.gather(*(worker.ready(60) for worker in self.workers))
        await asyncio.gather(*(worker.streaming(60) for worker in self.workers))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()  # as if without an error: no log is printed, the folder has them

    def _env(self) -> dict[str, str]:
        env = {**SHORT, "PAYMENT_PROVIDER": self.provider, "LOG_LEVEL": "INFO", "REFUND_ROLES": "owner"}
        # After the short one a charge is never sent again: it is given up; what a person must decide comes sooner too.
        env["RESEND_WINDOW_S"] = self.chance.choice(("60", "60", "8"))
        env["AUTO_PROCESS_ORDERS"] = "true" if self._auto else "false"
        if self.provider == "stripe":
            env |= {"STRIPE_API_BASE": self.sim.url, "STRIPE_SECRET_KEY": "sk_test_crash_rig"}
            env |= {"STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET, "STRIPE_RATE_PER_S": "200"}
        elif self.provider == "paypal":
            env |= {"PAYPAL_API_BASE": self.sim.url, "PAYPAL_CLIENT_ID": "rig", "PAYPAL_CLIENT_SECRET": "of-the-rig"}
            env |= {"PAYPAL_WEBHOOK_ID": WEBHOOK_SECRET, "PAYPAL_WEBHOOK_VERIFICATION": "postback"}
            env["PAYPAL_RATE_PER_S"] = "200"
        else:
            env |= {"MOCK_PROVIDER_URL": self.sim.url, "MOCK_WEBHOOK_SECRET": WEBHOOK_SECRET}
        return env

    # --- who is who ------------------------------------------------------------------------------------------

    def rows(self, query: str) -> list[Any]:
        """Empty while the database is away."""
        try:
            return self.installation.rows(query)
        except psycopg2.Error:
            return []

    def worker_of_pid(self, pid: int) -> int | None:
        found = [number for number, worker in enumerate(self.workers) if worker.running and worker.pid == pid]
        return found[0] if found else None

    def owner_of_open_call(self) -> int | None:
        """Of an intent that is committed and not answered yet."""
        for (owner,) in self.rows(
            "select owner from payment_service.transactions where status = 'PENDING' and owner is not null"
            " and due_at > now() order by updated_at desc limit 3"
        ):
            number = self.worker_of_pid(int(str(owner).rpartition(":")[2]))
            if number is not None:
                return number
        return None

    def owner_of_outbox(self) -> int | None:
        for (port,) in self.rows(
            "select a.client_port from pg_locks l join pg_stat_activity a using (pid)"
            f" where l.locktype = 'advisory' and l.classid = {0x7061_796F} and l.granted"
        ):
            for number, wire in enumerate(self.wires):
                if port in wire.far_ports:
                    return number
        return None

    # --- what is done to the workers -------------------------------------------------------------------------

    def kill(self, number: int) -> None:
        if self.workers[number].running:
            if number in self.frozen:
                self.thaw(number)
            self._down.add(number)
            self.workers[number].kill()

    def revive(self, number: int) -> None:
        self.look()
        if not self.workers[number].running:
            self._down.discard(number)
            self.workers[number].start()

    def look(self) -> None:
        """A worker that ends by itself is a violation, however well everything settles without it."""
        for number, worker in enumerate(self.workers):
            if not worker.running and number not in self._down:
                self._down.add(number)
                self.history.note("unsettled", text=f"worker {number} ended by itself")

    def freeze(self, number: int) -> bool:
        if number in self.frozen or not self.workers[number].running:
            return False
        self.workers[number].freeze()
        self.frozen.add(number)
        return True

    def thaw(self, number: int) -> None:
        if number in self.frozen:
            self.frozen.discard(number)
            if self.workers[number].running:
                self.workers[number].thaw()

    async def stop(self, number: int) -> None:
        """SIGTERM; a drain that takes too long or ends badly is a violation of its own."""
        if number in self.frozen or not self.workers[number].running:
            return
        self._down.add(number)
        try:
            code, took_s = await self.workers[number].stop()
        except AssertionError as error:
            self.history.note("unsettled", text=f"worker {number}: {str(error).splitlines()[0]}")
            return
        self.history.note("stopped", worker=number, code=code, took_s=round(took_s, 2))
        if code not in (0, -9, -15):  # killed meanwhile, or before it had begun to listen to signals
            self.history.note("unsettled", text=f"worker {number} ended with {code} after SIGTERM")

    # --- the group -------------------------------------------------------------------------------------------

    async def reset_offsets(self) -> bool:
        """Everything is to be read again. Needs an empty group: call it with both workers down."""
        group = self.installation.group
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers.kafka.address)
        try:
            await admin.start()
            for _ in range(int(GROUP_EMPTY_WAIT_S / POLL_S)):
                (answer,) = await admin.describe_consumer_groups([group])
                if answer.groups[0][2] in ("Empty", "Dead"):
                    break
                await asyncio.sleep(POLL_S)
            else:
                return False
            committed = await admin.list_consumer_group_offsets(group)
        except KafkaError:
            return False
        finally:
            await admin.close()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.servers.kafka.address, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            tps: list[TopicPartition] = list(committed)
            if not tps:
                return False
            consumer.assign(tps)
            await consumer.commit(dict.fromkeys(tps, 0))
        except KafkaError:
            return False
        finally:
            await consumer.stop()
        return True


class Front(TcpProxy):
    """One address for both workers, as a balancer has: each connection goes to one that runs."""

    def __init__(self, workers: list[Worker]) -> None:
        super().__init__("127.0.0.1", 0)
        self._workers = workers
        self._turn = 0

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running = [worker for worker in self._workers if worker.running] or self._workers
        self._turn += 1
        self._target = "127.0.0.1", int(running[self._turn % len(running)].url.rpartition(":")[2])
        await super()._carry(reader, writer)
