"""What came of the demo: the checks that decide its verdict, and the numbers.

Room: cli. Pure, except for printing.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

from rich.text import Text

from payment_service.cli.demo_stories import EXPECTED, junk, refunds_of
from payment_service.cli.demo_traffic import Call, Ended
from payment_service.cli.demo_watch import Seen
from payment_service.cli.output import console, print_table, status_text

NAMED_MAX = 5
"""Orders named in one failed check."""
UNPUBLISHED = frozenset({"PROCESSING"})
"""Statuses that no event announces, so that the last event may say another one."""


@dataclass(frozen=True, slots=True)
class Check:
    text: str
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.wrong


def judge(ended: Sequence[Ended], events: Mapping[str, Sequence[Seen]], dead_letters: int) -> list[Check]:
    """Every check names what is wrong, order by order."""
    return [
        Check("every shopper got what the story says", _stories(ended)),
        Check("every order has exactly one payment", _one_payment(ended, events)),
        Check("sequences have no gaps, and no number means two events", _sequences(events)),
        Check("the last event says what REST says", _agreement(ended, events)),
        Check("what was given back is what was asked for", _refunds(ended)),
        Check("every broken message is in the dead letters", _dead(ended, dead_letters)),
    ]


def _stories(ended: Sequence[Ended]) -> tuple[str, ...]:
    wrong = []
    for one in ended:
        if one.payment is None:
            wrong.append(f"{one.story.order_id} ({one.story.kind}): {one.problem}")
        elif one.payment["status"] not in EXPECTED[one.story.kind]:
            wrong.append(f"{one.story.order_id} ({one.story.kind}): {one.payment['status']}")
    return tuple(wrong)


def _one_payment(ended: Sequence[Ended], events: Mapping[str, Sequence[Seen]]) -> tuple[str, ...]:
    wrong = []
    for one in ended:
        ids = {seen.event["data"]["paymentId"] for seen in events.get(one.story.order_id, ())}
        if one.payment is not None:
            ids.add(one.payment["id"])
        if len(ids) != 1:
            wrong.append(f"{one.story.order_id}: {len(ids)} payments")
    return tuple(wrong)


def _sequences(events: Mapping[str, Sequence[Seen]]) -> tuple[str, ...]:
    wrong = []
    for order_id, seen in events.items():
        ids: dict[int, set[str]] = defaultdict(set)
        for one in seen:
            ids[one.event["sequence"]].add(one.event["id"])
        if sorted(ids) != list(range(1, len(ids) + 1)) or any(len(same) > 1 for same in ids.values()):
            wrong.append(f"{order_id}: {sorted(ids)}")
    return tuple(wrong)


def _agreement(ended: Sequence[Ended], events: Mapping[str, Sequence[Seen]]) -> tuple[str, ...]:
    wrong = []
    for one in ended:
        if one.payment is None or one.payment["status"] in UNPUBLISHED:
            continue
        seen = events.get(one.story.order_id, ())
        last = max((it.event for it in seen), key=lambda it: int(it["sequence"]), default=None)
        said = last["data"]["status"] if last is not None else "nothing"
        if said != one.payment["status"]:
            wrong.append(f"{one.story.order_id}: event {said}, REST {one.payment['status']}")
    return tuple(wrong)


def _refunds(ended: Sequence[Ended]) -> tuple[str, ...]:
    return tuple(
        f"{one.story.order_id}: {one.payment['amounts']['refunded']}"
        for one in ended
        if one.payment is not None and one.payment["amounts"]["refunded"] != sum(refunds_of(one.story))
    )


def broken_count(ended: Sequence[Ended]) -> int:
    return sum(broken for _, broken in junk("", len(ended)))


def _dead(ended: Sequence[Ended], dead_letters: int) -> tuple[str, ...]:
    sent = broken_count(ended)
    return () if dead_letters >= sent else (f"{sent} sent, {dead_letters} found",)


def latencies(seconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    if len(seconds) < 2:
        only = seconds[0] * 1000 if seconds else 0.0
        return only, only
    cuts = quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[98] * 1000


def as_json(
    ended: Sequence[Ended], events: Mapping[str, Sequence[Seen]], calls: Sequence[Call], seen_s: Sequence[float],
    checks: Sequence[Check], picture: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "passed": all(check.passed for check in checks),
        "checks": [{"check": check.text, "passed": check.passed, "wrong": list(check.wrong)} for check in checks],
        "statuses": dict(_statuses(ended)),
        "events": dict(_topics(events)),
        "calls": [
            {"call": what, "status": status, "code": code, "count": len(took), "p50Ms": round(p50, 1),
             "p99Ms": round(p99, 1)}
            for (what, status, code), took in _calls(calls).items()
            for p50, p99 in [latencies(took)]
        ],
        "orderToEventMs": dict(zip(("p50", "p99"), (round(ms, 1) for ms in latencies(seen_s)), strict=True)),
        "picture": picture,
    }  # fmt: skip


def show(
    ended: Sequence[Ended], events: Mapping[str, Sequence[Seen]], calls: Sequence[Call], seen_s: Sequence[float],
    checks: Sequence[Check], picture: str,
) -> None:  # fmt: skip
    stories = Counter((one.story.kind, (one.payment or {}).get("status", "?")) for one in ended)
    print_table(
        "Shoppers", ("story", "payment", "orders"),
        [(kind, status_text(status), count) for (kind, status), count in sorted(stories.items())], right=["orders"],
    )  # fmt: skip
    print_table("Payments", ("status", "payments"),
                [(status_text(status), count) for status, count in _statuses(ended).most_common()],
                right=["payments"])  # fmt: skip
    print_table("Events", ("topic", "events"), _topics(events).most_common(), right=["events"])
    rows: list[tuple[Any, ...]] = []
    for (what, status, code), took in sorted(_calls(calls).items(), key=lambda one: str(one[0])):
        p50, p99 = latencies(took)
        rows.append((what, status, code, len(took), f"{p50:.0f}", f"{p99:.0f}"))
    p50, p99 = latencies(seen_s)
    rows.append(("order sent → payment.created seen", "", "", len(seen_s), f"{p50:.0f}", f"{p99:.0f}"))
    print_table("Answers", ("call", "http", "code", "count", "p50 ms", "p99 ms"), rows,
                right=["count", "p50 ms", "p99 ms"])  # fmt: skip
    out = console()
    for check in checks:
        mark = Text("✓ ", style="green") if check.passed else Text("✗ ", style="bold red")
        out.print(mark + Text(check.text))
        for line in check.wrong[:NAMED_MAX]:
            out.print(Text(f"    {line}", style="red"))
        if len(check.wrong) > NAMED_MAX:
            out.print(Text(f"    and {len(check.wrong) - NAMED_MAX} more", style="red"))
    out.print(f"Picture: {picture}", soft_wrap=True)


def _statuses(ended: Sequence[Ended]) -> Counter[str]:
    return Counter(str(one.payment["status"]) for one in ended if one.payment is not None)


def _topics(events: Mapping[str, Sequence[Seen]]) -> Counter[str]:
    """Each event once, however often it was delivered."""
    return Counter(topic for topic, _ in {(one.topic, one.event["id"]) for seen in events.values() for one in seen})


def _calls(calls: Sequence[Call]) -> dict[tuple[str, int, str | None], list[float]]:
    found: dict[tuple[str, int, str | None], list[float]] = defaultdict(list)
    for call in calls:
        found[call.what, call.status, call.code].append(call.took_s)
    return found
