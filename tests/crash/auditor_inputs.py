"""The auditor's checks of those who asked: orders that were sent, values that nobody can read, and callers of REST."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from crash.auditor_evidence import Call, Evidence, Purse, Row, Violation

YES_TOKENS = frozenset({"tok_visa", "tok_mastercard", "pm_card_visa"})


def orders_and_payments(evidence: Evidence) -> Iterator[Violation]:
    of_order: dict[str, list[str]] = defaultdict(list)
    for row in evidence.payments.values():
        of_order[row["order_id"]].append(row["id"])
    asked = {call.order_id for call in evidence.calls if call.op == "create"}
    for order_id, events in evidence.orders.items():
        if order_id not in of_order and any(it["acked"] for it in events):
            yield Violation("order without payment", order_id, "an event of it was acked by the broker")
    for order_id, ids in of_order.items():
        if len(ids) > 1:
            yield Violation("two payments", order_id, f"{ids}")
        if order_id not in evidence.orders and order_id not in asked:
            yield Violation("payment of nothing", ids[0], f"nobody sent the order {order_id}")


def what_was_ordered(evidence: Evidence) -> Iterator[Violation]:
    """Owner and amount are what somebody sent; as long as nothing was tried, what the order said last."""
    tried = {row["payment_id"] for row in evidence.table("transactions")}
    for row in evidence.payments.values():
        created = [it for it in evidence.orders[row["order_id"]] if it["kind"] == "created"]
        mine = row["user_id"], row["amount_minor"], row["currency"]
        sent = [(it["user_id"], it["amount_minor"], it["currency"]) for it in created]
        asked = [
            (call.body["user_id"], call.body["amount_minor"], call.body["currency"])
            for call in evidence.calls_of(row["order_id"], "create")
        ]
        # Cancelled before anybody said what it costs; a creation by REST is refused then.
        without = not created and row["amount_minor"] == 0 and row["status"] == "CANCELLED"
        if mine not in sent + asked and not without:
            yield Violation("amount", row["id"], f"{mine} was never sent, but {sent + asked}")
        one_way = len({it["partition"] for it in created}) == 1 and created[-1]["acked"] and not asked
        if one_way and mine != sent[-1] and row["id"] not in tried:
            yield Violation("amount", row["id"], f"{mine}, the last correction said {sent[-1]}")


def cancelled_orders(evidence: Evidence) -> Iterator[Violation]:
    for row in evidence.payments.values():
        events = evidence.orders[row["order_id"]]
        kinds = [it["kind"] for it in events]
        if not any(it["kind"] == "cancelled" and it["acked"] for it in events):
            continue
        if row["status"] in ("PENDING", "FAILED", "AUTHORIZED"):  # `unsettled` tells of what is open
            yield Violation("not cancelled", row["id"], f"its order was cancelled, it is {row['status']}")
        # In one partition, so the cancellation was read first; and nobody asked for it by REST.
        first = kinds[0] == "cancelled" and events[0]["acked"] and len({it["partition"] for it in events}) == 1
        if first and not evidence.calls_of(row["order_id"], "create") and evidence.purse(row["id"]).movements:
            yield Violation("charged a cancelled order", row["id"], "its cancellation came before its creation")


def charged_orders(evidence: Evidence) -> Iterator[Violation]:
    """With AUTO_PROCESS_ORDERS an order that brings a good card is tried."""
    if not evidence.begin.get("auto"):
        return
    tried = {row["payment_id"] for row in evidence.table("transactions")}
    for row in evidence.payments.values():
        if row["id"] in tried:
            continue
        events = evidence.orders[row["order_id"]]
        good = bool(events) and all(it["method"] in YES_TOKENS for it in events)
        if good and row["status"] == "PENDING" and not evidence.calls_of(row["order_id"], "create"):
            yield Violation("not charged", row["id"], "the order brought a card and it was never tried")


def dead_letters(evidence: Evidence) -> Iterator[Violation]:
    """Each value that nobody can read is kept, with its bytes; nothing else is."""
    kept: dict[tuple[int, int], set[str | None]] = defaultdict(set)
    orders = evidence.begin.get("orders_topic")
    for message in evidence.messages:
        headers = dict(message["headers"])
        if message["topic"] == "payment-dead-letters" and headers.get("source-topic") == orders:
            kept[int(headers["source-partition"]), int(headers["source-offset"])].add(message["value"])
    for row in evidence.table("dead_letters"):
        if row["topic"] == orders:
            kept[row["partition"], row["offset"]].add(None)
    sent = [it for it in evidence.said("order") if it["kind"] == "junk"]
    junk = {(it["partition"], it["offset"]): it["value"] for it in sent if it["acked"]}
    for place, value in junk.items():
        if place not in kept:
            yield Violation("dead letter lost", f"{place}", "a value that nobody can read is gone")
        elif kept[place] - {None, value}:
            yield Violation("dead letter changed", f"{place}", "it is not what was sent")
    unsure = {it["value"] for it in sent if not it["acked"]}
    for place in kept.keys() - junk.keys():
        if not kept[place] & unsure:
            yield Violation("dead letter of a good event", f"{place}", "this was not junk")


def shown_payments(evidence: Evidence) -> Iterator[Violation]:
    """Whatever a caller was shown is of a payment that is there, and was never taken back."""
    for call in evidence.calls:
        shown = call.payment
        if not shown:
            continue
        row = evidence.payments.get(shown["id"])
        if row is None or row["order_id"] != call.order_id:
            yield Violation("told the client", shown["id"], f"{call.op} showed a payment that is not there")
            continue
        purse, amounts, who = evidence.purse(row["id"]), shown["amounts"], f"call {call.number} ({call.op})"
        if shown["version"] > row["version"]:
            yield Violation("told the client", row["id"], f"{who} saw version {shown['version']}, now {row['version']}")
        for bucket, moved in (
            ("captured", purse.captured),
            ("authorized", purse.authorized),
            ("refunded", purse.refunded),
        ):
            if amounts[bucket] > moved:
                text = f"{who} was told {bucket} {amounts[bucket]}, the ledger says {moved}"
                yield Violation("told the client", row["id"], text)
        if shown["status"] == "SUCCEEDED" and purse.captured == 0:
            yield Violation("told the client", row["id"], f"{who} was told SUCCEEDED, no money moved")


def refused_charges(evidence: Evidence) -> Iterator[Violation]:
    """Whoever was told no to every attempt was not charged."""
    approved = {line["payment_id"] for line in evidence.said("shopper")}
    auto = bool(evidence.begin.get("auto"))
    for payment_id, row in evidence.payments.items():
        order_id = row["order_id"]
        calls = evidence.calls_of(order_id, "process")
        by_order = auto and any(it["kind"] == "created" for it in evidence.orders[order_id])
        if not calls or by_order or payment_id in approved or not all(call.refused for call in calls):
            continue
        if evidence.purse(payment_id).movements:
            told = [call.status for call in calls]
            yield Violation("told the client", payment_id, f"every charge was refused ({told}) and money moved")


def told_refunds(evidence: Evidence) -> Iterator[Violation]:
    """A refund that was told is there; and there are no more than were asked for."""
    rows = {row["id"]: row for row in evidence.table("refunds")}
    told: Counter[str] = Counter()
    for call in evidence.calls:
        refund = call.data.get("refund") if call.op == "refund" else None
        if refund is None:
            continue
        told[refund["id"]] += 1
        row = rows.get(refund["id"])
        if row is None or row["amount_minor"] != refund["amountMinor"]:
            yield Violation("told the client", refund["paymentId"], f"the refund {refund['id']} is not there as told")
            continue
        failed_late = evidence.purse(refund["paymentId"]).refund_failed > 0
        if refund["status"] == "COMPLETED" and row["status"] != "COMPLETED" and not failed_late:
            text = f"{refund['id']} was told COMPLETED and is {row['status']}"
            yield Violation("told the client", refund["paymentId"], text)
    for payment_id, row in evidence.payments.items():
        yield from _too_many_refunds(evidence, payment_id, row, told)


def _too_many_refunds(evidence: Evidence, payment_id: str, row: Row, told: Counter[str]) -> Iterator[Violation]:
    calls = evidence.calls_of(row["order_id"], "refund")
    keys: set[object] = {call.body.get("key") or call.number for call in calls if not call.refused}
    ours = {
        it["key"] for it in evidence.purse(payment_id).movements if it["kind"] == "refund" and it["key"] is not None
    }
    cancelled = "cancelled" in {it["kind"] for it in evidence.orders[row["order_id"]]}
    asked_to_cancel = cancelled or bool(evidence.calls_of(row["order_id"], "cancel"))
    if len(ours) > len(keys) + asked_to_cancel:
        yield Violation("refund of nobody", payment_id, f"{len(ours)} refunds, {len(keys)} may have been asked for")
    for call in calls:
        refund = call.data.get("refund")
        if refund is not None and told[refund["id"]] > 1 and call.body.get("key") is None:
            yield Violation("told the client", payment_id, f"two calls were told the same refund {refund['id']}")


def told_cancelled(evidence: Evidence) -> Iterator[Violation]:
    """CANCELLED stays so as long as nobody creates it again: no money is held, none is taken."""
    for row in evidence.payments.values():
        creates = evidence.calls_of(row["order_id"], "create")
        last = max((call.at_ms for call in creates), default=-1)
        for call in evidence.calls_of(row["order_id"], "cancel"):
            done = call.payment.get("status") == "CANCELLED" and all(
                it.status is not None or not it.reached for it in creates
            )
            if done and call.at_ms > last and not _nothing(row, evidence.purse(row["id"])):
                yield Violation("told the client", row["id"], f"call {call.number} was told CANCELLED: {row['status']}")


def _nothing(row: Row, purse: Purse) -> bool:
    return row["status"] == "CANCELLED" and purse.held == 0 and purse.captured == 0


def told_creations(evidence: Evidence) -> Iterator[Violation]:
    def _made(call: Call) -> bool:
        return call.status in (200, 201)

    rows = {row["order_id"]: row for row in evidence.payments.values()}
    for call in evidence.calls:
        if call.op == "create" and _made(call) and call.order_id not in rows:
            yield Violation("order without payment", call.order_id, f"call {call.number} was told {call.status}")


CHECKS = (
    orders_and_payments, what_was_ordered, cancelled_orders, charged_orders, dead_letters, shown_payments,
    refused_charges, told_refunds, told_cancelled, told_creations,
)  # fmt: skip
