"""The real service, put together by its own app.py, with a counter around each port and a file where Kafka would be.

Also the planted bugs: wrong ports, one mistake each, by which the rig shows that it would see one.
"""

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

from crash.exhaustive_journal import Deaths, Journal
from crash.exhaustive_ledger import LedgerProvider

from payment_service import app
from payment_service.adapters import configured_providers, publisher
from payment_service.adapters.clock import SystemClock
from payment_service.adapters.kafka_message import Message
from payment_service.adapters.postgres import outbox
from payment_service.adapters.providers.registration import Registration
from payment_service.core.ports import Change, Committed
from payment_service.core.use_cases import perform_effects

PLANTS = ("forgetful_provider", "effect_before_intent", "told_before_commit", "acked_before_sent")
POLL_S = 0.02
"""In place of the second that runner and publisher wait between two looks."""
TOO_EARLY_S = 0.05
SENT_LATE_S = 3.0
"""By the planted bug that acks first: longer than it takes to delete a row on a busy machine, or nothing is lost."""
STOOD_S = 30.0
"""How long it seems to have been for a worker that stood still: longer than every lease."""
COUNTED = {
    "store": {"load", "events"},
    "outbox": {"read", "delete"},
    "provider": {"create_object", "send", "lookup"},
}
"""Calls that are counted of each port; of one not named here, every awaited call."""
IDLE = frozenset({"queue.claim", "outbox.read"})
"""Asked again and again, mostly in vain: counted only when something was found, so that "after" is the place to die."""


class JournalClock(SystemClock):
    """Time passes at once when a story says so, for this life and those that follow; and for who stood still."""

    journal: Journal

    def monotonic_s(self) -> float:
        stood = self.journal.path.read_bytes().count(b'"line":"stood"')
        return super().monotonic_s() + stood * STOOD_S

    def now_ms(self) -> int:
        return super().now_ms() + sum(line["ms"] for line in self.journal.lines("later"))


class Counted:
    """A port with a counter around each of its calls."""

    def __init__(self, inner: Any, port: str, deaths: Deaths) -> None:
        self._inner = inner
        self._port = port
        self._deaths = deaths

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        only = COUNTED.get(self._port)
        if not inspect.iscoroutinefunction(value) or (only is not None and name not in only):
            return value

        call = f"{self._port}.{name}"

        async def counted(*arguments: Any, **named: Any) -> Any:
            with self._deaths.at(call):
                return await value(*arguments, **named)

        async def counted_if_found(*arguments: Any, **named: Any) -> Any:
            self._deaths.inside += 1
            try:
                found = await value(*arguments, **named)
            finally:
                self._deaths.inside -= 1
            if found and (not isinstance(found, tuple) or found[0]):
                with self._deaths.at(call):
                    pass
            return found

        chosen = counted_if_found if call in IDLE else counted
        setattr(self, name, chosen)
        return chosen


class CountedStore(Counted):
    """`submit` gives a future: the process dies "after" when it is committed, before anybody hears of it."""

    plant = ""
    provider: Any = None

    def submit(self, change: Change) -> "asyncio.Future[Committed]":
        number = self._deaths.begin("store.submit")
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Committed] = loop.create_future()
        if self.plant == "told_before_commit":
            self._deaths.inside -= 1
            loop.call_later(TOO_EARLY_S, self._inner.submit, change)
            told.set_result(Committed.COMMITTED)
            return told
        if self.plant == "effect_before_intent" and change.intents:
            self._early = loop.create_task(self._too_early(change, number, told))
        else:
            self._submit(change, number, told)
        return told

    async def load(self, *arguments: Any) -> Any:
        with self._deaths.at("store.load"):
            if self.plant == "told_before_commit":
                await asyncio.sleep(2 * TOO_EARLY_S)
            return await self._inner.load(*arguments)

    def _submit(self, change: Change, number: int, told: "asyncio.Future[Committed]") -> None:
        def committed(done: "asyncio.Future[Committed]") -> None:
            self._deaths.end("store.submit", number)
            if told.cancelled():
                return
            error = done.exception()
            told.set_result(done.result()) if error is None else told.set_exception(error)

        self._inner.submit(change).add_done_callback(committed)

    async def _too_early(self, change: Change, number: int, told: "asyncio.Future[Committed]") -> None:
        for intent in change.intents:
            if intent.call.object_id is not None:
                await self.provider.send(intent.call)
        self._submit(change, number, told)


class JournalSender:
    """In place of the Kafka producer: the broker is the journal."""

    connected = True
    deaths: Deaths
    plant = ""

    def __init__(self, *_: Any) -> None:
        self.blocked: set[str] = set()

    def put(self, message: Message) -> None:
        asyncio.get_running_loop().call_soon(self._send, message)

    def _send(self, message: Message) -> None:
        if message.holder.abandoned:
            return
        number = self.deaths.begin("broker.put")
        if self.plant == "acked_before_sent":
            self.deaths.inside += 1  # it will be sent, if nobody dies
            asyncio.get_running_loop().call_later(SENT_LATE_S, self._append_late, message)
        else:
            self._append(message)
        self.deaths.end("broker.put", number)
        message.settle(message, None)

    def _append_late(self, message: Message) -> None:
        self._append(message)
        self.deaths.inside -= 1

    def _append(self, message: Message) -> None:
        assert message.value is not None
        assert message.key is not None
        self.deaths.journal.write(
            "published", topic=message.topic, key=message.key.decode(), value=message.value.decode(),
            headers=[(name, text.decode()) for name, text in message.headers],
        )  # fmt: skip

    async def send(self, topic: str, key: bytes, value: bytes, headers: Sequence[Any], timeout_s: float) -> None:
        self.deaths.journal.write("letter", topic=topic)

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()


def put_in_place(journal: Journal, deaths: Deaths, plant: str) -> None:
    """In this process, for good: app.py builds with these from now on. Limits: one life of a forked process."""
    ledger = LedgerProvider(journal, keeps_keys=plant != "forgetful_provider")

    def counting(port: str, kind: type[Counted], real: Any) -> Any:
        return lambda *arguments, **named: kind(real(*arguments, **named), port, deaths)

    CountedStore.plant, CountedStore.provider = plant, Counted(ledger, "provider", deaths)
    JournalSender.plant, JournalSender.deaths = plant, deaths
    JournalClock.journal = journal
    patched: dict[str, Any] = {
        "SystemClock": JournalClock,
        "PostgresPaymentStore": counting("store", CountedStore, app.PostgresPaymentStore),
        "PostgresCallQueue": counting("queue", Counted, app.PostgresCallQueue),
        "OutboxConnection": counting("outbox", Counted, app.OutboxConnection),
    }
    for name, value in patched.items():
        assert hasattr(app, name), f"app.py has no {name} any more"
        setattr(app, name, value)
    assert hasattr(configured_providers, "find_providers"), "the providers are found elsewhere now"
    configured_providers.find_providers = lambda: {  # type: ignore[assignment]
        "MOCK": Registration(
            name="MOCK",
            configured=lambda settings: True,
            build=lambda *_: Counted(ledger, "provider", deaths),  # type: ignore[arg-type,return-value]
            networked=False,
        )
    }
    outbox.SystemClock = JournalClock  # type: ignore[misc]
    publisher.KafkaSender = JournalSender  # type: ignore[misc,assignment]
    publisher.TICK_S, publisher.GAP_S = POLL_S, POLL_S / 10
    perform_effects.POLL_S = POLL_S
