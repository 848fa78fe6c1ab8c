"""What the rows of the service before this one say of a payment, in our words.

Room: core. Pure. The rows are imported as they are; where sums and status disagree a person is asked to look
(`review`), and what may have happened and nobody knows is UNKNOWN, so that the provider is asked before anything else
is tried. Old words come in capitals or small letters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from payment_service.core.errors import Refused
from payment_service.core.events import PaymentImported
from payment_service.core.imported import imported
from payment_service.core.money import currency_code, to_minor
from payment_service.core.payment import Payment
from payment_service.core.payment_method import own_method_id
from payment_service.core.terms import IN_THE_WAY, AttemptState, Kind, RefundStatus

NOTHING_SENT_MS = 3_600_000
"""How long a shopper may still act on what the old service left open; then it is looked up and cancelled."""
PROVIDERS = frozenset({"STRIPE", "PAYPAL", "MOCK"})
STATUSES = frozenset({"PENDING", "PROCESSING", "SUCCEEDED", "FAILED", "CANCELLED", "REFUNDED"})
FAILED_BEFORE = "LEGACY_FAILED"
UNREADABLE = "LEGACY_UNREADABLE"


@dataclass(frozen=True, slots=True)
class LegacyCall:
    """A row of payment_transactions."""

    kind: str
    status: str
    amount: Decimal
    currency: str
    provider_id: str | None
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class LegacyRefund:
    legacy_id: str
    status: str
    amount: Decimal
    currency: str
    reason: str | None
    provider_id: str | None
    created_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True)
class LegacyPayment:
    """A row of payments, with those that belong to it in the order in which they were made."""

    legacy_id: str
    order_id: str
    user_id: str
    method_id: str | None
    status: str
    provider: str
    provider_payment_id: str | None
    amount: Decimal
    currency: str
    description: str | None
    metadata: Mapping[str, Any]
    created_at_ms: int
    updated_at_ms: int
    calls: Sequence[LegacyCall] = ()
    refunds: Sequence[LegacyRefund] = ()


@dataclass(slots=True)
class _Reading:
    """Of one row, while it is read."""

    row: LegacyPayment
    currency: str
    asked: bool
    """It is so young that the provider is asked about a no as well."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    refunds: list[dict[str, Any]] = field(default_factory=list)
    review: list[str] = field(default_factory=list)

    def minor(self, amount: Decimal, currency: str) -> int:
        if currency.strip().upper() != self.currency:
            self.flag("LEGACY_CURRENCY_DIFFERS")
        return minor_of(amount, self.currency)

    def flag(self, reason: str) -> None:
        if reason not in self.review:
            self.review.append(reason)

    def in_state(self, *states: AttemptState) -> list[dict[str, Any]]:
        return [it for it in self.calls if it["kind"] == Kind.CHARGE and it["state"] in states]

    def charge(self, state: AttemptState) -> dict[str, Any]:
        """One that no row tells of, but the payment's own."""
        row = self.row
        call = {
            "kind": Kind.CHARGE.value, "state": state, "amount_minor": minor_of(row.amount, self.currency),
            "provider_id": row.provider_payment_id, "started_at_ms": row.created_at_ms,
            "updated_at_ms": row.updated_at_ms, "of_object": row.provider_payment_id is not None,
        }  # fmt: skip
        self.calls.append(call)
        return call


def minor_of(amount: Decimal, currency: str) -> int:
    """The old service kept two decimals whatever the currency. Raises Refused for what the currency cannot hold."""
    return to_minor(format(amount.normalize(), "f"), currency)


