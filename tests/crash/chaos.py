"""What a seed breaks, and when: faults on a line of time, chosen before the run begins.

Pure, as traffic.py is: the same seed gives the same faults at the same seconds. Some wait for a moment of the run (an
attempt that is open, a commit that goes by); when that comes is not the seed's to say.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

WORKERS = 2
HEAVY = {"workers": ("offsets reset", "both killed"), "wires": ("broker killed", "broker restarted", "database killed")}
"""Each takes ten seconds or so; at most one of a kind in a run."""
LIGHT = {
    "workers": (
        *("worker killed",) * 3, *("killed between intent and send",) * 4, "outbox owner killed",
        "outbox owner frozen", "worker frozen", "worker stopped", *("killed without database",) * 2,
    ),
    "wires": (*("cut at commit",) * 6, "connections cut", "database away", "sim killed", *("sim faults",) * 3),
}  # fmt: skip
"""What goes on beside one another: those that run, and what is between them."""
RATES = {
    "drop_request": 0.03, "drop_response": 0.04, "cut_body": 0.02, "status_429": 0.03, "status_500": 0.02,
    "status_500_after": 0.02, "delay": 0.06,
}  # fmt: skip
WEBHOOK_RATES = {"webhook_duplicate": 0.15, "webhook_reorder": 0.15, "webhook_drop": 0.03}
GAP_S = (0.1, 1.6)
LONG_FREEZE_S = 13.0
"""Longer than the group's session and the outbox's time-out: others take over what it believes to own."""


@dataclass(frozen=True, slots=True)
class Fault:
    pause_s: float
    """After the fault before it."""
    kind: str
    who: int = 0
    """Which worker."""
    for_s: float = 0.0
    """How long it lasts, or how long after its moment it strikes."""
    rates: tuple[tuple[str, float], ...] = ()
    next_fault: str = ""
    """What happens to the next few calls that move money, whatever the rates are."""
    patient: bool = True
    """It waits until both workers answer: else they would hardly ever run."""


def plan_chaos(seed: int, seconds: float, *, webhooks: bool) -> dict[str, tuple[Fault, ...]]:
    """Enough of each for `seconds`; what is left when they are over is not done."""
    return {lane: tuple(_lane(random.Random(f"chaos {seed} {lane}"), lane, seconds, webhooks)) for lane in LIGHT}


def _lane(chance: random.Random, lane: str, seconds: float, webhooks: bool) -> Iterator[Fault]:
    heavy = list(HEAVY[lane])
    chance.shuffle(heavy)
    if lane == "wires":
        yield _rates(chance, webhooks)
    spent = 0.0
    while spent < seconds:
        kind = heavy.pop() if heavy and chance.random() < 0.1 else chance.choice(LIGHT[lane])
        fault = _rates(chance, webhooks) if kind == "sim faults" else _fault(chance, kind)
        spent += fault.pause_s + min(fault.for_s, 1.0)
        yield fault


def _fault(chance: random.Random, kind: str) -> Fault:
    for_s = {
        "worker frozen": LONG_FREEZE_S if chance.random() < 0.4 else chance.uniform(0.5, 4),
        "outbox owner frozen": LONG_FREEZE_S,
        "cut at commit": chance.choice((0.0, 0.001, 0.005, 0.02, 0.1)),
        "killed between intent and send": chance.choice((0.0, 0.002, 0.01, 0.03, 0.08)),
        "database away": chance.uniform(0.5, 4),
        "worker killed": chance.uniform(0.1, 3),
        "sim killed": chance.uniform(0.1, 2),
    }.get(kind, chance.uniform(0.2, 2))
    return Fault(chance.uniform(*GAP_S), kind, chance.randrange(WORKERS), for_s, patient=chance.random() < 0.8)


def _rates(chance: random.Random, webhooks: bool) -> Fault:
    known = RATES | (WEBHOOK_RATES if webhooks else {})
    factor = chance.choice((0.5, 1, 2))
    rates = tuple((name, round(rate * factor * chance.random() * 2, 4)) for name, rate in known.items())
    planned = chance.choice(("drop_response", "drop_response", "cut_body", "drop_request"))
    return Fault(chance.uniform(*GAP_S), "sim faults", rates=rates, next_fault=planned)
