"""What the facts of a payment's history alone say: it keeps its own sums, and shares no code with apply()."""

from collections import Counter

from payment_service.core import events as e
from payment_service.core.payment import Payment
from payment_service.core.terms import TAKES_MONEY, Kind, RefundStatus

REFUND_OPEN = frozenset({RefundStatus.PENDING, RefundStatus.PROCESSING, RefundStatus.UNKNOWN})


class Auditor:
    """What the facts alone say: the money, and who was told what."""

    def __init__(self) -> None:
        self.kinds: dict[int, Kind] = {}
        self.ids: dict[int, str | None] = {}
        self.counted: Counter[tuple[Kind, str]] = Counter()
        self.authorized = self.captured = self.ordered = 0
        self.refunds: dict[int, tuple[RefundStatus, int, bool]] = {}
        self.topics: list[str] = []

    def hear(self, event: e.Event) -> None:
        match event:
            case e.AttemptStarted():
                self.kinds[event.number] = event.kind
                self.ordered += event.by == "order" and event.kind in TAKES_MONEY
            case e.AttemptPending():
                self.ids[event.number] = event.provider_id or self.ids.get(event.number)
            case e.AttemptApproved(counted=True):
                kind = self.kinds[event.number]
                self.authorized += event.amount_minor if kind in TAKES_MONEY else 0
                self.captured += event.amount_minor if kind in (Kind.CHARGE, Kind.CAPTURE) else 0
                provider_id = event.provider_id or self.ids.get(event.number)
                if provider_id is not None and kind is not Kind.VOID:
                    self.counted[kind, provider_id] += 1
            case e.ExternalCapture():
                self.kinds[event.number], self.ids[event.number] = Kind.CAPTURE, event.provider_id
                self.captured += event.amount_minor
                if event.provider_id is not None:
                    self.counted[Kind.CAPTURE, event.provider_id] += 1
            case e.RefundRequested():
                self.refunds[event.number] = (RefundStatus.PENDING, event.amount_minor, True)
            case e.RefundPending() | e.RefundUnknown():
                _, amount, counted = self.refunds[event.number]
                self.refunds[event.number] = (RefundStatus.PROCESSING, amount, counted)
            case e.RefundCompleted():
                self.refunds[event.number] = (RefundStatus.COMPLETED, event.amount_minor, event.counted)
            case e.RefundFailed() | e.RefundNotSent():
                self.refunds[event.number] = (RefundStatus.FAILED, 0, True)
            case e.ExternalRefund():
                self.refunds[event.number] = (event.status, event.amount_minor, True)
            case _:
                pass

    def check(self, payment: Payment) -> None:
        pending = sum(amount for status, amount, _ in self.refunds.values() if status in REFUND_OPEN)
        done = sum(
            amount for status, amount, counted in self.refunds.values() if counted and status is RefundStatus.COMPLETED
        )
        assert (payment.authorized, payment.captured) == (self.authorized, self.captured)
        assert (payment.refund_pending, payment.refunded) == (pending, done)
        assert payment.disputed == sum(d.amount_minor for d in payment.disputes if d.state.value != "WON")
        assert not self.counted or max(self.counted.values()) == 1, "one movement of money was counted twice"
        assert self.ordered <= 1, "an order event starts at most one charge in a payment's life"
        refunded_ids = [r.provider_id for r in payment.refunds if r.counted and r.status is RefundStatus.COMPLETED]
        known_ids = [provider_id for provider_id in refunded_ids if provider_id is not None]
        assert len(known_ids) == len(set(known_ids)), "one refund was counted twice"
