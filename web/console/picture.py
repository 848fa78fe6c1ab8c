"""A payment's timeline as a picture: three lanes, time running down, each event where its cause is.

Room: web. Pure: events in, places out; timeline.svg.html draws them. Only numbers and our own words decide a place;
what strangers wrote never reaches the picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from payment_service.core.ports import StoredEvent
from payment_service.web.console.words import LANES, event_words

WIDTH = 400
LANE_X: Mapping[str, int] = {"asked": 20, "us": 56, "provider": 92}
LABEL_X = 124
TOP, ROW, GAP = 44, 42, 20
"""GAP: more room where time passed that a person notices."""
NOTICED_S = 10.0
EVENTS_MAX = 200
"""The first and the last half of more."""
_OPENS = {"attempt_started": "attempt", "refund_requested": "refund"}
_CLOSES: Mapping[str, str] = {
    **{f"attempt_{word}": "attempt" for word in ("approved", "declined", "not_sent")},
    **{f"refund_{word}": "refund" for word in ("completed", "failed", "not_sent")},
}


@dataclass(frozen=True, slots=True)
class Dot:
    """One event. `since`: time since the one before, where it is worth telling."""

    x: int
    y: int
    tone: str
    label: str
    time: str
    since: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A call to the provider, from its start to what became of it."""

    x: int
    y1: int
    y2: int
    tone: str


@dataclass(frozen=True, slots=True)
class Picture:
    height: int
    dots: Sequence[Dot]
    bars: Sequence[Bar]
    path: str
    left_out: int
    width: int = WIDTH
    label_x: int = LABEL_X
    lanes: Sequence[tuple[str, int]] = tuple(LANE_X.items())


def picture_of(events: Sequence[StoredEvent], rows: Sequence[Mapping[str, Any]]) -> Picture:
    """`rows`: the same events as codecs/rest.py shows them."""
    pairs = list(zip(events, rows, strict=True))
    left_out = max(0, len(pairs) - EVENTS_MAX)
    if left_out:
        pairs = pairs[: EVENTS_MAX // 2] + pairs[-EVENTS_MAX // 2 :]
    dots: list[Dot] = []
    bars: list[Bar] = []
    opened: dict[tuple[str, int], int] = {}
    y, before_ms = TOP, None
    for stored, row in pairs:
        since_s = 0.0 if before_ms is None else (stored.at_ms - before_ms) / 1000
        y += 0 if before_ms is None else ROW + (GAP if since_s >= NOTICED_S else 0)
        label, lane, tone = event_words(row["type"])
        assert lane in LANES, "every event has its lane"
        clock = row["timestamp"].partition("T")[2].removesuffix("Z")
        dots.append(Dot(LANE_X[lane], y, tone, label, clock, span(since_s) if since_s >= 1 else ""))
        _bar(row["type"], getattr(stored.event, "number", None), tone, y, opened, bars)
        before_ms = stored.at_ms
    bars += [Bar(LANE_X["provider"], started, y + ROW // 2, "odd") for started in opened.values()]
    path = " ".join(f"{'M' if at == 0 else 'L'}{dot.x} {dot.y}" for at, dot in enumerate(dots))
    return Picture(y + ROW, dots, bars, path, left_out)


def _bar(kind: str, number: int | None, tone: str, y: int, opened: dict[tuple[str, int], int], bars: list[Bar]) -> None:
    if number is None:
        return
    if kind in _OPENS:
        opened[_OPENS[kind], number] = y
    elif kind in _CLOSES:
        started = opened.pop((_CLOSES[kind], number), None)
        if started is not None:
            bars.append(Bar(LANE_X["provider"], started, y, tone))


def span(seconds: float) -> str:
    """`+2.3 s`, `+4 min`, `+5 h`, `+2 d`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"+{seconds / length:.0f} {unit}"
    return f"+{seconds:.0f} s" if seconds >= 10 else f"+{seconds:.1f} s"
