"""The table `provider_health`: how each provider did in each minute of the last hour, by currency and worker.

Room: tables. Fed from payment-provider-stats, where every worker tells its own window once the minute is over. Faust's
windowed tables are not used: they add to the window of an event's time, so that an event that comes again counts twice,
and expire by a timer. Here a window is a row of its own, and the same one again replaces it.

What may be lost: the minute that a killed worker had not told yet, and whatever is older than an hour. Nothing is
decided by this table.
"""

from collections.abc import Callable, Sequence
from typing import Any

from payment_service.codecs.health import row_of
from payment_service.core.errors import Malformed
from payment_service.core.health import HealthWindow
from payment_service.core.ports import Cipher
from payment_service.tables.sealed_rows import SealedRows

NAME = "provider_health"
TOPICS = ("payment-provider-stats",)
KEEP_MS = 3_600_000
ROWS_MAX = 5_000
"""Of one partition, about 2 KB of memory each: an hour of 80 combinations of provider, currency and worker."""


class ProviderHealthTable:
    def __init__(
        self, app: Any, *, cipher: Cipher, now_ms: Callable[[], int], keep_ms: int = KEEP_MS, rows_max: int = ROWS_MAX
    ) -> None:
        """`app`: a PaymentApp, not started yet."""
        self.rows = SealedRows(
            app, NAME, text="How each provider did in each minute, by currency and worker.", cipher=cipher,
            now_ms=now_ms, leaves_ms=lambda row: int(row["startMs"]) + keep_ms, newer_or_same=lambda row, held: True,
            rows_max=rows_max,
        )  # fmt: skip
        self._now_ms = now_ms
        self._keep_ms = keep_ms

    async def take(
        self, partition: int, windows: Sequence[tuple[Any, HealthWindow]]
    ) -> Sequence[tuple[Any, Malformed]]:
        """Of (whatever its caller knows it by, window). Returns those whose row no message can hold.

        Raises: Unavailable; the same again is always right.
        """
        oldest_ms = self._now_ms() - self._keep_ms
        kept = {window.key: (named, window) for named, window in windows if window.start_ms > oldest_ms}
        refused = await self.rows.put(partition, {key: row_of(window) for key, (_, window) in kept.items()})
        return [(kept[key][0], error) for key, error in refused]
