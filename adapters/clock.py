"""The Clock port on the system's clocks.

Room: adapters.
"""

import time


class SystemClock:
    """`now_ms` may jump when the machine's clock is set; `monotonic_s` never does, and means nothing elsewhere."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()
