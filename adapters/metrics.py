"""Counting, behind the Metrics port, and the text that Prometheus reads.

Room: adapters. What there is to count is declared in metric_list.py, with its labels, so that nothing is made by a
misspelt name. Our own cells and text instead of prometheus_client's, whose every count takes a lock and whose text
of 1,000 lines holds the event loop for 20 ms (measured; this: a tenth): of one thread, the event loop's. A count that
another thread makes at the same moment may be lost, never the rest.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from math import inf

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest

from payment_service.adapters.metric_list import COUNTERS, GAUGES, HISTOGRAMS

CELLS_MAX = 1000
"""Label combinations of one counter or gauge; beyond it everything is counted under "other"."""
HISTOGRAM_CELLS_MAX = 200
"""The same of a histogram, each of which is a dozen lines."""
OTHER = "other"
UNDECLARED = "metrics_undeclared"

Cell = list[float]
"""The value; of a histogram the sum, then the count of each bucket, the last one without an upper bound."""


class Family:
    """One metric with all its cells by label values."""

    __slots__ = ("_most", "bounds", "cells", "kind", "labels", "name", "reads", "text")

    def __init__(self, kind: str, name: str, text: str, labels: Sequence[str], bounds: Sequence[float] = ()) -> None:
        self.kind = kind
        self.name = name + "_total" if kind == "counter" and not name.endswith("_total") else name
        self.text = text
        self.labels = tuple(labels)
        self.bounds = tuple(bounds)
        self.cells: dict[tuple[str, ...], Cell] = {}
        self.reads: dict[tuple[str, ...], Callable[[], float]] = {}
        """Gauges whose value is asked for when somebody wants the text."""
        self._most = HISTOGRAM_CELLS_MAX if bounds else CELLS_MAX
        if not labels and kind != "gauge":  # what never happened is 0; a gauge that nobody set says nothing
            self.cell(())

    def cell(self, values: tuple[str, ...]) -> Cell:
        cell = self.cells.get(values)
        if cell is None:
            if len(self.cells) >= self._most:
                values = (OTHER,) * len(self.labels)
            new = [0.0] * (len(self.bounds) + 2) if self.bounds else [0.0]
            cell = self.cells.setdefault(tuple(str(value) for value in values), new)
        return cell


class PrometheusMetrics:
    """The Metrics port. A name that is not declared, or other labels, is our own bug: counted as such, never raised."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        for kind, declared in (("counter", COUNTERS), ("gauge", GAUGES)):
            for name, (text, labels) in declared.items():
                self._families[name] = Family(kind, name, text, labels)
        for name, (text, labels, bounds) in HISTOGRAMS.items():
            self._families[name] = Family("histogram", name, text, labels, bounds)
        self._families[UNDECLARED] = Family("counter", UNDECLARED, "Metrics that nobody declared", ())
        self._process: CollectorRegistry | None = None
        self.gauge("build_info", 1, version=version("payment-service"))

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        cell = self._cell(name, "counter", labels)
        if cell is not None:
            cell[0] += amount

    def observe(self, name: str, value: float, **labels: str) -> None:
        cell = self._cell(name, "histogram", labels)
        if cell is not None:
            cell[0] += value
            cell[bisect_left(self._families[name].bounds, value) + 1] += 1

    def gauge(self, name: str, value: float, **labels: str) -> None:
        cell = self._cell(name, "gauge", labels)
        if cell is not None:
            cell[0] = float(value)

    def counting(self, name: str, **labels: str) -> Callable[[], None]:
        cell = self._cell(name, "counter", labels)

        def one_more() -> None:
            if cell is not None:
                cell[0] += 1

        return one_more

    def observing(self, name: str, **labels: str) -> Callable[[float], None]:
        cell = self._cell(name, "histogram", labels)
        bounds = self._families[name].bounds if name in self._families else ()

        def observe(value: float) -> None:
            if cell is not None:
                cell[0] += value
                cell[bisect_left(bounds, value) + 1] += 1

        return observe

    def watch(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """A gauge that costs nothing until it is asked for. `read` neither waits nor raises."""
        if self._cell(name, "gauge", labels) is not None:
            family = self._families[name]
            family.reads[tuple(labels[label] for label in family.labels)] = read

    # What agents/delivery.py asks for.

    def counted(self, stream: str, outcome: str, amount: int = 1) -> None:
        self.count("stream_events", amount, stream=stream, outcome=outcome)

    def observed(self, stream: str, in_flight: int, window: int, backlog: int, oldest_age_s: float) -> None:
        self.gauge("stream_in_flight", in_flight, stream=stream)
        self.gauge("stream_window", window, stream=stream)
        self.gauge("stream_backlog", backlog, stream=stream)
        self.gauge("stream_oldest_age_s", oldest_age_s, stream=stream)

    def lagging(self, stream: str, topic: str, lag: int) -> None:
        """What agents/faust_app.py tells."""
        self.gauge("stream_lag", lag, stream=stream, topic=topic)

    # --- reading ---------------------------------------------------------------------------------------------

    def value(self, name: str, **labels: str) -> float | None:
        """Of a counter or gauge; None: it was never counted or set."""
        family = self._families[name]
        values = tuple(labels[label] for label in family.labels)
        read = family.reads.get(values)
        if read is not None:
            return read()
        cell = family.cells.get(values)
        return None if cell is None else cell[0]

    def values(self, name: str) -> list[tuple[tuple[str, ...], float]]:
        """Of a counter or gauge: every combination of labels with its value."""
        family = self._families[name]
        read = {labels: float(ask()) for labels, ask in family.reads.items()}
        return list(({labels: cell[0] for labels, cell in family.cells.items()} | read).items())

    def buckets(self, name: str) -> tuple[tuple[float, ...], list[tuple[tuple[str, ...], Sequence[float]]]]:
        """Of a histogram: the bounds, and for every combination of labels the count of each bucket and of what is
        above the last bound."""
        family = self._families[name]
        return family.bounds, [(labels, cell[1:]) for labels, cell in family.cells.items()]

    def text(self) -> bytes:
        """The exposition format for GET /metrics, with what the process uses."""
        if self._process is None:  # once somebody asks: it looks into /proc
            self._process = CollectorRegistry()
            ProcessCollector(registry=self._process)
            PlatformCollector(registry=self._process)
            GCCollector(registry=self._process)
        lines = [line for family in self._families.values() for line in _lines_of(family)]
        return ("\n".join(lines) + "\n").encode() + generate_latest(self._process)

    def _cell(self, name: str, kind: str, labels: dict[str, str]) -> Cell | None:
        family = self._families.get(name)
        if family is None or family.kind != kind or len(labels) != len(family.labels):
            self._families[UNDECLARED].cell(())[0] += 1
            return None
        try:
            values = tuple([labels[label] for label in family.labels])
        except KeyError:
            self._families[UNDECLARED].cell(())[0] += 1
            return None
        return family.cells.get(values) or family.cell(values)


def _lines_of(family: Family) -> Iterable[str]:
    name = family.name
    yield f"# HELP {name} {family.text}"
    yield f"# TYPE {name} {family.kind}"
    for values, read in family.reads.items():
        family.cell(values)[0] = float(read())
    for values, cell in list(family.cells.items()):
        pairs = [f'{label}="{_escaped(value)}"' for label, value in zip(family.labels, values, strict=True)]
        labels = ",".join(pairs)
        if not family.bounds:
            value = "+Inf" if cell[0] == inf else repr(cell[0])
            yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
            continue
        so_far, before = 0.0, labels + "," if labels else ""
        for bound, count in zip((*family.bounds, "+Inf"), cell[1:], strict=True):
            so_far += count
            yield f'{name}_bucket{{{before}le="{bound}"}} {so_far!r}'
        behind = f"{{{labels}}}" if labels else ""
        yield f"{name}_count{behind} {so_far!r}"
        yield f"{name}_sum{behind} {cell[0]!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
