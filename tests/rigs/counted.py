"""A Metrics that keeps what it was told."""

from collections import Counter


class CountedMetrics:
    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.gauges: dict[tuple[str, ...], float] = {}
        self.observed: dict[tuple[str, ...], list[float]] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[name, *(str(label) for label in labels.values())] += int(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.observed.setdefault((name, *(str(label) for label in labels.values())), []).append(value)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.gauges[name, *(str(label) for label in labels.values())] = value
