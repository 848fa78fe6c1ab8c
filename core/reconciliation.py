"""One payment as four sides tell it: our row and its history, the topics, the provider, the order. Do they agree?

Room: core. Pure. An account is a plain mapping, as it stands in the table `reconciliation`; a fact is one side's word,
as it stands in the topic payment-facts. Nothing is decided here about a payment: a difference is for a person.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

from payment_service.core.payment import Payment, status_of, subject_of
from payment_service.core.ports import Answer, ProviderCall
from payment_service.core.terms import AttemptState, Kind, RefundStatus, Verdict

Account = Mapping[str, Any]
Fact = Mapping[str, Any]

ALARM_MS = 60_000
"""A difference that lasts so long is an alarm. Shorter ones are the sides being told one after another."""
CONFIRMED_MS = 30_000
"""And our row was read again so long after it was first seen."""
CALLS_MAX = 20
"""Words of the provider that are kept of one payment."""
MOVES_MONEY = frozenset({Kind.CHARGE, Kind.CAPTURE, Kind.REFUND})
SAID_YES = frozenset({AttemptState.APPROVED.value, RefundStatus.COMPLETED.value})


class Side(StrEnum):
    ORDER = "ORDER"
    PROVIDER = "PROVIDER"
    OURS = "OURS"


class Difference(StrEnum):
    NO_PAYMENT = "NO_PAYMENT"
    """The order or the provider told of it, and PostgreSQL has no such payment."""
    WENT_BACK = "WENT_BACK"
    """Our row has an older version than was seen before: a database that was put back."""
    HISTORY_DIFFERS = "HISTORY_DIFFERS"
    """Our row and its events disagree about how much was published."""
    NOT_PUBLISHED = "NOT_PUBLISHED"
    """Our history has published what the topics do not have."""
    PUBLISHED_AHEAD = "PUBLISHED_AHEAD"
    """The topics have what our history does not."""
    PUBLISHED_DIFFERS = "PUBLISHED_DIFFERS"
    """Both have the same event, with another status or other amounts."""
    NOT_RECORDED = "NOT_RECORDED"
    """The provider said yes to a call that moves money, and our row does not say so."""
    AMOUNT_DIFFERS = "AMOUNT_DIFFERS"
    """It moved another amount than our row has."""
    ORDER_DIFFERS = "ORDER_DIFFERS"
    """The order has another amount or currency, and nobody was told to look."""


class State(StrEnum):
    WAITS = "WAITS"
    """Our row was not read since the last word of another side."""
    AGREES = "AGREES"
    DIFFERS = "DIFFERS"


# --- facts -----------------------------------------------------------------------------------------------------


def order_fact(amount_minor: int, currency: str, at_ms: int) -> Fact:
    return {"side": Side.ORDER, "atMs": at_ms, "amountMinor": amount_minor, "currency": currency}


def provider_fact(call: ProviderCall, answer: Answer, at_ms: int) -> Fact | None:
    """None: it moved nothing, or in another currency, which is flagged where it is recorded."""
    currency = answer.currency or call.currency
    if answer.verdict is not Verdict.APPROVED or call.kind not in MOVES_MONEY or currency != call.currency:
        return None
    amount = call.amount_minor if answer.amount_minor is None else answer.amount_minor
    name = f"{call.kind.lower()}:{call.number}"
    return {"side": Side.PROVIDER, "atMs": at_ms, "call": name, "amountMinor": amount, "currency": currency}


def our_fact(payment: Payment | None, published: Mapping[str, Any] | None, at_ms: int) -> Fact:
    """`payment`: as its row says. `published`: the last message that its history makes."""
    if payment is None:
        return {"side": Side.OURS, "atMs": at_ms, "payment": None}
    calls = {
        f"{it.kind.lower()}:{it.number}": [it.state.value, it.moved_minor, it.contradicted_by is not None]
        for it in payment.attempts
        if it.kind in MOVES_MONEY
    }
    for refund in payment.refunds:
        word = RefundStatus.COMPLETED if refund.was_completed else refund.status  # a later failure is no contradiction
        amount = refund.amount_minor if refund.counted else 0
        calls[subject_of(Kind.REFUND, refund.number)] = [word.value, amount, refund.contradicted_by is not None]
    return {
        "side": Side.OURS,
        "atMs": at_ms,
        "payment": {
            "version": payment.version,
            "sequence": payment.sequence,
            "status": status_of(payment).value,
            "amountMinor": payment.amount_minor,
            "currency": payment.currency,
            "captured": payment.captured,
            "refunded": payment.refunded,
            "flagged": bool(payment.review),
            "known": payment.known,
            "updatedAtMs": payment.updated_at_ms,
            "calls": calls,
            "told": told_of(published),
        },
    }


def told_of(published: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What is compared of a published event, or of a row of the table `payments`."""
    if published is None:
        return None
    data = published.get("data", published)
    amounts = data.get("amounts", {})
    return {
        "sequence": published["sequence"],
        "status": data.get("status"),
        "captured": amounts.get("captured"),
        "refunded": amounts.get("refunded"),
    }


