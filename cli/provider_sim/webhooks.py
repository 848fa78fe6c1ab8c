"""Signed events on their way to the service: kept until they are taken, sent again with growing pauses.

Room: cli/provider_sim. At least once and in no order, as providers promise; what is not delivered is still to be
delivered after a restart.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar

from payment_service.cli.provider_sim.faults import Faults
from payment_service.cli.provider_sim.ledger import Ledger

AT_ONCE_MAX = 32
"""Deliveries in flight."""
ANSWER_S = 10.0
"""For the receiver's answer; after it the event is sent again."""
PAUSE_FIRST_MS, PAUSE_MS_MAX = 200, 10_000
TRIES_MAX = 1000
"""Of one event; then it is given up with a line in the ledger. Some hours, as a provider's sandbox does."""
WAITING_MAX = 500_000
"""Events that wait (about 3 KB each); beyond it the new one is given up with a line."""
TICK_S = 0.02

Signer = Callable[[bytes], Mapping[str, str]]
"""Raw body -> the headers that prove who sent it; made anew for every try."""


@dataclass(order=True, slots=True)
class Waiting:
    due_ms: int
    number: int
    event_id: str = field(compare=False)
    provider: str = field(compare=False)
    body: bytes = field(compare=False, repr=False)
    tries: int = field(compare=False, default=0)
    fresh: bool = field(compare=False, default=True)
    """No fault was drawn for it yet."""


class Webhooks:
    def __init__(self, url: str | None, ledger: Ledger, faults: Faults, now_ms: Callable[[], int]) -> None:
        self._url = url
        self._ledger = ledger
        self._faults = faults
        self._now_ms = now_ms
        self._signers: dict[str, Signer] = {}
        self._open: dict[str, Waiting] = {}
        self._queue: list[Waiting] = []
        self._number = 0
        self._told: Counter[str] = Counter()
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Not taken yet, those in flight included."""
        return len(self._open)

    @property
    def wanted(self) -> bool:
        """Somebody listens; without that no event need be made."""
        return self._url is not None

    def sign_with(self, provider: str, signer: Signer) -> None:
        self._signers[provider] = signer

    def next_id(self, prefix: str, of: str) -> str:
        """For the next event about the object `of`: the same in every run, so that a seed repeats its faults."""
        return prefix + blake2b(f"{of}\0{self._told[of] + 1}".encode(), digest_size=12).hexdigest()

    def emit(self, provider: str, event: Mapping[str, Any], of: str) -> None:
        """About the object `of`. It is sent as it is now, after what caused it is in the ledger."""
        if self._url is None:
            return
        self._told[of] += 1
        self._ledger.add({"line": "event", "provider": provider, "id": event["id"], "of": of, "event": event})
        if len(self._open) >= WAITING_MAX:
            self._done(event["id"], "given_up")
            return
        self._enqueue(provider, event, self._now_ms())

    def hurry(self) -> None:
        """Whatever waits for its next try is tried now."""
        for waiting in self._queue:
            waiting.due_ms = 0
        heapq.heapify(self._queue)

    async def run(self) -> None:
        """Until it is cancelled."""
        places = asyncio.Semaphore(AT_ONCE_MAX)
        async with ClientSession(timeout=ClientTimeout(total=ANSWER_S), cookie_jar=DummyCookieJar()) as session:
            while True:
                while self._queue and self._queue[0].due_ms <= self._now_ms():
                    await places.acquire()
                    sending = asyncio.create_task(self._deliver(session, heapq.heappop(self._queue)))
                    self._sending.add(sending)
                    sending.add_done_callback(self._sending.discard)
                    sending.add_done_callback(lambda _: places.release())
                await asyncio.sleep(TICK_S)

    # --- restart -------------------------------------------------------------------------------------------------

    def read_event(self, line: dict[str, Any]) -> None:
        self._told[line["of"]] += 1
        if self._url is not None:
            self._enqueue(line["provider"], line["event"], 0)

    def read_delivered(self, line: dict[str, Any]) -> None:
        waiting = self._open.pop(line["id"], None)
        if waiting is not None:
            waiting.tries = TRIES_MAX  # left in the queue, sent no more

    # --- one event -----------------------------------------------------------------------------------------------

    def _enqueue(self, provider: str, event: Mapping[str, Any], due_ms: int) -> None:
        self._number += 1
        waiting = Waiting(due_ms, self._number, event["id"], provider, orjson.dumps(event))
        self._open[waiting.event_id] = waiting
        heapq.heappush(self._queue, waiting)

    async def _deliver(self, session: ClientSession, waiting: Waiting) -> None:
        if waiting.event_id not in self._open:
            return
        await self._ledger.written()
        if waiting.fresh:
            waiting.fresh = False
            if self._goes_wrong(waiting):
                return
        waiting.tries += 1
        twice = waiting.tries == 1 and self._faults.hits("webhook_duplicate", waiting.event_id)
        taken = await self._post(session, waiting)
        if twice:
            taken = await self._post(session, waiting) or taken
        if taken:
            self._done(waiting.event_id, "delivered")
        elif waiting.tries >= TRIES_MAX:
            self._done(waiting.event_id, "given_up")
        else:
            self._again(waiting, min(PAUSE_FIRST_MS * 2 ** min(waiting.tries - 1, 16), PAUSE_MS_MAX))

    def _goes_wrong(self, waiting: Waiting) -> bool:
        """Lost, late or overtaken: it comes again later, and then as it is."""
        delay_ms = self._faults.plan.delay_ms
        if self._faults.hits("webhook_drop", waiting.event_id):
            self._again(waiting, 3 * delay_ms)
        elif self._faults.hits("webhook_delay", waiting.event_id):
            self._again(waiting, delay_ms)
        elif self._faults.hits("webhook_reorder", waiting.event_id):
            self._again(waiting, delay_ms // 4)
        else:
            return False
        return True

    def _again(self, waiting: Waiting, pause_ms: int) -> None:
        waiting.due_ms = self._now_ms() + pause_ms
        heapq.heappush(self._queue, waiting)

    async def _post(self, session: ClientSession, waiting: Waiting) -> bool:
        assert self._url is not None
        signer = self._signers.get(waiting.provider)
        headers = {"Content-Type": "application/json", **(signer(waiting.body) if signer is not None else {})}
        try:
            async with session.post(self._url, data=waiting.body, headers=headers, allow_redirects=False) as response:
                return 200 <= response.status < 300
        except (ClientError, TimeoutError, OSError):
            return False

    def _done(self, event_id: str, how: str) -> None:
        self._open.pop(event_id, None)
        self._ledger.add({"line": "delivered", "id": event_id, "how": how, "at_ms": self._now_ms()})
