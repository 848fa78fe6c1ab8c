"""What the auditor judges by, read from the folder of a run: `history.jsonl` (inputs, answers), `ledger.jsonl` (the
provider's), `topics.jsonl` and `tables.jsonl` (what was found at the end; bytes as Latin-1 text, hashes in hex).
Imports nothing of the service.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from crash.history import NAME, lines_of

Row = dict[str, Any]

TAKES = frozenset({"authorize", "charge"})
NO = frozenset({401, 402, 403, 404, 409, 422, 429, 503})
"""A caller who was told one of these was told that this call did nothing (contract §3)."""


class Violation(NamedTuple):
    kind: str
    subject: str
    """The payment's id, or the order's where there is none."""
    text: str


@dataclass(slots=True)
class Call:
    """One REST call and what its caller was told. `status` None: nothing, it may have happened."""

    number: int
    at_ms: int
    op: str
    order_id: str
    payment_id: str | None
    body: Row
    status: int | None = None
    told: Row = field(default_factory=dict)
    reached: bool = True

    @property
    def refused(self) -> bool:
        """It did nothing: somebody said so, or nobody was there to ask."""
        return self.status in NO or not self.reached

    @property
    def data(self) -> Row:
        data = self.told.get("data") if self.status is not None and 200 <= self.status < 300 else None
        return data if isinstance(data, dict) else {}

    @property
    def payment(self) -> Row:
        """The payment as it was shown, if it was."""
        shown = self.data.get("payment", self.data)
        return shown if "orderId" in shown else {}


@dataclass(slots=True)
class Purse:
    """What the provider's ledger says of one payment, in minor units."""

    movements: list[Row] = field(default_factory=list)
    authorized: int = 0
    captured: int = 0
    refunded: int = 0
    refund_failed: int = 0
    disputed: int = 0
    holds: dict[str, int] = field(default_factory=dict)
    """By provider object: what is reserved and neither taken nor released."""
    doubled: list[str] = field(default_factory=list)
    """Each time money was taken or held although it was already."""

    def add(self, movement: Row) -> None:
        kind, amount, where = movement["kind"], movement["amount_minor"], str(movement["object_id"])
        self.movements.append(movement)
        if kind in TAKES:
            if self.captured > 0 or any(self.holds.values()):
                self.doubled.append(f"movement {movement['n']} ({kind} {amount}) beside money that is there already")
            self.authorized += amount
        match kind:
            case "authorize":
                self.holds[where] = self.holds.get(where, 0) + amount
            case "charge":
                self.captured += amount
            case "capture":
                if not self.holds.get(where):
                    self.doubled.append(f"movement {movement['n']}: a capture of {amount} without a hold")
                self.holds[where] = 0
                self.captured += amount
            case "void" | "expire":
                self.holds[where] = 0
            case "refund":
                self.refunded += amount
            case "refund_failed":
                self.refund_failed += amount
            case "dispute":
                self.disputed += amount
            case "dispute_won":
                self.disputed -= amount
            case "dispute_lost":
                pass
            case _:
                raise ValueError(f"the ledger has a movement of unknown kind: {movement}")

    @property
    def back(self) -> int:
        """What went back to the shopper and stayed there."""
        return self.refunded - self.refund_failed

    @property
    def held(self) -> int:
        return sum(self.holds.values())


@dataclass(slots=True)
class Evidence:
    history: list[Row]
    ledger: list[Row]
    messages: list[Row]
    tables: dict[str, list[Row]]

    payments: dict[str, Row] = field(init=False)
    calls: list[Call] = field(init=False)
    orders: dict[str, list[Row]] = field(init=False)
    """Events that were sent of each order, in the order of their acks."""
    purses: dict[str, Purse] = field(init=False)

    def __post_init__(self) -> None:
        self.payments = {row["id"]: row for row in self.table("payments")}
        self.calls = _calls(self.history)
        self.orders = defaultdict(list)
        for line in self.history:
            if line["what"] == "order" and line.get("order_id"):
                self.orders[line["order_id"]].append(line)
        self.purses = {}
        for movement in self.movements:
            if movement["payment_id"] is not None:
                self.purses.setdefault(movement["payment_id"], Purse()).add(movement)

    def table(self, name: str) -> list[Row]:
        return self.tables.get(name, [])

    def purse(self, payment_id: str) -> Purse:
        return self.purses.get(payment_id, Purse())

    @property
    def movements(self) -> list[Row]:
        return [line for line in self.ledger if line.get("line") == "movement"]

    @property
    def begin(self) -> Row:
        return next((line for line in self.history if line["what"] == "begin"), {})

    def said(self, what: str) -> list[Row]:
        return [line for line in self.history if line["what"] == what]

    def calls_of(self, order_id: str, *ops: str) -> list[Call]:
        return [call for call in self.calls if call.order_id == order_id and call.op in ops]


def _calls(history: list[Row]) -> list[Call]:
    calls: dict[int, Call] = {}
    for line in history:
        if line["what"] == "call":
            calls[line["number"]] = Call(
                line["number"], line["at_ms"], line["op"], line["order_id"], line.get("payment_id"), line["body"]
            )
        elif line["what"] == "answer":
            calls[line["number"]].status = line["status"]
            calls[line["number"]].told = line["body"]
        elif line["what"] == "unreached":
            calls[line["number"]].reached = False
    return list(calls.values())


def read_evidence(folder: Path) -> Evidence:
    tables: dict[str, list[Row]] = defaultdict(list)
    for line in lines_of(folder / "tables.jsonl"):
        tables[line["table"]].append(line["row"])
    return Evidence(
        list(lines_of(folder / NAME)),
        list(lines_of(folder / "ledger.jsonl")),
        list(lines_of(folder / "topics.jsonl")),
        tables,
    )
