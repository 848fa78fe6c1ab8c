"""A Metrics that keeps what it was told."""

from collections import Counter
from collections.abc import Callable


class CountedMetrics:
    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.gauges: dict[tuple[str, ...], float] = {}
        self.observed: dict[tuple[str, ...], list[float]] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[name, *(str(label) for label in labels.values())] += int(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.observed.setdefault((name, *(str(label) for label in labels.values())), []).append(value)

    def counting(self, name: str, **labels: str) -> Callable[[], None]:
        return lambda: self.count(name, **labels)

    def observing(self, name: str, **labels: str) -> Callable[[float], None]:
        return lambda value: self.observe(name, value, **labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.gauges[name, *(str(label) for label in labels.values())] = value
