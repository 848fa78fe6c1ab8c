"""What each side says of a payment, to the topic payment-facts, from which the table `reconciliation` compares it.

Room: adapters. Beside the work, and bounded: at most PAYMENTS_PER_S payments of each source are told a second, whatever
the load. What providers answered and orders said is taken as it passes, and left out when too much of it waits already.
Our own rows and histories are read a few seconds after they changed, by the worker that publishes for the payment, and
again as long as something is open about it. Under more load than that the reading falls behind, and goes on when it is
quieter; more than BEHIND_S_MAX behind it leaves out what lies between. Changes while no worker ran are not compared.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Protocol

from payment_service.adapters.guarded import CREATE, Asked
from payment_service.adapters.kafka_message import NeverTaken
from payment_service.codecs.facts import TOPIC, Told, encode_told
from payment_service.codecs.published import decode_published
from payment_service.core.commands import CreatePayment
from payment_service.core.errors import Malformed, Unavailable
from payment_service.core.ids import shard_of
from payment_service.core.payment import Payment
from payment_service.core.ports import Answer, Cipher, Clock, Metrics, PaymentStore, ProviderCall
from payment_service.core.reconciliation import Fact, order_fact, our_fact, provider_fact

TICK_S = 1.0
PAYMENTS_PER_S = 25
"""Of each: heard from others, changed, looked at again. Changes at twice this rate took 3 % of a core (measured)."""
HEARD_MAX = 500
"""Payments that others told of and that wait to be told on."""
CHANGED_MAX = 2_000
"""Changed payments that are found in one statement: more than two of the store's statements change at one time."""
BEHIND_S_MAX = 600.0

_log = logging.getLogger(__name__)


class Sends(Protocol):
    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]],
        placed_by: bytes | None = None,
    ) -> None: ...  # fmt: skip


class History(Protocol):
    """PostgresPublished."""

    async def changed(self, since_s: float | None, limit: int) -> list[tuple[str, float]]: ...

    async def last_of(self, ids: Sequence[str]) -> list[tuple[str, bytes]]: ...


class Shards(Protocol):
    """OutboxConnection."""

    @property
    def shards(self) -> int: ...

    @property
    def owned(self) -> Collection[int]:
        """Those that this worker publishes."""


class Accounts(Protocol):
    """The table `reconciliation` of the stream side that runs."""

    def to_look_at(self, limit: int) -> list[tuple[str, str]]: ...

    def alarms(self) -> Mapping[str, int]: ...