# --- accounts --------------------------------------------------------------------------------------------------


def told(account: Account | None, payment_id: str, order_id: str, facts: Sequence[Fact]) -> dict[str, Any]:
    """The account with these words in it, not compared yet. The same word again changes nothing, nor does an older."""
    new = dict(account) if account is not None else {
        "paymentId": payment_id, "orderId": order_id, "order": None, "provider": {}, "ours": None, "seenVersion": 0,
        "differences": {},
    }  # fmt: skip
    for fact in facts:
        match fact["side"]:
            case Side.ORDER if _later(fact, new["order"]):
                new["order"] = {**fact, "settled": False}
            case Side.PROVIDER if _later(fact, new["provider"].get(fact["call"])):
                calls = {**new["provider"], fact["call"]: fact}
                new["provider"] = dict(sorted(calls.items(), key=lambda it: it[1]["atMs"])[-CALLS_MAX:])
            case Side.OURS if _later(fact, new["ours"]):
                new["ours"] = fact
                if fact["payment"] is not None:
                    new["seenVersion"] = max(new["seenVersion"], fact["payment"]["version"])
    return new


def _later(fact: Fact, held: Fact | None) -> bool:
    return held is None or fact["atMs"] > held["atMs"]


def compared(account: dict[str, Any], published: Mapping[str, Any] | None, now_ms: int, *, whole: bool) -> Account:
    """With what differs, and since when. `published`: the row of the table `payments`; `whole`: a row that it does not
    have was not published."""
    ours, order = account["ours"], account["order"]
    found = set() if ours is None else set(_differences(account, told_of(published), whole))
    known = _is_after(ours, order) and ours["payment"] is not None and ours["payment"]["known"]
    if known and Difference.ORDER_DIFFERS not in found:
        account["order"] = {**order, "settled": True}  # agreed with once, or shown to a person: that is that
    before = account["differences"]
    account["differences"] = {name.value: before.get(name.value, now_ms) for name in sorted(found)}
    account["published"] = told_of(published)
    account["atMs"] = now_ms
    waits = ours is None or any(not _is_after(ours, it) for it in _others(account))
    account["status"] = (State.DIFFERS if found else State.WAITS if waits else State.AGREES).value
    return account


def _others(account: Account) -> list[Fact]:
    return [*account["provider"].values(), *([account["order"]] if account["order"] is not None else [])]


def _is_after(ours: Fact | None, said: Fact | None) -> bool:
    return ours is not None and said is not None and bool(ours["atMs"] > said["atMs"])


def _differences(account: Account, published: Mapping[str, Any] | None, whole: bool) -> Collection[Difference]:
    ours = account["ours"]
    payment = ours["payment"]
    if payment is None:
        return [Difference.NO_PAYMENT] if any(_is_after(ours, it) for it in _others(account)) else []
    found = [*_of_topics(payment, published, whole)]
    if payment["version"] < account["seenVersion"]:
        found.append(Difference.WENT_BACK)
    if payment["flagged"]:  # a person looks already
        return found
    for call, said in account["provider"].items():
        if _is_after(ours, said):
            found += _of_call(payment["calls"].get(call), said)
    order = account["order"]
    if _is_after(ours, order) and not order["settled"]:
        same = (order["amountMinor"], order["currency"]) == (payment["amountMinor"], payment["currency"])
        found += [] if same or not payment["known"] else [Difference.ORDER_DIFFERS]
    return found


def _of_topics(payment: Mapping[str, Any], published: Mapping[str, Any] | None, whole: bool) -> list[Difference]:
    told = payment["told"]
    if payment["sequence"] != (told["sequence"] if told is not None else 0):
        return [Difference.HISTORY_DIFFERS]
    if published is None:
        return [Difference.NOT_PUBLISHED] if told is not None and whole else []
    if told is None or published["sequence"] > told["sequence"]:
        return [Difference.PUBLISHED_AHEAD]
    if published["sequence"] < told["sequence"]:
        return [Difference.NOT_PUBLISHED]
    return [] if published == told else [Difference.PUBLISHED_DIFFERS]


def _of_call(recorded: Sequence[Any] | None, said: Fact) -> list[Difference]:
    word, moved, contradicted = recorded or ("", 0, False)
    if contradicted:  # flagged when it was
        return []
    if word not in SAID_YES:
        return [Difference.NOT_RECORDED]
    return [Difference.AMOUNT_DIFFERS] if moved and moved != said["amountMinor"] else []


def is_open(account: Account) -> bool:
    """Our row must be read again."""
    return bool(account["status"] != State.AGREES)


def alarms_of(account: Account, now_ms: int) -> list[str]:
    """What has differed for too long, also after our row was read again."""
    ours = account["ours"]
    return [
        name
        for name, since_ms in account["differences"].items()
        if now_ms - since_ms >= ALARM_MS and ours["atMs"] - since_ms >= CONFIRMED_MS
    ]
