"""A Clock that stands still until a test moves it."""


class SettableClock:
    def __init__(self, at_s: float = 1_000.0) -> None:
        self.at_s = at_s

    def now_ms(self) -> int:
        return round(self.at_s * 1000)

    def monotonic_s(self) -> float:
        return self.at_s

    def pass_s(self, seconds: float) -> None:
        self.at_s += seconds