class PaymentFacts:
    """`ordered` and `answered` neither wait nor raise; `run` tells until it is cancelled."""

    def __init__(
        self, publisher: Sends, store: PaymentStore, history: History, outbox: Shards, cipher: Cipher, clock: Clock,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        self._publisher = publisher
        self._store = store
        self._history = history
        self._outbox = outbox
        self._cipher = cipher
        self._clock = clock
        self._metrics = metrics
        self.accounts: Accounts | None = None
        """Of the stream side that was started last."""
        self._heard: dict[str, tuple[str, list[Fact]]] = {}
        self._telling = asyncio.Lock()
        self._left_out = 0
        self._since_s: float | None = None
        self._caught_up_s = clock.monotonic_s()
        self._changed: deque[str] = deque()

    # --- what passes

    def ordered(self, command: CreatePayment) -> None:
        if self._has_room(command.payment_id):
            fact = order_fact(command.amount_minor, command.currency, self._clock.now_ms())
            self._hear(command.payment_id, command.order_id, fact)

    def answered(self, operation: str, call: Asked, answer: Answer, seconds: float) -> None:
        if operation == CREATE or not isinstance(call, ProviderCall) or not self._has_room(call.payment_id):
            return
        fact = provider_fact(call, answer, self._clock.now_ms())
        if fact is not None:
            self._hear(call.payment_id, call.order_id, fact)

    def _has_room(self, payment_id: str) -> bool:
        if len(self._heard) < HEARD_MAX or payment_id in self._heard:
            return True
        self._left_out += 1
        return False

    def _hear(self, payment_id: str, order_id: str, fact: Fact) -> None:
        self._heard.setdefault(payment_id, (order_id, []))[1].append(fact)

    # --- telling

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except Unavailable as error:
                _log.info("payments are not compared now error=%s", error.message)
            except Exception:  # a bug: heard of, and no reason to end a worker that takes payments
                _log.exception("payments are not compared now")

    async def tick(self) -> None:
        """Raises Unavailable: what was heard is kept, what changed is read again."""
        if self._left_out:
            self._metrics.count("reconciliation_left_out", self._left_out)
            self._left_out = 0
        if self.accounts is not None:
            for what, count in self.accounts.alarms().items():
                self._metrics.gauge("reconciliation_differences", count, what=what)
        await self._tell_heard()
        if self.accounts is not None:
            await self._tell_ours(self.accounts.to_look_at(PAYMENTS_PER_S))
        if not self._changed:
            await self._find_changed()
        next_ones = list(islice(self._changed, PAYMENTS_PER_S))
        await self._tell_ours([(payment_id, "") for payment_id in next_ones])
        for _ in next_ones:
            self._changed.popleft()

    async def last(self) -> None:
        """Of a worker that ends: what it heard."""
        try:
            async with asyncio.timeout(TICK_S):
                await self._tell_heard()
        except (TimeoutError, Unavailable):
            _log.warning("what providers and orders said last is not compared payments=%d", len(self._heard))

    async def _tell_heard(self) -> None:
        async with self._telling:  # of a worker that ends, while it tells
            await self._tell_some_heard()

    async def _tell_some_heard(self) -> None:
        some = list(islice(self._heard.items(), PAYMENTS_PER_S))
        told = [Told(payment_id, order_id, list(facts)) for payment_id, (order_id, facts) in some]
        await self._send(told)
        for payment_id, _, facts in told:
            left = self._heard[payment_id][1][len(facts) :]  # what came meanwhile
            if left:
                self._heard[payment_id] = (self._heard[payment_id][0], left)
            else:
                del self._heard[payment_id]

    async def _find_changed(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._caught_up_s > BEHIND_S_MAX:
            self._metrics.count("reconciliation_left_out")
            _log.warning("payments that changed are not compared since=%.0f", self._since_s or 0)
            self._since_s, self._caught_up_s = None, now_s
        found = await self._history.changed(self._since_s, CHANGED_MAX)
        if len(found) < CHANGED_MAX:
            self._caught_up_s = now_s
        else:  # there may be more of the very last moment: it comes with the next page
            found = [it for it in found if it[1] < found[-1][1]] or found
        if found:
            self._since_s = found[-1][1]
            owned, shards = self._outbox.owned, self._outbox.shards
            changed = dict.fromkeys(payment_id for payment_id, _ in found)
            self._changed.extend(it for it in changed if shard_of(it, shards) in owned)

    async def _tell_ours(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Of (payment id, order id where the payment may not be there). Our rows first, then their histories: what
        happens between the two is read again."""
        if not wanted:
            return
        at_ms = self._clock.now_ms()  # before the reading: what is told later may not be in it
        ids = [payment_id for payment_id, _ in wanted]
        loaded = await asyncio.gather(*(self._load(it) for it in ids))
        published = {it: decode_published(value) for it, value in await self._history.last_of(ids)}
        told = []
        for (payment_id, order_id), (payment, readable) in zip(wanted, loaded, strict=True):
            if readable:
                order = order_id if payment is None else payment.order_id
                told.append(Told(payment_id, order, [our_fact(payment, published.get(payment_id), at_ms)]))
        await self._send(told)
        self._metrics.count("reconciliation_compared", len(told))

    async def _load(self, payment_id: str) -> tuple[Payment | None, bool]:
        """And whether its row can be read at all. Raises Unavailable."""
        try:
            return (await self._store.load(payment_id)).payment, True
        except Malformed as error:  # `audit verify` says more
            _log.error("a payment cannot be compared payment_id=%s error=%s", payment_id, error.message)
            return None, False

    async def _send(self, told: Sequence[Told]) -> None:
        sends = (
            self._publisher.send(
                TOPIC, it.order_id.encode(), encode_told(it, self._cipher), [], placed_by=it.payment_id.encode()
            )
            for it in told
        )
        for error in await asyncio.gather(*sends, return_exceptions=True):
            if isinstance(error, NeverTaken):
                _log.error("a fact of a payment can never be sent error=%s", error)
            elif error is not None:
                raise error
