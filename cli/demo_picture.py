"""The demo's picture: events over time, stacked by topic, as SVG text.

Room: cli. Pure.
"""

import math
from collections import Counter
from collections.abc import Sequence
from html import escape

COLOURS = {
    "payment.created": "#94a3b8",
    "payment.processed": "#16a34a",
    "payment.requires_action": "#facc15",
    "payment.failed": "#dc2626",
    "payment.refunded": "#f97316",
    "payment.cancelled": "#6366f1",
    "payment.unknown": "#d946ef",
    "payment.disputed": "#7c2d12",
    "payment.refund_failed": "#be185d",
}
"""In the order of stacking, from the bottom."""
WIDTH, HEIGHT = 960, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 220, 64, 56
BARS_MAX = 60
TICKS = 5
FONT = "font-family='system-ui, -apple-system, Segoe UI, sans-serif'"


def picture(moments: Sequence[tuple[float, str]], title: str, subtitle: str) -> str:
    """`moments`: seconds since the start and topic of every event."""
    bar_s = bar_length(max((at_s for at_s, _ in moments), default=0.0))
    counts: Counter[tuple[int, str]] = Counter((int(max(0.0, at_s) // bar_s), topic) for at_s, topic in moments)
    bars = max((number for number, _ in counts), default=0) + 1
    highest = max((sum(counts[bar, topic] for topic in COLOURS) for bar in range(bars)), default=0)
    step = tick_step(highest, TICKS)
    top = max(step, math.ceil(highest / step) * step)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' "
        f"{FONT} role='img'>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#ffffff'/>",
        _text(LEFT, 28, title, size=18, weight=600),
        _text(LEFT, 48, subtitle, size=12, fill="#475569"),
        *_grid(top, step),
        *_bars(counts, bars, top),
        *_time_axis(bars, bar_s),
        *_legend(moments),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def bar_length(last_s: float) -> float:
    """Seconds of one bar: a round number that gives at most BARS_MAX of them."""
    for length in (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0):
        if last_s / length < BARS_MAX:
            return length
    return math.ceil(last_s / BARS_MAX)


def tick_step(highest: float, ticks: int) -> int:
    """1, 2 or 5 times a power of ten, so that at most `ticks` of them reach `highest`."""
    exact = max(1.0, highest / ticks)
    power = 10 ** math.floor(math.log10(exact))
    for factor in (1, 2, 5, 10):
        if factor * power >= exact:
            return int(factor * power)
    return int(10 * power)


def _grid(top: int, step: int) -> list[str]:
    parts = []
    for value in range(0, top + 1, step):
        y = _y(value, top)
        stroke = "#334155" if value == 0 else "#e2e8f0"
        parts.append(f"<line x1='{LEFT}' y1='{y:.1f}' x2='{WIDTH - RIGHT}' y2='{y:.1f}' stroke='{stroke}'/>")
        parts.append(_text(LEFT - 8, y + 4, str(value), anchor="end"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f"<text x='18' y='{middle}' font-size='12' fill='#475569' text-anchor='middle' "
        f"transform='rotate(-90 18 {middle})'>events in one bar</text>"
    )
    return parts


def _bars(counts: Counter[tuple[int, str]], bars: int, top: int) -> list[str]:
    slot = (WIDTH - LEFT - RIGHT) / bars
    parts = []
    for bar in range(bars):
        below = 0
        for topic, colour in COLOURS.items():
            count = counts[bar, topic]
            if not count:
                continue
            y = _y(below + count, top)
            parts.append(
                f"<rect x='{LEFT + bar * slot + slot * 0.1:.1f}' y='{y:.1f}' width='{slot * 0.8:.1f}' "
                f"height='{_y(below, top) - y:.1f}' fill='{colour}'><title>{escape(topic)}: {count}</title></rect>"
            )
            below += count
    return parts


def _time_axis(bars: int, bar_s: float) -> list[str]:
    slot = (WIDTH - LEFT - RIGHT) / bars
    step = max(1, tick_step(bars, 8))
    parts = []
    for bar in range(0, bars + 1, step):
        x = LEFT + bar * slot
        parts.append(f"<line x1='{x:.1f}' y1='{HEIGHT - BOTTOM}' x2='{x:.1f}' y2='{HEIGHT - BOTTOM + 5}' "
                     "stroke='#334155'/>")  # fmt: skip
        parts.append(_text(x, HEIGHT - BOTTOM + 20, f"{bar * bar_s:g}", anchor="middle"))
    label = f"seconds since the start (one bar: {bar_s:g} s)"
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, label, anchor="middle", fill="#475569"))
    return parts


def _legend(moments: Sequence[tuple[float, str]]) -> list[str]:
    totals = Counter(topic for _, topic in moments)
    parts = []
    shown = [topic for topic in reversed(COLOURS) if totals[topic]]
    for line, topic in enumerate(shown):
        x, y = WIDTH - RIGHT + 24, TOP + 8 + line * 24
        parts.append(f"<rect x='{x}' y='{y - 10}' width='12' height='12' rx='2' fill='{COLOURS[topic]}'/>")
        parts.append(_text(x + 20, y, f"{topic.removeprefix('payment.')}: {totals[topic]}"))
    return parts


def _y(value: float, top: int) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _text(
    x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", fill: str = "#0f172a", weight: int = 400
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' font-weight='{weight}' fill='{fill}' "
        f"text-anchor='{anchor}'>{escape(text)}</text>"
    )
