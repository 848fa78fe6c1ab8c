"""A small run in which everything is as it must be: what the auditor's own tests spoil, one thing at a time."""

import copy
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from crash.auditor_events import chain_key
from crash.auditor_evidence import Evidence, Row

KEY = "0123456789abcdef0123456789abcdef"
USER = "user-1"
BUCKETS = ("authorized", "captured", "refunded", "disputed")


@dataclass
class Run:
    history: list[Row] = field(default_factory=list)
    ledger: list[Row] = field(default_factory=list)
    messages: list[Row] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(default_factory=dict)

    def evidence(self) -> Evidence:
        return Evidence(self.history, self.ledger, self.messages, self.tables)

    def copy(self) -> "Run":
        return copy.deepcopy(self)

    # --- finding what is to be spoiled -----------------------------------------------------------------------

    def row(self, payment_id: str) -> Row:
        return next(row for row in self.tables["payments"] if row["id"] == payment_id)

    def call(self, key: str) -> Row:
        return next(row for row in self.tables["transactions"] if row["provider_key"] == key)

    def movement(self, key: str) -> Row:
        return next(line for line in self.ledger if line["key"] == key)

    def answers(self, op: str, order_id: str) -> list[Row]:
        numbers = {
            it["number"] for it in self.history
            if it["what"] == "call" and (it["op"], it["order_id"]) == (op, order_id)
        }  # fmt: skip
        return [it for it in self.history if it["what"] == "answer" and it["number"] in numbers]

    def told(self, payment_id: str, sequence: int) -> list[Row]:
        ce_id = f"evt_{payment_id}_{sequence}"
        return [it for it in self.messages if dict(it["headers"]).get("ce_id") == ce_id]

    def drop(self, message: Row) -> None:
        self.messages.remove(message)

    # --- making it -------------------------------------------------------------------------------------------

    def move(self, payment_id: str, kind: str, amount: int, key: str | None) -> None:
        self.ledger.append(
            {
                "line": "movement", "n": len(self.ledger) + 1, "kind": kind, "object_id": f"obj_{payment_id}",
                "payment_id": payment_id, "key": key, "amount_minor": amount, "currency": "USD",
            }
        )  # fmt: skip

    def ordered(self, order_id: str, kind: str, amount: int = 1000, partition: int = 0, **more: Any) -> None:
        offset = len(self.history)
        self.history.append(
            {
                "what": "order", "at_ms": offset, "kind": kind, "order_id": order_id, "user_id": USER,
                "amount_minor": amount, "currency": "USD", "method": "tok_visa", "partition": partition,
                "offset": offset, "acked": True, "value": "{}", **more,
            }
        )  # fmt: skip

    def asked(self, order_id: str, op: str, status: int, data: Row | None, **body: Any) -> None:
        number = len(self.history)
        told = {"success": data is not None, "data": data} if data is not None else {"success": False, "code": "NO"}
        whole = {"user_id": USER, "amount_minor": 1000, "currency": "USD", **body}
        self.history += [
            {"what": "call", "at_ms": number, "number": number, "op": op, "order_id": order_id, "body": whole},
            {"what": "answer", "at_ms": number, "number": number, "status": status, "body": told},
        ]

    def stored(self, payment_id: str, order_id: str, status: str, events: list[tuple[str, str | None, Row]]) -> None:
        """`events`: type, topic (None: internal) and the amounts after it."""
        head, sequence, amounts = b"\0" * 32, 0, dict.fromkeys(BUCKETS, 0)
        for version, (kind, topic, after) in enumerate(events, 1):
            amounts |= after
            sequence += topic is not None
            number = sequence if topic is not None else None
            data = json.dumps({"after": amounts}).encode()
            place = f"{payment_id}\n{version}\n{number}\n{kind}\n".encode()
            head = hmac.digest(chain_key(KEY.encode()), head + place + data, "sha256")
            self.tables.setdefault("payment_events", []).append(
                {
                    "payment_id": payment_id, "version": version, "sequence": number, "type": kind,
                    "data": data.hex(), "hash": head.hex(),
                }
            )  # fmt: skip
            if topic is not None:
                self._publish(payment_id, order_id, sequence, topic, status, amounts)
        self.tables.setdefault("payments", []).append(
            {
                "id": payment_id, "order_id": order_id, "user_id": USER, "status": status, "amount_minor": 1000,
                "currency": "USD", "refund_pending": 0, "version": len(events), "sequence": sequence,
                "chain_head": head.hex(), **amounts,
            }
        )  # fmt: skip

    def _publish(self, payment_id: str, order_id: str, sequence: int, topic: str, status: str, amounts: Row) -> None:
        event = {
            "id": f"evt_{payment_id}_{sequence}", "eventType": topic, "sequence": sequence,
            "data": {
                "paymentId": payment_id, "orderId": order_id, "status": status, "amountMinor": 1000,
                "currency": "USD", "amounts": dict(amounts),
            },
        }  # fmt: skip
        self.messages.append(
            {
                "topic": topic, "partition": 0, "offset": len(self.messages), "at_ms": 1000 + len(self.messages),
                "key": payment_id, "value": json.dumps(event), "headers": [["ce_id", event["id"]]],
            }
        )  # fmt: skip

    def logged(self, chain: str, *entries: str) -> None:
        head = b"\0" * 32
        for number, entry in enumerate(entries, 1):
            head = hmac.digest(chain_key(KEY.encode()), head + f"audit\n{chain}\n{number}\n{entry}".encode(), "sha256")
            row = {"chain": chain, "number": number, "entry": entry, "hash": head.hex()}
            self.tables.setdefault("audit_log", []).append(row)

    def called(self, key: str, kind: str, status: str) -> None:
        self.tables.setdefault("transactions", []).append(
            {
                "payment_id": key.split(":")[0], "provider_key": key, "type": kind, "status": status, "due_at": None,
                "amount_minor": 1000,
            }
        )  # fmt: skip


