"""The trend: one row of the main figures for each run that was worth keeping, in HISTORY.md."""

from collections.abc import Mapping
from pathlib import Path

from bench.beside import WHO, Beside, shown
from bench.report import Run

FILE = Path(__file__).parent / "HISTORY.md"
NONE = "-"
COLUMNS = (
    "date (UTC)", "commit", "machine", "load before", "size", "orders /s", "creates at 64 /s", "create p50 at 1 ms",
    "reads at 64 /s", "create + process p50 ms", "mixed p99 ms", "loop held ms",
    "webhooks accepted /s, p99 ms, applied /s", "us an order", "us a create", "us a create + process",
    "payments /s and core",
)  # fmt: skip


def row_of(run: Run) -> str:
    found = {one.title: one for one in run.beside}
    results = run.results
    webhooks = ("webhooks: accepted /s", "webhooks: accepted p99 ms", "webhooks: applied /s")
    cells = (
        run.at, run.commit, run.machine, f"{run.load_before:.1f}", run.size,
        _with_ratios(found.get("orders drained to published and in the table")),
        _with_ratios(found.get("REST creates at 64")),
        _with_ratios(found.get("REST create at 1, p50")),
        _with_ratios(found.get("REST reads at 64")),
        _number(results, "rest create + process: ours at 1 p50 ms"),
        _number(results, "mixed: p99 of the slowest kind ms"),
        _number(results, "mixed: event loop held at most ms"),
        ", ".join(_number(results, name) for name in webhooks),
        *(_spent(results, key) for key in ("orders", "rest create", "rest create + process")),
        ", ".join(shown(one.ours) for title, one in found.items() if title.endswith("core of the machine")) or NONE,
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def keep(run: Run, file: Path = FILE) -> None:
    """At the end of the file, which ends with the table."""
    text = file.read_text()
    header = "| " + " | ".join(COLUMNS) + " |"
    if (
        header not in text
    ):  # other columns than before: a table of their own, so that no figure stands under a wrong name
        text = f"{text.rstrip()}\n\n{header}\n|{' --- |' * len(COLUMNS)}\n"
    file.write_text(f"{text.rstrip()}\n{row_of(run)}\n")


def _with_ratios(one: Beside | None) -> str:
    if one is None:
        return NONE
    ratios = [f"{one.ours / value:.2f} x {name}" for name, value in one.references.items()]
    return f"{shown(one.ours)} ({', '.join(ratios)})" if ratios else shown(one.ours)


def _number(results: Mapping[str, float], name: str) -> str:
    return shown(results[name]) if name in results else NONE


def _spent(results: Mapping[str, float], key: str) -> str:
    """Own + Kafka + PostgreSQL."""
    return " + ".join(_number(results, f"{key}: {who} CPU us each") for who in WHO)
