"""Which requests and webhooks go wrong, and how.

Room: cli/provider_sim. Chance is a digest of the seed, of what is asked and of how often it was asked: the same seed
and the same requests give the same faults, in whatever order they arrive.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from payment_service.cli.provider_sim.ledger import Ledger

OUTCOMES = (
    "drop_request", "drop_response", "cut_body", "status_429", "status_500", "status_500_after",
)  # fmt: skip
"""At most one for a request. drop_request, status_429, status_500: nothing was done. The others: it was done, and the
connection is closed without an answer, after half of it, or the answer is a 500."""
LATE = ("delay", "delay_response")
"""Beside an outcome. delay: held back before it is done, so that it happens after the caller gave up."""
WEBHOOKS = ("webhook_duplicate", "webhook_reorder", "webhook_drop", "webhook_delay")
"""Sent twice, overtaken by later ones, lost and sent again late, late."""
KNOWN = frozenset((*OUTCOMES, *LATE, *WEBHOOKS))
DELAY_MS_MAX = 600_000
COUNTED_MAX = 1_000_000
"""Requests whose repetitions are counted; beyond it the counts begin anew, and so does their chance."""


class BadFaults(ValueError):
    """Not a plan of faults; the text says why."""


@dataclass(slots=True)
class Next:
    """A fault for the next `times` requests whose path begins with `path`."""

    path: str
    fault: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    rates: Mapping[str, float] = field(default_factory=dict)
    delay_ms: int = 1000
    seed: int = 0
    next: tuple[Next, ...] = ()


NONE = Plan()


@dataclass(frozen=True, slots=True)
class Picked:
    delay: bool = False
    outcome: str | None = None
    delay_response: bool = False


FINE = Picked()


def plan_of(given: Any, seed: int) -> Plan:
    """From the body of `POST /_sim/faults`. Raises BadFaults."""
    if not isinstance(given, dict) or given.keys() - {"rates", "delay_ms", "seed", "next"}:
        raise BadFaults("an object with rates, delay_ms, seed, next")
    rates: Any
    delay_ms: Any
    rates, delay_ms = given.get("rates", {}), given.get("delay_ms", NONE.delay_ms)
    if not isinstance(rates, dict) or rates.keys() - KNOWN:
        raise BadFaults(f"rates are of {', '.join(sorted(KNOWN))}")
    if not all(isinstance(rate, int | float) and 0 <= rate <= 1 for rate in rates.values()):
        raise BadFaults("a rate is between 0 and 1")
    if sum(rates.get(outcome, 0) for outcome in OUTCOMES) > 1:
        raise BadFaults("the outcomes of a request are more than 1 together")
    if not isinstance(delay_ms, int) or not 0 <= delay_ms <= DELAY_MS_MAX:
        raise BadFaults(f"delay_ms is between 0 and {DELAY_MS_MAX}")
    try:
        planned = tuple(Next(**one) for one in given.get("next", ()))
        seed = int(given.get("seed", seed))
    except (TypeError, ValueError) as error:
        raise BadFaults("next is a list of {path, fault, times}, seed a number") from error
    if any(one.fault not in (*OUTCOMES, *LATE) for one in planned):
        raise BadFaults("next: an unknown fault")
    return Plan(rates, delay_ms, seed, planned)


class Faults:
    def __init__(self, ledger: Ledger, now_ms: Callable[[], int], seed: int) -> None:
        self._ledger = ledger
        self._now_ms = now_ms
        self._seed = seed
        self._asked: Counter[bytes] = Counter()
        self.plan = Plan(seed=seed)

    def set(self, given: Any) -> None:
        """Replaces the plan. Raises BadFaults."""
        plan = plan_of(given, self._seed)
        self._ledger.add({"line": "faults", "plan": {name: value for name, value in given.items() if name != "next"}})
        self._use(plan)

    def read_plan(self, line: dict[str, Any]) -> None:
        self._use(plan_of(line["plan"], self._seed))

    def pick(self, method: str, path: str, body: bytes, header: str | None, key: str | None) -> Picked:
        """For one request; `header`: names of faults with commas between. Each is in the ledger before it is done."""
        if header is not None:
            names = [name for name in header.replace(" ", "").split(",") if name in KNOWN]
        else:
            names = self._planned(path)
        if self.plan.rates and not names:
            names = self._by_chance(method, path, body)
        if not names:
            return FINE
        for name in names:
            self.note(name, method=method, path=path, key=key)
        outcome = next((name for name in names if name in OUTCOMES), None)
        return Picked("delay" in names, outcome, "delay_response" in names)

    def hits(self, fault: str, *what: object) -> bool:
        """Whether a webhook's fault happens this time; noted if it does."""
        rate = self.plan.rates.get(fault, 0)
        if not rate or self._chance(fault, *what) >= rate:
            return False
        self.note(fault, of=" ".join(map(str, what)))
        return True

    def note(self, fault: str, **what: Any) -> None:
        self._ledger.add({"line": "fault", "at_ms": self._now_ms(), "fault": fault, **what})

    def _use(self, plan: Plan) -> None:
        self.plan = plan
        self._asked.clear()

    def _planned(self, path: str) -> list[str]:
        for planned in self.plan.next:
            if planned.times > 0 and path.startswith(planned.path):
                planned.times -= 1
                return [planned.fault]
        return []

    def _by_chance(self, method: str, path: str, body: bytes) -> list[str]:
        request = blake2b(f"{method} {path}\0".encode() + body, digest_size=16).digest()
        if len(self._asked) >= COUNTED_MAX:
            self._asked.clear()
        self._asked[request] += 1
        what = (request.hex(), self._asked[request])
        names = [late for late in LATE if self._chance(late, *what) < self.plan.rates.get(late, 0)]
        left = self._chance("outcome", *what)
        for outcome in OUTCOMES:
            left -= self.plan.rates.get(outcome, 0)
            if left < 0:
                return [*names, outcome]
        return names

    def _chance(self, *what: object) -> float:
        digest = blake2b("\0".join(map(str, (self.plan.seed, *what))).encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64
