"""Those who send what a plan says: the shop's producer, and shoppers who try again and write down what they are told.

A time-out and a broken connection are "unknown": the service may have done it. What a caller may safely ask again is
asked again, of whichever worker; a refund is not, since a refund without a key is always a new one.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from crash.history import History
from crash.traffic import Ask, OrderEvent, Shopper, Traffic, major
from rigs.worker import Worker, token_of

CALL_S = 8.0
"""Longer than PROCESS_WAIT_S of the rig, so that an honest answer arrives."""
TRIES_MAX = 15
PAUSE_S = 0.4
POLLS_MAX = 12
UNREACHED = 0
UNSURE = (500, 502)
"""Answers after which it may have happened all the same."""
Told = tuple[int | None, dict[str, Any]]
"""Status and body; None when nobody answered, UNREACHED when nobody was there to ask."""


class Shop:
    """The order service's producer."""

    def __init__(self, history: History, broker: str, topic: str) -> None:
        self._history = history
        self._topic = topic
        self._producer = AIOKafkaProducer(
            bootstrap_servers=broker, acks="all", enable_idempotence=True, linger_ms=5, retry_backoff_ms=200
        )

    async def run(self, events: tuple[OrderEvent, ...], started: float) -> None:
        """Each at its time; those of one partition keep their order also while the broker is away."""
        await self._producer.start()
        try:
            lanes = {number: [it for it in events if it.partition == number] for number in range(4)}
            await asyncio.gather(*(self._lane(lane, started) for lane in lanes.values()))
        finally:
            await self._producer.stop()

    async def _lane(self, events: list[OrderEvent], started: float) -> None:
        for event in events:
            await asyncio.sleep(started + event.at_s - time.monotonic())
            await self._send(event)

    async def _send(self, event: OrderEvent) -> None:
        line: dict[str, Any] = {
            "kind": event.kind, "order_id": event.order_id, "user_id": event.user_id, "currency": event.currency,
            "amount_minor": event.amount_minor, "method": event.method, "partition": event.partition,
            "value": None if event.value is None else event.value.decode("latin-1"),
        }  # fmt: skip
        try:
            place = await self._producer.send_and_wait(
                self._topic, event.value, key=event.key, partition=event.partition, headers=list(event.headers)
            )
        except KafkaError as error:  # it may be there
            self._history.note("order", **line, acked=False, offset=None, error=repr(error))
        else:
            self._history.note("order", **line, acked=True, offset=place.offset)


