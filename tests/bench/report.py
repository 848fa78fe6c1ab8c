"""What a run found: every figure, and the main ones beside their references; as tables, JSON and a picture."""

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.beside import CORES, Beside, beside, cost_of, shown
from bench.harness import ORDERS, ROOT, SECONDS, Bench, console
from bench.picture import picture
from rich.table import Table

from payment_service.adapters.settings import Settings, environment_names

LIMITS = (
    "RATE_LIMIT_MAX", "RATE_LIMIT_WINDOW_MS", "WEBHOOK_RATE_LIMIT_MAX", "STRIPE_RATE_PER_S", "PAYPAL_RATE_PER_S",
    "PROVIDER_CONCURRENCY", "STREAM_IN_FLIGHT_MAX", "TOPIC_PARTITIONS",
)  # fmt: skip
MOCK_HAS_NONE = "the mock, which alone is asked here, has no bucket"


@dataclass(frozen=True)
class Run:
    at: str
    commit: str
    machine: str
    load_before: float
    seconds: float
    orders: int
    load_s: int
    limits: Mapping[str, str]
    results: Mapping[str, float]
    failed: list[str]
    beside: list[Beside] = field(default_factory=list)

    @property
    def size(self) -> str:
        return f"{self.orders:,} orders, {self.load_s} s each load"


def run_of(bench: Bench, load_before: float, seconds: float) -> Run:
    env = bench.service_env("", "", 0)
    return Run(
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), commit(), f"{platform.machine()}, {CORES} cores", load_before,
        seconds, ORDERS, SECONDS, limits_of(env), dict(bench.results), list(bench.failed), beside(bench.results),
    )  # fmt: skip


def commit() -> str:
    """With a + when the files are not as committed."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=ROOT, capture_output=True, text=True
    )
    return told.stdout.strip() or "-"


def limits_of(env: Mapping[str, str]) -> dict[str, str]:
    """As the workers of this run have them."""
    fields = {name: info for key, info in Settings.model_fields.items() for name in environment_names(key)}
    return {name: env.get(name, str(fields[name].default)) for name in LIMITS}


def show(run: Run) -> None:
    every = Table(title=f"every figure: {run.size}, {run.machine}, load before {run.load_before:.1f}")
    every.add_column("what")
    every.add_column("figure", justify="right")
    for name, value in run.results.items():
        every.add_row(name, shown(value))
    console.print(every)
    main = Table(title=f"beside references, one run of {run.seconds:.0f} s")
    for column in ("what", "ours", "reference", "ours / reference", "aim"):
        main.add_column(column, justify="right" if column.startswith("ours") else "left")
    for one in run.beside:
        texts = [f"{name} {shown(value)}" for name, value in one.references.items()]
        ratios = [f"{one.ours / value:,.2f}" for value in one.references.values()]
        main.add_row(one.title, f"{shown(one.ours)} {one.unit}", "\n".join(texts), "\n".join(ratios), one.aim)
    console.print(main)
    console.print("limits: " + ", ".join(f"{k}={v}" for k, v in run.limits.items()) + f"; {MOCK_HAS_NONE}")
    if run.failed:
        console.print(f"[red]without figures: {', '.join(run.failed)}")


def write(run: Run, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(asdict(run), indent=1))
    (folder / "bench.svg").write_text(picture(run.beside, cost_of(run.results), f"{run.at}, {run.commit}, {run.size}"))
    console.print(f"written to {folder / 'bench.json'} and {folder / 'bench.svg'}")
