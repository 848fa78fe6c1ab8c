"""The table `reconciliation`: what our row, the topics, the provider and the order say of each payment, side by side.

Room: tables. Fed from payment-facts, in the partition of the payment's own events, so that the row of the table
`payments` beside it is what the topics say. Idempotent: a side's word counts by the time at which it was told.

A difference that is still there a minute later, after our row was read again, is an alarm: a log line that names the
payment, and a gauge. It ends when the sides agree again. Since when they differ is in the row: a restart or a rebalance
does not begin anew.

What may be lost: the words of a provider or an order that a killed worker had heard and not told yet (a second's), and
those beyond what is compared a second: such a payment is compared without them. Rows on which all agree leave after
KEEP_MS, or when there are more than `rows_max`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from payment_service.codecs.facts import TOPIC, Told
from payment_service.codecs.times import rfc3339
from payment_service.core.errors import Malformed
from payment_service.core.ports import Cipher
from payment_service.core.reconciliation import Account, Difference, alarms_of, compared, is_open, told
from payment_service.tables.sealed_rows import Row, SealedRows

NAME = "reconciliation"
TOPICS = (TOPIC,)
KEEP_MS = 15 * 60_000
KEEP_OPEN_MS = 24 * 3_600_000
ROWS_MAX = 5_000
"""Of one partition, about 4 KB of memory each."""
LOOK_AGAIN_MS = 20_000
"""How long after the last look our row is read again, as long as something is open."""
LATE_MS = 600_000
"""A row of the table `payments` may leave so much earlier than its time, by clocks that differ."""

_log = structlog.get_logger(__name__)


class PublishedRows(Protocol):
    """The table `payments`."""

    def get(self, payment_id: str) -> Mapping[str, Any] | None: ...


class ReconciliationTable:
    """`keeps_all(partition)`: what the table `payments` does not have of this partition was not published, or is older
    than `ttl_s`."""

    def __init__(
        self, app: Any, payments: PublishedRows, keeps_all: Callable[[int], bool], *, cipher: Cipher,
        now_ms: Callable[[], int], ttl_s: float, rows_max: int = ROWS_MAX,
    ) -> None:  # fmt: skip
        """`app`: a PaymentApp, not started yet."""
        self.rows = SealedRows(
            app, NAME, text="Whether our row, the topics, the provider and the order agree, by payment id.",
            cipher=cipher, now_ms=now_ms, leaves_ms=_leaves_ms, rows_max=rows_max,
            newer_or_same=lambda row, held: bool(row["atMs"] >= held["atMs"]),
        )  # fmt: skip
        self.rows.on_row = self._on_row
        self._payments = payments
        self._keeps_all = keeps_all
        self._now_ms = now_ms
        self._ttl_ms = int(ttl_s * 1000)
        self._open: dict[str, Account] = {}
        """Those that do not agree (yet), by payment id."""
        self._alarmed: set[tuple[str, str]] = set()

    async def take(self, partition: int, told_some: Sequence[tuple[Any, Told]]) -> Sequence[tuple[Any, Malformed]]:
        """Of (whatever its caller knows it by, what was told). Returns those whose row no message can hold.

        Raises: Unavailable; the same again is always right.
        """
        now = self._now_ms()
        accounts: dict[str, dict[str, Any]] = {}
        named: dict[str, Any] = {}
        for it, (payment_id, order_id, facts) in told_some:
            before = accounts.get(payment_id) or self.rows.get(partition, payment_id)
            accounts[payment_id] = told(before, payment_id, order_id, facts)
            named[payment_id] = it
        rows: dict[str, Row] = {}
        for payment_id, account in accounts.items():
            whole = self._keeps_all(partition) and not self._may_have_left(account, now)
            rows[payment_id] = compared(account, self._payments.get(payment_id), now, whole=whole)
            rows[payment_id] = {**rows[payment_id], "timestamp": rfc3339(now)}
        refused = await self.rows.put(partition, rows)
        return [(named[key], error) for key, error in refused]

    def _may_have_left(self, account: Account, now: int) -> bool:
        payment = (account["ours"] or {}).get("payment")
        return payment is None or payment["updatedAtMs"] + self._ttl_ms - LATE_MS <= now

    def _on_row(self, partition: int, key: str, row: Row | None) -> None:
        if row is not None and is_open(row):
            self._open[key] = row
        else:
            self._open.pop(key, None)

    # --- what is to be done about it

    def to_look_at(self, limit: int) -> list[tuple[str, str]]:
        """(payment id, order id) of those of which our row must be read again now, the longest waiting first."""
        due_ms = self._now_ms() - LOOK_AGAIN_MS
        waiting = sorted((row["atMs"], key, row["orderId"]) for key, row in self._open.items() if row["atMs"] <= due_ms)
        return [(payment_id, order_id) for _, payment_id, order_id in waiting[:limit]]

    def alarms(self) -> Mapping[str, int]:
        """How many payments differ for too long, by what differs. Each is logged once, as long as it lasts."""
        now = self._now_ms()
        counts = dict.fromkeys((it.value for it in Difference), 0)
        alarmed: set[tuple[str, str]] = set()
        for payment_id, row in self._open.items():
            for what in alarms_of(row, now):
                counts[what] += 1
                alarmed.add((payment_id, what))
                if (payment_id, what) not in self._alarmed:
                    _log.error(
                        "a payment is told in two ways", what=what, payment_id=payment_id, order_id=row["orderId"],
                        since=rfc3339(row["differences"][what]),
                    )  # fmt: skip
        for payment_id, what in self._alarmed - alarmed:
            _log.warning("a payment is no longer told in two ways here", what=what, payment_id=payment_id)
        self._alarmed = alarmed
        return counts


def _leaves_ms(row: Row) -> int:
    return int(row["atMs"]) + (KEEP_OPEN_MS if is_open(row) else KEEP_MS)