def event_of(row: LegacyPayment, at_ms: int, by: str, ask_since_ms: int) -> PaymentImported:
    """`ask_since_ms`: a payment that failed or was cancelled since then is asked for at its provider once more.

    Raises: Refused, for a row that cannot be a payment of ours.
    """
    status, provider = row.status.strip().upper(), row.provider.strip().upper()
    if status not in STATUSES:
        raise Refused(f"status {row.status!r} is none that is known", code=UNREADABLE)
    if provider not in PROVIDERS:
        raise Refused(f"provider {row.provider!r} is none that is known", code=UNREADABLE)
    if not row.order_id or not row.user_id:
        raise Refused("it names no order or no user", code=UNREADABLE)
    reading = _Reading(row, currency_code(row.currency), row.updated_at_ms >= ask_since_ms)
    amount_minor = minor_of(row.amount, reading.currency)
    _read_calls(reading)
    cancelled, cancel_requested = _settle(reading, status, at_ms)
    _read_refunds(reading, status)
    _compare(reading, status, amount_minor)
    about_object = any(call.get("of_object") for call in reading.calls)
    return PaymentImported(
        at_ms, by, row.legacy_id, status, row.order_id, row.user_id, amount_minor, reading.currency, provider,
        own_method_id(row.method_id), row.description, dict(row.metadata), row.created_at_ms, row.updated_at_ms,
        row.provider_payment_id if about_object else None,
        [{**call, "state": str(call["state"])} for call in reading.calls], reading.refunds, cancelled,
        cancel_requested, reading.review,
    )  # fmt: skip


def _read_calls(reading: _Reading) -> None:
    words = {"SUCCEEDED": AttemptState.APPROVED, "FAILED": AttemptState.DECLINED, "PENDING": AttemptState.OPEN}
    for it in reading.row.calls:
        kind, status = it.kind.strip().upper(), it.status.strip().upper()
        if kind == "REFUND":
            continue  # the table of refunds says more
        if kind not in ("CHARGE", "VOID") or status not in words:
            raise Refused(f"its call {it.kind!r} {it.status!r} is none that is known", code=UNREADABLE)
        state = words[status]
        if kind == "VOID" and state is AttemptState.OPEN:
            reading.flag("LEGACY_VOID_OPEN")
            state = AttemptState.DECLINED
        reading.calls.append({
            "kind": kind, "state": state, "amount_minor": reading.minor(it.amount, it.currency),
            "provider_id": it.provider_id or reading.row.provider_payment_id, "started_at_ms": it.created_at_ms,
            "updated_at_ms": max(it.created_at_ms, reading.row.updated_at_ms) if state is AttemptState.OPEN
            else it.created_at_ms,
            "of_object": reading.row.provider_payment_id is not None,
        } | ({"code": FAILED_BEFORE} if state is AttemptState.DECLINED else {}))  # fmt: skip


def _settle(reading: _Reading, status: str, at_ms: int) -> tuple[bool, bool]:
    """What the payment's status makes of its charges. Returns `cancelled` and `cancel_requested`."""
    row, approved = reading.row, reading.in_state(AttemptState.APPROVED)
    open_calls = reading.in_state(AttemptState.OPEN)
    last = open_calls[-1] if open_calls else None
    for call in open_calls[:-1]:
        call["state"] = AttemptState.SUPERSEDED
    known = row.provider_payment_id is not None
    if approved:
        if last is not None:
            last["state"] = AttemptState.SUPERSEDED
        if status not in ("SUCCEEDED", "REFUNDED"):
            reading.flag(f"LEGACY_{status}_BUT_CHARGED")
        return False, False
    if status in ("SUCCEEDED", "REFUNDED"):
        if reading.in_state(AttemptState.DECLINED):
            reading.flag("LEGACY_PAID_WITHOUT_CHARGE")
        (last or reading.charge(AttemptState.APPROVED))["state"] = AttemptState.APPROVED
        return False, False
    asked = known and (status == "PROCESSING" or reading.asked)
    if status == "PENDING" and not known and last is None:
        return False, False  # nothing was tried
    if status == "PENDING" and known:
        call = last or reading.charge(AttemptState.ACTION)
        call |= {
            "state": AttemptState.ACTION, "action_type": "use_client_secret",
            "action_expires_at_ms": at_ms + NOTHING_SENT_MS,
        }  # fmt: skip
        return False, False
    if status in ("PENDING", "PROCESSING"):  # sent, perhaps, and nobody knows by which name
        if not known:
            reading.flag("LEGACY_WITHOUT_PROVIDER_ID")
        (last or reading.charge(AttemptState.UNKNOWN))["state"] = AttemptState.UNKNOWN
        return False, False
    if asked:
        said_no = reading.in_state(AttemptState.DECLINED)
        call = last or (said_no[-1] if said_no else reading.charge(AttemptState.UNKNOWN))
        call["state"] = AttemptState.UNKNOWN
    elif last is not None:
        last |= {"state": AttemptState.DECLINED, "code": FAILED_BEFORE}
    elif status == "FAILED" and not reading.in_state(AttemptState.DECLINED):
        reading.charge(AttemptState.DECLINED)["code"] = FAILED_BEFORE
    cancelled = status == "CANCELLED"
    return cancelled and not asked, cancelled and asked