def shown(payment_id: str, order_id: str, status: str, version: int, **amounts: int) -> Row:
    return {
        "id": payment_id, "orderId": order_id, "status": status, "version": version,
        "amounts": dict.fromkeys(BUCKETS, 0) | amounts,
    }  # fmt: skip


TAKEN = {"authorized": 1000, "captured": 1000}


def honest_run() -> Run:
    """Charged by its order; paid by REST and refunded in part; declined; cancelled before it was created; held and
    released; and one value that nobody can read."""
    run = Run()
    run.history.append({"what": "begin", "at_ms": 0, "auto": True, "orders_topic": "t-orders", "encryption_key": KEY})
    created = ("PaymentCreated", "payment.created", {})
    started = ("AttemptStarted", None, {})

    run.ordered("o-charged", "created")
    run.stored("p1", "o-charged", "SUCCEEDED", [created, started, ("AttemptApproved", "payment.processed", TAKEN)])
    run.called("p1:charge:1", "CHARGE", "SUCCEEDED")
    run.move("p1", "charge", 1000, "p1:charge:1")
    run.messages.append(run.messages[0] | {"offset": 90, "at_ms": 5000})  # delivered again, later

    run.asked("o-paid", "create", 201, shown("p2", "o-paid", "PENDING", 1))
    run.asked("o-paid", "process", 200, shown("p2", "o-paid", "SUCCEEDED", 3, **TAKEN))
    whole = shown("p2", "o-paid", "PARTIALLY_REFUNDED", 5, **TAKEN, refunded=300)
    refund = {"id": "ref_p2_1", "paymentId": "p2", "status": "COMPLETED", "amountMinor": 300}
    run.asked("o-paid", "refund", 200, {"refund": refund, "payment": whole})
    events = [created, started, ("AttemptApproved", "payment.processed", TAKEN), ("RefundRequested", None, {})]
    run.stored(
        "p2", "o-paid", "PARTIALLY_REFUNDED", [*events, ("RefundCompleted", "payment.refunded", {"refunded": 300})]
    )
    run.called("p2:charge:1", "CHARGE", "SUCCEEDED")
    run.called("p2:refund:1", "REFUND", "SUCCEEDED")
    run.move("p2", "charge", 1000, "p2:charge:1")
    run.move("p2", "refund", 300, "p2:refund:1")
    run.tables["refunds"] = [{"id": "ref_p2_1", "payment_id": "p2", "status": "COMPLETED", "amount_minor": 300}]

    _refused_and_cancelled(run)
    _unread(run)
    return run


def _refused_and_cancelled(run: Run) -> None:
    created, started = ("PaymentCreated", "payment.created", {}), ("AttemptStarted", None, {})
    run.asked("o-declined", "create", 201, shown("p3", "o-declined", "PENDING", 1))
    run.asked("o-declined", "process", 402, None)
    run.stored("p3", "o-declined", "FAILED", [created, started, ("AttemptDeclined", "payment.failed", {})])
    run.called("p3:charge:1", "CHARGE", "FAILED")

    run.ordered("o-cancelled", "cancelled", partition=1)
    run.ordered("o-cancelled", "created", partition=1)
    run.stored("p4", "o-cancelled", "CANCELLED", [created, ("PaymentCancelled", "payment.cancelled", {})])

    run.asked("o-released", "create", 201, shown("p5", "o-released", "PENDING", 1))
    run.asked("o-released", "process", 200, shown("p5", "o-released", "AUTHORIZED", 3, authorized=1000))
    run.asked("o-released", "cancel", 200, shown("p5", "o-released", "CANCELLED", 6, authorized=1000))
    held = ("AttemptApproved", "payment.processed", {"authorized": 1000})
    ended = [("AttemptStarted", None, {}), ("AttemptApproved", None, {}), ("PaymentCancelled", "payment.cancelled", {})]
    run.stored("p5", "o-released", "CANCELLED", [created, started, held, *ended])
    run.called("p5:authorize:1", "AUTHORIZE", "SUCCEEDED")
    run.called("p5:void:2", "VOID", "SUCCEEDED")
    run.move("p5", "authorize", 1000, "p5:authorize:1")
    run.move("p5", "void", 1000, "p5:void:2")

    run.logged("pod-0:1", '{"action":"chain.opened"}', '{"action":"payment.create"}')


def _unread(run: Run) -> None:
    run.history.append(
        {
            "what": "order", "at_ms": 9, "kind": "junk", "order_id": "", "partition": 3, "offset": 7, "acked": True,
            "value": "{",
        }
    )  # fmt: skip
    headers = [["source-topic", "t-orders"], ["source-partition", "3"], ["source-offset", "7"]]
    run.messages.append(
        {
            "topic": "payment-dead-letters", "partition": 0, "offset": 0, "at_ms": 1, "key": None, "value": "{",
            "headers": headers,
        }
    )  # fmt: skip