class Client:
    """Speaks to the workers, and notes each call and each answer."""

    def __init__(
        self, history: History, workers: list[Worker], session: aiohttp.ClientSession, chance: random.Random
    ) -> None:
        self._history = history
        self._workers = workers
        self._session = session
        self._chance = chance

    async def once(self, op: str, method: str, path: str, who: Shopper, payment_id: str | None, **body: Any) -> Told:
        sent = {name: value for name, value in body.items() if value is not None}
        worker = self._chance.choice([it for it in self._workers if it.running] or self._workers)
        kept = {**sent, "amount_minor": who.amount_minor, "currency": who.currency, "user_id": who.user_id}
        number = self._history.call(
            op=op, order_id=who.order_id, payment_id=payment_id, body=kept, worker=self._workers.index(worker)
        )
        headers = {"Authorization": f"Bearer {token_of(who.user_id)}"}
        try:
            async with self._session.request(
                method, worker.url + path, json=sent if method == "POST" else None, headers=headers,
                timeout=aiohttp.ClientTimeout(total=CALL_S),
            ) as response:  # fmt: skip
                answer: Told = response.status, await response.json()
        except aiohttp.ClientConnectorError as error:  # nobody listens: nothing was sent
            self._history.note("unreached", number=number, error=repr(error))
            return UNREACHED, {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._history.note("unknown", number=number, error=repr(error))
            return None, {}
        self._history.note("answer", number=number, status=answer[0], body=answer[1])
        return answer

    async def until_told(
        self, op: str, method: str, path: str, who: Shopper, payment_id: str | None, *, again: bool = True, **body: Any
    ) -> Told:
        """Again after what is unknown (if that is safe) and after 503 and 429."""
        for attempt in range(TRIES_MAX):
            status, told = await self.once(op, method, path, who, payment_id, **body)
            unsure = status is None or status in UNSURE
            if not (unsure or status in (UNREACHED, 503, 429)) or (unsure and not again):
                return status, told
            await asyncio.sleep(PAUSE_S * min(attempt + 1, 4) * self._chance.uniform(0.5, 1.5))
        return None, {}


class Provider:
    """The provider beside us: the shopper's yes, the dashboard, the bank."""

    def __init__(self, history: History, url: str, session: aiohttp.ClientSession) -> None:
        self._history = history
        self._url = url
        self._session = session

    async def does(self, what: str, payment_id: str, path: str, **body: Any) -> dict[str, Any]:
        """Noted before it is asked: an approval whose answer is lost was given all the same."""
        self._history.note(what, payment_id=payment_id, path=path, body=body)
        try:
            async with self._session.post(
                f"{self._url}/_sim{path}", json=body, timeout=aiohttp.ClientTimeout(total=CALL_S)
            ) as response:
                if response.status >= 300:  # it cannot be done: not there yet, or done already
                    self._history.note("provider", path=path, status=response.status, text=await response.text())
                    return {}
                told = await response.json()
                self._history.note("provider", path=path, status=response.status, body=told)
                return dict(told)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._history.note("provider", path=path, error=repr(error))
            return {}

    async def movements(self, payment_id: str) -> list[dict[str, Any]]:
        """Empty while it is away."""
        try:
            async with self._session.get(
                f"{self._url}/_sim/movements?payment_id={payment_id}", timeout=aiohttp.ClientTimeout(total=CALL_S)
            ) as response:
                return list((await response.json())["movements"])
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return []


class Walk:
    """One shopper's way through the shop."""

    def __init__(self, client: Client, provider: Provider, who: Shopper) -> None:
        self._client = client
        self._provider = provider
        self._who = who
        self._payment: dict[str, Any] = {}
        self._dispute: str | None = None

    async def run(self, started: float) -> None:
        await asyncio.sleep(started + self._who.at_s - time.monotonic())
        await self._create()
        for ask in self._who.asks:
            if not self._payment:
                return
            await asyncio.sleep(ask.pause_s)
            both = (ask, ask.beside) if ask.beside is not None else (ask,)
            await asyncio.gather(*(self._do(one, late=one is not ask) for one in both))

    async def _do(self, ask: Ask, *, late: bool) -> None:
        if late:
            await asyncio.sleep(ask.pause_s)
        steps: dict[str, Callable[[Ask], Awaitable[None]]] = {
            "create": self._create, "process": self._process, "capture": self._capture, "cancel": self._cancel,
            "refund": self._refund, "get": self._get, "approve": self._approve, "dashboard refund": self._dashboard,
            "dispute": self._disputed, "dispute won": self._closed, "dispute lost": self._closed,
            "refund fails": self._refund_fails, "deny": self._deny, "expire": self._expire,
        }  # fmt: skip
        await steps[ask.op](ask)

    def _part(self, share: float | None) -> int | None:
        return None if share is None else max(10, int(self._who.amount_minor * share) // 10 * 10)

    def _text(self, share: float | None) -> str | None:
        part = self._part(share)
        return None if part is None else major(part, self._who.currency)

    async def _ask(self, op: str, **body: Any) -> Told:
        payment_id = self._payment["id"]
        again = op != "refund"
        path = f"/api/v1/payments/{payment_id}/{op}"
        told = await self._client.until_told(op, "POST", path, self._who, payment_id, again=again, **body)
        self._see(told)
        return told

    def _see(self, told: Told) -> None:
        data = told[1].get("data") if told[0] is not None and 200 <= told[0] < 300 else None
        if isinstance(data, dict):
            shown = data.get("payment", data)
            self._payment = shown if "orderId" in shown else self._payment

    async def _create(self, ask: Ask | None = None) -> None:
        who = self._who
        told = await self._client.until_told(
            "create", "POST", "/api/v1/payments", who, None, orderId=who.order_id, currency=who.currency,
            amount=major(who.amount_minor, who.currency), captureMethod="manual" if who.manual else None,
        )  # fmt: skip
        self._see(told)

    async def _process(self, ask: Ask) -> None:
        status, _ = await self._ask("process", paymentMethodId=ask.token)
        if status == 202:
            await self._get(ask)

    async def _capture(self, ask: Ask) -> None:
        await self._ask("capture", amount=self._text(ask.share))

    async def _cancel(self, ask: Ask) -> None:
        await self._ask("cancel", reason="changed my mind")

    async def _refund(self, ask: Ask) -> None:
        await self._ask("refund", amount=self._text(ask.share), reason="did not fit")

    async def _get(self, ask: Ask) -> None:
        """Until it is known, with a limit: a person looks again a few times."""
        payment_id = self._payment["id"]
        for _ in range(POLLS_MAX):
            told = await self._client.until_told(
                "get", "GET", f"/api/v1/payments/{payment_id}?sync=true", self._who, payment_id
            )
            self._see(told)
            if self._payment["status"] not in ("PROCESSING", "UNKNOWN"):
                return
            await asyncio.sleep(PAUSE_S)

    async def _approve(self, ask: Ask) -> None:
        if self._payment["status"] == "REQUIRES_ACTION" and self._payment["providerPaymentId"]:
            path = f"/approve/{self._payment['providerPaymentId']}"
            await self._provider.does("shopper", self._payment["id"], path)
            await self._get(ask)

    async def _dashboard(self, ask: Ask) -> None:
        if self._payment["providerPaymentId"] and self._payment["amounts"]["captured"]:
            await self._provider.does(
                "dashboard", self._payment["id"], "/refunds", object_id=self._payment["providerPaymentId"],
                amount_minor=self._part(ask.share),
            )  # fmt: skip

    async def _disputed(self, ask: Ask) -> None:
        if self._payment["providerPaymentId"] and self._payment["amounts"]["captured"]:
            object_id = self._payment["providerPaymentId"]
            made = await self._provider.does("dashboard", self._payment["id"], "/disputes", object_id=object_id)
            self._dispute = made.get("id")

    async def _closed(self, ask: Ask) -> None:
        if self._dispute is not None:
            how = ask.op.rpartition(" ")[2]
            await self._provider.does("dashboard", self._payment["id"], f"/disputes/{self._dispute}/{how}")

    async def _refund_fails(self, ask: Ask) -> None:
        """Days later the bank sends one back, whoever made it."""
        for movement in await self._provider.movements(self._payment["id"]):
            if movement["kind"] == "refund":
                await self._provider.does("dashboard", self._payment["id"], f"/refunds/{movement['id']}/fail")
                return

    async def _deny(self, ask: Ask) -> None:
        if self._payment["status"] == "REQUIRES_ACTION" and self._payment["providerPaymentId"]:
            await self._provider.does("dashboard", self._payment["id"], f"/deny/{self._payment['providerPaymentId']}")
            await self._get(ask)

    async def _expire(self, ask: Ask) -> None:
        if self._payment["status"] == "AUTHORIZED" and self._payment["providerPaymentId"]:
            await self._provider.does("dashboard", self._payment["id"], f"/expire/{self._payment['providerPaymentId']}")


async def run_traffic(shop: Shop, client: Client, provider: Provider, traffic: Traffic, started: float) -> None:
    """Ends when all was sent and every shopper has gone home. Raises what a shopper's own code raises: our bug."""
    walks = (Walk(client, provider, who).run(started) for who in traffic.shoppers)
    await asyncio.gather(shop.run(traffic.events, started), *walks)