def _read_refunds(reading: _Reading, status: str) -> None:
    words = {"COMPLETED": RefundStatus.COMPLETED, "FAILED": RefundStatus.FAILED}
    for it in reading.row.refunds:
        word = it.status.strip().upper()
        if word in ("PENDING", "PROCESSING"):
            state = RefundStatus.PROCESSING if it.provider_id is not None else RefundStatus.UNKNOWN
            reading.flag("LEGACY_REFUND_OPEN")
        elif word in words:
            state = words[word]
        else:
            raise Refused(f"its refund {it.status!r} is none that is known", code=UNREADABLE)
        reading.refunds.append({
            "amount_minor": reading.minor(it.amount, it.currency), "status": state.value, "reason": it.reason,
            "provider_id": it.provider_id, "created_at_ms": it.created_at_ms, "updated_at_ms": it.updated_at_ms,
            "metadata": {"legacyId": it.legacy_id},
        })  # fmt: skip
    if status == "REFUNDED" and not reading.refunds:
        reading.flag("LEGACY_REFUNDED_WITHOUT_ROWS")
        taken = sum(call["amount_minor"] for call in reading.in_state(AttemptState.APPROVED))
        reading.refunds.append({
            "amount_minor": taken, "status": RefundStatus.COMPLETED.value, "reason": None, "provider_id": None,
            "created_at_ms": reading.row.updated_at_ms, "updated_at_ms": reading.row.updated_at_ms, "metadata": {},
        })  # fmt: skip


def _compare(reading: _Reading, status: str, amount_minor: int) -> None:
    approved = reading.in_state(AttemptState.APPROVED)
    taken = sum(call["amount_minor"] for call in approved)
    given = sum(it["amount_minor"] for it in reading.refunds if it["status"] == RefundStatus.COMPLETED)
    if len(approved) > 1:
        reading.flag("LEGACY_CHARGED_TWICE")
    elif taken and taken != amount_minor:
        reading.flag("LEGACY_CHARGED_OTHER_AMOUNT")
    if given > taken:
        reading.flag("LEGACY_REFUNDED_MORE")
    elif status == "REFUNDED" and given != taken:
        reading.flag("LEGACY_REFUNDED_OTHER_AMOUNT")
    elif status == "SUCCEEDED" and given == taken > 0:
        reading.flag("LEGACY_FULLY_REFUNDED")
    told = [it for it in reading.row.calls if it.kind.strip().upper() == "REFUND"]
    done = sum(reading.minor(it.amount, it.currency) for it in told if it.status.strip().upper() == "SUCCEEDED")
    if told and done != given:
        reading.flag("LEGACY_REFUND_ROWS_DIFFER")


def chosen(events: Sequence[PaymentImported]) -> tuple[PaymentImported, list[PaymentImported]]:
    """Of the payments of one order: the order's payment, and those that are kept as its history.

    The one that took money, and of several the one that still has most of it; else one that may still take some; else
    the newest.
    """
    payments = {event.legacy_id: imported(event.legacy_id, event) for event in events}

    def rank(event: PaymentImported) -> tuple[int, bool, int]:
        payment = payments[event.legacy_id]
        return payment.captured - payment.refunded, payment.captured > 0 or _is_open(payment), event.created_at_ms

    first = max(events, key=rank)
    others = [event for event in events if event is not first]
    review = list(first.review)
    for event in others:
        payment = payments[event.legacy_id]
        if payment.captured > payment.refunded:
            review.append(f"LEGACY_OTHER_PAID:{event.legacy_id}")
        elif _is_open(payment):
            review.append(f"LEGACY_OTHER_OPEN:{event.legacy_id}")
    return replace(first, review=review), others


def _is_open(payment: Payment) -> bool:
    return any(attempt.state in IN_THE_WAY for attempt in payment.attempts)
