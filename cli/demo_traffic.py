"""The demo's traffic: orders into the topic, and each shopper's calls to the REST API.

Room: cli. Talks to the service as its users do: over Kafka and HTTP alone.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer

from payment_service.cli.demo_stories import REST_FIRST, Kind, Message, Story, cancelled, created, junk, refunds_of
from payment_service.cli.demo_watch import Watch
from payment_service.core.money import to_major

CALL_TIMEOUT_S = 40.0
EVENT_TIMEOUT_S = 45.0
SETTLE_TIMEOUT_S = 20.0
"""How long a shopper whose bank takes its time looks at the page."""
LOOK_S = 1.0
TRIES_MAX = 5
SHOPPERS_MAX = 60
"""Shoppers at their checkout at once."""
HEAD_START_S = 1.0
"""By how much a cancellation comes before its order."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP answer."""

    what: str
    status: int
    code: str | None
    took_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a story ended, as REST says."""

    story: Story
    payment: dict[str, Any] | None
    problem: str | None


@dataclass
class Shop:
    url: str
    session: aiohttp.ClientSession
    producer: AIOKafkaProducer
    watch: Watch
    topic: str
    token_of: Callable[[str], str]
    calls: list[Call] = field(default_factory=list)
    seen_s: list[float] = field(default_factory=list)
    """From sending an order to seeing its payment.created."""
    sent: int = 0

    async def warm_up(self, story: Story, timeout_s: float) -> None:
        """One order that does not count: a service that has just started may not have joined its topics yet.

        Raises: TimeoutError.
        """
        await self._send(created(story, _now(), 0))
        await self.watch.wait(story.order_id, "payment.created", timeout_s)
        self.watch.forget(story.order_id)
        self.sent = 0

    async def open(self, plan: Sequence[Story], told: Callable[[Ended], None]) -> list[Ended]:
        """Live all stories, each at its time. `told` is called as each one ends."""
        places = asyncio.Semaphore(SHOPPERS_MAX)
        started = time.monotonic()

        async def one(story: Story) -> Ended:
            await asyncio.sleep(max(0.0, started + story.at_s - time.monotonic()))
            async with places:
                ended = await self._live(story)
            told(ended)
            return ended

        async with asyncio.TaskGroup() as group:
            broken = group.create_task(self._send_junk(plan))
            tasks = [group.create_task(one(story)) for story in plan]
        broken.result()
        return [task.result() for task in tasks]

    async def _send_junk(self, plan: Sequence[Story]) -> None:
        for message, _ in junk(plan[0].run, len(plan)):
            await self._send(message)

    async def _live(self, story: Story) -> Ended:
        try:
            payment_id = await self._ordered(story)
            await self._shopped(story, payment_id)
            status, answer = await self._call(story, "GET", f"/api/v1/orders/{story.order_id}/payment", "read")
            if status != 200:
                return Ended(story, None, f"its payment cannot be read: {status}")
            return Ended(story, answer["data"], None)
        except (TimeoutError, aiohttp.ClientError) as error:
            return Ended(story, None, f"{type(error).__name__}: {error}".rstrip(": "))
        except Unexpected as error:
            return Ended(story, None, str(error))

    async def _ordered(self, story: Story) -> str:
        """The order becomes known; returns the payment's id."""
        if story.kind in REST_FIRST:
            manual = {"captureMethod": "manual"} if story.kind is not Kind.BY_REST else {}
            body = {"orderId": story.order_id, "amount": story.amount, "currency": story.currency, **manual}
            answer = await self._expect(story, "/api/v1/payments", "create", body, {201})
            return str(answer["data"]["id"])
        if story.kind is Kind.CANCELLED_FIRST:
            await self._send(cancelled(story, _now(), story.number))
            await asyncio.sleep(HEAD_START_S)
        sent_at = time.monotonic()
        await self._send(created(story, _now(), story.number))
        if story.twice:
            await self._send(created(story, _now(), story.number + 1))
        seen = await self.watch.wait(story.order_id, "payment.created", EVENT_TIMEOUT_S)
        self.seen_s.append(seen.at_s - sent_at)
        return str(seen.event["data"]["paymentId"])

    async def _shopped(self, story: Story, payment_id: str) -> None:
        path = f"/api/v1/payments/{payment_id}"
        match story.kind:
            case Kind.LEAVES:
                return
            case Kind.CANCELLED_FIRST:
                await self.watch.wait(story.order_id, "payment.cancelled", EVENT_TIMEOUT_S)
            case Kind.CANCELS:
                await self._send(cancelled(story, _now(), story.number + 2))
                await self.watch.wait(story.order_id, "payment.cancelled", EVENT_TIMEOUT_S)
            case Kind.DECLINED:
                await self._pay(story, path, "tok_chargeDeclinedInsufficientFunds", {402})
            case Kind.PAYS_AT_SECOND_TRY:
                await self._pay(story, path, "tok_chargeDeclined", {402})
                await self._pay(story, path, "tok_visa", {200})
            case Kind.SECURE:
                await self._secure(story, path)
            case Kind.PENDING:
                await self._pay(story, path, "tok_pending", {200, 202})
                await self._look_until_settled(story, path)
            case Kind.CAPTURES:
                await self._pay(story, path, "tok_visa", {200})
                await self._expect(story, f"{path}/capture", "capture", {}, {200, 202})
            case Kind.VOIDS:
                await self._pay(story, path, "tok_visa", {200})
                await self._expect(story, f"{path}/cancel", "cancel", {"reason": "out of stock"}, {200, 202})
            case Kind.REFUND_TOO_MUCH:
                await self._pay(story, path, "tok_visa", {200})
                too_much = {"amount": to_major(story.amount_minor * 2, story.currency)}
                await self._expect(story, f"{path}/refund", "refund too much", too_much, {422})
            case _:
                await self._pay(story, path, "tok_visa", {200})
                for amount_minor in refunds_of(story):
                    body: dict[str, Any] = {"amount": to_major(amount_minor, story.currency), "reason": "sent back"}
                    await self._expect(story, f"{path}/refund", "refund", body, {200, 202})

    async def _pay(self, story: Story, path: str, token: str, wanted: set[int]) -> dict[str, Any]:
        return await self._expect(story, f"{path}/process", "process", {"paymentMethodId": token}, wanted)

    async def _secure(self, story: Story, path: str) -> None:
        """The bank's page is opened, if there is one; a shopper who is stopped there has left."""
        answer = await self._pay(story, path, "tok_threeDSecure", {200, 202})
        action = answer["data"].get("nextAction") or {}
        if action.get("url"):
            async with self.session.get(action["url"], timeout=aiohttp.ClientTimeout(CALL_TIMEOUT_S)) as page:
                if page.status < 400:
                    await self._look_until_settled(story, path)

    async def _look_until_settled(self, story: Story, path: str) -> None:
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            _, answer = await self._call(story, "GET", f"{path}?sync=true", "read")
            if answer.get("data", {}).get("status") not in ("PROCESSING", "REQUIRES_ACTION", "UNKNOWN"):
                return
            await asyncio.sleep(LOOK_S)

    async def _expect(
        self, story: Story, path: str, what: str, body: dict[str, Any], wanted: set[int]
    ) -> dict[str, Any]:
        """A POST with its own Idempotency-Key, the same over all tries. Raises Unexpected."""
        key = f"{story.order_id}:{len(self.calls)}"
        for _ in range(TRIES_MAX):
            status, answer = await self._call(story, "POST", path, what, body, key)
            if status in wanted:
                return answer
            if status not in (409, 503):
                break
            await asyncio.sleep(LOOK_S)
        raise Unexpected(f"{what}: {status} {answer.get('code', '')} {answer.get('message', '')}")

    async def _call(
        self, story: Story, method: str, path: str, what: str, body: dict[str, Any] | None = None, key: str = ""
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.token_of(story.user_id)}"}
        if key:
            headers["Idempotency-Key"] = key
        started = time.monotonic()
        async with self.session.request(
            method, self.url + path, json=body, headers=headers, timeout=aiohttp.ClientTimeout(CALL_TIMEOUT_S)
        ) as response:
            answer = await response.json(content_type=None)
        answer = answer if isinstance(answer, dict) else {}
        self.calls.append(Call(what, response.status, answer.get("code"), time.monotonic() - started))
        return response.status, answer

    async def _send(self, message: Message) -> None:
        await self.producer.send_and_wait(self.topic, message.value, key=message.key, headers=list(message.headers))
        self.sent += 1


class Unexpected(Exception):
    """The service answered what no such shopper should see."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
