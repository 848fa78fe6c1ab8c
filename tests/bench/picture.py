"""The picture of a run: bars of ours beside their references, as SVG text. Each group has a scale of its own."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from bench.beside import Beside, shown

OURS, OTHERS = "#16a34a", {"limit": "#334155", "at most": "#f97316"}
PLAIN = "#94a3b8"
SPENT = {"own": OURS, "kafka": "#6366f1", "postgres": "#f97316"}
COLUMN, COLUMNS, MARGIN, TOP = 620, 2, 24, 72
LABEL, BAR = 132, 300
TITLE_ROW, ROW, GAP = 22, 20, 18
FONT = "font-family='system-ui, -apple-system, Segoe UI, sans-serif'"

Group = tuple[int, list[str]]
"""Its height, and what is drawn from its own top left corner."""


def picture(besides: Sequence[Beside], costs: Mapping[str, Mapping[str, float]], subtitle: str) -> str:
    groups = [_beside(one) for one in besides] + ([_costs(costs)] if costs else [])
    placed, height = _placed(groups)
    width = 2 * MARGIN + COLUMN * COLUMNS
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
        f"{FONT} role='img'>",
        "<title>bench</title>",
        f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
        _text(MARGIN, 32, "Ours beside references, one run", size=18, weight=600),
        _text(MARGIN, 52, subtitle, fill="#475569"),
        *placed,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _placed(groups: Sequence[Group]) -> tuple[list[str], int]:
    """Down the first column to half of all, then the next. And the height of it all."""
    half = sum(height for height, _ in groups) / COLUMNS
    parts: list[str] = []
    column, y, lowest, done = 0, TOP, TOP, 0
    for height, drawn in groups:
        if column < COLUMNS - 1 and done and done + height / 2 > half * (column + 1):
            column, y = column + 1, TOP
        parts += [f"<g transform='translate({MARGIN + column * COLUMN} {y})'>", *drawn, "</g>"]
        y, done = y + height, done + height
        lowest = max(lowest, y)
    return parts, lowest + MARGIN - GAP


def _beside(one: Beside) -> Group:
    aside = f"aim: {one.aim}" if one.aim else "less is better" if one.less_is_better else "more is better"
    rows = [("ours", one.ours, OURS)]
    rows += [(name, value, OTHERS.get(name, PLAIN)) for name, value in one.references.items()]
    highest = max(value for _, value, _ in rows) or 1.0
    drawn = [_title(f"{one.title}, {one.unit}", aside)]
    for number, (name, value, colour) in enumerate(rows):
        ratio = f"  ({one.ours / value:,.2f} x)" if number and value else ""
        drawn += _row(number, name, [(name, value, colour)], highest, f"{shown(value)}{ratio}")
    return TITLE_ROW + ROW * len(rows) + GAP, drawn


def _costs(costs: Mapping[str, Mapping[str, float]]) -> Group:
    highest = max(sum(spent.values()) for spent in costs.values()) or 1.0
    drawn = [_title("processor time of one payment, us", "own + Kafka + PostgreSQL; less is better")]
    for number, (title, spent) in enumerate(costs.items()):
        pieces = [(who, us, SPENT[who]) for who, us in spent.items()]
        drawn += _row(number, title, pieces, highest, " + ".join(shown(us) for us in spent.values()))
    return TITLE_ROW + ROW * len(costs) + GAP, drawn


def _row(
    number: int, label: str, pieces: Sequence[tuple[str, float, str]], highest: float, text: str
) -> Iterator[str]:  # fmt: skip
    y, x = TITLE_ROW + number * ROW, float(LABEL)
    yield _text(LABEL - 8, y + 12, label, anchor="end")
    for name, value, colour in pieces:
        width = max(1.0, BAR * value / highest)
        yield (
            f"<rect x='{x:.1f}' y='{y}' width='{width:.1f}' height='{ROW - 5}' rx='2' fill='{colour}'>"
            f"<title>{escape(name)}: {shown(value)}</title></rect>"
        )
        x += width
    yield _text(x + 6, y + 12, text)


def _title(text: str, aside: str) -> str:
    return (
        f"<text x='0' y='14' font-size='13' font-weight='600' fill='#0f172a'>{escape(text)}"
        f"<tspan font-size='11' font-weight='400' fill='#64748b' dx='8'>{escape(aside)}</tspan></text>"
    )


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", fill: str = "#0f172a",
          weight: int = 400) -> str:  # fmt: skip
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' font-weight='{weight}' fill='{fill}' "
        f"text-anchor='{anchor}'>{escape(text)}</text>"
    )
