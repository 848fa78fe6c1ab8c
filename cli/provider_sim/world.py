"""What there is at the providers: objects, movements of money, and what becomes due later.

Room: cli/provider_sim. Everything that changes is a line of the ledger at once; a restart reads them again.
Objects are dictionaries as the provider shows them; names that begin with `_` are ours and are never shown.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from payment_service.cli.provider_sim.faults import Faults
from payment_service.cli.provider_sim.idempotency import Idempotency
from payment_service.cli.provider_sim.ledger import Ledger
from payment_service.cli.provider_sim.webhooks import Webhooks

Thing = dict[str, Any]
TICK_S = 0.02
"""How late something that is due may be done."""


@dataclass(slots=True)
class SimSettings:
    """`latency_ms`: of a call that moves money, after it was done. `settle_ms`: how long what is pending stays so."""

    public_url: str
    webhook_secret: str = field(repr=False)
    latency_ms: int = 0
    settle_ms: int = 5000
    seed: int = 0
    webhook_url: str | None = None
    paypal_webhook_id: str = "SIMULATEDWEBHOOK1"
    paypal_token_s: int = 32_400
    """How long PayPal's access tokens are good."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def shown(thing: Thing) -> Thing:
    return {name: value for name, value in thing.items() if name[0] != "_"}


def digest(*parts: object) -> str:
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=12).hexdigest()


class Impossible(Exception):
    """The object is not in a state for it; the text says so to whoever asked through /_sim."""


class World:
    """One event loop, nothing locked: whoever changes something does not wait in between.

    Limits: none. It grows with its ledger, about 2 KB a payment; a test ends before that counts.
    """

    def __init__(self, settings: SimSettings, ledger: Ledger) -> None:
        self.settings = settings
        self.ledger = ledger
        self.answers = Idempotency(ledger, now_ms)
        self.faults = Faults(ledger, now_ms, settings.seed)
        self.webhooks = Webhooks(settings.webhook_url, ledger, self.faults, now_ms)
        self.movements: list[Thing] = []
        self.on_due: dict[str, Callable[[Thing], None]] = {}
        """Per kind of object: what happens when its `_due_ms` has come (set to None before)."""
        self.on_approved: dict[str, Callable[[Thing], None]] = {}
        """Per kind: the shopper's yes."""
        self.dashboard: dict[tuple[str, str], Callable[[Thing, Thing], Thing]] = {}
        """(kind, what) -> what the merchant's dashboard or a bank does to an object, given the body of the request;
        gives what came of it, or raises Impossible. What: refund, dispute, fail, won, lost, deny, expire."""
        self._objects: dict[str, dict[str, Thing]] = {}
        self._kinds: dict[str, str] = {}
        self._due: list[tuple[int, str, str]] = []

    # --- objects -------------------------------------------------------------------------------------------------

    def get(self, kind: str, object_id: str | None) -> Thing | None:
        return self._objects.get(kind, {}).get(object_id or "")

    def all(self, kind: str) -> Iterable[Thing]:
        """In the order they were made."""
        return self._objects.get(kind, {}).values()

    def kind_of(self, object_id: str) -> str | None:
        return self._kinds.get(object_id)

    def put(self, kind: str, thing: Thing) -> None:
        """It is as it is now. `_due_ms`: something happens then."""
        self._remember(kind, thing)
        self.ledger.add({"line": "object", "kind": kind, "id": thing["id"], "value": thing})

    def new_id(self, prefix: str, basis: str | None) -> str:
        """The same for the same basis (a request's key), so that a seed repeats its faults; never one that is there."""
        made = prefix + digest(basis if basis is not None else time.time_ns(), prefix)
        return made if made not in self._kinds else prefix + digest(made, len(self._kinds))

    def _remember(self, kind: str, thing: Thing) -> None:
        self._objects.setdefault(kind, {})[thing["id"]] = thing
        self._kinds[thing["id"]] = kind
        if thing.get("_due_ms") is not None:
            heapq.heappush(self._due, (thing["_due_ms"], kind, thing["id"]))

    # --- money ---------------------------------------------------------------------------------------------------

    def move(
        self,
        provider: str,
        kind: str,
        movement_id: str,
        object_id: str,
        amount_minor: int,
        currency: str,
        *,
        key: str | None,
        payment_id: str | None,
        order_id: str | None,
        **more: Any,
    ) -> None:
        """Money or a hold really moved. `amount_minor` in minor units of ISO 4217, whatever the provider counts in."""
        movement = {
            "line": "movement", "n": len(self.movements) + 1, "at_ms": now_ms(), "provider": provider, "kind": kind,
            "id": movement_id, "object_id": object_id, "payment_id": payment_id, "order_id": order_id, "key": key,
            "amount_minor": amount_minor, "currency": currency.upper(), **more,
        }  # fmt: skip
        self.movements.append(movement)
        self.ledger.add(movement)

    # --- what becomes due ----------------------------------------------------------------------------------------

    async def run_due(self) -> None:
        """Until it is cancelled."""
        while True:
            self.settle(now_ms())
            await asyncio.sleep(TICK_S)

    def settle(self, until_ms: int | None = None) -> int:
        """What is due by then, or all there is; how many that were."""
        done = 0
        while self._due and (until_ms is None or self._due[0][0] <= until_ms):
            due_ms, kind, object_id = heapq.heappop(self._due)
            thing = self._objects[kind][object_id]
            if thing.get("_due_ms") == due_ms:  # else it was put off, or happened otherwise
                thing["_due_ms"] = None
                self.on_due[kind](thing)
                done += 1
        return done

    @property
    def settling(self) -> int:
        return sum(self._objects[kind][thing_id].get("_due_ms") == due_ms for due_ms, kind, thing_id in self._due)

    # --- restart -------------------------------------------------------------------------------------------------

    def replay(self) -> None:
        """From the ledger; before the first request."""
        readers: dict[str, Callable[[Thing], None]] = {
            "object": lambda line: self._remember(line["kind"], line["value"]),
            "movement": self.movements.append,
            "answer": self.answers.read_answer,
            "pruned": self.answers.read_pruned,
            "faults": self.faults.read_plan,
            "event": self.webhooks.read_event,
            "delivered": self.webhooks.read_delivered,
        }
        for line in self.ledger.replay():
            reader = readers.get(line["line"])
            if reader is not None:
                reader(line)
