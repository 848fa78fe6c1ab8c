"""The main figures of a run beside their references: what others reach in the same run, or what must be kept."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

SWITCH_PER_CORE = 1.0
"""Payments a second of one vCPU, by the sizing that the largest open payment switch publishes."""
CORES = os.cpu_count() or 1
WHO = ("own", "kafka", "postgres")


@dataclass(frozen=True)
class Beside:
    """One figure of ours beside its references."""

    title: str
    unit: str
    ours: float
    references: Mapping[str, float]
    aim: str = ""
    less_is_better: bool = False


def beside(results: Mapping[str, float]) -> list[Beside]:
    found: list[Beside] = []

    def add(
        title: str, unit: str, ours: str, references: Mapping[str, str | float], aim: str = "", *, less: bool = False
    ) -> None:
        there = {name: results.get(key, 0.0) if isinstance(key, str) else key for name, key in references.items()}
        if results.get(ours) is not None:
            found.append(Beside(title, unit, results[ours], {k: v for k, v in there.items() if v}, aim, less))

    add(
        "orders drained to published and in the table", "/s", "orders: ours, published and in the table /s",
        {"plain Faust": "orders: plain Faust /s", "limit": "orders: limit /s"}, "15 x plain, 45 % of the limit",
    )  # fmt: skip
    for at, aim in ((64, "4 x plain, half of the limit"), (1, "")):
        add(
            f"REST creates at {at}", "/s", f"rest create: ours at {at} /s",
            {"plain": f"rest create: plain_rest at {at} /s", "limit": f"rest create: rest_limit at {at} /s"}, aim,
        )  # fmt: skip
    add(
        "REST create at 1, p50", "ms", "rest create: ours at 1 p50 ms",
        {"plain": "rest create: plain_rest at 1 p50 ms", "limit": "rest create: rest_limit at 1 p50 ms"},
        "no worse than plain", less=True,
    )  # fmt: skip
    for at in (64, 1):
        plain = {"plain": f"rest read: plain_rest at {at} /s"}
        add(f"REST reads at {at}", "/s", f"rest read: ours at {at} /s", plain, "2 x plain" if at > 1 else "")
    both = "rest create + process: ours at"
    add("REST create + process at 1, p50", "ms", f"{both} 1 p50 ms", {"at most": 4.0}, "at most 4 ms", less=True)
    creates = {"our creates": "rest create: ours at 64 /s", "plain creates": "rest create: plain_rest at 64 /s"}
    add("REST create + process at 64", "/s", f"{both} 64 /s", creates)
    slowest, held = "mixed: p99 of the slowest kind ms", "mixed: event loop held at most ms"
    add("REST while a backlog drains, p99", "ms", slowest, {"at most": 50.0}, "at most 50 ms", less=True)
    add("event loop held meanwhile, at most", "ms", held, {"at most": 20.0}, "at most 20 ms", less=True)
    add("webhooks accepted at 64", "/s", "webhooks: accepted /s", creates)
    add("webhooks applied", "/s", "webhooks: applied /s", {"accepted": "webhooks: accepted /s"})
    for title, rate in (
        ("orders", "orders: ours, published and in the table /s"), ("creates", "rest create: ours at 64 /s"),
        ("create + process", f"{both} 64 /s"),
    ):  # fmt: skip
        if rate in results:
            one = results[rate] / CORES
            switch = {"sizing of a switch": SWITCH_PER_CORE}
            found.append(Beside(f"{title}, for each core of the machine", "/s", one, switch))
    return found


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"


def cost_of(results: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Microseconds of processor time of one payment, by who spent them."""
    kinds = {"an order": "orders", "a create": "rest create", "create + process": "rest create + process"}
    found = {
        title: {who: results[f"{key}: {who} CPU us each"] for who in WHO if f"{key}: {who} CPU us each" in results}
        for title, key in kinds.items()
    }
    return {title: parts for title, parts in found.items() if parts}
