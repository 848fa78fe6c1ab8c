"""The auditor's checks of money: the provider's ledger against itself, and our rows against it."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from crash.auditor_evidence import TAKES, Evidence, Purse, Row, Violation

SETTLED = frozenset(
    {"PENDING", "AUTHORIZED", "SUCCEEDED", "FAILED", "CANCELLED", "PARTIALLY_REFUNDED", "REFUNDED"}
)  # fmt: skip
OPEN_WEBHOOKS = frozenset({"RECEIVED", "PARKED", "FAILED"})
MOVES = {"CHARGE": {"charge"}, "AUTHORIZE": {"authorize"}, "CAPTURE": {"capture"}, "REFUND": {"refund"}}
"""What a call of ours makes the provider write down when it says yes."""


def charged_twice(evidence: Evidence) -> Iterator[Violation]:
    by_key: Counter[str] = Counter(it["key"] for it in evidence.movements if it["key"] is not None)
    for key, count in by_key.items():
        if count > 1:
            yield Violation("key charged twice", key.split(":")[0], f"{count} movements for {key}")
    for payment_id, purse in evidence.purses.items():
        for text in purse.doubled:
            yield Violation("charged twice", payment_id, text)
        amount = evidence.payments.get(payment_id, {}).get("amount_minor")
        if amount is not None and purse.captured > amount:
            yield Violation("charged too much", payment_id, f"{purse.captured} of {amount}")


def refunded_too_much(evidence: Evidence) -> Iterator[Violation]:
    for payment_id, purse in evidence.purses.items():
        if purse.back > purse.captured:
            yield Violation("refunded too much", payment_id, f"{purse.back} of {purse.captured}")
    for payment_id, row in evidence.payments.items():
        if row["refunded"] > row["captured"]:
            yield Violation("refunded too much", payment_id, f"the row says {row['refunded']} of {row['captured']}")


def money_without_intent(evidence: Evidence) -> Iterator[Violation]:
    """Every call is committed before it is made: a movement by a key of ours has its row, whatever died."""
    known = {row["provider_key"]: row for row in evidence.table("transactions")}
    for movement in evidence.movements:
        payment_id, key = movement["payment_id"], movement["key"]
        if payment_id is None or payment_id not in evidence.payments:
            yield Violation("money of nobody", str(payment_id), f"movement {movement['n']} of no payment of ours")
        elif key is not None and movement["kind"] in TAKES | {"capture", "refund"}:
            if key not in known:
                yield Violation("money without intent", payment_id, f"no transaction with the key {key}")
            elif known[key]["payment_id"] != payment_id:
                yield Violation("money of another", payment_id, f"{key} is a call of {known[key]['payment_id']}")


def unsettled(evidence: Evidence) -> Iterator[Violation]:
    for row in evidence.payments.values():
        if row["status"] not in SETTLED:
            yield Violation("unsettled", row["id"], f"the payment is {row['status']}")
        if row["refund_pending"] != 0:
            yield Violation("unsettled", row["id"], f"{row['refund_pending']} are reserved for refunds")
    for row in evidence.table("transactions"):
        if row["due_at"] is not None or row["status"] not in ("SUCCEEDED", "FAILED"):
            yield Violation(
                "unsettled", row["payment_id"], f"{row['provider_key']} is {row['status']}, due {row['due_at']}"
            )
    for row in evidence.table("refunds"):
        if row["status"] not in ("COMPLETED", "FAILED", "CANCELLED"):
            yield Violation("unsettled", row["payment_id"], f"{row['id']} is {row['status']}")
    for row in evidence.table("outbox"):
        yield Violation("unsettled", row["payment_id"], f"event {row['sequence']} waits in the outbox")
    for row in evidence.table("payment_webhooks"):
        if row.get("status") in OPEN_WEBHOOKS:
            yield Violation("unsettled", str(row.get("payment_id")), f"a webhook is {row['status']}: {row.get('type')}")
    for line in evidence.said("unsettled"):
        yield Violation("unsettled", "", line["text"])


def rows_against_ledger(evidence: Evidence) -> Iterator[Violation]:
    for payment_id, row in evidence.payments.items():
        purse = evidence.purse(payment_id)
        for bucket, moved in (
            ("authorized", purse.authorized),
            ("captured", purse.captured),
            ("refunded", purse.back),
            ("disputed", purse.disputed),
        ):
            unheard = bucket == "authorized" and row[bucket] == 0 and _released_unheard(evidence, payment_id, purse)
            if row[bucket] != moved and not unheard:
                yield Violation("bucket", payment_id, f"{bucket} is {row[bucket]}, the ledger says {moved}")
        expected = _statuses(row, purse)
        if row["status"] not in expected:
            yield Violation("status", payment_id, f"{row['status']}, the ledger allows {sorted(expected)}")


def _released_unheard(evidence: Evidence, payment_id: str, purse: Purse) -> bool:
    """A hold that the shopper's browser placed, and a void of ours let go before anybody told us of it: nothing moved
    and nothing is held, and the provider shows no more than a cancelled object."""
    holds = [m for m in evidence.movements if m["payment_id"] == payment_id and m["kind"] == "authorize"]
    return purse.held == 0 and purse.captured == 0 and all(hold["key"] is None for hold in holds)


def _statuses(row: Row, purse: Purse) -> set[str]:
    """What the contract calls a payment with such movements. Open ones are told by `unsettled`."""
    if purse.captured > 0:
        if purse.back >= purse.captured:
            return {"REFUNDED"}
        return {"PARTIALLY_REFUNDED"} if purse.back > 0 else {"SUCCEEDED"}
    if purse.held > 0:
        return {"AUTHORIZED"} | ({row["status"]} - SETTLED)
    return {"PENDING", "FAILED", "CANCELLED"} | ({row["status"]} - SETTLED)


def calls_against_ledger(evidence: Evidence) -> Iterator[Violation]:
    """A call that is recorded as a yes moved money; one that is recorded as a no did not."""
    moved: dict[str, list[Row]] = defaultdict(list)
    for movement in evidence.movements:
        if movement["key"] is not None:
            moved[movement["key"]].append(movement)
    for row in evidence.table("transactions"):
        kinds = MOVES.get(row["type"])
        if kinds is None:
            continue
        mine = [it for it in moved[row["provider_key"]] if it["kind"] in kinds]
        purse = evidence.purse(row["payment_id"])
        # A shopper's approval moves money without our key, and two attempts may find the same movement.
        others = [it for it in purse.movements if it["kind"] in kinds]
        if row["status"] == "SUCCEEDED" and not mine and not others:
            yield Violation("yes without money", row["payment_id"], f"{row['provider_key']} moved nothing")
        if row["status"] == "FAILED" and mine and not (row["type"] == "REFUND" and purse.refund_failed):
            yield Violation("no with money", row["payment_id"], f"{row['provider_key']} moved {mine}")


def refunds_against_ledger(evidence: Evidence) -> Iterator[Violation]:
    done: dict[str, list[Row]] = defaultdict(list)
    for row in evidence.table("refunds"):
        if row["status"] == "COMPLETED":
            done[row["payment_id"]].append(row)
    for payment_id in done.keys() | evidence.purses.keys():
        purse = evidence.purse(payment_id)
        recorded = sum(row["amount_minor"] for row in done[payment_id])
        if recorded != purse.back:
            yield Violation("refund", payment_id, f"refunds of {recorded} are recorded, the ledger says {purse.back}")


CHECKS = (
    charged_twice, refunded_too_much, money_without_intent, unsettled, rows_against_ledger, calls_against_ledger,
    refunds_against_ledger,
)  # fmt: skip
